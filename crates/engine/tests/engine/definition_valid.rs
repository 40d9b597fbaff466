//! Is the Service defined correctly? Each fault, and beside it its lookalikes, of which nothing may be False.

use std::sync::Arc;

use serde_json::json;
use svcdiag_api::{Answer, ConditionType as C, DialPath, Reason as R};

use crate::{agents::*, fixtures::*, report::*, walkthrough::*};

#[test]
fn a03_clients_use_a_port_that_is_not_listed() {
    api_fault("A03", C::DefinitionValid, R::PortNotListed, |f| {
        patch(&mut f.spec, json!({ "ports": [8080] }))
    });
}

#[test]
fn a03_port_asked_for_by_name_or_number() {
    api_lookalike(|f| patch(&mut f.spec, json!({ "ports": ["default"] })));
    api_lookalike(|f| patch(&mut f.spec, json!({ "ports": [80] })));
}

#[test]
fn a04_no_pod_has_the_port_that_target_port_names() {
    api_fault("A04", C::DefinitionValid, R::NamedPortNotFound, |f| {
        target_port(f, json!("web"))
    });
}

#[test]
fn a04_named_port_found_though_the_numbers_differ() {
    api_lookalike(|f| {
        target_port(f, json!("web"));
        each_pod(f, |p| p.spec.containers[0].ports[0].name = Some("web".into()));
        Arc::make_mut(&mut f.pods[1]).spec.containers[0].ports[0].container_port = 9999;
    });
}

#[test]
fn a05_some_pods_of_one_revision_lack_the_named_port() {
    let d = api_fault("A05", C::DefinitionValid, R::NamedPortMissingOnSomePods, |f| {
        target_port(f, json!("web"));
        each_pod(f, |p| p.spec.containers[0].ports[0].name = Some("web".into()));
        Arc::make_mut(&mut f.pods[1]).spec.containers[0].ports[0].name = None;
    });
    assert_eq!(d.root_cause.unwrap().impact.as_str(), "Some");
}

#[test]
fn a05_rollout_that_adds_the_port() {
    api_lookalike(|f| {
        target_port(f, json!("web"));
        for (i, pod) in f.pods.iter_mut().take(3).enumerate() {
            owned(Arc::make_mut(pod), if i == 0 { "uid-rs" } else { "uid-rs-new" });
            Arc::make_mut(pod).spec.containers[0].ports[0].name = (i > 0).then(|| "web".into());
        }
    });
}

#[test]
fn a05_port_on_a_native_sidecar() {
    api_lookalike(|f| {
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
fn a06_target_port_is_a_number_in_quotes() {
    api_fault("A06", C::DefinitionValid, R::NumericTargetPortName, |f| {
        target_port(f, json!("9376"))
    });
}

#[test]
fn a06_number_that_the_containers_do_not_declare() {
    let d = api_lookalike(|f| each_pod(f, |p| p.spec.containers[0].ports[0].container_port = 1234));
    assert_eq!(stage(&d, C::DefinitionValid).reason, R::ValidWithHints);
    let d = api_lookalike(|f| each_pod(f, |p| p.spec.containers[0].ports.clear()));
    assert_eq!(stage(&d, C::DefinitionValid).reason, R::Valid);
}

#[test]
fn a07_a_udp_service_over_a_port_declared_tcp_is_a_hint() {
    let mut facts = healthy();
    service(
        &mut facts,
        json!({ "spec": { "ports": [{ "name": "default", "protocol": "UDP", "port": 80, "targetPort": 9376 }] } }),
    );
    facts.slices = vec![slice(
        "hostnames",
        &facts.pods[..3],
        json!({ "name": "default", "port": 9376, "protocol": "UDP" }),
    )];
    let diagnosis = assert_nothing_false(&facts);
    assert_eq!(stage(&diagnosis, C::DefinitionValid).reason, R::ValidWithHints);
    keep("A07", &healthy(), &diagnosis);
}

#[test]
fn a16_the_port_of_a_manual_slice_has_another_name() {
    api_fault("A16", C::DefinitionValid, R::ManualEndpointsPortMismatch, |f| {
        manual(f, "http", &[true])
    });
}

#[test]
fn a16_two_ports_of_a_manual_slice_matched_by_name() {
    api_lookalike(|f| {
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
fn a17_external_name_is_an_address() {
    api_fault("A17", C::DefinitionValid, R::ExternalNameIsIP, |f| {
        external_name(f, "192.0.2.1")
    });
}

#[test]
fn a17_external_name_with_a_host_name() {
    api_lookalike(|f| external_name(f, "db.example.com"));
}

#[test]
fn a18_service_and_pods_share_no_ip_family() {
    api_fault("A18", C::DefinitionValid, R::IPFamilyMismatch, |f| {
        service(
            f,
            json!({ "spec": { "ipFamilies": ["IPv6"], "clusterIP": "fd00:10:96::7", "clusterIPs": ["fd00:10:96::7"] } }),
        );
        f.slices.clear();
    });
}

#[test]
fn a18_prefer_dual_stack_on_a_single_stack_cluster() {
    api_lookalike(|f| {
        service(
            f,
            json!({ "spec": { "ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4"] } }),
        )
    });
    let d = api_lookalike(|f| service(f, json!({ "spec": { "ipFamilies": ["IPv4", "IPv6"] } })));
    assert_eq!(stage(&d, C::DefinitionValid).reason, R::ValidWithHints);
}

#[test]
fn n35_the_pods_listen_with_the_other_protocol() {
    fault("N35", C::DefinitionValid, R::ProtocolMismatch, |f| {
        udp(f);
        look(f);
        fail_direct(f, &[0, 1, 2], Answer::Refused);
        sockets(f, &[("TCP", "0.0.0.0", 9376)]);
    });
    // The kernel rations refusals: the client was met with silence where the nodes were refused.
    let d = fault("N35-rationed", C::DefinitionValid, R::ProtocolMismatch, |f| {
        udp(f);
        look(f);
        for (address, node, _) in endpoints(f) {
            fail(
                f,
                Fail {
                    node: &node,
                    from: None,
                    path: DialPath::Endpoint,
                    endpoint: Some(&address),
                    answer: Answer::Refused,
                },
            );
        }
        sockets(f, &[("TCP", "0.0.0.0", 9376)]);
    });
    assert_eq!(impact(&d), "All");
    // A rule that refuses what one client sends says nothing of what the node itself sends.
    let d = fault("N35-rule", C::EndpointsReachable, R::ConnectionRefused, |f| {
        udp(f);
        look(f);
        fail_from_clients(f, &[0], Answer::Rejected);
    });
    assert_eq!(impact(&d), "Some");
    fault("N35-some", C::EndpointsReachable, R::SomeEndpointsFailing, |f| {
        udp(f);
        look(f);
        fail_direct(f, &[1], Answer::Refused);
    });
    fault("N35-reverse", C::DefinitionValid, R::ProtocolMismatch, |f| {
        fail_direct(f, &[0, 1, 2], Answer::Refused);
        sockets(f, &[("UDP", "0.0.0.0", 9376)]);
    });
}

#[test]
fn headless_services_translate_no_ports() {
    let d = api_lookalike(|f| {
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
