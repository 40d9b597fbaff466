//! What the walk-through shows of a working Service's rules, of a kube-proxy from before port names were
//! left out of the names of chains: `iptables-save | grep hostnames`.

use svcdiag::{
    formats::rules::{iptables_save::IptablesSave, portals::Portals},
    kube_proxy::{ExpectedPort, Gap, IpFamily, ReadError, RuleFault, audit, hairpin_is_masqueraded},
};

use super::{ipvs::port, saved};
use crate::page::{PORTALS, RULES};

const SERVICE: &str = "default/hostnames";
const CLUSTER_IP: &str = "10.0.1.175:80";
const ENDPOINTS: [&str; 3] = ["10.244.3.6:9376", "10.244.1.7:9376", "10.244.2.3:9376"];

fn hostnames() -> ExpectedPort {
    port(CLUSTER_IP, &ENDPOINTS)
}

fn audited(text: &str, service: &str, expected: &ExpectedPort) -> Result<Vec<Gap>, ReadError> {
    audit(&saved(text, None).of_service(service), expected)
}

#[test]
fn what_grep_shows_of_a_working_service_is_complete() {
    assert_eq!(audited(RULES, SERVICE, &hostnames()), Ok(Vec::new()));
    // The prompt need not be copied where nothing is missing.
    let without_prompt = RULES.split_once('\n').unwrap().1;
    assert_eq!(audited(without_prompt, SERVICE, &hostnames()), Ok(Vec::new()));
    assert_eq!(
        audited(without_prompt.trim(), SERVICE, &hostnames()),
        Ok(Vec::new())
    );
    let rules = saved(RULES, None);
    assert!(!rules.is_whole(IpFamily::V4));
    let address = ("10.0.1.175".parse().unwrap(), 80);
    for endpoint in hostnames().serving {
        assert_eq!(
            hairpin_is_masqueraded(&rules, address, svcdiag::kube_proxy::Protocol::Tcp, endpoint),
            Ok(true)
        );
    }
}

#[test]
fn each_line_that_grep_did_not_find_is_told() {
    let lines: Vec<&str> = RULES.lines().collect();
    for gone in 1..lines.len() {
        let rest = [&lines[..gone], &lines[gone + 1..]].concat().join("\n");
        let found = audited(&rest, SERVICE, &hostnames()).unwrap();
        let faults: Vec<RuleFault> = found.iter().map(|gap| gap.fault).collect();
        let line = lines[gone];
        if line.contains("-j MARK") {
            assert_eq!(faults, [], "{line}");
        } else if line.contains("KUBE-SERVICES") {
            assert_eq!(faults, [RuleFault::RulesMissing], "{line}");
        } else {
            assert_eq!(faults, [RuleFault::EndpointMissing], "{line}");
        }
    }
}

#[test]
fn of_another_service_grep_shows_nothing() {
    let other = port("10.0.0.10:53", &["10.244.0.2:53"]);
    assert!(audited(RULES, "kube-system/kube-dns", &other).is_err());
    // Lines that somebody chose by an address are not all that mention the Service.
    let by_address = RULES.replace("grep hostnames", "grep 10.0.1.175");
    let lines: Vec<&str> = by_address
        .lines()
        .filter(|line| line.contains("10.0.1.175"))
        .collect();
    assert!(audited(&lines.join("\n"), SERVICE, &hostnames()).is_err());
}

#[test]
fn a_damaged_line_is_never_a_rule_that_is_missing() {
    // From the last word of every line something is cut off.
    for (number, line) in RULES.lines().enumerate().skip(1) {
        let last = line.rsplit(' ').next().unwrap();
        if last.contains(':') || last.contains('/') {
            continue;
        }
        for length in (line.len() - last.len())..line.len() {
            let mut lines: Vec<&str> = RULES.lines().collect();
            lines[number] = &line[..length];
            let found = audited(&lines.join("\n"), SERVICE, &hostnames());
            let error = found.unwrap_err();
            let is_told = error.why.contains(&format!("line {}: ", number + 1));
            assert!(is_told || error.why.contains("only a part of it"), "{error}");
        }
    }
}

fn portal_faults(text: &str, service: &str) -> Result<Vec<(RuleFault, String)>, ReadError> {
    let save = IptablesSave::parse(text.to_owned(), IpFamily::V4).unwrap();
    let gaps = Portals::of(&save, IpFamily::V4)?.audit(service, &hostnames())?;
    Ok(gaps.into_iter().map(|gap| (gap.fault, gap.detail)).collect())
}

#[test]
fn portals_are_found_and_what_they_lead_to() {
    assert_eq!(portal_faults(PORTALS, SERVICE), Ok(Vec::new()));
    let save = saved(PORTALS, None);
    let portals = Portals::of(&save, IpFamily::V4).unwrap();
    assert!(!portals.is_empty());
    assert_eq!(portals.proxy_port(&hostnames().destinations[0]), Some(48577));
    let none = saved(RULES, None);
    assert!(Portals::of(&none, IpFamily::V4).unwrap().is_empty());
}

#[test]
fn a_portal_that_is_missing_is_told() {
    for (gone, chain) in [(1, "KUBE-PORTALS-CONTAINER"), (2, "KUBE-PORTALS-HOST")] {
        let mut lines: Vec<&str> = PORTALS.lines().collect();
        lines.remove(gone);
        assert_eq!(
            portal_faults(&lines.join("\n"), SERVICE),
            Ok(vec![(
                RuleFault::RulesMissing,
                format!("{chain} has no rule for 10.0.1.175:80/TCP")
            )])
        );
    }
    // Whose lines they are is not known, or they are another Service's.
    let other = PORTALS
        .replace("10.0.1.175", "10.0.1.176")
        .replace("hostnames", "other");
    assert!(portal_faults(&other, SERVICE).is_err());
    let whole = format!("*nat\n{}COMMIT\n", other.split_once('\n').unwrap().1);
    assert_eq!(portal_faults(&whole, SERVICE).unwrap().len(), 2);
}
