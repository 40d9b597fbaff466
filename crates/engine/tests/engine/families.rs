//! Dual stack: nobody is blamed for a family that they have no address of, and Pods that listen in one only are.

use std::sync::Arc;

use serde_json::json;
use svcdiag_api::{
    Answer, ConditionType as C, DialCount, DialFailure, DialPath, GapKind, Reason as R, RuleGap,
};
use svcdiag_engine::{Diagnosis, Facts, diagnose};
use svcdiag_objects::{EndpointSlice, IpFamily, Object};

use crate::{
    agents::*,
    blame::nodes,
    report::{assert_nothing_false, assert_root_cause, report, stage},
    walkthrough::*,
};

const VIP6: &str = "[fd00:96::1]:80";

/// The walk-through with both families: Pods, Service, client and nodes.
fn dual() -> Facts {
    let mut facts = with_agents();
    service(
        &mut facts,
        json!({ "spec": { "clusterIPs": ["10.96.1.175", "fd00:96::1"], "ipFamilies": ["IPv4", "IPv6"] } }),
    );
    for (i, pod) in facts.pods.iter_mut().enumerate() {
        let ips = json!([{ "ip": pod.status.pod_ip }, { "ip": format!("fd00:244::{}", i + 1) }]);
        patch(Arc::make_mut(pod), json!({ "status": { "podIPs": ips } }));
    }
    let mut second = EndpointSlice::clone(&facts.slices[0]);
    patch(
        &mut second,
        json!({ "metadata": { "name": "hostnames-v6" }, "addressType": "IPv6" }),
    );
    for (i, endpoint) in second.endpoints.iter_mut().enumerate() {
        endpoint.addresses = vec![format!("fd00:244::{}", i + 1)];
    }
    nodes(
        &mut facts,
        &["192.0.2.1,fd00::1", "192.0.2.2,fd00::2", "192.0.2.3,fd00::3"],
    );
    look(&mut facts);
    facts.slices.push(Arc::new(second));
    everywhere(&mut facts, |n| {
        let of_v6 = n.dials.clone().into_iter().map(|d| DialCount {
            family: IpFamily::V6,
            ..d
        });
        n.dials.extend(of_v6.collect::<Vec<_>>());
    });
    facts
}

/// Everybody fails over IPv6, at the endpoints or at the Service.
fn fail_v6(facts: &mut Facts, path: DialPath, answer: Answer) {
    let homes: Vec<(String, String)> = endpoints(facts)
        .into_iter()
        .filter(|(address, _, _)| address.starts_with("fd00"))
        .map(|(address, node, _)| (format!("[{}]:9376", address.trim_end_matches(":9376")), node))
        .collect();
    for node in ["n1", "n2", "n3"] {
        let homes = homes.clone();
        on(facts, node, |n| {
            let mut failures = Vec::new();
            for count in n
                .dials
                .iter_mut()
                .filter(|d| d.family == IpFamily::V6 && d.path == path)
            {
                count.failed = count.made;
                let failure = |target: &str, endpoint: Option<&str>| DialFailure {
                    from: count.from.clone(),
                    path,
                    port: count.port,
                    target: target.to_owned(),
                    endpoint: endpoint.map(str::to_owned),
                    same_node: count.same_node,
                    same_bridge: false,
                    answer,
                    detail: None,
                };
                if path == DialPath::Endpoint {
                    let here = |home: &String| Some(home == node) == count.same_node;
                    failures.extend(
                        homes
                            .iter()
                            .filter(|(_, home)| here(home))
                            .map(|(e, _)| failure(e, Some(e))),
                    );
                } else {
                    failures.push(failure(VIP6, None));
                }
            }
            n.failures.extend(failures);
        });
    }
}

#[track_caller]
fn fault(condition: C, reason: R, inject: impl FnOnce(&mut Facts)) -> Diagnosis {
    let mut facts = dual();
    inject(&mut facts);
    let diagnosis = diagnose(&facts);
    assert_root_cause(&diagnosis, condition, reason);
    diagnosis
}

#[test]
fn both_families_work() {
    let d = assert_nothing_false(&dual());
    assert_eq!(d.ready.reason, R::ServiceWorks, "{}", report(&d));
}

#[test]
fn pods_that_listen_in_one_family_only() {
    let d = fault(C::EndpointsReachable, R::WrongFamilyListening, |f| {
        fail_v6(f, DialPath::Endpoint, Answer::Refused);
        fail_v6(f, DialPath::Service, Answer::Refused);
    });
    let text = report(&d);
    assert!(text.contains("over IPv4 but refuse it over IPv6"), "{text}");
    assert!(!text.contains("delete pod"), "{text}");
    assert_eq!(d.root_cause.unwrap().impact.as_str(), "Some");
}

#[test]
fn a_network_that_carries_one_family_only() {
    let d = fault(C::EndpointsReachable, R::TimedOut, |f| {
        fail_v6(f, DialPath::Endpoint, Answer::TimedOut);
    });
    assert!(
        report(&d).contains("Only dials over IPv6 fail."),
        "{}",
        report(&d)
    );
}

#[test]
fn a_client_without_an_address_of_a_family_is_no_witness_of_it() {
    let mut facts = dual();
    fail_v6(&mut facts, DialPath::Service, Answer::Unreachable);
    for node in ["n1", "n2", "n3"] {
        on(&mut facts, node, |n| {
            n.failures.retain(|f| f.from.is_some());
            for count in n.dials.iter_mut().filter(|d| d.from.is_none()) {
                count.failed = 0;
            }
        });
    }
    let client = facts.pods.iter_mut().find(|p| p.name() == "client").unwrap();
    let own = client.status.pod_ip.clone();
    patch(
        Arc::make_mut(client),
        json!({ "status": { "podIPs": [{ "ip": own }] } }),
    );
    let d = assert_nothing_false(&facts);
    assert_eq!(
        stage(&d, C::ServiceReachable).reason,
        R::Reachable,
        "{}",
        report(&d)
    );
}

fn only_v4(facts: &mut Facts) {
    nodes(facts, &["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
}

#[test]
fn a_node_without_an_address_of_a_family_is_no_witness_of_it() {
    let mut facts = dual();
    fail_v6(&mut facts, DialPath::Service, Answer::Unreachable);
    for node in ["n1", "n2", "n3"] {
        on(&mut facts, node, |n| {
            n.failures.retain(|f| f.from.is_none());
            for count in n.dials.iter_mut().filter(|d| d.from.is_some()) {
                count.failed = 0;
            }
        });
    }
    let d = diagnose(&facts);
    assert_root_cause(&d, C::ProxyForwards, R::NoRouteToHost);
    only_v4(&mut facts);
    let d = assert_nothing_false(&facts);
    assert_eq!(stage(&d, C::ProxyForwards).reason, R::Forwards, "{}", report(&d));
}

#[test]
fn rules_of_a_family_that_a_node_does_not_have_are_not_missed() {
    let missing = |f: &mut Facts| {
        everywhere(f, |n| {
            n.rules.as_mut().unwrap().gaps.push(RuleGap {
                kind: GapKind::Missing,
                destination: format!("{VIP6}/TCP"),
                endpoint: None,
                detail: "nothing leads there".into(),
            });
        });
    };
    fault(C::ProxyRulesPresent, R::RulesMissing, missing);
    let mut facts = dual();
    missing(&mut facts);
    only_v4(&mut facts);
    let d = assert_nothing_false(&facts);
    assert_eq!(stage(&d, C::ProxyRulesPresent).reason, R::RulesMatchEndpoints);
}
