//! Saved rules that were cut or filtered: what is not there is not known.

use svcdiag::kube_proxy::{IpFamily, audit};

use super::{IPTABLES, saved};
use crate::captures::{Backend, Capture, gaps};

#[test]
fn nothing_is_blamed_for_where_a_text_was_cut() {
    let capture = Capture::load("iptables", "lab-1", Backend::IptablesNft);
    let expected = capture.expected();
    let v6 = capture.rules_v6.as_deref();
    let text = &capture.rules;
    let end = text.rfind("COMMIT").unwrap();
    let begin = text.find("*nat").unwrap();
    let mut known = 0;
    for at in (begin..end).step_by(97) {
        let rules = saved(&text[..at], v6);
        assert!(!rules.is_whole(IpFamily::V4));
        for (service, port) in &expected {
            if let Ok(gaps) = audit(&rules, port) {
                assert_eq!(gaps, [], "{service}, cut at {at}");
                known += 1;
            }
        }
    }
    assert!(known > 0);
}

#[test]
fn of_the_table_nat_alone_services_with_endpoints_are_known() {
    let capture = Capture::load("iptables", "lab-1", Backend::IptablesNft);
    let nat = &capture.rules[capture.rules.find("*nat").unwrap()..];
    let rules = saved(nat, None);
    let mut unknown = Vec::new();
    for (service, port) in capture
        .expected()
        .iter()
        .filter(|(_, p)| p.family == IpFamily::V4)
    {
        match audit(&rules, port) {
            Ok(gaps) => assert_eq!(gaps, [], "{service}"),
            Err(error) => unknown.push(format!("{service}: {error}")),
        }
    }
    // Those that are refused or guarded by rules of the table filter.
    assert_eq!(unknown.len(), 6, "{unknown:#?}");
    assert!(
        unknown.iter().all(|error| error.contains("table filter")),
        "{unknown:#?}"
    );
}

#[test]
fn what_grep_leaves_of_each_service_is_complete() {
    for (name, node, backend, _) in IPTABLES
        .into_iter()
        .filter(|(name, ..)| *name != "iptables-large")
    {
        let capture = Capture::load(name, node, backend);
        for (service, port) in capture
            .expected()
            .iter()
            .filter(|(_, p)| p.family == IpFamily::V4)
        {
            let short = service.split('/').nth(1).unwrap();
            let lines: Vec<&str> = capture
                .rules
                .lines()
                .filter(|line| line.contains(short))
                .collect();
            for prompt in [format!("$ iptables-save | grep {short}\n"), String::new()] {
                let rules = saved(&format!("{prompt}{}\n", lines.join("\n")), None);
                let found = audit(&rules.of_service(service), port);
                assert_eq!(found, Ok(Vec::new()), "{name}: {service}");
            }
        }
    }
}

#[test]
fn a_whole_output_counts_more_than_a_part() {
    let capture = Capture::load("iptables", "lab-1", Backend::IptablesNft);
    let expected = capture.expected();
    let part: Vec<&str> = capture
        .rules
        .lines()
        .filter(|line| line.contains("hostnames"))
        .collect();
    let v6 = capture.rules_v6.as_deref();
    for text in [
        format!("{}\n{}", part.join("\n"), capture.rules),
        format!("{}\n{}", capture.rules, part.join("\n")),
    ] {
        let rules = saved(&text, v6);
        assert!(rules.is_whole(IpFamily::V4));
        assert_eq!(gaps(&rules, &expected), []);
    }
}
