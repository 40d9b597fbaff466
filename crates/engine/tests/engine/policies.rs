//! NetworkPolicyAllows: who is blamed for what, and above all who is not.

use serde_json::{Value, json};
use svcdiag_api::{Answer, ConditionType as C, Reason as R};
use svcdiag_engine::{Facts, diagnose};

use crate::{
    agents::*,
    fixtures::default_deny,
    report::{assert_nothing_false, assert_root_cause, stage},
    walkthrough::*,
};

/// The reason of NetworkPolicyAllows on a cluster where nothing may be False.
#[track_caller]
fn innocent(change: impl FnOnce(&mut Facts)) -> R {
    let mut facts = healthy();
    change(&mut facts);
    stage(&assert_nothing_false(&facts), C::NetworkPolicyAllows).reason
}

fn admit(name: &str, facts: &mut Facts, rule: Value) {
    policy(
        facts,
        name,
        json!({ "podSelector": { "matchLabels": { "app": "hostnames" } }, "policyTypes": ["Ingress"], "ingress": [rule] }),
    );
}

#[test]
fn a19_twin_policy_that_admits_one_of_the_candidates() {
    let reason = innocent(|f| {
        f.pods
            .push(pod("stranger", "n2", "10.244.2.30", json!({ "app": "stranger" })));
        admit(
            "client",
            f,
            json!({ "from": [{ "podSelector": { "matchLabels": { "app": "client" } } }], "ports": [{ "port": 9376 }] }),
        );
    });
    assert_eq!(reason, R::Allowed);
}

#[test]
fn a19_twin_ports_by_name_and_by_range() {
    let by_name = innocent(|f| {
        each_pod(f, |p| p.spec.containers[0].ports[0].name = Some("web".into()));
        admit("web", f, json!({ "ports": [{ "port": "web" }] }));
    });
    assert_eq!(by_name, R::Allowed);
    assert_eq!(
        innocent(|f| admit(
            "range",
            f,
            json!({ "ports": [{ "port": 9000, "endPort": 9999 }] })
        )),
        R::Allowed
    );
}

#[test]
fn a_policy_for_clients_of_another_namespace_is_no_fault() {
    let reason = innocent(|f| {
        let from = json!([{ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "ingress-nginx" } } }]);
        admit("from-ingress", f, json!({ "from": from }));
    });
    assert_eq!(reason, R::Allowed);
}

#[test]
fn jobs_beside_a_policy_for_the_web_pods_are_no_fault() {
    let reason = innocent(|f| {
        f.pods
            .push(pod("job-1", "n2", "10.244.2.31", json!({ "app": "job" })));
        f.pods
            .push(pod("web-1", "n2", "10.244.2.32", json!({ "app": "web" })));
        admit(
            "only-web",
            f,
            json!({ "from": [{ "podSelector": { "matchLabels": { "app": "web" } } }] }),
        );
    });
    assert_eq!(reason, R::Allowed);
}

#[test]
fn neighbours_with_egress_lists_of_their_own_are_not_taken_for_clients() {
    let reason = innocent(|f| {
        let rule = json!({ "to": [{ "podSelector": { "matchLabels": { "app": "db" } } }] });
        policy(
            f,
            "client-to-db",
            json!({ "podSelector": { "matchLabels": { "app": "client" } }, "policyTypes": ["Egress"], "egress": [rule] }),
        );
    });
    assert_eq!(reason, R::Allowed);
}

#[test]
fn endpoints_that_may_not_go_out_say_nothing_of_the_clients() {
    let reason = innocent(|f| {
        f.pods.truncate(3);
        policy(
            f,
            "deny-egress",
            json!({ "podSelector": {}, "policyTypes": ["Egress"] }),
        );
    });
    assert_eq!(reason, R::Allowed);
}

#[test]
fn a_service_for_the_outside_does_not_need_clients_inside() {
    let reason = innocent(|f| {
        service(
            f,
            json!({ "spec": { "type": "LoadBalancer" }, "status": { "loadBalancer": { "ingress": [{ "ip": "203.0.113.1" }] } } }),
        );
        policy(
            f,
            "client-deny",
            json!({ "podSelector": { "matchLabels": { "app": "client" } }, "policyTypes": ["Egress"] }),
        );
    });
    assert_eq!(reason, R::Allowed);
}

#[test]
fn an_ip_block_alone_does_not_decide_about_pods() {
    let reason = innocent(|f| {
        admit(
            "block",
            f,
            json!({ "from": [{ "ipBlock": { "cidr": "10.0.0.0/8" } }] }),
        )
    });
    assert_eq!(reason, R::NoVantagePoint);
}

#[test]
fn a_dns_rule_for_a_block_of_addresses_may_mean_a_cache_on_the_node() {
    let reason = innocent(|f| {
        let block = json!({ "to": [{ "ipBlock": { "cidr": "169.254.20.10/32" } }], "ports": [{ "port": 53, "protocol": "UDP" }] });
        let app = json!({ "to": [{ "podSelector": { "matchLabels": { "app": "hostnames" } } }] });
        policy(
            f,
            "egress",
            json!({ "podSelector": { "matchLabels": { "app": "client" } }, "policyTypes": ["Egress"], "egress": [block, app] }),
        );
    });
    assert_eq!(reason, R::Allowed);
}

#[test]
fn one_of_two_named_clients_shut_out_is_a_fault_of_a_part() {
    let mut facts = healthy();
    facts.pods.push(pod(
        "client-2",
        "n2",
        "10.244.2.9",
        json!({ "app": "client", "tier": "batch" }),
    ));
    name_clients(&mut facts);
    policy(
        &mut facts,
        "batch",
        json!({ "podSelector": { "matchLabels": { "tier": "batch" } }, "policyTypes": ["Egress"] }),
    );
    let cause = diagnose(&facts).root_cause.unwrap();
    assert_eq!(
        (cause.reason.as_str(), cause.impact.as_str()),
        ("EgressDenied", "Some")
    );
    assert!(
        cause.message.contains("Pod shop/client-2 to"),
        "{}",
        cause.message
    );
}

#[test]
fn one_of_two_ports_closed_is_a_fault_of_a_part() {
    let mut facts = healthy();
    service(
        &mut facts,
        json!({ "spec": { "ports": [{ "name": "default", "port": 80, "targetPort": 9376 }, { "name": "metrics", "port": 9090 }] } }),
    );
    facts.slices.push(slice(
        "hostnames",
        &facts.pods[..3],
        json!({ "name": "metrics", "port": 9090 }),
    ));
    admit("web-only", &mut facts, json!({ "ports": [{ "port": 9376 }] }));
    let cause = diagnose(&facts).root_cause.unwrap();
    assert_eq!(
        (cause.reason.as_str(), cause.impact.as_str()),
        ("IngressDenied", "Some")
    );
    patch(&mut facts.spec, json!({ "ports": ["default"] }));
    assert_nothing_false(&facts);
}

#[test]
fn policies_that_cannot_be_read_leave_the_question_open() {
    let reason = innocent(|f| {
        f.unreadable.push(svcdiag_engine::Unreadable {
            resource: "networkpolicies".into(),
            why: "not allowed to list".into(),
        });
    });
    assert_eq!(reason, R::ProbeFailed);
}

#[test]
fn host_network_pods_are_beyond_policies() {
    let reason = innocent(|f| {
        each_pod(f, |p| p.spec.host_network = Some(true));
        policy(
            f,
            "default-deny",
            json!({ "podSelector": { "matchLabels": { "app": "hostnames" } } }),
        );
    });
    assert_eq!(reason, R::NoPolicySelects);
}

#[test]
fn a_policy_that_nobody_enforces_does_not_excuse_what_the_service_loses() {
    let mut facts = with_agents();
    default_deny(&mut facts);
    look(&mut facts);
    fail_service(&mut facts, "n1", Some(CLIENT), Answer::TimedOut);
    let diagnosis = diagnose(&facts);
    assert_eq!(
        stage(&diagnosis, C::NetworkPolicyAllows).reason,
        R::DeniedButNotEnforced
    );
    assert_root_cause(&diagnosis, C::ServiceReachable, R::TimedOut);
}
