//! The healthy twins of the A rows: odd, but right. Nothing may be False.

use std::sync::Arc;

use serde_json::json;
use svcdiag_api::{ConditionType as C, Reason as R};
use svcdiag_engine::{ClientNamespace, Diagnosis, Facts};

use crate::{
    faults::{egress_to_app, external_name, failing_probe, local, manual, target_port},
    report::{assert_nothing_false, stage},
    walkthrough::*,
};

#[track_caller]
fn twin(change: impl FnOnce(&mut Facts)) -> Diagnosis {
    let mut facts = healthy();
    change(&mut facts);
    assert_nothing_false(&facts)
}

#[test]
fn a02_same_name_in_both_namespaces() {
    twin(|f| f.namesakes = vec!["staging".into()]);
}

#[test]
fn a03_port_asked_for_by_name_or_number() {
    twin(|f| patch(&mut f.spec, json!({ "ports": ["default"] })));
    twin(|f| patch(&mut f.spec, json!({ "ports": [80] })));
}

#[test]
fn a04_named_port_found_though_the_numbers_differ() {
    twin(|f| {
        target_port(f, json!("web"));
        each_pod(f, |p| p.spec.containers[0].ports[0].name = Some("web".into()));
        Arc::make_mut(&mut f.pods[1]).spec.containers[0].ports[0].container_port = 9999;
    });
}

#[test]
fn a05_rollout_that_adds_the_port() {
    twin(|f| {
        target_port(f, json!("web"));
        for (i, pod) in f.pods.iter_mut().take(3).enumerate() {
            owned(Arc::make_mut(pod), if i == 0 { "uid-rs" } else { "uid-rs-new" });
            Arc::make_mut(pod).spec.containers[0].ports[0].name = (i > 0).then(|| "web".into());
        }
    });
}

#[test]
fn a05_port_on_a_native_sidecar() {
    twin(|f| {
        target_port(f, json!("proxy"));
        each_pod(f, |p| {
            patch(
                p,
                json!({
                    "spec": { "initContainers": [{ "name": "proxy", "restartPolicy": "Always", "ports": [{ "name": "proxy", "containerPort": 15001 }] }] },
                    "status": { "initContainerStatuses": [{ "name": "proxy", "ready": true, "started": true, "state": { "running": { "startedAt": ago(3660) } } }] },
                }),
            );
        });
    });
}

#[test]
fn a06_number_that_the_containers_do_not_declare() {
    let d = twin(|f| each_pod(f, |p| p.spec.containers[0].ports[0].container_port = 1234));
    assert_eq!(stage(&d, C::DefinitionValid).reason, R::ValidWithHints);
    let d = twin(|f| each_pod(f, |p| p.spec.containers[0].ports.clear()));
    assert_eq!(stage(&d, C::DefinitionValid).reason, R::Valid);
}

#[test]
fn a08_pods_carry_extra_labels() {
    twin(|f| {
        each_pod(f, |p| {
            patch(p, json!({ "metadata": { "labels": { "version": "v2" } } }))
        })
    });
}

#[test]
fn a09_scaled_to_one() {
    twin(|f| {
        f.pods.drain(1..3);
        patch(
            Arc::make_mut(&mut f.deployments[0]),
            json!({ "spec": { "replicas": 1 } }),
        );
        resync(f);
    });
}

#[test]
fn a10_one_of_three_pods_unready() {
    let d = twin(|f| {
        not_ready(Arc::make_mut(&mut f.pods[0]), 60, failing_probe());
        resync(f);
    });
    assert_eq!(stage(&d, C::PodsHealthy).reason, R::SomePodsNotReady);
}

#[test]
fn a10_publish_not_ready_addresses() {
    twin(|f| {
        service(f, json!({ "spec": { "publishNotReadyAddresses": true } }));
        each_pod(f, |p| not_ready(p, 60, failing_probe()));
        resync(f);
        for e in &mut Arc::make_mut(&mut f.slices[0]).endpoints {
            e.conditions.ready = Some(true);
        }
    });
}

#[test]
fn a11_pulling_for_thirty_seconds() {
    let d = twin(|f| {
        each_pod(f, |p| {
            patch(
                p,
                json!({ "metadata": { "creationTimestamp": ago(30) }, "status": { "startTime": ago(30) } }),
            );
            not_ready(
                p,
                30,
                json!({ "name": "app", "state": { "waiting": { "reason": "ContainerCreating" } } }),
            );
        });
        resync(f);
    });
    assert_eq!(stage(&d, C::PodsHealthy).reason, R::PodsStarting);
}

#[test]
fn a12_restarts_of_last_week() {
    let week = 7 * 24 * 3600;
    let d = twin(|f| {
        each_pod(f, |p| {
            p.status.container_statuses[0].restart_count = 5;
            p.status.container_statuses[0].last_state =
                object(json!({ "terminated": { "exitCode": 1, "finishedAt": ago(week) } }));
        });
    });
    assert_eq!(stage(&d, C::PodsHealthy).reason, R::AllPodsReady);
}

#[test]
fn a12_ready_pods_that_restart_often() {
    let d = twin(|f| {
        let status = &mut Arc::make_mut(&mut f.pods[0]).status.container_statuses[0];
        status.restart_count = 5;
        status.last_state = object(json!({ "terminated": { "exitCode": 1, "finishedAt": ago(120) } }));
    });
    let pods = stage(&d, C::PodsHealthy);
    assert_eq!(pods.reason, R::RestartingOften);
    assert_eq!(
        pods.recheck_at,
        Some(now() + jiff::SignedDuration::from_secs(480))
    );
}

#[test]
fn a13_rollout_whose_new_pods_are_pending() {
    twin(|f| {
        let mut new = pod("hostnames-77-new", "n1", "", app());
        patch(
            Arc::make_mut(&mut new),
            json!({ "spec": { "nodeName": null }, "status": { "phase": "Pending", "podIP": null, "podIPs": null,
            "containerStatuses": null, "conditions": [{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable" }] } }),
        );
        f.pods.push(new);
    });
}

#[test]
fn a14_slices_that_are_two_seconds_behind() {
    let d = twin(|f| {
        f.slices.clear();
        each_pod(f, |p| {
            p.status
                .conditions
                .iter_mut()
                .for_each(|c| c.last_transition_time = Some(ago(2).parse().unwrap()))
        });
    });
    assert_eq!(d.recheck_at, Some(now() + jiff::SignedDuration::from_secs(28)));
}

#[test]
fn a14_a_label_that_was_added_two_seconds_ago() {
    twin(|f| {
        f.slices.clear();
        each_pod(f, |p| {
            patch(
                p,
                json!({ "metadata": { "managedFields": [{ "time": ago(2) }] } }),
            )
        });
    });
    twin(|f| {
        f.slices.clear();
        service(
            f,
            json!({ "metadata": { "managedFields": [{ "time": ago(2) }] } }),
        );
    });
}

#[test]
fn a14_readiness_gates() {
    let d = twin(|f| {
        each_pod(f, |p| {
            patch(
                p,
                json!({ "spec": { "readinessGates": [{ "conditionType": "lb/attached" }] } }),
            );
            p.status.conditions[1].last_transition_time = Some(ago(40).parse().unwrap());
            p.status.conditions[2] = object(
                json!({ "type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady", "lastTransitionTime": ago(3700) }),
            );
        });
        resync(f);
    });
    assert_eq!(stage(&d, C::PodsHealthy).reason, R::PodsStarting);
}

#[test]
fn a15_no_selector_but_a_manual_slice() {
    twin(|f| manual(f, "default", &[true]));
}

#[test]
fn a16_two_ports_of_a_manual_slice_matched_by_name() {
    twin(|f| {
        manual(f, "default", &[true]);
        service(
            f,
            json!({ "spec": { "ports": [{ "name": "default", "port": 80 }, { "name": "metrics", "port": 9090 }] } }),
        );
        patch(
            Arc::make_mut(&mut f.slices[0]),
            json!({ "ports": [{ "name": "metrics", "port": 9100 }, { "name": "default", "port": 9376 }] }),
        );
    });
}

#[test]
fn a17_external_name_with_a_host_name() {
    twin(|f| external_name(f, "db.example.com"));
}

#[test]
fn a18_prefer_dual_stack_on_a_single_stack_cluster() {
    twin(|f| {
        service(
            f,
            json!({ "spec": { "ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4"] } }),
        )
    });
    let d = twin(|f| service(f, json!({ "spec": { "ipFamilies": ["IPv4", "IPv6"] } })));
    assert_eq!(stage(&d, C::DefinitionValid).reason, R::ValidWithHints);
}

#[test]
fn a20_dns_and_the_pods_of_the_service_allowed() {
    let d = twin(|f| {
        policy(f, "client-egress", egress_to_app());
        let rule = json!({ "to": [{ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "kube-system" } } }],
            "ports": [{ "port": 53, "protocol": "UDP" }, { "port": 53, "protocol": "TCP" }] });
        policy(
            f,
            "dns",
            json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [rule] }),
        );
    });
    assert_eq!(stage(&d, C::NetworkPolicyAllows).reason, R::Allowed);
}

#[test]
fn a21_one_client_has_a_local_endpoint() {
    twin(|f| {
        local(f);
        f.pods
            .push(pod("client-2", "n2", "10.244.2.9", json!({ "app": "client" })));
    });
}

#[test]
fn a21_external_traffic_policy_local() {
    twin(|f| {
        local(f);
        service(
            f,
            json!({ "spec": { "type": "NodePort", "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Local" } }),
        );
    });
}

#[test]
fn a22_the_pods_of_cluster_dns_are_starting() {
    let d = twin(|f| {
        for pod in &mut f.cluster_dns.as_mut().unwrap().pods {
            let pod = Arc::make_mut(pod);
            patch(
                pod,
                json!({ "metadata": { "creationTimestamp": ago(5) }, "status": { "startTime": ago(5) } }),
            );
            not_ready(
                pod,
                5,
                json!({ "name": "coredns", "state": { "waiting": { "reason": "ContainerCreating" } } }),
            );
        }
    });
    assert_eq!(stage(&d, C::DNSResolves).reason, R::Pending);
}

#[test]
fn a22_no_cluster_dns_service() {
    twin(|f| f.cluster_dns = None);
}

#[test]
fn a27_one_of_two_manual_endpoints_ready() {
    twin(|f| manual(f, "default", &[true, false]));
}

#[test]
fn a28_annotation_present() {
    let d = twin(|f| {
        patch(&mut f.spec, json!({ "clients": { "namespace": "web" } }));
        let mut client = pod("web-1", "n1", "10.244.1.20", json!({ "app": "web" }));
        patch(
            Arc::make_mut(&mut client),
            json!({ "metadata": { "namespace": "web" } }),
        );
        f.client_namespace = Some(ClientNamespace {
            name: "web".into(),
            granted: true,
            pods: vec![client],
        });
    });
    assert_eq!(stage(&d, C::ServiceReachable).reason, R::NoVantagePoint);
}

#[test]
fn headless_services_translate_no_ports() {
    let d = twin(|f| {
        service(
            f,
            json!({ "spec": { "clusterIP": "None", "clusterIPs": ["None"], "ports": [{ "port": 80, "targetPort": "nowhere" }] } }),
        );
        patch(&mut f.spec, json!({ "ports": [9376] }));
    });
    for condition in [
        C::ProxyRulesPresent,
        C::ProxyForwards,
        C::ServiceReachable,
        C::HairpinOK,
    ] {
        assert_eq!(stage(&d, condition).reason, R::NotApplicable, "{condition}");
    }
}

#[test]
fn only_terminating_endpoints_still_serve() {
    let d = twin(|f| {
        each_pod(f, |p| {
            patch(p, json!({ "metadata": { "deletionTimestamp": ago(5) } }))
        });
        resync(f);
        for e in &mut Arc::make_mut(&mut f.slices[0]).endpoints {
            e.conditions = object(json!({ "ready": false, "serving": true, "terminating": true }));
        }
    });
    assert_eq!(
        stage(&d, C::EndpointsPopulated).reason,
        R::OnlyTerminatingEndpoints
    );
}

#[test]
fn a_deployment_that_was_just_applied_has_no_pods_yet() {
    let d = twin(|f| {
        f.pods.retain(|p| p.metadata.name.as_deref() == Some("client"));
        f.slices.clear();
        patch(
            Arc::make_mut(&mut f.deployments[0]),
            json!({ "metadata": { "creationTimestamp": ago(1) } }),
        );
    });
    assert_eq!(stage(&d, C::EndpointsPopulated).reason, R::Pending);
}
