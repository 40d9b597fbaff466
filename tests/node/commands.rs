//! Commands that svcdiag prints for a node, typed as they are printed: each ends well, leaves behind what the
//! message promises, and nothing else of the network is another one than before.

use std::collections::{BTreeMap, BTreeSet};

use super::namespace::{feed, in_new_namespace, listen, run, shell};
use svcdiag::netns::Netns;

const TABLE: &str = include_str!("../../crates/engine/tests/engine/commands.md");

/// What a command has to leave behind.
enum Leaves {
    /// All as it was.
    Nothing,
    /// Lines that go, and lines that come, of the state of the network: each has one of these texts.
    Change(&'static [&'static str], &'static [&'static str]),
}

use Leaves::{Change, Nothing};

/// A row of the table, what stands in place of each `{}`, and what it leaves.
const TYPED: &[(&str, &[&str], Leaves)] = &[
    ("bridge -d link", &[], Nothing),
    (
        "bridge link set dev {} hairpin on",
        &["port-a"],
        Change(&["port-a hairpin off"], &["port-a hairpin on"]),
    ),
    ("bridge fdb show dev {}", &["cbr0"], Nothing),
    ("getent hosts {}", &["localhost"], Nothing),
    ("ip -d link", &[], Nothing),
    (
        "ip link set {} promisc on",
        &["cbr0"],
        Change(&["cbr0 takes only its own"], &["cbr0 takes all packets"]),
    ),
    ("ip link", &[], Nothing),
    ("ip neigh show {}", &["10.244.1.9"], Nothing),
    ("ip route get {}", &["10.244.1.9"], Nothing),
    ("ip route show table all type prohibit", &[], Nothing),
    ("ip6tables-legacy -t {} -S {}", &["filter", "FORWARD"], Nothing),
    ("iptables -S FORWARD", &[], Nothing),
    ("iptables -S {}", &["KUBE-ROUTER-INPUT"], Nothing),
    (
        "iptables-legacy -t {} -S {}",
        &["filter", "KUBE-ROUTER-INPUT"],
        Nothing,
    ),
    (
        "iptables-legacy -w -t filter -F KUBE-SERVICES",
        &[],
        Change(&["filter legacy -A KUBE-SERVICES"], &[]),
    ),
    (
        "iptables-legacy -w -t nat -F KUBE-SERVICES",
        &[],
        Change(&["nat legacy -A KUBE-SERVICES"], &[]),
    ),
    ("iptables-legacy-save", &[], Nothing),
    (
        "iptables-nft -w -t filter -F KUBE-SERVICES",
        &[],
        Change(&["filter nft -A KUBE-SERVICES"], &[]),
    ),
    (
        "iptables-nft -w -t nat -F KUBE-SERVICES",
        &[],
        Change(&["nat nft -A KUBE-SERVICES"], &[]),
    ),
    ("iptables-save -t nat", &[], Nothing),
    ("iptables-save", &[], Nothing),
    ("ls -ld {}", &["/etc"], Nothing),
    (
        "nft -a list chain {} {} {}",
        &["ip", "filter", "KUBE-ROUTER-INPUT"],
        Nothing,
    ),
    (
        "nft delete table ip kube-proxy",
        &[],
        Change(&["ip kube-proxy "], &[]),
    ),
    ("nft list ruleset", &[], Nothing),
    ("ps auxw", &[], Nothing),
    ("ss -lntup", &[], Nothing),
    ("ss -ltnp 'sport = :{}'", &["30080"], Nothing),
    ("ss -lunp 'sport = :{}'", &["30080"], Nothing),
    (
        "sysctl -w net.bridge.bridge-nf-call-iptables=1",
        &[],
        Change(
            &["net.bridge.bridge-nf-call-iptables = 0"],
            &["net.bridge.bridge-nf-call-iptables = 1"],
        ),
    ),
    (
        "sysctl -w net.ipv4.conf.all.rp_filter=2",
        &[],
        Change(
            &["net.ipv4.conf.all.rp_filter = 1"],
            &["net.ipv4.conf.all.rp_filter = 2"],
        ),
    ),
    (
        "sysctl -w {}=1",
        &["net.ipv4.ip_forward"],
        // The kernel forwards on every link then.
        Change(
            &[
                "net.ipv4.ip_forward = 0",
                "forwarding = 0",
                "accept_redirects = 1",
            ],
            &[
                "net.ipv4.ip_forward = 1",
                "forwarding = 1",
                "accept_redirects = 0",
            ],
        ),
    ),
];

/// Rules of kube-proxy in a mode that it left, among those of others.
const SAVED: &str = "*nat
:KUBE-SERVICES - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:CNI-HOSTPORT - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A PREROUTING -j CNI-HOSTPORT
-A KUBE-SERVICES -d 10.96.7.7/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.244.1.9:9376
COMMIT
*filter
:KUBE-SERVICES - [0:0]
:KUBE-ROUTER-INPUT - [0:0]
-A FORWARD -j KUBE-SERVICES
-A INPUT -j KUBE-ROUTER-INPUT
-A KUBE-SERVICES -d 10.96.7.8/32 -j REJECT
-A KUBE-ROUTER-INPUT -s 192.0.2.1/32 -j DROP
COMMIT
";

/// A node with a bridge, a Pod's port at it, and the rules.
fn node() {
    run("ip link set lo up
         ip link add cbr0 type bridge
         ip link add port-a type veth peer name eth-a
         ip link set port-a master cbr0
         ip link set port-a up
         ip link set eth-a up
         ip link set cbr0 up
         ip addr add 10.244.1.1/24 dev cbr0
         sysctl -q -w net.ipv4.ip_forward=0
         sysctl -q -w net.ipv4.conf.all.rp_filter=1
         sysctl -q -w net.bridge.bridge-nf-call-iptables=0");
    feed(&["iptables-legacy-restore"], SAVED);
    feed(&["iptables-nft-restore"], SAVED);
    feed(
        &["nft", "-f", "-"],
        "table ip kube-proxy { chain services { tcp dport 80 drop; }; }
         table ip6 kube-proxy { chain services { tcp dport 80 drop; }; }
         table ip foreign { chain services { tcp dport 80 drop; }; }",
    );
}

/// The state of the network in lines that can be compared.
fn state() -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for (backend, save) in [("legacy", "iptables-legacy-save"), ("nft", "iptables-nft-save")] {
        let mut table = String::new();
        for line in shell(save).lines().filter(|l| !l.starts_with('#')) {
            match line.strip_prefix('*') {
                Some(name) => table = name.to_owned(),
                None => drop(lines.insert(format!("{table} {backend} {}", uncounted(line)))),
            }
        }
    }
    for table in shell("nft list tables").lines() {
        let name = table.trim_start_matches("table ");
        if name.contains("kube-proxy") || name.contains("foreign") {
            let body = shell(&format!("nft list table {name}"));
            lines.extend(body.lines().map(|line| format!("{name} {line}")));
        }
    }
    for link in shell("ip -o link").lines() {
        let (name, flags) = link
            .split(": ")
            .nth(1)
            .zip(link.split(['<', '>']).nth(1))
            .unwrap();
        let name = name.split('@').next().unwrap();
        let all = flags.split(',').any(|flag| flag == "PROMISC");
        let takes = if all { "all packets" } else { "only its own" };
        let up = flags.split(',').any(|flag| flag == "UP");
        lines.insert(format!("{name} takes {takes}"));
        lines.insert(format!("{name} is up: {up}"));
    }
    let ports = shell("bridge -o -d link");
    for port in ports.lines() {
        let hairpin = if port.contains("hairpin on") { "on" } else { "off" };
        let name = port.split([':', '@']).nth(1).unwrap().trim();
        lines.insert(format!("{name} hairpin {hairpin}"));
    }
    lines.extend(
        shell("ip -4 -o addr")
            .lines()
            .map(|l| l.split("valid_lft").next().unwrap().to_owned()),
    );
    // Whether a cable is in is known a moment later.
    let routes = shell("ip -4 route show table all").replace(" linkdown", "");
    lines.extend(routes.lines().map(|l| l.trim().to_owned()));
    let settings = shell("sysctl -a -r '^net\\.(ipv4\\.(ip_forward|conf)|bridge)'");
    lines.extend(settings.lines().map(str::to_owned));
    lines
}

/// A chain without what it has counted.
fn uncounted(line: &str) -> &str {
    line.split(" [").next().unwrap()
}

fn filled(template: &str, values: &[&str]) -> String {
    let mut values = values.iter();
    let mut parts = template.split("{}");
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |text, part| text + values.next().unwrap() + part)
}

#[test]
fn each_leaves_what_it_promises_and_nothing_else_changed() {
    for (template, values, leaves) in TYPED {
        let command = filled(template, values);
        in_new_namespace(|| {
            node();
            let _listener = listen(&Netns::current().unwrap(), "0.0.0.0:30080");
            let before = state();
            shell(&command);
            let after = state();
            let gone: Vec<&String> = before.difference(&after).collect();
            let came: Vec<&String> = after.difference(&before).collect();
            let (may_go, may_come): (&[&str], &[&str]) = match leaves {
                Nothing => (&[], &[]),
                Change(gone, came) => (*gone, *came),
            };
            for (lines, allowed) in [(gone, may_go), (came, may_come)] {
                assert_eq!(lines.is_empty(), allowed.is_empty(), "{command}: {lines:?}");
                let is_allowed = |line: &&String| allowed.iter().any(|text| line.contains(text));
                assert!(lines.iter().all(is_allowed), "{command}: {lines:#?}");
            }
        });
    }
}

#[test]
fn the_table_says_which_are_typed_here() {
    let rows = TABLE.lines().filter_map(|line| {
        let (command, rest) = line.strip_prefix("| `")?.split_once("` |")?;
        let run = rest.trim_end_matches('|').rsplit('|').next()?.trim();
        Some((command, run))
    });
    let rows: BTreeMap<&str, &str> = rows.collect();
    for (template, ..) in TYPED {
        let says = rows.get(template).unwrap_or_else(|| panic!("{template}: no row"));
        assert!(says.split(", ").any(|run| run == "node"), "{template}: {says}");
    }
    let typed: BTreeSet<&str> = TYPED.iter().map(|(template, ..)| *template).collect();
    for (command, run) in rows {
        let says_so = run.split(", ").any(|run| run == "node");
        assert_eq!(says_so, typed.contains(command), "{command}: {run}");
    }
}
