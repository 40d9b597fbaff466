//! Each rule and each element that a real kube-proxy wrote is taken away from the kernel in turn: what it
//! belonged to is reported, and nothing else. See `owners`.

use std::time::Duration;

use svcdiag::kube_proxy::{IpFamily, Layout, Ruleset, Table, Target};
use svcdiag::netns::netfilter::nf_tables::NfTables;

use super::{
    captures::{Backend, Capture, gaps},
    namespace::{feed, in_new_namespace},
    owners::{self, check},
};

mod iptables {
    use super::{owners::iptables::owner, *};

    pub(crate) fn take_each_away(capture: &Capture, family: IpFamily, has_local_endpoints: bool) -> usize {
        let rules = match family {
            IpFamily::V4 => &capture.rules,
            IpFamily::V6 => capture.rules_v6.as_ref().unwrap(),
        };
        let lines: Vec<&str> = rules.lines().collect();
        let mut table = "";
        let mut taken = 0;
        in_new_namespace(|| {
            capture.apply_all();
            let expected = capture.expected();
            for (number, line) in lines.iter().enumerate() {
                if let Some(name) = line.strip_prefix('*') {
                    table = name;
                }
                if !line.starts_with("-A ") {
                    continue;
                }
                let rest: Vec<&str> = [&lines[..number], &lines[number + 1..]].concat();
                capture.apply(&format!("{}\n", rest.join("\n")), family);
                let owner = owner(rules, table, line, has_local_endpoints);
                let found = gaps(capture.open().as_ref(), &expected);
                check(line, &owner, family, &expected, &found);
                taken += 1;
            }
        });
        taken
    }
}

mod nftables {
    use super::{
        owners::nftables::{elements, family_of, owner, owner_of_element},
        *,
    };

    pub(crate) fn take_each_rule_away(capture: &Capture, has_local_endpoints: bool) -> usize {
        let lines: Vec<&str> = capture.rules.lines().collect();
        let (mut family, mut chain, mut taken) = (None, None, 0);
        in_new_namespace(|| {
            let expected = capture.expected();
            for (number, line) in lines.iter().enumerate() {
                let text = line.trim();
                if line.starts_with("table ") {
                    family = family_of(line);
                } else if let Some(name) = text.strip_prefix("chain ") {
                    chain = name.strip_suffix(" {");
                } else if text == "}" {
                    chain = None;
                }
                let (Some(family), Some(chain)) = (family, chain) else {
                    continue;
                };
                if ["chain ", "type ", "comment "]
                    .iter()
                    .any(|start| text.starts_with(start))
                {
                    continue;
                }
                let rest: Vec<&str> = [&lines[..number], &lines[number + 1..]].concat();
                capture.apply(&rest.join("\n"), IpFamily::V4);
                let found = gaps(capture.open().as_ref(), &expected);
                check(
                    &format!("`{text}` of {chain}"),
                    &owner(chain, text, has_local_endpoints),
                    family,
                    &expected,
                    &found,
                );
                taken += 1;
            }
        });
        taken
    }

    pub(crate) fn take_each_element_away(capture: &Capture) -> usize {
        let all = elements(&capture.rules);
        in_new_namespace(|| {
            capture.apply_all();
            let expected = capture.expected();
            let rules = capture.open();
            for (family, set, element) in &all {
                let place = match family {
                    IpFamily::V4 => format!("ip kube-proxy {set}"),
                    IpFamily::V6 => format!("ip6 kube-proxy {set}"),
                };
                let key = element.split([':', '"']).next().unwrap();
                // An IPv6 address holds colons, too; its fields are told apart by the dots around them.
                let key = match element.split_once(" : ") {
                    Some((key, _)) => key,
                    None if *family == IpFamily::V6 => element,
                    None => key,
                };
                let key = key.split(" comment ").next().unwrap();
                feed(
                    &["nft", "-f", "-"],
                    &format!("delete element {place} {{ {key} }}\n"),
                );
                let found = gaps(rules.as_ref(), &expected);
                check(
                    &format!("{element} of {set}"),
                    &owner_of_element(set, element),
                    *family,
                    &expected,
                    &found,
                );
                feed(
                    &["nft", "-f", "-"],
                    &format!("add element {place} {{ {element} }}\n"),
                );
            }
            assert_eq!(gaps(rules.as_ref(), &expected), []);
        });
        all.len()
    }
}

#[test]
fn in_iptables_mode_each_rule_that_is_gone_is_told() {
    let capture = Capture::load("iptables", "lab-1", Backend::IptablesNft);
    assert_eq!(iptables::take_each_away(&capture, IpFamily::V4, true), 314);
    assert_eq!(iptables::take_each_away(&capture, IpFamily::V6, true), 44);
}

#[test]
fn in_iptables_mode_without_local_endpoints_each_rule_that_is_gone_is_told() {
    let capture = Capture::load("lab-2-iptables", "lab-2", Backend::IptablesNft);
    assert_eq!(iptables::take_each_away(&capture, IpFamily::V4, false), 352);
}

#[test]
fn with_the_legacy_backend_each_rule_that_is_gone_is_told() {
    let capture = Capture::load("iptables-legacy", "lab-2", Backend::IptablesLegacy);
    assert_eq!(iptables::take_each_away(&capture, IpFamily::V4, false), 352);
}

#[test]
fn in_nftables_mode_each_rule_that_is_gone_is_told() {
    let capture = Capture::load("nftables", "lab-1", Backend::Nftables);
    assert_eq!(nftables::take_each_rule_away(&capture, true), 103);
}

#[test]
fn in_nftables_mode_without_local_endpoints_each_rule_that_is_gone_is_told() {
    let capture = Capture::load("lab-2-nftables", "lab-2", Backend::Nftables);
    assert_eq!(nftables::take_each_rule_away(&capture, false), 101);
}

#[test]
fn in_nftables_mode_each_element_that_is_gone_is_told() {
    let capture = Capture::load("nftables", "lab-1", Backend::Nftables);
    assert_eq!(nftables::take_each_element_away(&capture), 105);
}

/// The kernel may give the map of a new rule the name of one that has gone with another rule.
#[test]
fn the_map_of_a_rule_is_read_anew_once_the_rules_have_changed() {
    let change = |chains: &[&str]| {
        let pairs: Vec<String> = chains
            .iter()
            .enumerate()
            .map(|(n, c)| format!("{n} : goto {c}"))
            .collect();
        let rule = format!(
            "numgen random mod {} vmap {{ {} }}",
            chains.len(),
            pairs.join(", ")
        );
        let script = format!("flush chain ip kube-proxy service\nadd rule ip kube-proxy service {rule}\n");
        feed(&["nft", "-f", "-"], &script);
    };
    in_new_namespace(|| {
        let chains = ["service", "a", "b", "c"].map(|name| format!("add chain ip kube-proxy {name}\n"));
        feed(
            &["nft", "-f", "-"],
            &format!("add table ip kube-proxy\n{}", chains.concat()),
        );
        let rules = NfTables::open(Layout::Nftables).unwrap();
        let read = || {
            rules
                .chain(IpFamily::V4, Table::KubeProxy, "service")
                .unwrap()
                .unwrap()
        };
        for chains in [["a", "b"], ["a", "c"], ["c", "b"], ["a", "b"]] {
            change(&chains);
            // At once, and when it is kept.
            for _ in 0..3 {
                let [rule] = read().try_into().unwrap();
                let Target::OneOf(mut found) = rule.target else {
                    panic!("{rule:?}")
                };
                found.sort();
                let mut wanted = chains.map(str::to_owned);
                wanted.sort();
                assert_eq!(found, wanted);
                std::thread::sleep(Duration::from_millis(15));
            }
        }
    });
}
