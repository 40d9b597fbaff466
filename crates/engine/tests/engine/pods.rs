//! Pods that are not ready: who is to blame, and what is only slow.

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

/// Pods of a StatefulSet that are deleted since that long, with a grace period of 30 seconds.
fn deleted(facts: &mut Facts, seconds: i64, finalizers: Value) {
    each_pod(facts, |p| {
        not_ready(p, seconds, failing_probe());
        patch(
            p,
            json!({ "metadata": { "deletionTimestamp": ago(seconds - 30), "deletionGracePeriodSeconds": 30,
                "finalizers": finalizers } }),
        );
    });
    resync(facts);
}

#[test]
fn pods_that_do_not_go_away_are_named_with_what_holds_them() {
    let (message, remediation) = blamed(R::PodsStuckTerminating, |f| {
        deleted(f, 3600, json!(["example.com/wait"]));
        nodes(f, "True");
    });
    assert!(
        message.contains("hostnames-632524106-bbpiw has been terminating since 2026-03-01T11:00:00Z on node n1, with finalizers example.com/wait"),
        "{message}"
    );
    assert!(
        remediation.contains("finalizer example.com/wait") && !remediation.contains("delete"),
        "{remediation}"
    );
    let (message, remediation) = blamed(R::PodsStuckTerminating, |f| {
        deleted(f, 3600, Value::Null);
        nodes(f, "Unknown");
    });
    assert!(
        message.contains("on node n1, which has been NotReady since"),
        "{message}"
    );
    assert!(
        remediation.contains("`kubectl describe node n1`") && !remediation.contains("--force"),
        "{remediation}"
    );
}

#[test]
fn pods_that_are_just_being_deleted_make_room_for_others() {
    let message = starting(|f| deleted(f, 80, Value::Null));
    assert!(message.contains("Others may take their place"), "{message}");
}

fn with_init(facts: &mut Facts, state: Value) {
    created(facts, 7200, &creating());
    each_pod(facts, |p| {
        patch(
            p,
            json!({
                "spec": { "initContainers": [{ "name": "wait-db" }, { "name": "migrate" }] },
                "status": {
                    "initContainerStatuses": [state, { "name": "migrate", "state": { "waiting": { "reason": "PodInitializing" } } }],
                    "containerStatuses": [{ "name": "app", "state": { "waiting": { "reason": "PodInitializing" } } }],
                },
            }),
        );
    });
}

#[test]
fn the_init_container_that_does_not_end_is_named_and_those_behind_it_are_not() {
    let (message, _) = blamed(R::InitContainerFailing, |f| {
        with_init(
            f,
            json!({ "name": "wait-db", "state": { "running": { "startedAt": ago(7100) } } }),
        );
    });
    assert!(
        message.contains("init container wait-db has been running since")
            && !message.contains("container app"),
        "{message}"
    );
    let (message, _) = blamed(R::InitContainerFailing, |f| {
        with_init(
            f,
            json!({ "name": "wait-db", "restartCount": 9, "state": { "waiting": { "reason": "CrashLoopBackOff" } },
                "lastState": { "terminated": { "exitCode": 2, "finishedAt": ago(60) } } }),
        );
    });
    assert!(
        message.contains("init container wait-db has restarted 9 times (last exit code 2"),
        "{message}"
    );
}

#[test]
fn an_init_container_within_its_time_is_no_fault() {
    let message = starting(|f| {
        with_init(
            f,
            json!({ "name": "wait-db", "state": { "running": { "startedAt": ago(50) } } }),
        );
        each_pod(f, |p| p.metadata.creation_timestamp = object(json!(ago(60))));
    });
    assert!(message.contains("wait-db"), "{message}");
}

#[test]
fn a_probe_that_asks_another_port_than_the_containers_have_is_told() {
    let with_probe = |port: Value| {
        blamed(R::ReadinessProbeFailing, |f| {
            each_pod(f, |p| {
                not_ready(p, 60, failing_probe());
                patch(
                    &mut p.spec.containers[0],
                    json!({ "readinessProbe": { "httpGet": { "port": port } } }),
                );
            });
            resync(f);
        })
        .0
    };
    assert!(
        with_probe(json!(80))
            .contains("its readiness probe uses port 80, but the containers declare 9376/TCP")
    );
    assert!(with_probe(json!("web")).contains("uses the port named web, which container app does not have"));
    assert!(!with_probe(json!(9376)).contains("probe uses"));
}

#[test]
fn a_readiness_gate_says_what_its_controller_said() {
    let (message, _) = blamed(R::PodsNotReady, |f| {
        each_pod(f, |p| {
            patch(
                p,
                json!({
                    "spec": { "readinessGates": [{ "conditionType": "target-health.example.com/web" }] },
                    "status": { "conditions": [
                        { "type": "PodScheduled", "status": "True" },
                        { "type": "ContainersReady", "status": "True", "lastTransitionTime": ago(3000) },
                        { "type": "target-health.example.com/web", "status": "False", "reason": "Target.FailedHealthChecks",
                          "message": "Health checks failed" },
                        { "type": "Ready", "status": "False", "lastTransitionTime": ago(3000) },
                    ] },
                }),
            );
        });
        resync(f);
    });
    assert!(
        message.contains(
            "target-health.example.com/web is not met (Target.FailedHealthChecks: Health checks failed)"
        ),
        "{message}"
    );
}

#[test]
fn peers_that_need_each_other_first_are_to_be_published() {
    let peers = |headless: bool| {
        blamed(R::ReadinessProbeFailing, |f| {
            if headless {
                service(
                    f,
                    json!({ "spec": { "clusterIP": "None", "clusterIPs": ["None"] } }),
                );
            }
            each_pod(f, |p| not_ready(p, 60, failing_probe()));
            resync(f);
        })
        .1
    };
    assert!(peers(true).contains("publishNotReadyAddresses: true"));
    assert!(!peers(false).contains("publishNotReadyAddresses"));
}
