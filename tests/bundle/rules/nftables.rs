//! Rules that a real kube-proxy wrote in nftables mode, as text and as JSON.

use svcdiag::{
    formats::rules::nft_json::NftJson,
    kube_proxy::{IpFamily, audit, hairpin_is_masqueraded},
};

use super::{NFTABLES, file, listed};
use crate::{
    captures::{Backend, Capture, gaps, hairpins},
    owners::{
        check,
        nftables::{elements, family_of, owner, owner_of_element},
    },
};

#[test]
fn listed_rules_of_a_real_kube_proxy_are_complete() {
    for (name, node, ports) in NFTABLES {
        let capture = Capture::load(name, node, Backend::Nftables);
        let rules = listed(&capture.rules);
        let expected = capture.expected();
        assert_eq!(expected.len(), ports, "{name}");
        assert!(
            IpFamily::ALL.iter().all(|family| rules.is_whole(*family)),
            "{name}"
        );
        assert_eq!(gaps(&rules, &expected), [], "{name}");
    }
}

#[test]
fn json_says_the_same() {
    let capture = Capture::load("nftables", "lab-1", Backend::Nftables);
    let json = NftJson::parse(&file("nftables", "nft-list-ruleset.json")).unwrap();
    assert_eq!(gaps(&json, &capture.expected()), []);
    let masqueraded = hairpins(&capture)
        .into_iter()
        .filter(|(address, protocol, endpoint)| {
            hairpin_is_masqueraded(&json, *address, *protocol, *endpoint).unwrap()
        });
    assert_eq!(masqueraded.count(), 67);
}

#[test]
fn each_listed_rule_that_is_gone_is_told() {
    assert_eq!(take_each_rule_away("nftables", "lab-1", true), 103);
    assert_eq!(take_each_rule_away("lab-2-nftables", "lab-2", false), 101);
}

fn take_each_rule_away(name: &str, node: &'static str, is_local: bool) -> usize {
    let capture = Capture::load(name, node, Backend::Nftables);
    let expected = capture.expected();
    let lines: Vec<&str> = capture.rules.lines().collect();
    let (mut family, mut chain, mut taken) = (None, None, 0);
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
        let rest = [&lines[..number], &lines[number + 1..]].concat().join("\n");
        let what = format!("`{text}` of {chain}");
        let found = gaps(&listed(&rest), &expected);
        check(&what, &owner(chain, text, is_local), family, &expected, &found);
        taken += 1;
    }
    taken
}

#[test]
fn each_listed_element_that_is_gone_is_told() {
    let capture = Capture::load("nftables", "lab-1", Backend::Nftables);
    let expected = capture.expected();
    let all = elements(&capture.rules);
    for (family, set, element) in &all {
        let rest = without_element(&capture.rules, *family, set, element);
        let owner = owner_of_element(set, element);
        let found = gaps(&listed(&rest), &expected);
        check(&format!("{element} of {set}"), &owner, *family, &expected, &found);
    }
    assert_eq!(all.len(), 105);
}

fn without_element(rules: &str, family: IpFamily, set: &str, element: &str) -> String {
    let table = match family {
        IpFamily::V4 => "table ip kube-proxy {",
        IpFamily::V6 => "table ip6 kube-proxy {",
    };
    let begin = rules.find(table).unwrap();
    let begin = begin + rules[begin..].find(&format!(" {set} {{")).unwrap();
    let ends = [",", " }"].map(|end| format!("{element}{end}"));
    let at = ends.iter().find_map(|e| rules[begin..].find(e)).unwrap() + begin;
    format!("{}{}", &rules[..at], &rules[at + element.len()..])
}

/// The layout of the first versions: a chain for each endpoint.
const OLD: &str = "\
table ip kube-proxy { # handle 1
	map service-ips { # handle 2
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { 10.96.0.7 . tcp . 80 comment \"a, } b\" : goto service-ABCDEFGH-ns/svc/tcp/ }
	}
	chain nat-prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		jump services # handle 8
	}
	chain nat-output {
		type nat hook output priority -100; policy accept;
		jump services
	}
	chain services {
		ip daddr . meta l4proto . th dport vmap @service-ips
	}
	chain service-ABCDEFGH-ns/svc/tcp/ {
		ip daddr 10.96.0.7 tcp dport 80 ip saddr != 10.244.0.0/16 jump mark-for-masquerade
		numgen random mod 2 vmap { 0 : goto endpoint-AAAAAAAA-ns/svc/tcp/__10.244.0.4/9376, 1 : goto endpoint-BBBBBBBB-ns/svc/tcp/__10.244.0.5/9376 }
	}
	chain endpoint-AAAAAAAA-ns/svc/tcp/__10.244.0.4/9376 {
		ip saddr 10.244.0.4 jump mark-for-masquerade
		meta l4proto tcp dnat to 10.244.0.4:9376
	}
	chain endpoint-BBBBBBBB-ns/svc/tcp/__10.244.0.5/9376 {
		ip saddr 10.244.0.5 jump mark-for-masquerade
		meta l4proto tcp dnat to 10.244.0.5:9376
	}
	chain mark-for-masquerade {
		meta mark set mark or 0x4000
	}
}
";

#[test]
fn a_chain_for_each_endpoint_is_read_too() {
    let port = super::ipvs::port("10.96.0.7:80", &["10.244.0.4:9376", "10.244.0.5:9376"]);
    assert_eq!(audit(&listed(OLD), &port), Ok(Vec::new()));
    let address = ("10.96.0.7".parse().unwrap(), 80);
    for endpoint in &port.serving {
        assert_eq!(
            hairpin_is_masqueraded(&listed(OLD), address, port.protocol, *endpoint),
            Ok(true)
        );
    }
    // The text ends somewhere: what was cut is not known, and nothing is blamed for it.
    let end = OLD.rfind('}').unwrap();
    for (at, _) in OLD.char_indices().filter(|(at, _)| (1..end).contains(at)) {
        if let Ok(rules) = svcdiag::formats::rules::nft::NftList::parse(OLD[..at].to_owned()) {
            assert!(!rules.is_whole(IpFamily::V4), "{at}");
            assert!(
                audit(&rules, &port).is_err() || audit(&rules, &port) == Ok(Vec::new()),
                "{at}"
            );
        }
    }
}

#[test]
fn for_rules_of_iptables_another_command_is_asked_for() {
    let iptables = "table ip nat {\n\tchain KUBE-SERVICES {\n\t\tmeta l4proto tcp ip daddr 10.96.0.7 counter packets 0 bytes 0 jump KUBE-SVC-A\n\t}\n}\n";
    let port = super::ipvs::port("10.96.0.7:80", &["10.244.0.4:9376"]);
    let error = audit(&listed(iptables), &port).unwrap_err();
    assert!(error.to_string().contains("save `iptables-save`"), "{error}");
    // A whole ruleset without any of it is one without kube-proxy's rules.
    let none = listed("table ip filter {\n}\n");
    assert_eq!(audit(&none, &port).unwrap().len(), 1);
}
