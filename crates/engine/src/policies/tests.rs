//! The evaluation against the examples of the API's documentation.

use super::rules::*;
use serde_json::{Value, json};
use svcdiag_objects::{Labels, NetworkPolicy, Open, Pod, Protocol};

fn policy(spec: Value) -> NetworkPolicy {
    serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "shop" }, "spec": spec })).unwrap()
}

fn pod(namespace: &str, labels: Value, ip: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "x", "namespace": namespace, "labels": labels },
        "spec": { "containers": [{ "name": "c", "ports": [
            { "name": "web", "containerPort": 8080 }, { "name": "dns", "containerPort": 5353, "protocol": "UDP" },
        ] }] },
        "status": { "podIP": ip },
    }))
    .unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

const WEB: Port = Port {
    number: 8080,
    protocol: &Open::Known(Protocol::Tcp),
};

/// Access of a Pod `app=front` of a namespace labelled `team=a` to a Pod `app=web` of namespace shop.
fn into_web(spec: Value, client_namespace: &str, port: Port) -> Access {
    let policy = policy(spec);
    let target = pod("shop", json!({ "app": "web" }), "10.1.0.2");
    let client = pod(
        client_namespace,
        json!({ "app": "front", "tier": "1" }),
        "10.1.0.3",
    );
    let team = labels(&[("team", "a")]);
    let other = End {
        pod: Some(&client),
        namespace_labels: Some(&team),
        addresses: &[],
        front: None,
    };
    let isolating = isolating(&[&policy], &target, Direction::Ingress);
    access(&isolating, Direction::Ingress, other, port, Some(&target))
}

fn ingress(rule: Value) -> Value {
    json!({ "podSelector": {}, "policyTypes": ["Ingress"], "ingress": [rule] })
}

#[test]
fn a_pod_is_isolated_only_by_policies_of_its_namespace_that_select_it_for_the_direction() {
    let free = json!({ "podSelector": { "matchLabels": { "app": "db" } } });
    assert_eq!(into_web(free, "shop", WEB), Access::Free);
    let egress_only = json!({ "podSelector": {}, "policyTypes": ["Egress"] });
    assert_eq!(into_web(egress_only, "shop", WEB), Access::Free);
    let absent_types = json!({ "podSelector": {} });
    assert_eq!(into_web(absent_types, "shop", WEB), Access::Denied);
}

#[test]
fn absent_policy_types_mean_egress_only_with_an_egress_rule() {
    let target = pod("shop", json!({}), "10.1.0.2");
    let without = policy(json!({ "podSelector": {}, "ingress": [{}] }));
    assert!(isolating(&[&without], &target, Direction::Egress).is_empty());
    let with = policy(json!({ "podSelector": {}, "egress": [{}] }));
    assert_eq!(isolating(&[&with], &target, Direction::Egress).len(), 1);
    assert_eq!(isolating(&[&with], &target, Direction::Ingress).len(), 1);
}

#[test]
fn absent_and_empty_peers_and_ports_admit_all() {
    assert_eq!(into_web(ingress(json!({})), "shop", WEB), Access::Admitted);
    assert_eq!(
        into_web(ingress(json!({ "from": [], "ports": [] })), "other", WEB),
        Access::Admitted
    );
    assert_eq!(
        into_web(json!({ "podSelector": {}, "ingress": [] }), "shop", WEB),
        Access::Denied
    );
    assert_eq!(
        into_web(json!({ "podSelector": {}, "ingress": null }), "shop", WEB),
        Access::Denied
    );
}

#[test]
fn peers_are_matched_by_pod_and_namespace_labels() {
    let by = |peer: Value| ingress(json!({ "from": [peer] }));
    let front = json!({ "podSelector": { "matchLabels": { "app": "front" } } });
    assert_eq!(into_web(by(front.clone()), "shop", WEB), Access::Admitted);
    assert_eq!(
        into_web(by(front), "other", WEB),
        Access::Denied,
        "a Pod selector alone means the own namespace"
    );
    let team = json!({ "namespaceSelector": { "matchLabels": { "team": "a" } } });
    assert_eq!(into_web(by(team), "other", WEB), Access::Admitted);
    let both = json!({ "namespaceSelector": { "matchLabels": { "team": "a" } }, "podSelector": { "matchLabels": { "app": "x" } } });
    assert_eq!(
        into_web(by(both), "other", WEB),
        Access::Denied,
        "both selectors of one peer have to match"
    );
    assert_eq!(
        into_web(by(json!({ "namespaceSelector": {} })), "other", WEB),
        Access::Admitted
    );
    assert_eq!(
        into_web(by(json!({ "podSelector": {} })), "shop", WEB),
        Access::Admitted
    );
    assert_eq!(into_web(by(json!({})), "shop", WEB), Access::Denied);
}

#[test]
fn every_operator_of_a_selector_counts() {
    let by = |key: &str, operator: &str, values: Value| {
        let expression = json!({ "key": key, "operator": operator, "values": values });
        into_web(
            ingress(json!({ "from": [{ "podSelector": { "matchExpressions": [expression] } }] })),
            "shop",
            WEB,
        )
    };
    assert_eq!(by("app", "In", json!(["front", "x"])), Access::Admitted);
    assert_eq!(by("app", "In", json!(["x"])), Access::Denied);
    assert_eq!(by("app", "NotIn", json!(["x"])), Access::Admitted);
    assert_eq!(by("absent", "NotIn", json!(["x"])), Access::Admitted);
    assert_eq!(by("app", "NotIn", json!(["front"])), Access::Denied);
    assert_eq!(by("tier", "Exists", json!(null)), Access::Admitted);
    assert_eq!(by("absent", "Exists", json!([])), Access::Denied);
    assert_eq!(by("absent", "DoesNotExist", json!([])), Access::Admitted);
    assert_eq!(by("tier", "DoesNotExist", json!([])), Access::Denied);
}

#[test]
fn ports_are_matched_by_number_name_range_and_protocol() {
    let to = |ports: Value, port: Port| into_web(ingress(json!({ "ports": ports })), "shop", port);
    assert_eq!(to(json!([{ "port": 8080 }]), WEB), Access::Admitted);
    assert_eq!(
        to(json!([{ "port": 80 }]), WEB),
        Access::Denied,
        "the Service's port is not the Pod's"
    );
    assert_eq!(to(json!([{ "port": "web" }]), WEB), Access::Admitted);
    assert_eq!(to(json!([{ "port": "dns" }]), WEB), Access::Denied);
    assert_eq!(
        to(
            json!([{ "port": "dns", "protocol": "UDP" }]),
            Port {
                number: 5353,
                protocol: &Open::Known(Protocol::Udp)
            }
        ),
        Access::Admitted
    );
    assert_eq!(
        to(json!([{ "port": 8000, "endPort": 8080 }]), WEB),
        Access::Admitted
    );
    assert_eq!(
        to(json!([{ "port": 8000, "endPort": 8079 }]), WEB),
        Access::Denied
    );
    assert_eq!(to(json!([{ "protocol": "TCP" }]), WEB), Access::Admitted);
    assert_eq!(to(json!([{ "protocol": "UDP" }]), WEB), Access::Denied);
}

#[test]
fn several_policies_are_united() {
    let deny = policy(json!({ "podSelector": {} }));
    let admit = policy(
        json!({ "podSelector": { "matchLabels": { "app": "web" } }, "ingress": [{ "ports": [{ "port": 8080 }] }] }),
    );
    let target = pod("shop", json!({ "app": "web" }), "10.1.0.2");
    let both = isolating(&[&deny, &admit], &target, Direction::Ingress);
    let client = pod("shop", json!({}), "10.1.0.3");
    let other = End {
        pod: Some(&client),
        namespace_labels: None,
        addresses: &[],
        front: None,
    };
    assert_eq!(
        access(&both, Direction::Ingress, other, WEB, Some(&target)),
        Access::Admitted
    );
}

#[test]
fn a_block_of_addresses_decides_about_hosts_but_not_about_pods() {
    let block = |except: Value| {
        policy(json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [
        { "to": [{ "ipBlock": { "cidr": "10.1.0.0/16", "except": except } }] }
    ] }))
    };
    let client = pod("shop", json!({}), "10.1.0.3");
    let to = |policy: &NetworkPolicy, pod: Option<&Pod>, ip: &str| {
        let isolating = isolating(&[policy], &client, Direction::Egress);
        let addresses = [ip.to_owned()];
        access(
            &isolating,
            Direction::Egress,
            End {
                pod,
                namespace_labels: None,
                addresses: &addresses,
                front: None,
            },
            WEB,
            pod,
        )
    };
    let server = pod("shop", json!({}), "10.1.0.9");
    assert_eq!(
        to(&block(json!([])), Some(&server), "10.1.0.9"),
        Access::Undecided(Doubt::Block)
    );
    assert_eq!(to(&block(json!([])), None, "10.1.0.9"), Access::Admitted);
    assert_eq!(
        to(&block(json!(["10.1.0.8/29"])), None, "10.1.0.9"),
        Access::Denied
    );
    assert_eq!(to(&block(json!([])), None, "10.2.0.9"), Access::Denied);
}

#[test]
fn blocks_of_both_families_and_all_lengths_are_understood() {
    let holds = |cidr: &str, ip: &str| in_cidr(cidr, ip.parse().unwrap());
    assert!(holds("0.0.0.0/0", "1.2.3.4") && holds("::/0", "fd00::1") && holds("1.2.3.4/32", "1.2.3.4"));
    assert!(holds("fd00:1::/32", "fd00:1:2::3") && holds("fd00::1/128", "fd00::1"));
    assert!(
        !holds("0.0.0.0/0", "fd00::1")
            && !holds("1.2.3.4/32", "1.2.3.5")
            && !holds("fd00:1::/32", "fd00:2::")
    );
    assert!(!holds("1.2.3.4/33", "1.2.3.4") && !holds("nonsense", "1.2.3.4") && !holds("1.2.3.4", "1.2.3.4"));
}

#[test]
fn selectors_may_not_match_pods_of_the_host_network() {
    let target = pod("shop", json!({ "app": "web" }), "10.1.0.2");
    let mut client = pod("shop", json!({ "app": "front" }), "192.168.0.3");
    client.spec.host_network = Some(true);
    let by = |app: &str| {
        let policy = policy(ingress(
            json!({ "from": [{ "podSelector": { "matchLabels": { "app": app } } }] }),
        ));
        let other = End {
            pod: Some(&client),
            namespace_labels: None,
            addresses: &[],
            front: None,
        };
        let isolating = isolating(&[&policy], &target, Direction::Ingress);
        access(&isolating, Direction::Ingress, other, WEB, Some(&target))
    };
    assert_eq!(by("front"), Access::Undecided(Doubt::HostNetwork));
    assert_eq!(by("other"), Access::Denied);
}

#[test]
fn a_block_that_holds_the_cluster_ip_may_not_hold_the_endpoint() {
    let client = pod("shop", json!({}), "10.1.0.3");
    let service = ["10.96.0.1".to_owned()];
    let endpoint = ["192.168.0.10".to_owned()];
    let to = |rule: Value| {
        let policy = policy(json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [rule] }));
        let front = Front {
            addresses: &service,
            port: Port {
                number: 443,
                protocol: &Open::Known(Protocol::Tcp),
            },
        };
        let other = End {
            pod: None,
            namespace_labels: None,
            addresses: &endpoint,
            front: Some(front),
        };
        let isolating = isolating(&[&policy], &client, Direction::Egress);
        access(&isolating, Direction::Egress, other, WEB, None)
    };
    let block = |cidr: &str, port: i32| json!({ "to": [{ "ipBlock": { "cidr": cidr } }], "ports": [{ "port": port }] });
    let doubt = Access::Undecided(Doubt::ClusterIP);
    assert_eq!(to(block("10.96.0.1/32", 443)), doubt);
    assert_eq!(to(block("10.96.0.1/32", 8080)), doubt);
    assert_eq!(to(block("10.96.0.1/32", 22)), Access::Denied);
    assert_eq!(to(block("192.168.0.10/32", 8080)), Access::Admitted);
    assert_eq!(to(block("192.168.0.10/32", 443)), Access::Denied);
}

#[test]
fn policies_do_not_select_pods_of_the_host_network() {
    let mut target = pod("shop", json!({ "app": "web" }), "10.1.0.2");
    target.spec.host_network = Some(true);
    assert!(
        isolating(
            &[&policy(json!({ "podSelector": {} }))],
            &target,
            Direction::Ingress
        )
        .is_empty()
    );
}
