//! Rules that a real kube-proxy wrote in iptables mode, as text: nothing is missing, and what is taken away
//! is told as it is when the kernel lacks it.

use svcdiag::kube_proxy::{IpFamily, hairpin_is_masqueraded};

use super::{IPTABLES, file, saved, saved_of};
use crate::{
    captures::{Backend, Capture, gaps, hairpins},
    owners::{check, iptables::owner},
};

#[test]
fn saved_rules_of_a_real_kube_proxy_are_complete() {
    for (name, node, backend, ports) in IPTABLES {
        let capture = Capture::load(name, node, backend);
        let rules = saved_of(&capture);
        assert!(rules.is_whole(IpFamily::V4), "{name}");
        assert_eq!(rules.is_whole(IpFamily::V6), capture.rules_v6.is_some(), "{name}");
        let expected = capture.expected();
        assert_eq!(expected.len(), ports, "{name}");
        assert_eq!(gaps(&rules, &expected), [], "{name}");
    }
}

#[test]
fn counters_line_ends_noise_and_repeated_outputs_change_nothing() {
    let capture = Capture::load("iptables", "lab-1", Backend::IptablesNft);
    let expected = capture.expected();
    let v6 = file("iptables", "ip6tables-save.txt");
    let plain = file("iptables", "iptables-save.txt");
    let with_counters = file("iptables", "iptables-save-c.txt");
    assert!(with_counters.contains("] -A KUBE-SERVICES"));
    let noise =
        format!("# Warning: iptables-legacy tables present\n\nu@node$ sudo iptables-save\n{plain}u@node$ \n");
    for v4 in [
        with_counters,
        plain.replace('\n', "\r\n"),
        plain.replace("\n-A", "\n\n  -A"),
        noise,
        format!("{plain}{plain}"),
    ] {
        assert_eq!(gaps(&saved(&v4, Some(&v6)), &expected), []);
    }
    // One file for both families.
    assert_eq!(gaps(&saved(&format!("{plain}{v6}"), None), &expected), []);
    assert_eq!(gaps(&saved(&format!("{v6}{plain}"), None), &expected), []);
}

#[test]
fn what_masquerades_a_pods_way_to_itself_is_found_in_saved_rules() {
    let capture = Capture::load("iptables", "lab-1", Backend::IptablesNft);
    let all = hairpins(&capture);
    assert_eq!(all.len(), 67);
    let count = |v4: &str| {
        let rules = saved(v4, capture.rules_v6.as_deref());
        let is_masqueraded = |(address, protocol, endpoint): &_| {
            hairpin_is_masqueraded(&rules, *address, *protocol, *endpoint).unwrap()
        };
        all.iter().filter(|hairpin| is_masqueraded(hairpin)).count()
    };
    assert_eq!(count(&capture.rules), 67);
    let marker = "--comment \"default/hostnames:default\" -j KUBE-MARK-MASQ";
    let without: Vec<&str> = capture
        .rules
        .lines()
        .filter(|line| !line.contains(marker))
        .collect();
    assert_eq!(count(&without.join("\n")), 64);
}

fn take_each_away(
    name: &str,
    node: &'static str,
    backend: Backend,
    family: IpFamily,
    is_local: bool,
) -> usize {
    let capture = Capture::load(name, node, backend);
    let expected = capture.expected();
    let rules = match family {
        IpFamily::V4 => &capture.rules,
        IpFamily::V6 => capture.rules_v6.as_ref().unwrap(),
    };
    let lines: Vec<&str> = rules.lines().collect();
    let (mut table, mut taken) = ("", 0);
    for (number, line) in lines.iter().enumerate() {
        table = line.strip_prefix('*').unwrap_or(table);
        if !line.starts_with("-A ") {
            continue;
        }
        let rest = [&lines[..number], &lines[number + 1..]].concat().join("\n");
        let saved = match family {
            IpFamily::V4 => saved(&rest, capture.rules_v6.as_deref()),
            IpFamily::V6 => saved(&capture.rules, Some(&rest)),
        };
        let owner = owner(rules, table, line, is_local);
        check(line, &owner, family, &expected, &gaps(&saved, &expected));
        taken += 1;
    }
    taken
}

#[test]
fn each_saved_rule_that_is_gone_is_told() {
    let nft = Backend::IptablesNft;
    assert_eq!(take_each_away("iptables", "lab-1", nft, IpFamily::V4, true), 314);
    assert_eq!(take_each_away("iptables", "lab-1", nft, IpFamily::V6, true), 44);
    assert_eq!(
        take_each_away("lab-2-iptables", "lab-2", nft, IpFamily::V4, false),
        352
    );
    let legacy = Backend::IptablesLegacy;
    assert_eq!(
        take_each_away("iptables-legacy", "lab-2", legacy, IpFamily::V4, false),
        352
    );
}
