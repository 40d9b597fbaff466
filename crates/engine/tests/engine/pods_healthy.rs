//! Are the Pods running and not restarting? Each fault, and beside it its lookalikes, of which nothing may be False.

use std::sync::Arc;

use serde_json::json;
use svcdiag_api::{Answer, ConditionType as C, Reason as R};
use svcdiag_engine::{Facts, diagnose};

use crate::{agents::*, fixtures::*, report::*, walkthrough::*};

#[test]
fn a10_the_readiness_probes_fail() {
    api_fault("A10", C::PodsHealthy, R::ReadinessProbeFailing, |f| {
        each_pod(f, |p| not_ready(p, 60, failing_probe()));
        resync(f);
    });
}

#[test]
fn a10_one_of_three_pods_unready() {
    let d = api_lookalike(|f| {
        not_ready(Arc::make_mut(&mut f.pods[0]), 60, failing_probe());
        resync(f);
    });
    assert_eq!(stage(&d, C::PodsHealthy).reason, R::SomePodsNotReady);
}

#[test]
fn a10_publish_not_ready_addresses() {
    api_lookalike(|f| {
        service(f, json!({ "spec": { "publishNotReadyAddresses": true } }));
        each_pod(f, |p| not_ready(p, 60, failing_probe()));
        resync(f);
        for e in &mut Arc::make_mut(&mut f.slices[0]).endpoints {
            e.conditions.ready = Some(true);
        }
    });
}

#[test]
fn a10_a_pod_that_is_published_before_it_is_ready() {
    let unready = |f: &mut Facts, which: &[usize]| {
        service(f, json!({ "spec": { "publishNotReadyAddresses": true } }));
        for i in which {
            patch(
                Arc::make_mut(&mut f.pods[*i]),
                json!({ "status": { "conditions": [{ "type": "Ready", "status": "False", "lastTransitionTime": ago(5) }] } }),
            );
        }
        look(f);
        fail_direct(f, which, Answer::Refused);
    };
    let d = works(|f| unready(f, &[1]));
    assert_eq!(stage(&d, C::EndpointsReachable).reason, R::AllEndpointsAnswer);
    // Where none is ready and none answers, nobody gets anything.
    let mut facts = with_agents();
    unready(&mut facts, &[0, 1, 2]);
    let d = svcdiag_engine::diagnose(&facts);
    assert_eq!(d.root_cause.unwrap().condition, "EndpointsReachable");
}

#[test]
fn a11_the_image_cannot_be_pulled() {
    api_fault("A11", C::PodsHealthy, R::ImagePullFailed, |f| {
        each_pod(f, |p| {
            p.spec.containers[0].image = Some("registry.invalid/hostnames:v1".into());
            not_ready(
                p,
                60,
                json!({ "name": "app", "state": { "waiting": { "reason": "ImagePullBackOff", "message": "Back-off pulling image" } } }),
            );
        });
        resync(f);
    });
}

#[test]
fn a11_pulling_for_thirty_seconds() {
    let d = api_lookalike(|f| {
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
fn a12_the_containers_crash_loop() {
    let container = json!({ "name": "app", "restartCount": 7, "state": { "waiting": { "reason": "CrashLoopBackOff" } },
        "lastState": { "terminated": { "exitCode": 1, "reason": "Error", "finishedAt": ago(20) } } });
    api_fault("A12", C::PodsHealthy, R::CrashLooping, |f| {
        each_pod(f, |p| not_ready(p, 600, container.clone()));
        resync(f);
    });
    // Between two ends the container runs for a moment; the verdict must not flap.
    let running = json!({ "name": "app", "restartCount": 7, "started": true, "state": { "running": { "startedAt": ago(2) } },
        "lastState": { "terminated": { "exitCode": 137, "reason": "OOMKilled", "finishedAt": ago(100) } } });
    api_fault("A12-running", C::PodsHealthy, R::CrashLooping, |f| {
        each_pod(f, |p| not_ready(p, 600, running.clone()));
        resync(f);
    });
}

#[test]
fn a12_is_judged_again_once_the_restarts_are_forgotten() {
    let container = json!({ "name": "app", "restartCount": 7, "state": { "terminated": { "exitCode": 1, "finishedAt": ago(120) } } });
    let mut facts = healthy();
    each_pod(&mut facts, |p| not_ready(p, 600, container.clone()));
    resync(&mut facts);
    let d = diagnose(&facts);
    let pods = stage(&d, C::PodsHealthy);
    assert_eq!(pods.reason, R::CrashLooping);
    assert_eq!(
        pods.recheck_at,
        Some(now() + jiff::SignedDuration::from_secs(480))
    );
}

#[test]
fn a12_only_the_status_says_that_a_container_ran_out_of_memory() {
    let remediation = |reason: &str| {
        let container = json!({ "name": "app", "restartCount": 7, "state": { "waiting": { "reason": "CrashLoopBackOff" } },
            "lastState": { "terminated": { "exitCode": 137, "reason": reason, "finishedAt": ago(20) } } });
        let mut facts = healthy();
        each_pod(&mut facts, |p| not_ready(p, 600, container.clone()));
        resync(&mut facts);
        let cause = diagnose(&facts).root_cause.unwrap();
        assert_eq!(cause.reason, "CrashLooping", "{}", cause.message);
        cause.remediation
    };
    assert!(remediation("OOMKilled").contains("ran out of memory"));
    // A container that did not stop in time is killed as well, and one that talks of it was not killed for it.
    for reason in ["Error", "SidecarOOMKilled"] {
        let other = remediation(reason);
        assert!(!other.contains("memory"), "{other}");
    }
}

#[test]
fn a12_restarts_of_last_week() {
    let week = 7 * 24 * 3600;
    let d = api_lookalike(|f| {
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
    let d = api_lookalike(|f| {
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
fn a13_no_node_takes_the_pods() {
    api_fault("A13", C::PodsHealthy, R::PodsUnschedulable, |f| {
        each_pod(f, |p| {
            patch(
                p,
                json!({ "spec": { "nodeName": null }, "status": { "phase": "Pending", "podIP": null, "podIPs": null,
                "containerStatuses": null, "conditions": [{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                    "message": "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector." }] } }),
            );
        });
        f.slices = vec![slice(
            "hostnames",
            &[],
            json!({ "name": "default", "port": 9376 }),
        )];
    });
}

#[test]
fn a13_rollout_whose_new_pods_are_pending() {
    api_lookalike(|f| {
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
fn a23_pods_that_are_starting_are_given_time() {
    let mut facts = healthy();
    each_pod(&mut facts, |p| {
        patch(
            p,
            json!({ "metadata": { "creationTimestamp": ago(20) }, "status": { "phase": "Pending", "startTime": ago(20), "podIP": null, "podIPs": null } }),
        );
        not_ready(
            p,
            20,
            json!({ "name": "app", "state": { "waiting": { "reason": "ContainerCreating" } } }),
        );
    });
    facts.slices = vec![slice(
        "hostnames",
        &[],
        json!({ "name": "default", "port": 9376 }),
    )];
    let diagnosis = assert_nothing_false(&facts);
    assert_eq!(stage(&diagnosis, C::PodsHealthy).reason, R::PodsStarting);
    assert!(diagnosis.stalled.is_none() && diagnosis.reconciling.is_some());
    keep("A23", &healthy(), &diagnosis);
}

#[test]
fn a25_pods_are_not_ready_for_an_unknown_cause() {
    api_fault("A25", C::PodsHealthy, R::PodsNotReady, |f| {
        each_pod(f, |p| {
            let ready = p
                .status
                .conditions
                .iter_mut()
                .find(|c| c.type_ == "Ready")
                .unwrap();
            ready.status = "False".into();
            ready.last_transition_time = Some(ago(60).parse().unwrap());
        });
        resync(f);
    });
}
