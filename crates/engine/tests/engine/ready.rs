//! What is said of a Service that works, or of which nobody can say.

use std::sync::Arc;

use serde_json::json;
use svcdiag_api::{Answer, ConditionStatus, ConditionType as C, DataPath, Reason as R};
use svcdiag_engine::{Facts, diagnose};
use svcdiag_objects::Object;

use crate::{agents::*, fixtures::*, report::*, walkthrough::*};

#[test]
fn a26_a_suspended_diagnosis_judges_nothing() {
    let mut facts = healthy();
    facts.service = None;
    facts.spec.suspend = true;
    let diagnosis = assert_nothing_false(&facts);
    assert_eq!(diagnosis.ready.reason, R::Suspended);
    keep("A26", &healthy(), &diagnosis);
}

#[test]
fn n41_without_a_client_the_nodes_are_enough() {
    ready(R::WorksFromNodes, |f| {
        for pod in &mut f.pods {
            let policy = if pod.name() == "client" { "Default" } else { "None" };
            Arc::make_mut(pod).spec.dns_policy = Some(policy.into());
        }
        look(f);
    });
    // A Pod that policies keep away is no client.
    ready(R::WorksFromNodes, |f| {
        policy(
            f,
            "web-only",
            json!({ "podSelector": { "matchLabels": { "app": "hostnames" } },
                "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": "web" } } }] }] }),
        );
        look(f);
        fail_from_clients(f, &[0, 1, 2], Answer::TimedOut);
        fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
    });
}

#[test]
fn n43_a_thousand_endpoints() {
    let d = works(|f| {
        let pods: Vec<_> = (0..1000)
            .map(|i| {
                pod(
                    &format!("hostnames-{i}"),
                    &format!("n{}", i % 3 + 1),
                    &format!("10.244.{}.{}", i / 250 + 1, i % 250 + 10),
                    app(),
                )
            })
            .collect();
        f.pods.retain(|p| p.name() == "client");
        f.pods.extend(pods);
        resync(f);
        look(f);
    });
    assert!(d.observations.len() <= 32);
}

#[test]
fn the_healthy_walk_through_waits_for_a_node_agent() {
    let diagnosis = assert_nothing_false(&healthy());
    assert_eq!(diagnosis.ready.reason, R::NoVantagePoint);
    keep_whole("healthy-objects", &diagnosis);
}

#[test]
fn all_is_well() {
    let diagnosis = diagnose(&with_agents());
    assert_eq!(diagnosis.ready.reason, R::ServiceWorks, "{}", report(&diagnosis));
    assert_eq!(diagnosis.proxy_mode.as_deref(), Some("nftables"));
    assert_eq!(diagnosis.summary.proxy, "nftables 3/3");
    keep_whole("healthy", &diagnosis);
}

#[test]
fn silence_is_told_as_silence() {
    let d = works(|f| {
        udp(f);
        look(f);
    });
    for condition in [C::EndpointsReachable, C::ProxyForwards, C::ServiceReachable] {
        let message = &stage(&d, condition).message;
        assert!(message.contains("do not refuse datagrams"), "{message}");
    }
}

#[test]
fn a_failure_that_belongs_to_an_earlier_state_does_not_count() {
    let d = lookalike(|f| {
        fail_direct(f, &[1], Answer::TimedOut);
        ending(f, 1);
        Arc::make_mut(&mut f.slices[0]).endpoints[1].conditions.ready = Some(false);
    });
    assert_eq!(stage(&d, C::EndpointsReachable).reason, R::Pending);
    let d = lookalike(|f| {
        fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
        readdressed(f);
    });
    assert_eq!(stage(&d, C::ServiceReachable).reason, R::Pending);
}

#[test]
fn what_waits_for_a_skipped_stage_is_named() {
    let mut facts = with_agents();
    facts.spec.skip = vec![C::EndpointsReachable];
    fail_direct(&mut facts, &[0, 1, 2], Answer::TimedOut);
    for node in ["n1", "n2", "n3"] {
        fail_service(&mut facts, node, None, Answer::TimedOut);
    }
    fail_service(&mut facts, "n1", Some(CLIENT), Answer::TimedOut);
    let d = diagnose(&facts);
    let open = d.stages.iter().filter(|(_, finding)| !finding.is_satisfied());
    let reasons: std::collections::BTreeSet<R> = open.map(|(_, finding)| finding.reason).collect();
    assert_eq!(Vec::from_iter(reasons), [R::Blocked], "{}", report(&d));
    assert_eq!(d.ready.reason, R::NoVantagePoint);
    assert_eq!(
        d.ready.message,
        "ProxyForwards is Unknown (Blocked): Waiting for EndpointsReachable."
    );
}

#[test]
fn odd_services_work() {
    works(|f| {
        single(f, 2);
        look(f);
    });
    works(|f| {
        node_port(f);
        service(f, json!({ "spec": { "externalTrafficPolicy": "Local" } }));
        look(f);
    });
    works(|f| {
        service(
            f,
            json!({ "spec": { "ports": [{ "name": "default", "protocol": "SCTP", "port": 80, "targetPort": 9376 }] } }),
        );
        patch(
            Arc::make_mut(&mut f.slices[0]),
            json!({ "ports": [{ "name": "default", "port": 9376, "protocol": "SCTP" }] }),
        );
        look(f);
        everywhere(f, |n| n.dials.clear());
    });
    works(|f| {
        patch(
            Arc::make_mut(f.service.as_mut().unwrap()),
            json!({ "metadata": { "labels": { "service.kubernetes.io/service-proxy-name": "other" } } }),
        );
        look(f);
    });
    works(|f| {
        everywhere(f, |n| {
            n.rules = None;
            n.kube_proxy.as_mut().unwrap().mode = Some("ipvs".into());
        })
    });
}

/// Without agents.
fn asking_for(data_path: DataPath, change: impl FnOnce(&mut Facts)) -> (ConditionStatus, R, String) {
    let mut facts = healthy();
    facts.spec.data_path = Some(data_path);
    facts.has_no_agents = true;
    change(&mut facts);
    let ready = diagnose(&facts).ready;
    (ready.status, ready.reason, ready.message)
}

#[test]
fn without_agents_the_objects_are_enough_for_who_asks_for_no_more() {
    for (data_path, why) in [
        (DataPath::IfAvailable, "the cluster has no node agents"),
        (DataPath::Ignore, "dataPath is Ignore"),
    ] {
        let (status, reason, message) = asking_for(data_path, |_| {});
        assert_eq!(
            (status, reason),
            (ConditionStatus::True, R::DefinitionWorks),
            "{message}"
        );
        for part in [why, "EndpointsReachable", "ProxyRulesPresent", "HairpinOK"] {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
    }
    let (status, reason, _) = asking_for(DataPath::Required, |_| {});
    assert_eq!((status, reason), (ConditionStatus::Unknown, R::NoVantagePoint));
}

#[test]
fn what_is_wrong_or_open_with_the_objects_is_so_for_everybody() {
    for data_path in [DataPath::IfAvailable, DataPath::Ignore] {
        let (status, reason, _) = asking_for(data_path, |f| f.service = None);
        assert_eq!((status, reason), (ConditionStatus::False, R::ServiceNotFound));
        let (status, ..) = asking_for(data_path, |f| {
            f.pods.clear();
            f.unreadable.push(svcdiag_engine::Unreadable {
                resource: "pods".to_owned(),
                why: "not allowed".to_owned(),
            });
        });
        assert_eq!(status, ConditionStatus::Unknown);
    }
}

#[test]
fn that_no_agent_is_known_does_not_mean_that_there_is_none() {
    // Who may not list the agents' Leases knows of none either.
    let (status, reason, _) = asking_for(DataPath::IfAvailable, |f| f.has_no_agents = false);
    assert_eq!((status, reason), (ConditionStatus::Unknown, R::NoVantagePoint));
}

#[test]
fn the_verdict_of_a_status_is_the_one_that_was_written() {
    let mut broken = with_agents();
    fail_direct(&mut broken, &[0, 1, 2], Answer::Refused);
    let mut missing = healthy();
    missing.service = None;
    for facts in [healthy(), with_agents(), broken, missing] {
        let status = diagnose(&facts).status(None, Some(1), facts.now);
        let read = svcdiag_engine::Diagnosis::of_status(&status).unwrap();
        assert_eq!(read.status(None, Some(1), facts.now), status);
    }
    let mut newer = diagnose(&healthy()).status(None, Some(1), healthy().now);
    newer.conditions[0].reason = "OfALaterVersion".to_owned();
    assert_eq!(svcdiag_engine::Diagnosis::of_status(&newer), None);
}

#[test]
fn agents_that_there_are_have_to_answer() {
    let mut facts = with_agents();
    facts.spec.data_path = Some(DataPath::IfAvailable);
    assert_eq!(diagnose(&facts).ready.reason, R::ServiceWorks);
    for node in &mut facts.nodes {
        node.alive_until = Some(facts.now - jiff::SignedDuration::from_secs(60));
    }
    let ready = diagnose(&facts).ready;
    assert_eq!(ready.status, ConditionStatus::Unknown, "{}", ready.message);
}
