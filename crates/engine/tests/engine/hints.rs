//! What is odd about a definition but no fault: told in the message of a True, and only where it is so.

use std::sync::Arc;

use serde_json::{Value, json};
use svcdiag_api::{ConditionType as C, Reason as R};
use svcdiag_engine::{ChainedService, Facts, diagnose};
use svcdiag_objects::{Node, StatefulSet};

use crate::{
    fixtures::{external_name, manual},
    report::stage,
    walkthrough::*,
};

/// Expects a hint with these words.
#[track_caller]
fn hinted(words: &str, change: impl FnOnce(&mut Facts)) {
    let mut facts = healthy();
    change(&mut facts);
    let diagnosis = diagnose(&facts);
    let definition = stage(&diagnosis, C::DefinitionValid);
    assert_eq!(definition.reason, R::ValidWithHints, "{}", definition.message);
    assert!(definition.message.contains(words), "{}", definition.message);
}

/// Expects no hint at all.
#[track_caller]
fn unhinted(change: impl FnOnce(&mut Facts)) {
    let mut facts = healthy();
    change(&mut facts);
    let diagnosis = diagnose(&facts);
    let definition = stage(&diagnosis, C::DefinitionValid);
    assert_eq!(definition.reason, R::Valid, "{}", definition.message);
}

fn headless(facts: &mut Facts, port: Value) {
    service(
        facts,
        json!({ "spec": { "clusterIP": "None", "clusterIPs": ["None"], "ports": [port] } }),
    );
    each_pod(facts, |p| p.spec.containers[0].ports[0].name = Some("web".into()));
}

#[test]
fn headless_services_translate_no_ports_by_number_or_name() {
    hinted("clients must use port 9376, not 80", |f| {
        headless(f, json!({ "port": 80, "targetPort": 9376 }))
    });
    hinted("clients must use port 9376 (targetPort web), not 80", |f| {
        headless(f, json!({ "port": 80, "targetPort": "web" }))
    });
    unhinted(|f| headless(f, json!({ "port": 9376, "targetPort": "web" })));
    unhinted(|f| headless(f, json!({ "port": 9376 })));
}

#[test]
fn aliases_translate_no_ports() {
    let alias = |port: Value| {
        move |f: &mut Facts| {
            external_name(f, "db.example.com");
            service(f, json!({ "spec": { "ports": [port] } }));
        }
    };
    hinted(
        "an ExternalName is an alias in DNS and does not translate ports: clients must use port 80, not 8080",
        alias(json!({ "port": 8080, "targetPort": 80 })),
    );
    unhinted(alias(json!({ "port": 8080 })));
}

#[test]
fn one_port_name_on_two_containers() {
    let twice = |protocol: &str| {
        let second = json!({ "name": "side", "ports": [{ "name": "web", "containerPort": 9092, "protocol": protocol }] });
        move |f: &mut Facts| {
            crate::fixtures::target_port(f, json!("web"));
            each_pod(f, |p| {
                p.spec.containers[0].ports[0].name = Some("web".into());
                p.spec.containers.push(object(second.clone()));
            });
        }
    };
    hinted(
        "2 ports named web, 9376 of container app and 9092 of container side: the Service uses the first, 9376",
        twice("TCP"),
    );
    unhinted(twice("UDP"));
}

/// Another workload behind the selector: the third Pod is its.
fn second_workload(facts: &mut Facts, kind: &str, labels: Value) {
    let pod = Arc::make_mut(&mut facts.pods[2]);
    patch(
        pod,
        json!({ "metadata": { "labels": labels, "ownerReferences": [
            { "apiVersion": "v1", "kind": kind, "name": "other", "uid": "uid-other", "controller": true },
        ] } }),
    );
}

#[test]
fn a_selector_that_spans_workloads_is_told_with_the_label_between_them() {
    hinted(
        "the Pods of Deployment hostnames and StatefulSet other, and the Service sends requests to all of them: label tier distinguishes them (canary and none on Deployment hostnames)",
        |f| second_workload(f, "StatefulSet", json!({ "tier": "canary" })),
    );
    hinted("Job other, and the Service sends requests", |f| {
        second_workload(f, "Job", json!({ "job-name": "other" }))
    });
}

#[test]
fn the_revisions_of_one_workload_are_one_workload() {
    unhinted(|f| {
        let mut set = (*f.replica_sets[0]).clone();
        set.metadata.uid = Some("uid-rs-new".into());
        f.replica_sets.push(Arc::new(set));
        owned(Arc::make_mut(&mut f.pods[2]), "uid-rs-new");
    });
    // Nor are static Pods, each of which its node controls, or Pods that somebody created one by one.
    unhinted(|f| {
        for (i, pod) in f.pods.iter_mut().take(3).enumerate() {
            patch(
                Arc::make_mut(pod),
                json!({ "metadata": { "ownerReferences": [
                { "apiVersion": "v1", "kind": "Node", "name": format!("n{i}"), "uid": format!("uid-n{i}"), "controller": true },
            ] } }),
            );
        }
    });
    unhinted(|f| each_pod(f, |p| p.metadata.owner_references = None));
}

#[test]
fn a_load_balancer_that_gets_no_address() {
    let balancer = |ports: Value| {
        move |f: &mut Facts| {
            service(f, json!({ "spec": { "type": "LoadBalancer", "ports": ports } }));
            each_pod(f, |p| p.spec.containers[0].ports.clear());
        }
    };
    let tcp = json!([{ "name": "default", "port": 80, "targetPort": 9376 }]);
    let mixed = json!([{ "name": "default", "port": 80, "targetPort": 9376 }, { "name": "quic", "protocol": "UDP", "port": 443 }]);
    hinted(
        "`kubectl -n shop describe service hostnames`",
        balancer(tcp.clone()),
    );
    hinted("its ports mix TCP and UDP", balancer(mixed));
    unhinted(|f| {
        balancer(tcp)(f);
        service(
            f,
            json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.7" }] } } }),
        );
    });
}

#[test]
fn two_pods_with_one_address() {
    let same = |f: &mut Facts| {
        let ip = f.pods[0].status.pod_ip.clone().unwrap();
        patch(
            Arc::make_mut(&mut f.pods[1]),
            json!({ "status": { "podIP": ip, "podIPs": [{ "ip": ip }] } }),
        );
    };
    hinted(
        "10.244.1.5 is the address of two Pods, hostnames-632524106-bbpiw and hostnames-632524106-ly40y",
        same,
    );
    // Pods of the host network share addresses, and those of Pods that ended are given out again.
    unhinted(|f| {
        same(f);
        each_pod(f, |p| p.spec.host_network = Some(true));
    });
    unhinted(|f| {
        same(f);
        Arc::make_mut(&mut f.pods[1]).status.phase = Some("Succeeded".into());
    });
}

fn node(name: &str, ip: &str, range: Option<&str>) -> Arc<Node> {
    Arc::new(object(json!({
        "metadata": { "name": name }, "spec": { "podCIDR": range },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }], "addresses": [{ "type": "InternalIP", "address": ip }] },
    })))
}

#[test]
fn a_pod_among_the_nodes() {
    let beside = |range: Option<&'static str>| {
        move |f: &mut Facts| {
            f.cluster_nodes = vec![
                node("n1", "10.244.1.200", range),
                node("n2", "192.0.2.2", None),
                node("n3", "192.0.2.3", None),
            ];
        }
    };
    hinted(
        "in the network of the Nodes (10.244.1.200)",
        beside(Some("10.77.1.0/24")),
    );
    // Clouds whose Pods and nodes share a network assign no ranges; and a range that holds the Pod is right.
    unhinted(beside(None));
    unhinted(beside(Some("10.244.1.0/25")));
}

#[test]
fn external_addresses_that_are_nodes() {
    let external = |ip: &'static str| {
        move |f: &mut Facts| {
            f.cluster_nodes = ["n1", "n2", "n3"].map(|n| node(n, "192.0.2.11", None)).into();
            service(f, json!({ "spec": { "externalIPs": [ip] } }));
        }
    };
    hinted(
        "externalIPs contains addresses of Nodes (192.0.2.11 of node n1",
        external("192.0.2.11"),
    );
    unhinted(external("192.0.2.99"));
}

#[test]
fn an_endpoint_that_is_a_service() {
    let chained = |namespace: &'static str| {
        move |f: &mut Facts| {
            manual(f, "default", &[true]);
            f.chained_services = vec![ChainedService {
                address: "192.0.2.0".into(),
                namespace: namespace.into(),
                name: "aux".into(),
            }];
        }
    };
    hinted(
        "endpoint 192.0.2.0 is the cluster IP of Service aux,",
        chained(NS),
    );
    hinted("is the cluster IP of Service data/aux,", chained("data"));
}

#[test]
fn a_stateful_set_that_names_another_service() {
    let set = |governing: &'static str, headless: bool| {
        move |f: &mut Facts| {
            f.stateful_sets.push(Arc::new(object::<StatefulSet>(json!({
                "metadata": { "name": "db", "namespace": NS, "uid": "uid-db" },
                "spec": { "replicas": 3, "serviceName": governing, "template": { "metadata": { "labels": { "app": "hostnames" } } } },
            }))));
            each_pod(f, |p| {
                patch(
                    p,
                    json!({ "metadata": { "ownerReferences": [
                { "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "uid-db", "controller": true },
            ] } }),
                )
            });
            if headless {
                service(
                    f,
                    json!({ "spec": { "clusterIP": "None", "clusterIPs": ["None"],
                    "ports": [{ "name": "default", "port": 9376 }] } }),
                );
            }
        }
    };
    hinted(
        "StatefulSet db names Service other (spec.serviceName)",
        set("other", true),
    );
    unhinted(set("hostnames", true));
    // A Service with an address of its own beside the headless one is the usual way.
    unhinted(set("other", false));
}
