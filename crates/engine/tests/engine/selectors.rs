//! A selector that matches no Pod: what is said of the Pods that may be meant, and when a command is.

use std::sync::Arc;

use serde_json::{Value, json};
use svcdiag_api::{ConditionType as C, Reason as R, RootCause};
use svcdiag_engine::{Facts, diagnose};
use svcdiag_objects::{Deployment, StatefulSet};

use crate::{report::assert_root_cause, walkthrough::*};

/// Expects that the selector matches no Pod, and returns what is said of it.
#[track_caller]
fn missed(change: impl FnOnce(&mut Facts)) -> RootCause {
    let mut facts = healthy();
    facts.slices.clear();
    change(&mut facts);
    let diagnosis = diagnose(&facts);
    assert_root_cause(&diagnosis, C::EndpointsPopulated, R::SelectorMatchesNoPods);
    diagnosis.root_cause.unwrap()
}

/// Replaces the selector.
fn selector(facts: &mut Facts, selector: Value) {
    let mut service = (**facts.service.as_ref().unwrap()).clone();
    service.spec.selector = object(selector);
    facts.service = Some(Arc::new(service));
}

/// Gives the Pods and their template these labels.
fn labelled(facts: &mut Facts, labels: Value) {
    each_pod(facts, |p| {
        p.metadata.labels = object(labels.clone());
    });
    Arc::make_mut(&mut facts.deployments[0])
        .spec
        .template
        .metadata
        .labels = object(labels);
}

/// Whether a command changes the Service without an editor.
fn changes_the_service(cause: &RootCause) -> bool {
    cause.remediation.contains("patch service") || cause.remediation.contains("set selector")
}

#[test]
fn a_typing_error_in_a_key_or_a_value_is_corrected() {
    let value = missed(|f| selector(f, json!({ "app": "hostnmaes" })));
    assert!(
        value
            .remediation
            .contains(r#"-p '{"spec":{"selector":{"app":"hostnames"}}}'`"#),
        "{}",
        value.remediation
    );
    let key = missed(|f| {
        labelled(f, json!({ "application": "hostnames" }));
        selector(f, json!({ "aplication": "hostnames" }));
    });
    assert!(
        key.remediation
            .contains(r#"-p '{"spec":{"selector":{"aplication":null,"application":"hostnames"}}}'`"#),
        "{}",
        key.remediation
    );
}

#[test]
fn names_that_differ_in_their_digits_are_no_typing_errors() {
    let cause = missed(|f| {
        labelled(f, json!({ "app": "shard-1" }));
        selector(f, json!({ "app": "shard-2" }));
    });
    assert!(!changes_the_service(&cause), "{}", cause.remediation);
}

#[test]
fn a_selector_that_says_what_the_service_is_called_is_not_corrected() {
    let cause = missed(|f| {
        labelled(f, json!({ "app": "hostname" }));
        selector(f, json!({ "app": "hostnames" }));
    });
    assert!(
        cause
            .message
            .contains("app=hostname where the selector wants app=hostnames")
    );
    assert!(!changes_the_service(&cause), "{}", cause.remediation);
}

#[test]
fn pods_that_another_service_selects_are_not_taken_from_it() {
    let cause = missed(|f| {
        selector(f, json!({ "app": "hostname" }));
        f.other_services = vec![other_service("metrics", json!({ "app": "hostnames" }))];
    });
    assert!(
        cause
            .message
            .contains("app=hostnames where the selector wants app=hostname")
    );
    assert!(!changes_the_service(&cause), "{}", cause.remediation);
}

#[test]
fn another_application_of_the_same_product_is_not_proposed() {
    let cause = missed(|f| {
        labelled(
            f,
            json!({ "app.kubernetes.io/name": "cart", "app.kubernetes.io/part-of": "shop" }),
        );
        selector(
            f,
            json!({ "app.kubernetes.io/name": "checkout", "app.kubernetes.io/part-of": "shop" }),
        );
        patch(
            Arc::make_mut(&mut f.replica_sets[0]),
            json!({ "metadata": { "ownerReferences": [
                { "apiVersion": "apps/v1", "kind": "Deployment", "name": "cart", "uid": "uid-deployment", "controller": true },
            ] } }),
        );
        f.deployments = vec![Arc::new(object::<Deployment>(json!({
            "metadata": { "name": "cart", "namespace": NS, "uid": "uid-deployment" },
            "spec": { "replicas": 3, "template": { "metadata": { "labels":
                { "app.kubernetes.io/name": "cart", "app.kubernetes.io/part-of": "shop" } } } },
        })))];
        f.other_services = vec![other_service(
            "cart",
            json!({ "app.kubernetes.io/name": "cart", "app.kubernetes.io/part-of": "shop" }),
        )];
    });
    assert!(
        !cause.message.contains("cart") && !changes_the_service(&cause),
        "{cause:?}"
    );
}

#[test]
fn the_pods_of_two_workloads_are_proposed_by_no_command() {
    let cause = missed(|f| {
        selector(f, json!({ "app": "hostname" }));
        f.stateful_sets.push(Arc::new(object::<StatefulSet>(json!({
            "metadata": { "name": "other", "namespace": NS, "uid": "uid-other" },
            "spec": { "replicas": 1, "template": { "metadata": { "labels": { "app": "hostnames", "tier": "db" } } } },
        }))));
    });
    assert!(!changes_the_service(&cause), "{}", cause.remediation);
}

#[test]
fn a_value_that_is_a_switch_moves_to_no_other_key() {
    let cause = missed(|f| {
        labelled(f, json!({ "app": "hostnames", "initialized": "true" }));
        selector(f, json!({ "app": "hostnames", "active": "true" }));
    });
    assert!(
        !cause.message.contains("initialized") && !changes_the_service(&cause),
        "{cause:?}"
    );
}

#[test]
fn a_label_that_a_program_sets_is_missed_and_not_taken_out() {
    let role = |value: Option<&str>| {
        missed(|f| {
            selector(f, json!({ "app": "hostnames", "role": "leader" }));
            if let Some(value) = value {
                each_pod(f, |p| {
                    patch(p, json!({ "metadata": { "labels": { "role": value } } }))
                });
            }
        })
    };
    for cause in [role(None), role(Some("follower"))] {
        assert!(
            cause
                .message
                .contains("would match the selector but lack role=leader"),
            "{cause:?}"
        );
        assert!(
            cause.remediation.contains("-l 'app=hostnames' -L role"),
            "{cause:?}"
        );
        assert!(!changes_the_service(&cause), "{}", cause.remediation);
    }
    assert!(
        role(Some("follower"))
            .message
            .contains("(they have role=follower)")
    );
}

#[test]
fn the_hash_of_a_revision_is_taken_out() {
    let cause = missed(|f| {
        selector(
            f,
            json!({ "app": "hostnames", "pod-template-hash": "5c689d88bb" }),
        )
    });
    assert!(
        cause
            .remediation
            .contains(r#"-p '{"spec":{"selector":{"pod-template-hash":null}}}'`"#),
        "{}",
        cause.remediation
    );
    let of_rollouts = missed(|f| {
        selector(
            f,
            json!({ "app": "hostnames", "rollouts-pod-template-hash": "687d76d795" }),
        )
    });
    assert!(
        of_rollouts.message.contains("Argo Rollouts"),
        "{}",
        of_rollouts.message
    );
    assert!(!changes_the_service(&of_rollouts), "{}", of_rollouts.remediation);
}

#[test]
fn nothing_but_a_hash_leaves_no_selector() {
    let cause = missed(|f| selector(f, json!({ "pod-template-hash": "5c689d88bb" })));
    assert!(!changes_the_service(&cause), "{}", cause.remediation);
}

#[test]
fn a_workload_that_is_called_like_the_service_is_named_with_its_labels() {
    let cause = missed(|f| {
        labelled(f, json!({ "app": "web-frontend" }));
        selector(f, json!({ "run": "legacy" }));
    });
    assert!(
        cause.message.contains(
            "deployment/hostnames has the Service's name, but the labels of its Pods are app=web-frontend"
        ),
        "{}",
        cause.message
    );
    assert!(!changes_the_service(&cause), "{}", cause.remediation);
}

#[test]
fn pods_elsewhere_are_said_to_be_there() {
    let message = missed(|f| {
        f.pods.clear();
        f.deployments.clear();
        f.selected_elsewhere = vec!["staging".into()];
    })
    .message;
    assert!(
        message.contains("there are no Pods in namespace shop") && message.contains("in namespace staging"),
        "{message}"
    );
}

#[test]
fn a_workload_without_pods_says_what_keeps_it_from_creating_them() {
    let cause = missed(|f| {
        f.pods.retain(|p| p.metadata.name.as_deref() == Some("client"));
        patch(
            Arc::make_mut(&mut f.replica_sets[0]),
            json!({ "status": { "conditions": [{ "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
                "message": "pods \"hostnames-632524106-\" is forbidden: exceeded quota: small" }] } }),
        );
    });
    assert!(
        cause.message.contains("deployment/hostnames should have 3 Pods")
            && cause.message.contains("exceeded quota: small"),
        "{}",
        cause.message
    );
    assert!(!changes_the_service(&cause) && cause.remediation.contains("describe deployment/hostnames"));
}

/// A Warning that an object could not create Pods.
fn failed_create(f: &mut Facts, kind: &str, name: &str, uid: &str) {
    f.events.push(Arc::new(object(json!({
        "metadata": { "name": format!("{name}.1"), "namespace": NS }, "type": "Warning", "reason": "FailedCreate",
        "involvedObject": { "kind": kind, "name": name, "uid": uid }, "lastTimestamp": ago(20),
        "message": format!("create Pod {name}-0 in {kind} {name} failed error: pods \"{name}-0\" is forbidden: exceeded quota: small"),
    }))));
}

/// A StatefulSet in the place of the Deployment, without Pods.
fn stateful(f: &mut Facts) {
    f.pods.retain(|p| p.metadata.name.as_deref() == Some("client"));
    f.deployments.clear();
    f.replica_sets.clear();
    f.stateful_sets = vec![Arc::new(object(json!({
        "metadata": { "name": "hostnames", "namespace": NS, "uid": "uid-stateful", "creationTimestamp": ago(900) },
        "spec": { "replicas": 3, "template": { "metadata": { "labels": { "app": "hostnames" } } } },
    })))];
}

#[test]
fn a_stateful_set_says_by_events_what_keeps_it_from_creating_pods() {
    let cause = missed(|f| {
        stateful(f);
        failed_create(f, "StatefulSet", "hostnames", "uid-stateful");
    });
    assert!(
        cause.message.contains("statefulset/hostnames should have 3 Pods")
            && cause.message.contains("exceeded quota: small"),
        "{}",
        cause.message
    );
    assert!(cause.remediation.contains("describe statefulset/hostnames"));
    // What an earlier one of the name was denied says nothing of this one.
    let cause = missed(|f| {
        stateful(f);
        failed_create(f, "StatefulSet", "hostnames", "uid-earlier");
    });
    assert!(!cause.message.contains("quota"), "{}", cause.message);
}

/// A Deployment that the selector misses by a typing error, and no other workload.
fn mistyped(f: &mut Facts) {
    selector(f, json!({ "app": "hostnmaes" }));
}

#[test]
fn a_selector_is_not_corrected_while_a_workload_that_may_be_meant_cannot_create_pods() {
    assert!(changes_the_service(&missed(mistyped)));
    let cause = missed(|f| {
        mistyped(f);
        failed_create(f, "DaemonSet", "agent", "uid-other");
    });
    assert!(
        cause
            .message
            .contains("the Pods of DaemonSet agent, which could not be created")
            && cause.message.contains("exceeded quota: small"),
        "{}",
        cause.message
    );
    assert!(cause.remediation.contains("describe daemonset/agent"));
    assert!(!changes_the_service(&cause), "{}", cause.remediation);
    // One that has a Pod is not kept from creating them.
    let cause = missed(|f| {
        mistyped(f);
        failed_create(f, "DaemonSet", "agent", "uid-other");
        let mut pod = (*f.pods[0]).clone();
        patch(
            &mut pod,
            json!({ "metadata": { "name": "agent-x", "labels": { "app": "agent" }, "ownerReferences": [
                { "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent", "uid": "uid-other", "controller": true }] } }),
        );
        f.pods.push(Arc::new(pod));
    });
    assert!(changes_the_service(&cause), "{}", cause.remediation);
}

#[test]
fn a_job_that_cannot_create_pods_is_named_where_nothing_else_is_near() {
    let cause = missed(|f| {
        mistyped(f);
        failed_create(f, "Job", "import", "uid-job");
    });
    assert!(changes_the_service(&cause), "{}", cause.remediation);
    let cause = missed(|f| {
        selector(f, json!({ "app": "import" }));
        f.deployments.clear();
        f.pods.clear();
        failed_create(f, "Job", "import", "uid-job");
    });
    assert!(
        cause.message.contains("the Pods of Job import"),
        "{}",
        cause.message
    );
}
