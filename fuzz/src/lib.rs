//! What reads bytes and texts from outside, as targets of a fuzzer: none of it may panic, hang or fill the memory.
//!
//! [`TARGETS`] has them by name. [`seeds`] writes what they begin with, made of tests/captures and tests/cases.
//! `make fuzz` builds all of them into one binary with libFuzzer (`src/main.rs`) and runs it once for each.

mod ask;
#[cfg(test)]
mod damage;
pub mod seeds;

use std::{
    borrow::Cow,
    io::Cursor,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use jiff::Timestamp;
use svcdiag::formats::{
    ipvs,
    kube_proxy_metrics::Metrics,
    resolv::ResolvConf,
    rules::{forwarding, ipset, iptables_save::IptablesSave, ipvsadm, nft::NftList, nft_json::NftJson},
    text,
};
use svcdiag::netns::sockets;
use svcdiag::{
    agent::{fuzzing, pods},
    bundle::{
        Bundle, Files, facts,
        files::{File, MAX_BUNDLE, MAX_FILES},
        paste,
    },
    engine::diagnose,
    kube_proxy::IpFamily,
};

/// Reads some bytes.
pub type Run = fn(&[u8]);

/// The targets, by name.
pub const TARGETS: &[(&str, Run)] = &[
    ("netlink", fuzzing::netlink),
    ("legacy", legacy),
    ("dns", fuzzing::dns),
    ("archive", archive),
    ("bundle", bundle),
    ("paste", paste),
    ("resolv_conf", resolv_conf),
    ("iptables_save", iptables_save),
    ("nft", nft),
    ("lookups", lookups),
    ("requests", requests),
    ("node_texts", node_texts),
];

/// The target of a name.
#[must_use]
pub fn target(name: &str) -> Option<Run> {
    TARGETS.iter().find(|(n, _)| *n == name).map(|(_, run)| *run)
}

/// Texts reach the parsers as valid UTF-8 only.
fn text(data: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(data)
}

/// The first byte chooses, the others are read.
fn choice(data: &[u8]) -> (u8, &[u8]) {
    data.split_first()
        .map_or((0, data), |(first, rest)| (*first, rest))
}

/// The two answers of the kernel about a table, behind a byte for the IP family.
fn legacy(data: &[u8]) {
    let (family, answers) = choice(data);
    let family = if family == b'6' {
        IpFamily::V6
    } else {
        IpFamily::V4
    };
    ask::everything(&fuzzing::legacy(family, answers), family);
}

/// A file that is or is not an archive.
fn archive(data: &[u8]) {
    let Some(files) = Files::unpack(Cursor::new(data), Path::new("bundle.tar")) else {
        return;
    };
    assert!(files.files.len() <= MAX_FILES);
    let bytes: usize = files.files.iter().map(|f| f.text.len()).sum();
    assert!(bytes as u64 <= MAX_BUNDLE);
    for file in &files.files {
        let leads_out = |part: &str| part.is_empty() || part == "..";
        assert!(!file.path.split('/').any(leads_out), "{:?}", file.path);
    }
}

/// What begins the line with the path of a file, in the input of target `bundle`.
pub const FILE: &str = "#### ";

/// The files of a bundle, one behind the other: everything between a saved text and the verdict.
fn bundle(data: &[u8]) {
    let text = text(data);
    let files = text.split(FILE).skip(1).map(|file| {
        let (path, text) = file.split_once('\n').unwrap_or((file, ""));
        File {
            path: path.to_owned(),
            text: text.to_owned(),
            modified: None,
        }
    });
    let bundle = Bundle::of(Files {
        files: files.collect(),
        problems: Vec::new(),
    });
    let now = bundle.time(Timestamp::UNIX_EPOCH);
    // Most inputs have one; a thousand of them would only be slow.
    for (namespace, service) in bundle.inventory.service_names().take(3) {
        let (facts, _) = facts(&bundle, &bundle.diagnosis(&namespace, &service), now);
        let _ = diagnose(&facts).status(None, None, now);
    }
}

/// A text with anything in it, from its parts to the verdict.
fn paste(data: &[u8]) {
    let text = text(data);
    let (bundle, parts) = paste::read(&text, None, None);
    let lines = text.lines().count();
    assert!(parts.iter().all(|part| *part.lines.end() <= lines));
    for (namespace, service) in bundle.inventory.service_names().take(3) {
        let now = Timestamp::UNIX_EPOCH;
        let (facts, _) = facts(&bundle, &bundle.diagnosis(&namespace, &service), now);
        let _ = diagnose(&facts).status(None, None, now);
    }
}

/// resolv.conf of a Pod, as the agent and as a bundle has it.
fn resolv_conf(data: &[u8]) {
    let text = text(data);
    let parsed = text::resolv_conf::parse(&text).ok();
    for resolv in parsed.into_iter().chain([ResolvConf::parse(&text)]) {
        ask::names(&resolv);
    }
}

/// Output of iptables-save and ip6tables-save.
fn iptables_save(data: &[u8]) {
    for family in [IpFamily::V4, IpFamily::V6] {
        if let Ok(rules) = IptablesSave::parse(text(data).into_owned(), family) {
            ask::everything(&rules, family);
            ask::everything(&rules.of_service("default/hostnames"), family);
            ask::portals(&rules, family);
        }
    }
}

/// Output of `nft list ruleset`, plain and as JSON.
fn nft(data: &[u8]) {
    let text = text(data);
    if let Ok(rules) = NftJson::parse(&text) {
        ask::both_families(&rules);
    }
    if let Ok(rules) = NftList::parse(text.into_owned()) {
        ask::both_families(&rules);
    }
}

/// Output of nslookup, dig, host and getent.
fn lookups(data: &[u8]) {
    let _ = text::names::parse(&text(data));
}

/// Output of curl, wget and nc.
fn requests(data: &[u8]) {
    for request in text::http::parse(&text(data)).into_iter().flatten() {
        let _ = request.cut_short();
    }
}

/// What was read is of no interest, only that reading came to an end.
fn ignore<T>(_: T) {}

/// Reads a text.
pub type Read = fn(&str);

/// Readers of what else is saved on nodes or stands in /proc, by the beginning of the file's name; the first byte
/// chooses one, from `a`.
pub const NODE_TEXTS: &[(&str, Read)] = &[
    ("ps", |text| ignore(text::ps::Ps::parse(text))),
    ("sysctl", |text| ignore(text::sysctl::Sysctl::parse(text))),
    ("conntrack", |text| ignore(text::conntrack::parse(text))),
    ("ip-d-link", |text| ignore(text::bridge::parse(text))),
    ("kubelet-config", |text| {
        ignore(text::kubelet_config::KubeletConfig::parse(text));
    }),
    ("kubelet.log", |text| {
        ignore(text::kubelet_log::KubeletLog::parse(text))
    }),
    ("kube-proxy.log", |text| {
        ignore(text::kube_proxy_log::KubeProxyLog::parse(text));
    }),
    ("config.yaml", |text| {
        ignore(text::carrier_config::CarrierConfig::parse(text));
    }),
    ("ipvsadm", |text| ignore(ipvsadm::parse(text))),
    ("ipset", |text| ignore(ipset::parse(text))),
    ("ip_vs", |text| ignore(ipvs::parse(text))),
    ("metrics", |text| ignore(Metrics::parse(text))),
    ("tcp", |text| {
        text.lines()
            .for_each(|line| ignore(sockets::listener(line, "0A")));
    }),
    ("cgroup", |text| {
        text.lines().for_each(|line| ignore(pods::pod_uid(line)))
    }),
    ("dmesg", |text| {
        ignore(text::kernel_log::KernelLog::parse(text, Timestamp::UNIX_EPOCH));
    }),
    ("ss.txt", |text| ignore(text::sockets::parse(text))),
    ("events", |text| {
        ignore(text::events::table(text));
        let lines: Vec<&str> = text.lines().collect();
        ignore(text::events::of_description(&lines));
    }),
    ("coredns.log", |text| {
        ignore(text::coredns_log::CorednsLog::parse(text));
    }),
    ("Corefile", |text| {
        ignore((text::corefile::is_one(text), text::corefile::domain(text)));
    }),
    ("ip-route", |text| {
        let routes = text::routes::Routes::parse(text);
        ignore(routes.map(|routes| routes.towards(POD).is_some()));
    }),
    ("iptables-L", |text| {
        ignore(forwarding::of_listing(text, &[POD]));
    }),
    ("ethtool", |text| ignore(text::offload::parse(text))),
    ("route", |text| ignore(text::routes::Routes::parse(text))),
    ("netstat-r", |text| ignore(text::routes::Routes::parse(text))),
    ("kubectl", |text| {
        for line in text.lines() {
            let command = text::kubectl::Kubectl::parse(line);
            ignore(command.map(|k| (k.target().is_some(), k.is_interactive())));
        }
    }),
];

/// An address of an endpoint.
const POD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 2, 7));

fn node_texts(data: &[u8]) {
    let (first, rest) = choice(data);
    if let Some((_, read)) = NODE_TEXTS.get(usize::from(first.wrapping_sub(b'a'))) {
        read(&text(rest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What finds a seed a bad one: the fuzzer would begin with nothing and find less.
    #[test]
    fn every_target_of_files_survives_its_seeds_and_has_some() -> std::io::Result<()> {
        let seeds = seeds::of_files()?;
        for (name, run) in TARGETS {
            let of_target = seeds.iter().filter(|(target, _)| target == name);
            let count = of_target.inspect(|(_, seed)| run(seed)).count();
            // What the kernel says has to be asked of it.
            assert_eq!(count == 0, ["netlink", "legacy"].contains(name), "{name}");
        }
        Ok(())
    }

    #[test]
    fn archives_and_bundles_among_the_seeds_are_read() -> std::io::Result<()> {
        for (target, seed) in seeds::of_files()? {
            match target.as_str() {
                "archive" => {
                    let files = Files::unpack(Cursor::new(&seed), Path::new("bundle.tar"));
                    assert!(files.is_some_and(|f| f.problems.is_empty() && !f.files.is_empty()));
                }
                "bundle" => assert!(text(&seed).starts_with(FILE)),
                _ => {}
            }
        }
        Ok(())
    }
}
