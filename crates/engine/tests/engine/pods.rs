//! Pods that are not ready: who is to blame, and what is only slow.

mod starting;

use std::sync::Arc;

use serde_json::{Value, json};
use svcdiag_api::{ConditionType as C, Reason as R};
use svcdiag_engine::{Facts, Unreadable, diagnose};
use svcdiag_objects::{Event, Node};

use crate::{
    fixtures::failing_probe,
    report::{assert_nothing_false, assert_root_cause, stage},
    walkthrough::*,
};

/// Breaks the Pods and expects this reason; returns message and remediation.
#[track_caller]
fn blamed(reason: R, change: impl FnOnce(&mut Facts)) -> (String, String) {
    let mut facts = healthy();
    change(&mut facts);
    let diagnosis = diagnose(&facts);
    assert_root_cause(&diagnosis, C::PodsHealthy, reason);
    let cause = diagnosis.root_cause.unwrap();
    (cause.message, cause.remediation)
}

/// What is said of Pods that are starting.
#[track_caller]
fn starting(change: impl FnOnce(&mut Facts)) -> String {
    let mut facts = healthy();
    change(&mut facts);
    let diagnosis = assert_nothing_false(&facts);
    let pods = stage(&diagnosis, C::PodsHealthy);
    assert_eq!(pods.reason, R::PodsStarting, "{}", pods.message);
    pods.message.clone()
}

fn node(name: &str, ready: &str) -> Arc<Node> {
    Arc::new(object(json!({
        "metadata": { "name": name },
        "status": { "conditions": [{ "type": "Ready", "status": ready, "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.", "lastTransitionTime": ago(300) }] },
    })))
}

fn nodes(facts: &mut Facts, ready: &str) {
    facts.cluster_nodes = ["n1", "n2", "n3"].map(|n| node(n, ready)).into();
}

/// Pods whose node controller has marked them, with containers that were ready when last heard of.
fn lost(facts: &mut Facts) {
    each_pod(facts, |p| {
        patch(
            p,
            json!({ "status": { "conditions": [
                { "type": "PodScheduled", "status": "True" },
                { "type": "ContainersReady", "status": "True" },
                { "type": "Ready", "status": "False", "lastTransitionTime": ago(290) },
            ] } }),
        );
    });
    resync(facts);
}

/// Pods that were created that long ago and have not got further than this.
fn created(facts: &mut Facts, seconds: i64, status: &Value) {
    each_pod(facts, |p| {
        p.metadata.creation_timestamp = object(json!(ago(seconds)));
        let mut value = status.clone();
        value["startTime"] = Value::Null;
        patch(
            p,
            json!({ "status": { "phase": "Pending", "podIP": null, "podIPs": null, "containerStatuses": null } }),
        );
        patch(p, json!({ "status": value }));
    });
    facts.slices = vec![slice(
        "hostnames",
        &[],
        json!({ "name": "default", "port": 9376 }),
    )];
}

fn unscheduled(reason: &str, message: &str) -> Value {
    json!({ "conditions": [{ "type": "PodScheduled", "status": "False", "reason": reason, "message": message }] })
}

fn creating() -> Value {
    json!({
        "conditions": [{ "type": "PodScheduled", "status": "True" }, { "type": "Ready", "status": "False" }],
        "containerStatuses": [{ "name": "app", "state": { "waiting": { "reason": "ContainerCreating" } } }],
    })
}

fn warning(pod: &str, reason: &str, message: &str, seconds: i64) -> Arc<Event> {
    Arc::new(object(json!({
        "metadata": { "name": format!("{pod}.{reason}.{seconds}"), "namespace": NS },
        "involvedObject": { "kind": "Pod", "name": pod, "uid": format!("uid-{pod}") },
        "type": "Warning", "reason": reason, "message": message, "lastTimestamp": ago(seconds),
    })))
}

const FIRST: &str = "hostnames-632524106-bbpiw";

#[test]
fn the_node_of_the_pods_does_not_report() {
    let (message, remediation) = blamed(R::NodeNotReady, |f| {
        lost(f);
        nodes(f, "Unknown");
    });
    assert!(
        message.contains(
            "its node n1 has been NotReady since 2026-03-01T11:55:00Z (NodeStatusUnknown: Kubelet stopped"
        ),
        "{message}"
    );
    assert!(
        remediation.contains("`kubectl describe node n1`"),
        "{remediation}"
    );
    // Nodes that are Ready are not blamed.
    blamed(R::PodsNotReady, |f| {
        lost(f);
        nodes(f, "True");
    });
}

#[test]
fn one_ready_pod_on_another_node_is_enough() {
    let mut facts = healthy();
    lost(&mut facts);
    nodes(&mut facts, "Unknown");
    facts.cluster_nodes[2] = node("n3", "True");
    facts.pods[2] = healthy().pods[2].clone();
    resync(&mut facts);
    let diagnosis = assert_nothing_false(&facts);
    assert_eq!(stage(&diagnosis, C::PodsHealthy).reason, R::SomePodsNotReady);
}

#[test]
fn pods_to_come_may_wait_for_a_node_that_joins() {
    let message = starting(|f| {
        created(f, 60, &creating());
        nodes(f, "False");
    });
    assert!(message.contains("its node n1 has been NotReady"), "{message}");
}

#[test]
fn the_slices_leave_out_pods_of_a_node_that_was_deleted() {
    let gone = |f: &mut Facts| {
        f.cluster_nodes = vec![node("n9", "True")];
        f.slices = vec![slice(
            "hostnames",
            &[],
            json!({ "name": "default", "port": 9376 }),
        )];
    };
    let (message, _) = blamed(R::NodeNotReady, gone);
    assert!(
        message.contains("node n1, which is not among the Nodes of the cluster"),
        "{message}"
    );
    // Two Pods serve on, and nothing is late.
    let mut facts = healthy();
    facts.cluster_nodes = ["n2", "n3"].map(|n| node(n, "True")).into();
    facts.slices = vec![slice(
        "hostnames",
        &facts.pods[1..3],
        json!({ "name": "default", "port": 9376, "protocol": "TCP" }),
    )];
    let diagnosis = assert_nothing_false(&facts);
    assert_eq!(stage(&diagnosis, C::PodsHealthy).reason, R::SomePodsNotReady);
    assert_eq!(stage(&diagnosis, C::EndpointsPopulated).reason, R::EndpointsReady);
}

#[test]
fn a_list_of_nodes_that_lacks_those_of_ready_endpoints_says_nothing() {
    let mut facts = healthy();
    facts.cluster_nodes = vec![node("n9", "True")];
    let diagnosis = assert_nothing_false(&facts);
    assert_eq!(stage(&diagnosis, C::PodsHealthy).reason, R::AllPodsReady);
    // Nor does one that was not read with the states of the Nodes.
    let mut facts = healthy();
    facts.cluster_nodes = vec![Arc::new(object(json!({ "metadata": { "name": "n9" } })))];
    facts.slices.clear();
    let diagnosis = diagnose(&facts);
    assert_root_cause(&diagnosis, C::EndpointsPopulated, R::EndpointSlicesStale);
}

#[test]
fn a_pod_without_a_node_has_the_time_to_start_before_it_is_unschedulable() {
    let said = "0/3 nodes are available: 3 Insufficient cpu.";
    let message = starting(|f| created(f, 590, &unscheduled("Unschedulable", said)));
    assert!(message.contains("3 Insufficient cpu"), "{message}");
    blamed(R::PodsUnschedulable, |f| {
        created(f, 610, &unscheduled("Unschedulable", said))
    });
}

#[test]
fn gates_and_volumes_are_no_lack_of_nodes() {
    let (message, remediation) = blamed(R::PodsUnschedulable, |f| {
        created(
            f,
            700,
            &unscheduled(
                "SchedulingGated",
                "Scheduling is blocked due to non-empty scheduling gates",
            ),
        );
        each_pod(f, |p| {
            patch(
                p,
                json!({ "spec": { "schedulingGates": [{ "name": "kueue.x-k8s.io/admission" }] } }),
            )
        });
    });
    assert!(
        message.contains("scheduling gates kueue.x-k8s.io/admission"),
        "{message}"
    );
    assert!(
        remediation.contains("which controller should remove the scheduling gate"),
        "{remediation}"
    );
    let (message, remediation) = blamed(R::PodsUnschedulable, |f| {
        let said = "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims.";
        created(f, 700, &unscheduled("Unschedulable", said));
    });
    assert!(message.contains("waits for a volume"), "{message}");
    assert!(
        remediation.contains("get pvc") && !remediation.contains("Make room"),
        "{remediation}"
    );
}

#[test]
fn pods_that_cannot_start_say_what_the_kubelet_said_last() {
    let id = "ab".repeat(32);
    let sandbox = format!(
        "Failed to create pod sandbox: failed to setup network for sandbox \"{id}\": no free addresses."
    );
    let with_events = |f: &mut Facts| {
        f.events = vec![
            warning(FIRST, "FailedMount", "configmap \"old\" not found", 200),
            warning(FIRST, "FailedCreatePodSandBox", &sandbox, 5),
            warning("client", "FailedMount", "of another Pod", 1),
        ];
    };
    let message = starting(|f| {
        created(f, 120, &creating());
        with_events(f);
    });
    assert!(
        message.contains("hostnames-632524106-bbpiw: FailedCreatePodSandBox: Failed to create pod sandbox")
            && message.contains("no free addresses"),
        "{message}"
    );
    assert!(!message.contains(&id), "changes with every try: {message}");
    let (message, _) = blamed(R::PodsNotReady, |f| {
        created(f, 700, &creating());
        with_events(f);
    });
    assert!(message.contains("no free addresses"), "{message}");
}

#[test]
fn events_that_could_not_be_read_are_missed() {
    let message = starting(|f| {
        created(f, 120, &creating());
        f.unreadable.push(Unreadable {
            resource: "events".into(),
            why: "list events in namespace shop".into(),
        });
    });
    assert!(
        message.contains("Events could not be read (list events in namespace shop)"),
        "{message}"
    );
    let message = starting(|f| created(f, 120, &creating()));
    assert!(!message.contains("Events"), "{message}");
}

#[test]
fn what_was_said_before_the_container_ran_is_over() {
    let (message, _) = blamed(R::ReadinessProbeFailing, |f| {
        each_pod(f, |p| not_ready(p, 60, failing_probe()));
        resync(f);
        f.events = vec![
            warning(FIRST, "FailedMount", "secret not found", 3680),
            warning(
                FIRST,
                "Unhealthy",
                "Readiness probe failed: HTTP probe failed with statuscode: 503",
                3,
            ),
        ];
    });
    assert!(
        message.contains("statuscode: 503") && !message.contains("secret"),
        "{message}"
    );
}
