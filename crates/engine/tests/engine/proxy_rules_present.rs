//! Is kube-proxy writing the rules of this Service? Each fault, and beside it its lookalikes, of which nothing may be False.

use std::sync::Arc;

use svcdiag_api::{Answer, ConditionType as C, GapKind, Reason as R};
use svcdiag_engine::{Facts, diagnose};

use crate::{agents::*, fixtures::*, report::*};

#[test]
fn n09_the_rules_are_missing() {
    let d = fault("N09", C::ProxyRulesPresent, R::RulesMissing, |f| {
        on(f, "n1", |n| {
            n.rules
                .as_mut()
                .unwrap()
                .gaps
                .push(gap(GapKind::Missing, "10.96.1.175:80/TCP", None))
        });
        fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
        fail_service(f, "n1", None, Answer::TimedOut);
    });
    // The only client is on that node: for it nothing works.
    assert_eq!(impact(&d), "All");
    assert_eq!(d.summary.proxy, "nftables 2/3");
}

#[test]
fn n10_the_rules_leave_out_an_endpoint() {
    let d = fault("N10", C::ProxyRulesPresent, R::EndpointMissingFromRules, |f| {
        everywhere(f, |n| {
            n.rules.as_mut().unwrap().gaps.push(gap(
                GapKind::EndpointMissing,
                "10.96.1.175:80/TCP",
                Some(E2),
            ));
        });
    });
    assert_eq!(impact(&d), "Some");
}

#[test]
fn n10_n11_a_gap_against_earlier_slices_is_none_today() {
    let outdate = |f: &mut Facts| on(f, "n1", |n| n.slices[0].resource_version = "1".into());
    let d = lookalike(|f| {
        add_gap(f, GapKind::EndpointMissing, Some("10.244.9.9:9376"));
        outdate(f);
    });
    assert_eq!(stage(&d, C::ProxyRulesPresent).reason, R::Pending);
    lookalike(|f| {
        add_gap(f, GapKind::EndpointStale, Some(E2));
        outdate(f);
    });
    lookalike(|f| {
        add_gap(f, GapKind::Missing, None);
        readdressed(f);
    });
}

#[test]
fn n11_the_rules_keep_a_pod_that_is_gone() {
    fault("N11", C::ProxyRulesPresent, R::StaleEndpointInRules, |f| {
        on(f, "n3", |n| {
            n.rules.as_mut().unwrap().gaps.push(gap(
                GapKind::EndpointStale,
                "10.96.1.175:80/TCP",
                Some("10.244.9.9:9376"),
            ));
        });
    });
}

#[test]
fn n11_a_terminating_endpoint_still_serves() {
    works(|f| {
        ending(f, 2);
        let slice = Arc::make_mut(&mut f.slices[0]);
        slice.endpoints[2].conditions.ready = Some(false);
        slice.endpoints[2].conditions.serving = Some(true);
        slice.endpoints[2].conditions.terminating = Some(true);
        look(f);
    });
}

#[test]
fn n12_the_rules_of_the_node_port_are_missing() {
    fault("N12", C::ProxyRulesPresent, R::NodePortRulesMissing, |f| {
        node_port(f);
        on(f, "n1", |n| {
            n.rules
                .as_mut()
                .unwrap()
                .gaps
                .push(gap(GapKind::NodePortMissing, "node port 30080/TCP", None))
        });
    });
}

#[test]
fn n13_both_backends_of_iptables_hold_rules() {
    fault("N13", C::ProxyRulesPresent, R::ConflictingBackends, |f| {
        everywhere(f, |n| {
            let rules = n.rules.as_mut().unwrap();
            rules.layout = "iptables".into();
            rules.conflict = Some("iptables-legacy".into());
            n.kube_proxy.as_mut().unwrap().mode = Some("iptables".into());
        });
    });
}

#[test]
fn n14_leftovers_of_another_mode_hold_the_address() {
    fault("N14", C::ProxyRulesPresent, R::ConflictingModes, |f| {
        on(f, "n2", |n| {
            n.rules.as_mut().unwrap().conflict = Some("iptables".into())
        });
    });
}

/// The layout that kube-proxy of a node writes, and another one that holds the Service's addresses there.
fn layouts(facts: &mut Facts, node: &str, own: &str, other: &str) {
    on(facts, node, |n| {
        let rules = n.rules.as_mut().unwrap();
        rules.layout = own.into();
        rules.conflict = Some(other.into());
    });
}

#[test]
fn n13_a_command_is_printed_only_for_nodes_with_the_same_pair_of_backends() {
    let d = fault("N13-pairs", C::ProxyRulesPresent, R::ConflictingBackends, |f| {
        layouts(f, "n1", "iptables", "iptables-legacy");
        layouts(f, "n2", "iptables-legacy", "iptables");
        layouts(f, "n3", "iptables", "iptables-legacy");
    });
    let remediation = d.root_cause.unwrap().remediation;
    let (legacy, nft) = remediation.split_once(" On node n2, ").unwrap();
    assert!(
        legacy.starts_with("On nodes n1 and n3, ") && legacy.contains("`iptables-legacy -w -t nat -F"),
        "{remediation}"
    );
    assert!(
        nft.contains("`iptables-nft -w -t nat -F") && !nft.contains("iptables-legacy"),
        "{remediation}"
    );
    // On each node kube-proxy writes another layout, and nothing else is left there.
    works(|f| {
        for (node, own) in [("n1", "iptables"), ("n2", "iptables-legacy"), ("n3", "nftables")] {
            on(f, node, |n| n.rules.as_mut().unwrap().layout = own.into());
        }
    });
}

#[test]
fn n14_a_command_is_printed_only_for_nodes_with_the_same_pair_of_modes() {
    let d = fault("N14-pairs", C::ProxyRulesPresent, R::ConflictingModes, |f| {
        layouts(f, "n1", "nftables", "iptables");
        layouts(f, "n2", "iptables", "nftables");
    });
    let remediation = d.root_cause.unwrap().remediation;
    let table = "Delete the table of the other mode on node n2. ";
    assert!(remediation.contains(table), "{remediation}");
    assert!(!remediation.contains("Do the same on"), "{remediation}");
}

#[test]
fn n14_nothing_is_flushed_where_it_is_not_known_what_the_leftovers_are_in() {
    for other in ["ipvs", "userspace", "frob"] {
        let mut facts = with_agents();
        layouts(&mut facts, "n1", "iptables", other);
        let cause = diagnose(&facts).root_cause.unwrap();
        assert_eq!(cause.reason, "ConflictingModes");
        let changes = |command: &str| command.contains(" -F ") || command.contains("delete");
        assert!(!changes(&cause.remediation), "{}", cause.remediation);
    }
}

#[test]
fn n11_endpoints_that_affinity_keeps_are_told_apart_from_rules_that_are_behind() {
    let d = fault("N11-both", C::ProxyRulesPresent, R::StaleEndpointInRules, |f| {
        let gone = Some("10.244.9.9:9376");
        on(f, "n1", |n| {
            let rules = n.rules.as_mut().unwrap();
            rules.layout = "ipvs".into();
            rules.gaps = vec![gap(GapKind::EndpointStuck, "10.96.1.175:80/TCP", gone)];
        });
        on(f, "n2", |n| {
            n.rules.as_mut().unwrap().gaps = vec![gap(GapKind::EndpointStale, "10.96.1.175:80/TCP", gone)];
        });
        fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
    });
    let cause = d.root_cause.unwrap();
    let (affinity, behind) = cause
        .message
        .split_once(" kube-proxy's rules still lead")
        .unwrap();
    assert!(
        affinity.contains("on node n1") && !affinity.contains("n2"),
        "{affinity}"
    );
    assert!(
        behind.contains("on node n2") && !behind.contains("n1"),
        "{behind}"
    );
    assert!(
        cause
            .remediation
            .contains(", on node n1: `ipvsadm -d -t 10.96.1.175:80 -r 10.244.9.9:9376`")
            && cause
                .remediation
                .contains("Save the log of kube-proxy on node n2"),
        "{}",
        cause.remediation
    );
}

#[test]
fn incomplete_rules_are_a_hint() {
    let d = works(|f| add_gap(f, GapKind::Incomplete, None));
    assert!(
        stage(&d, C::ProxyRulesPresent)
            .message
            .contains("session affinity")
    );
}
