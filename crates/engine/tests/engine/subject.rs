//! What an agent is told of the Service is all that it needs, is small, and lets a node dial nothing foreign.

use std::sync::Arc;

use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Value, json};
use svcdiag_api::{MAX_ADDRESSES, NodeProbeSpec};
use svcdiag_engine::asked::Subject;
use svcdiag_engine::{ClientNamespace, Facts, plan};
use svcdiag_kube_proxy::{Vantage, expected};
use svcdiag_objects::{EndpointSlice, Node, Object, Pod, Service};

use crate::{agents::*, walkthrough::*};

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

fn dialled_from_nodes(change: impl FnOnce(&mut Facts)) -> bool {
    let mut facts = cluster();
    change(&mut facts);
    asked(&facts).from_node
}

/// Makes the first endpoint another, with its state.
fn endpoint(facts: &mut Facts, change: Value) {
    patch(&mut Arc::make_mut(&mut facts.slices[0]).endpoints[0], change);
}

/// Gives the first Pod and its endpoint an address.
fn pod_at(facts: &mut Facts, ip: &str) {
    patch(
        Arc::make_mut(&mut facts.pods[0]),
        json!({ "status": { "podIP": ip, "podIPs": [{ "ip": ip }] } }),
    );
    resync(facts);
}

#[test]
fn a_node_dials_running_pods_of_the_namespace_only() {
    assert!(dialled_from_nodes(|_| {}));
    assert!(!dialled_from_nodes(|f| endpoint(
        f,
        json!({ "addresses": ["192.168.9.9"] })
    )));
    assert!(!dialled_from_nodes(|f| endpoint(f, json!({ "targetRef": null }))));
    assert!(!dialled_from_nodes(|f| endpoint(
        f,
        json!({ "targetRef": { "uid": "of-another-namespace" } })
    )));
    // One that goes away may still be sent to.
    let leaving = json!({ "conditions": { "ready": false, "serving": true, "terminating": true } });
    assert!(dialled_from_nodes(|f| endpoint(f, leaving.clone())));
    assert!(!dialled_from_nodes(|f| {
        endpoint(f, leaving.clone());
        endpoint(f, json!({ "addresses": ["192.168.9.9"] }));
    }));
    // Nobody is sent to one that neither is ready nor serves.
    assert!(dialled_from_nodes(|f| endpoint(
        f,
        json!({ "addresses": ["192.168.9.9"], "conditions": { "ready": false, "serving": false } })
    )));
    // Its address may be another Pod's by now.
    for phase in ["Succeeded", "Failed", "Pending"] {
        assert!(!dialled_from_nodes(|f| {
            patch(
                Arc::make_mut(&mut f.pods[0]),
                json!({ "status": { "phase": phase } }),
            );
        }));
    }
}

#[test]
fn a_node_dials_no_address_that_a_pod_cannot_have() {
    for ip in [
        "127.0.0.1",
        "169.254.169.254",
        "192.168.0.2",
        "10.96.1.175",
        "10.96.0.10",
    ] {
        assert!(!dialled_from_nodes(|f| pod_at(f, ip)), "{ip}");
    }
    assert!(!dialled_from_nodes(|f| {
        pod_at(f, "10.96.7.7");
        f.service_addresses = vec!["10.96.7.7".into()];
    }));
    let on_the_hosts_network = |ip: &str| {
        dialled_from_nodes(|f| {
            Arc::make_mut(&mut f.pods[0]).spec.host_network = Some(true);
            pod_at(f, ip);
        })
    };
    // The first Pod is on n1.
    assert!(on_the_hosts_network("192.168.0.1"));
    assert!(!on_the_hosts_network("192.168.0.2"));
}

/// The Pods that dial, where another Namespace lends one.
fn lent_clients(change: impl FnOnce(&mut Facts)) -> Vec<String> {
    let mut facts = cluster();
    lend_a_client(&mut facts);
    change(&mut facts);
    let plan = plan(&facts, &diagnosis_ref());
    plan.into_values()
        .flat_map(|spec| spec.clients)
        .map(|c| c.name)
        .collect()
}

/// Clients are a Pod that another namespace lends.
pub(crate) fn lend_a_client(facts: &mut Facts) {
    let mut client = facts.pods[0].as_ref().clone();
    client.metadata =
        object::<Pod>(json!({ "metadata": { "name": "lent", "namespace": "web", "uid": "lent" } })).metadata;
    patch(
        &mut client,
        json!({ "status": { "podIP": "10.244.0.77", "podIPs": [{ "ip": "10.244.0.77" }] } }),
    );
    facts.client_namespace = Some(ClientNamespace {
        name: "web".into(),
        granted: true,
        pods: vec![Arc::new(client)],
    });
    patch(&mut facts.spec, json!({ "clients": { "namespace": "web" } }));
}

#[test]
fn a_lent_client_dials_running_pods_of_the_borrower_only() {
    assert_eq!(lent_clients(|_| {}), ["lent"]);
    let leaving = json!({ "conditions": { "ready": false, "serving": true, "terminating": true } });
    assert_eq!(lent_clients(|f| endpoint(f, leaving.clone())), ["lent"]);
    let nobody = [""; 0];
    for attack in [
        json!({ "addresses": ["192.168.9.9"] }),
        json!({ "addresses": ["169.254.169.254"] }),
        json!({ "targetRef": null }),
        json!({ "targetRef": { "uid": "of-another-namespace" } }),
    ] {
        assert_eq!(lent_clients(|f| endpoint(f, attack.clone())), nobody, "{attack}");
        assert_eq!(
            lent_clients(|f| {
                endpoint(f, leaving.clone());
                endpoint(f, attack.clone());
            }),
            nobody,
            "{attack}"
        );
    }
    for phase in ["Succeeded", "Failed"] {
        let ended = |f: &mut Facts| {
            patch(
                Arc::make_mut(&mut f.pods[0]),
                json!({ "status": { "phase": phase } }),
            );
        };
        assert_eq!(lent_clients(ended), nobody, "{phase}");
    }
    // Who lends nothing is asked nothing.
    let refused = |f: &mut Facts| f.client_namespace.as_mut().unwrap().granted = false;
    assert_eq!(lent_clients(refused), nobody);
}

/// Whether nodes dial default/kubernetes, whose slice is the API server's before the change.
fn api_server_is_dialled(change: impl FnOnce(&mut Facts)) -> bool {
    dialled_from_nodes(|facts| {
        facts.namespace = "default".into();
        facts.spec.service_name = "kubernetes".into();
        let mut own = (*facts.slices[0]).clone();
        own.metadata = serde_json::from_value(json!({
            "name": "kubernetes",
            "namespace": "default",
            "labels": { "kubernetes.io/service-name": "kubernetes" },
        }))
        .unwrap();
        own.endpoints = vec![serde_json::from_value(json!({ "addresses": ["192.168.0.1"] })).unwrap()];
        facts.slices = vec![Arc::new(own)];
        change(facts);
    })
}

#[test]
fn a_node_dials_the_api_server_where_it_keeps_its_endpoints_itself_and_nowhere_else() {
    let changed = |change: Value| api_server_is_dialled(|f| patch(Arc::make_mut(&mut f.slices[0]), change));
    let at = |ip: &str| changed(json!({ "endpoints": [{ "addresses": [ip] }] }));
    // It may be on a node, in the cluster's networks or outside.
    for ip in ["192.168.0.1", "10.89.0.1", "203.0.113.7", "fd00::1"] {
        assert!(at(ip), "{ip}");
    }
    for ip in [
        "127.0.0.1",
        "169.254.169.254",
        "::1",
        "fe80::1",
        "224.0.0.1",
        "10.96.1.175",
        "nonsense",
    ] {
        assert!(!at(ip), "{ip}");
    }
    // Whoever may write slices has written them.
    let managed = |by: &str| json!({ "endpointslice.kubernetes.io/managed-by": by });
    let owner = json!({ "apiVersion": "v1", "kind": "Service", "name": "kubernetes", "uid": "1", "controller": true });
    for by_others in [
        json!({ "name": "kubernetes-x" }),
        json!({ "labels": managed("endpointslice-controller.k8s.io") }),
        json!({ "labels": managed("somebody") }),
        json!({ "ownerReferences": [owner] }),
    ] {
        assert!(!changed(json!({ "metadata": by_others })), "{by_others}");
    }
    // Through the Service a dial may come to what was added beside its own.
    assert!(!api_server_is_dialled(|f| {
        let mut added = (*f.slices[0]).clone();
        added.metadata.name = Some("added".into());
        f.slices.push(Arc::new(added));
    }));
    // The same slice means nothing to another Service.
    assert!(!api_server_is_dialled(|f| f.namespace = "shop".into()));
    assert!(!api_server_is_dialled(
        |f| f.spec.service_name = "hostnames".into()
    ));
}

#[test]
fn an_agent_takes_no_address_that_no_other_host_has() {
    let mut spec = asked(&cluster());
    spec.subsets[0].addresses = ["10.244.1.5", "127.0.0.1", "169.254.169.254", "nonsense"]
        .map(str::to_owned)
        .to_vec();
    let endpoints = &Subject::of(&spec).slices[0].endpoints;
    let addresses: Vec<&str> = endpoints
        .iter()
        .flat_map(|e| &e.addresses)
        .map(String::as_str)
        .collect();
    assert_eq!(addresses, ["10.244.1.5"]);
}

#[test]
fn endpoints_of_cluster_dns_are_told_where_clients_ask_them_and_stay_while_it_is_rolled_out() {
    let mut facts = cluster();
    let of = |facts: &Facts, node: &str| {
        let spec = plan(facts, &diagnosis_ref()).remove(node).unwrap();
        spec.cluster_dns.unwrap().endpoints
    };
    assert_eq!(of(&facts, "n1"), ["10.244.1.2:53"]);
    assert!(of(&facts, "n2").is_empty(), "there is no client");
    look(&mut facts);
    let dns = facts.cluster_dns.as_mut().unwrap();
    for pod in &mut dns.pods {
        let pod = Arc::make_mut(pod);
        patch(
            pod,
            json!({ "metadata": { "creationTimestamp": ago(10) }, "status": { "podIP": "10.244.1.3", "podIPs": [{ "ip": "10.244.1.3" }] } }),
        );
    }
    assert_eq!(of(&facts, "n1"), ["10.244.1.2:53"], "it has just come");
    facts.now += jiff::SignedDuration::from_secs(60);
    assert_eq!(of(&facts, "n1"), ["10.244.1.3:53"]);
    assert_eq!(facts.cluster_dns.as_ref().unwrap().pods[0].name(), "coredns-1");
}

#[test]
fn node_ports_of_other_nodes_are_dialled_only_where_the_service_may_be() {
    let mut facts = cluster();
    crate::fixtures::node_port(&mut facts);
    let others = |facts: &Facts| -> Vec<String> {
        let others = asked(facts).other_nodes.into_iter();
        others
            .map(|other| format!("{} {}", other.name, other.ips.join(" ")))
            .collect()
    };
    assert_eq!(others(&facts), ["n2 192.168.0.2", "n3 192.168.0.3"]);
    Arc::make_mut(&mut facts.slices[0]).endpoints[0].addresses = vec!["192.168.0.9".into()];
    assert_eq!(others(&facts), [""; 0], "an endpoint is no Pod of the namespace");
    // Whatever a NodeProbe says.
    let mut asked = asked(&cluster());
    asked.other_nodes = vec![svcdiag_api::ProbeOtherNode {
        name: "n2".into(),
        ips: ["127.0.0.1", "169.254.169.254", "::ffff:10.0.0.1", "192.168.0.2"]
            .map(Into::into)
            .into(),
    }];
    let dialled = &Subject::of(&asked).other_nodes[0].ips;
    assert_eq!(
        dialled.as_slice(),
        ["192.168.0.2".parse::<std::net::IpAddr>().unwrap()]
    );
}
