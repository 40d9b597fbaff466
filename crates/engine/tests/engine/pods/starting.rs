//! Pods that wait: for init containers, for peers, for a readiness gate, or that do not go away.

use super::*;

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
