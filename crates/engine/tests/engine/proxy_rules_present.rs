//! Is kube-proxy writing the rules of this Service? Each fault, and beside it its lookalikes, of which nothing may be False.

use std::sync::Arc;

use svcdiag_api::{Answer, ConditionType as C, GapKind, Reason as R};
use svcdiag_engine::Facts;

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

#[test]
fn incomplete_rules_are_a_hint() {
    let d = works(|f| add_gap(f, GapKind::Incomplete, None));
    assert!(
        stage(&d, C::ProxyRulesPresent)
            .message
            .contains("session affinity")
    );
}
