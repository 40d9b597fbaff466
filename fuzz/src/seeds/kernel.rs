//! Rules of the captures, put into the kernel and read from there as the agent does.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    process::{Command, Stdio},
};

use svcdiag::netns::netlink::{Family, Netlink, Request};
use svcdiag::{agent::fuzzing, kube_proxy::IpFamily};

/// Messages of one kind that become seeds; the others are like them.
const MAX_MESSAGES: usize = 200;

/// NFNL_SUBSYS_NFTABLES, and NFT_MSG_GETRULE and NFT_MSG_GETSETELEM in it.
const NFTABLES: u8 = 10;
const GET_RULE: u8 = 7;
const GET_SET_ELEMENTS: u8 = 13;

/// Seeds with the names of their targets.
pub(super) fn seeds(captures: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let read = |file: &str| fs::read_to_string(captures.join(file)).map(|text| without_accounting(&text));
    let mut seeds = Vec::new();

    let mut legacy = |family: IpFamily, program: &str, rules: &str| -> io::Result<()> {
        feed(program, &[], rules)?;
        let mut seed = family_byte(family).to_vec();
        seed.extend(fuzzing::legacy_answers(family)?);
        seeds.push(("legacy".to_owned(), seed));
        Ok(())
    };
    let v4 = read("iptables-legacy/iptables-legacy-save.txt")?;
    legacy(
        IpFamily::V4,
        "iptables-legacy-restore",
        &one_service(&v4, "hostnames"),
    )?;
    legacy(
        IpFamily::V6,
        "ip6tables-legacy-restore",
        &read("iptables-legacy/ip6tables-save.txt")?,
    )?;

    let netfilter = Netlink::open(Family::Netfilter)?;
    let rules = |family: u8| Request::netfilter(NFTABLES, GET_RULE, family);
    feed("iptables-nft-restore", &[], &read("iptables/iptables-save.txt")?)?;
    seeds.extend(messages(netfilter.dump(&rules(2))?));
    let listed = read("nftables/nft-list-ruleset.txt")?;
    feed("nft", &["-f", "-"], &format!("flush ruleset\n{listed}"))?;
    for family in [2, 10] {
        seeds.extend(messages(netfilter.dump(&rules(family))?));
        for map in ["service-ips", "service-nodeports", "no-endpoint-services"] {
            let elements = Request::netfilter(NFTABLES, GET_SET_ELEMENTS, family);
            let elements = elements.text(1, "kube-proxy").text(2, map);
            seeds.extend(messages(netfilter.dump(&elements)?));
        }
    }

    feed("ip", &["-batch", "-"], LINKS)?;
    let route = Netlink::open(Family::Route)?;
    seeds.extend(messages(route.dump(&Request::links())?));
    seeds.extend(messages(route.dump(&Request::addresses())?));
    Ok(seeds)
}

/// A bridge with a port, and a tunnel.
const LINKS: &str = "link set lo up
link add br0 type bridge
link add v0 type veth peer name v1
link set v0 master br0 up
address add 10.244.0.1/24 dev br0
link add flannel.1 type vxlan id 1 dstport 8472 dev br0
link set br0 up
link set flannel.1 up
";

/// The byte that tells the target the family.
fn family_byte(family: IpFamily) -> &'static [u8] {
    match family {
        IpFamily::V4 => b"4",
        IpFamily::V6 => b"6",
    }
}

/// Each message as the datagram that it came in.
fn messages(messages: Vec<(u16, Vec<u8>)>) -> impl Iterator<Item = (String, Vec<u8>)> {
    let datagram = |(kind, body): (u16, Vec<u8>)| {
        let length = u32::try_from(body.len() + 16).unwrap_or(u32::MAX);
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        ("netlink".to_owned(), bytes)
    };
    messages.into_iter().take(MAX_MESSAGES).map(datagram)
}

/// The rules about one Service, and those that every packet meets.
fn one_service(rules: &str, service: &str) -> String {
    let is_service = |word: &str| {
        ["KUBE-SVC-", "KUBE-SEP-", "KUBE-EXT-", "KUBE-FW-"]
            .iter()
            .any(|p| word.starts_with(p))
    };
    let kept: Vec<&str> = rules
        .lines()
        .filter(|line| line.contains(service) || !line.split(' ').any(is_service))
        .collect();
    let chains: Vec<&str> = kept
        .iter()
        .flat_map(|line| line.split(' '))
        .filter(|word| is_service(word))
        .collect();
    let is_wanted = |line: &&str| {
        let chain = line.strip_prefix(':').and_then(|l| l.split(' ').next());
        kept.contains(line) || chain.is_some_and(|chain| chains.contains(&chain))
    };
    let lines: Vec<&str> = rules.lines().filter(is_wanted).collect();
    lines.join("\n") + "\n"
}

/// Without the counters of nfacct, which not every kernel has.
fn without_accounting(rules: &str) -> String {
    let word = |line: &str| match line.split_once("-m nfacct --nfacct-name  ") {
        Some((before, after)) => format!("{before}{}\n", after.split_once(' ').map_or("", |(_, rest)| rest)),
        None => format!("{line}\n"),
    };
    rules.lines().map(word).collect()
}

#[expect(clippy::disallowed_methods, reason = "the kernel is filled by its own tools")]
fn feed(program: &str, arguments: &[&str], input: &str) -> io::Result<()> {
    let lock = std::env::temp_dir().join(format!("svcdiag-fuzz-{}.lock", std::process::id()));
    let mut child = Command::new(program)
        .args(arguments)
        // Elsewhere all processes of the machine wait for one lock, which takes root to open.
        .env("XTABLES_LOCKFILE", &lock)
        .stdin(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let status = child.wait()?;
    let _ = fs::remove_file(lock);
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{program} ended with {status}")))
}
