//! What a node may dial: running Pods of the namespace, the API server, node ports, and nothing foreign.

use super::*;

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
