//! Does the Service have any endpoints? Each fault, and beside it its lookalikes, of which nothing may be False.

use std::sync::Arc;

use serde_json::json;
use svcdiag_api::{ConditionType as C, Reason as R};
use svcdiag_objects::StatefulSet;

use crate::{fixtures::*, report::*, walkthrough::*};

#[test]
fn a08_the_selector_matches_no_pods() {
    let d = api_fault("A08", C::EndpointsPopulated, R::SelectorMatchesNoPods, |f| {
        service(
            f,
            json!({ "spec": { "selector": { "app": null, "run": "hostnames" } } }),
        );
        f.slices = vec![slice(
            "hostnames",
            &[],
            json!({ "name": "default", "port": 9376 }),
        )];
    });
    let cause = d.root_cause.unwrap();
    assert!(
        cause
            .message
            .contains("app=hostnames where the selector wants run=hostnames"),
        "{}",
        cause.message
    );
    assert!(
        cause
            .remediation
            .contains(r#"'{"spec":{"selector":{"app":"hostnames","run":null}}}'"#),
        "{}",
        cause.remediation
    );
    api_fault(
        "A08-typing-error",
        C::EndpointsPopulated,
        R::SelectorMatchesNoPods,
        |f| {
            service(f, json!({ "spec": { "selector": { "app": "hostname" } } }));
            f.slices.clear();
        },
    );
    api_fault(
        "A08-no-near-miss",
        C::EndpointsPopulated,
        R::SelectorMatchesNoPods,
        |f| {
            service(
                f,
                json!({ "spec": { "selector": { "app": null, "tier": "backend" } } }),
            );
            f.slices.clear();
        },
    );
}

#[test]
fn a08_pods_carry_extra_labels() {
    api_lookalike(|f| {
        each_pod(f, |p| {
            patch(p, json!({ "metadata": { "labels": { "version": "v2" } } }))
        })
    });
}

#[test]
fn a09_the_workload_is_scaled_to_zero() {
    api_fault("A09", C::EndpointsPopulated, R::ScaledToZero, |f| {
        f.pods.retain(|p| p.metadata.name.as_deref() == Some("client"));
        f.slices = vec![slice(
            "hostnames",
            &[],
            json!({ "name": "default", "port": 9376 }),
        )];
        patch(
            Arc::make_mut(&mut f.deployments[0]),
            json!({ "spec": { "replicas": 0 } }),
        );
    });
    api_fault("A09-statefulset", C::EndpointsPopulated, R::ScaledToZero, |f| {
        f.pods.retain(|p| p.metadata.name.as_deref() == Some("client"));
        f.slices.clear();
        f.deployments.clear();
        f.stateful_sets.push(Arc::new(object::<StatefulSet>(json!({
            "metadata": { "name": "hostnames", "namespace": NS },
            "spec": { "replicas": 0, "template": { "metadata": { "labels": { "app": "hostnames" } } } },
        }))));
    });
    // A Pod that was evicted stays behind, and is not why there is none.
    api_fault("A09-evicted", C::EndpointsPopulated, R::ScaledToZero, |f| {
        f.pods.drain(1..3);
        Arc::make_mut(&mut f.pods[0]).status.phase = Some("Failed".into());
        f.slices.clear();
        patch(
            Arc::make_mut(&mut f.deployments[0]),
            json!({ "spec": { "replicas": 0 } }),
        );
    });
}

#[test]
fn a09_scaled_to_one() {
    api_lookalike(|f| {
        f.pods.drain(1..3);
        patch(
            Arc::make_mut(&mut f.deployments[0]),
            json!({ "spec": { "replicas": 1 } }),
        );
        resync(f);
    });
}

#[test]
fn a14_the_endpoint_slices_do_not_follow_the_pods() {
    api_fault("A14", C::EndpointsPopulated, R::EndpointSlicesStale, |f| {
        f.slices.clear()
    });
    let d = api_fault("A14-some", C::EndpointsPopulated, R::EndpointSlicesStale, |f| {
        Arc::make_mut(&mut f.slices[0]).endpoints.truncate(2);
    });
    assert_eq!(d.root_cause.unwrap().impact.as_str(), "Some");
}

#[test]
fn a14_slices_that_have_just_changed_or_gone() {
    // A deleted Service loses its slices too, and we may hear of that first.
    let d = api_lookalike(|f| {
        f.slices.clear();
        f.slices_gone_at = Some(ago(2).parse().unwrap());
    });
    assert_eq!(d.recheck_at, Some(now() + jiff::SignedDuration::from_secs(28)));
    api_lookalike(|f| {
        let slice = Arc::make_mut(&mut f.slices[0]);
        slice.endpoints.truncate(2);
        patch(
            slice,
            json!({ "metadata": { "managedFields": [{ "time": ago(2) }] } }),
        );
    });
    api_fault("A14-gone", C::EndpointsPopulated, R::EndpointSlicesStale, |f| {
        f.slices.clear();
        f.slices_gone_at = Some(ago(31).parse().unwrap());
    });
}

#[test]
fn a14_slices_that_are_two_seconds_behind() {
    let d = api_lookalike(|f| {
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
    api_lookalike(|f| {
        f.slices.clear();
        each_pod(f, |p| {
            patch(
                p,
                json!({ "metadata": { "managedFields": [{ "time": ago(2) }] } }),
            )
        });
    });
    api_lookalike(|f| {
        f.slices.clear();
        service(
            f,
            json!({ "metadata": { "managedFields": [{ "time": ago(2) }] } }),
        );
    });
}

#[test]
fn a14_readiness_gates() {
    let d = api_lookalike(|f| {
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
fn a15_neither_selector_nor_endpoint_slice() {
    api_fault("A15", C::EndpointsPopulated, R::NoSelectorAndNoEndpoints, |f| {
        service(f, json!({ "spec": { "selector": null } }));
        f.slices.clear();
    });
}

#[test]
fn a15_no_selector_but_a_manual_slice() {
    api_lookalike(|f| manual(f, "default", &[true]));
}

#[test]
fn a21_a_local_policy_shuts_out_every_client() {
    api_fault("A21", C::EndpointsPopulated, R::NoLocalEndpoints, |f| {
        local(f);
        name_clients(f);
    });
}

#[test]
fn a21_one_client_has_a_local_endpoint() {
    api_lookalike(|f| {
        local(f);
        f.pods
            .push(pod("client-2", "n2", "10.244.2.9", json!({ "app": "client" })));
    });
}

#[test]
fn a21_external_traffic_policy_local() {
    api_lookalike(|f| {
        local(f);
        service(
            f,
            json!({ "spec": { "type": "NodePort", "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Local" } }),
        );
    });
}

#[test]
fn a27_no_endpoint_of_a_manual_slice_is_ready() {
    api_fault("A27", C::EndpointsPopulated, R::NoReadyEndpoints, |f| {
        manual(f, "default", &[false, false])
    });
}

#[test]
fn a27_one_of_two_manual_endpoints_ready() {
    api_lookalike(|f| manual(f, "default", &[true, false]));
}

#[test]
fn only_terminating_endpoints_still_serve() {
    let d = api_lookalike(|f| {
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
    let d = api_lookalike(|f| {
        f.pods.retain(|p| p.metadata.name.as_deref() == Some("client"));
        f.slices.clear();
        patch(
            Arc::make_mut(&mut f.deployments[0]),
            json!({ "metadata": { "creationTimestamp": ago(1) } }),
        );
    });
    assert_eq!(stage(&d, C::EndpointsPopulated).reason, R::Pending);
}
