//! What an agent is told of the Service is all that it needs, is small, and lets a node dial nothing foreign.

mod dialled;

use std::sync::Arc;

use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Value, json};
use svcdiag_api::{MAX_ADDRESSES, NodeProbeSpec};
use svcdiag_engine::asked::Subject;
use svcdiag_engine::{ClientNamespace, Facts, plan};
use svcdiag_kube_proxy::{Vantage, expected};
use svcdiag_objects::{EndpointSlice, Node, Object, Pod, Service};

use crate::{agents::*, walkthrough::*};

pub(crate) use self::dialled::lend_a_client;

const ZONE: &str = "a";

fn node(name: &str, ip: &str) -> Arc<Node> {
    Arc::new(object(json!({
        "metadata": { "name": name, "labels": { "topology.kubernetes.io/zone": ZONE } },
        "status": { "addresses": [{ "type": "InternalIP", "address": ip }] },
    })))
}

/// The walk-through with an agent on each of its nodes.
fn cluster() -> Facts {
    let mut facts = healthy();
    facts.nodes = ["n1", "n2", "n3"].map(agent).to_vec();
    facts.cluster_nodes = vec![
        node("n1", "192.168.0.1"),
        node("n2", "192.168.0.2"),
        node("n3", "192.168.0.3"),
    ];
    facts
}

fn asked(facts: &Facts) -> NodeProbeSpec {
    plan(facts, &diagnosis_ref()).remove("n1").unwrap()
}

fn policy() -> impl Strategy<Value = Option<&'static str>> {
    option::of(select(vec!["Local", "Cluster"]))
}

/// The spec and the status of a Service.
fn any_service() -> impl Strategy<Value = Value> {
    let ranges = select(vec![
        vec![],
        vec!["203.0.113.0/24"],
        vec![" 203.0.113.7/24", "fd00::/8"],
        vec!["nonsense"],
    ]);
    let ips = select(vec![
        vec!["10.96.1.175"],
        vec!["10.96.1.175", "fd00:96::7"],
        vec!["fd00:96::7"],
        vec!["None"],
        vec![],
    ]);
    let labels = select(vec![
        json!({}),
        json!({ "service.kubernetes.io/service-proxy-name": "other" }),
        json!({ "service.kubernetes.io/headless": "" }),
    ]);
    let of = (
        ips,
        policy(),
        policy(),
        ranges,
        option::of(30_000..30_003),
        any::<bool>(),
    );
    (of, prop_oneof![8 => Just(json!({})), 1 => labels]).prop_map(
        |((ips, internal, external, ranges, node_port, affinity), labels)| {
            json!({
                "metadata": { "labels": labels },
                "spec": {
                    "clusterIP": ips.first(), "clusterIPs": ips, "selector": { "app": "hostnames" },
                    "internalTrafficPolicy": internal, "externalTrafficPolicy": external,
                    "loadBalancerSourceRanges": ranges, "externalIPs": ["198.51.100.9"],
                    "sessionAffinity": affinity.then_some("ClientIP"),
                    "ports": [
                        { "name": "web", "port": 80, "nodePort": node_port },
                        { "name": "dns", "port": 53, "protocol": "UDP" },
                    ],
                },
                "status": { "loadBalancer": { "ingress": [
                    { "ip": "198.51.100.1" }, { "ip": "198.51.100.2", "ipMode": "Proxy" },
                ] } },
            })
        },
    )
}

fn any_slice() -> impl Strategy<Value = Value> {
    let names = |of: [&'static str; 2]| {
        vec(select(of.to_vec()), 0..2)
            .prop_map(|names| -> Vec<Value> { names.iter().map(|name| json!({ "name": name })).collect() })
    };
    let hints = (names([ZONE, "b"]), names(["n1", "n2"]))
        .prop_map(|(zones, nodes)| json!({ "forZones": zones, "forNodes": nodes }));
    let hints = option::of(hints);
    let endpoint = (
        option::of(any::<bool>()),
        option::of(any::<bool>()),
        any::<bool>(),
        option::of(select(vec!["n1", "n2"])),
        hints,
    )
        .prop_map(|(ready, serving, terminating, node, hints)| {
            json!({
                "nodeName": node, "hints": hints,
                "conditions": { "ready": ready, "serving": serving, "terminating": terminating },
            })
        });
    let ports = select(vec![
        json!([{ "name": "web", "port": 9376 }, { "name": "dns", "port": 53, "protocol": "UDP" }]),
        json!([{ "name": "web", "port": 9377 }]),
        json!([{ "name": "other", "port": 1 }]),
        json!([{ "name": "web" }]),
    ]);
    (vec(endpoint, 0..6), ports, 1..250_u8, any::<bool>()).prop_map(|(endpoints, ports, net, v6)| {
        let endpoint = |(host, mut endpoint): (usize, Value)| {
            let address = if v6 { format!("fd00:{net:x}::{host:x}") } else { format!("10.{net}.0.{host}") };
            endpoint["addresses"] = json!([address]);
            endpoint
        };
        let endpoints: Vec<Value> = endpoints.into_iter().enumerate().map(endpoint).collect();
        json!({
            "metadata": { "name": format!("s-{net}"), "namespace": NS }, "addressType": if v6 { "IPv6" } else { "IPv4" },
            "endpoints": endpoints, "ports": ports,
        })
    })
}

#[test]
fn the_agent_knows_what_an_external_name_stands_for() {
    let mut facts = cluster();
    facts.service = Some(Arc::new(object::<Service>(json!({
        "metadata": { "name": "hostnames", "namespace": NS },
        "spec": { "type": "ExternalName", "externalName": "db.example." },
    }))));
    let asked = asked(&facts);
    assert_eq!(asked.service.external_name.as_deref(), Some("db.example"));
    assert_eq!(Subject::of(&asked).service.external_name(), Some("db.example"));
    // The field that an ExternalName Service was before it became one of another type is not looked at.
    let mut service: Service = facts.service.as_deref().unwrap().clone();
    service.spec.type_ = Some("ClusterIP".into());
    facts.service = Some(Arc::new(service));
    assert_eq!(self::asked(&facts).service.external_name, None);
}

proptest! {
    /// A node has to hold the same by what its agent is told as by the objects themselves.
    #[test]
    fn the_agent_expects_of_the_node_what_the_objects_ask_for(
        service in any_service(),
        slices in proptest::collection::btree_map(any::<u8>(), any_slice(), 0..4),
    ) {
        let mut facts = cluster();
        facts.service = Some(Arc::new(object::<Service>(service)));
        // No two of them have an address in common.
        let mut slices: Vec<Value> = slices.into_values().collect();
        slices.sort_by_key(|s| s["metadata"]["name"].to_string());
        slices.dedup_by_key(|s| s["metadata"]["name"].to_string());
        facts.slices = slices.into_iter().map(|s| Arc::new(object::<EndpointSlice>(s))).collect();
        let vantage = Vantage { node: "n1", zone: Some(ZONE) };
        let of_objects: Vec<&EndpointSlice> = facts.slices.iter().map(AsRef::as_ref).collect();
        let right = expected(facts.service.as_ref().unwrap(), &of_objects, vantage);
        let subject = Subject::of(&asked(&facts));
        let told: Vec<&EndpointSlice> = subject.slices.iter().collect();
        let vantage = Vantage { node: "n1", zone: subject.zone.as_deref() };
        prop_assert_eq!(expected(&subject.service, &told, vantage), right);
    }
}

/// A Service with so many endpoints, as the endpoints controller lays them out, on a tenth as many nodes.
fn with_endpoints(count: usize) -> Facts {
    let mut facts = cluster();
    let endpoint = |number: usize| {
        let (node, pod) = (number % count.div_ceil(10), number);
        json!({
            "addresses": [format!("10.{}.{}.{}", 100 + pod / 62_500, pod / 250 % 250, pod % 250)],
            "conditions": { "ready": true, "serving": true, "terminating": false },
            "nodeName": format!("n{node}"), "zone": ZONE,
            "targetRef": { "kind": "Pod", "namespace": NS, "name": format!("hostnames-632524106-{pod:05}"), "uid": format!("00000000-0000-4000-8000-{pod:012}") },
        })
    };
    let all: Vec<Value> = (0..count).map(endpoint).collect();
    let slice = |(number, endpoints): (usize, &[Value])| {
        Arc::new(object::<EndpointSlice>(json!({
            "metadata": { "name": format!("hostnames-{number:05}"), "namespace": NS, "resourceVersion": "123456789" },
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{ "name": "default", "port": 9376, "protocol": "TCP" }],
        })))
    };
    facts.slices = all.chunks(100).enumerate().map(slice).collect();
    facts
}

#[test]
fn a_thousand_endpoints_make_a_small_object() {
    let mut sizes = Vec::new();
    for (count, most) in [(5, 2_000), (100, 4_000), (1_000, 20_000), (10_000, 200_000)] {
        let asked = asked(&with_endpoints(count));
        let size = serde_json::to_string(&asked).unwrap().len();
        let told: usize = asked.subsets.iter().map(|s| s.addresses.len()).sum();
        assert_eq!((told, asked.service.is_cut), (count, false));
        assert!(size < most, "{count} endpoints: {size} bytes");
        sizes.push(format!("{count}: {size}"));
    }
    println!("endpoints: bytes of a NodeProbe's spec: {}", sizes.join(", "));
}

#[test]
fn beyond_a_bound_endpoints_are_left_out_and_the_agent_knows_it() {
    let asked = asked(&with_endpoints(MAX_ADDRESSES + 1));
    let told: usize = asked.subsets.iter().map(|s| s.addresses.len()).sum();
    assert_eq!(told, MAX_ADDRESSES);
    assert!(Subject::of(&asked).is_cut);
}

#[test]
fn nothing_but_the_endpoints_own_states_counts_and_their_order_does_not() {
    let facts = with_endpoints(150);
    let mut turned = facts.clone();
    turned.slices.reverse();
    for slice in &mut turned.slices {
        Arc::make_mut(slice).endpoints.reverse();
    }
    assert_eq!(asked(&turned), asked(&facts));
}
