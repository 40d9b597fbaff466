//! The faults really do to the cluster what their rows say: seen from outside, without svcdiag.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use svcdiag_sandbox::cluster::{Cluster, ClusterConfig};
use svcdiag_sandbox::faults::{Fault, Fixture, catalogue};

fn fault(id: &str) -> Fault {
    catalogue()
        .unwrap()
        .into_iter()
        .find(|fault| fault.id == id)
        .unwrap()
}

async fn pods(fixture: &Fixture) -> Vec<Pod> {
    let api = Api::<Pod>::namespaced(fixture.client().clone(), fixture.namespace());
    let list = api
        .list(&ListParams::default().labels("app=hostnames"))
        .await
        .unwrap();
    list.items
        .into_iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .collect()
}

/// Waits until all Pods of the Service are as `test` says, and there are any.
async fn all_pods(fixture: &Fixture, what: &str, test: impl Fn(&Pod) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(180);
    loop {
        let pods = pods(fixture).await;
        if !pods.is_empty() && pods.iter().all(&test) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "not {what}: {:?}",
            pods.iter().map(|pod| &pod.status).collect::<Vec<_>>()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<(&'a str, &'a str)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((found.status.as_str(), found.reason.as_deref().unwrap_or_default()))
}

fn waits_for(pod: &Pod, reason: &str) -> bool {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    statuses.is_some_and(|statuses| {
        statuses.iter().all(|status| {
            let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
            waiting.and_then(|waiting| waiting.reason.as_deref()) == Some(reason)
        })
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_pods_look_as_a_kubelet_would_report_them() {
    let cluster = Cluster::start(ClusterConfig::default()).await.unwrap();
    let fixture = Fixture::new(cluster.client(), "effects");
    fixture.set_up().await.unwrap();
    type Test = fn(&Pod) -> bool;
    let not_ready: Test = |pod| condition(pod, "ContainersReady") == Some(("False", "ContainersNotReady"));
    let cases: [(&str, &str, Test); 6] = [
        ("A10", "failing their readiness probe", not_ready),
        ("A11", "failing to pull", |pod| waits_for(pod, "ImagePullBackOff")),
        ("A12", "crashing", |pod| waits_for(pod, "CrashLoopBackOff")),
        ("A13", "unschedulable", |pod| {
            condition(pod, "PodScheduled") == Some(("False", "Unschedulable"))
        }),
        ("A23", "being created", |pod| waits_for(pod, "ContainerCreating")),
        ("A25", "unready without a reason", |pod| {
            condition(pod, "Ready") == Some(("False", ""))
                && condition(pod, "ContainersReady") == Some(("True", ""))
        }),
    ];
    for (id, what, test) in cases {
        let fault = fault(id);
        fault.inject(&fixture).await.unwrap();
        all_pods(&fixture, what, test).await;
        fixture.wait_for_endpoints(0).await.unwrap();
        fault.undo(&fixture).await.unwrap();
        fixture.wait_until_settled().await.unwrap();
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_without_the_named_port_are_in_a_slice_without_ports() {
    let cluster = Cluster::start(ClusterConfig::default()).await.unwrap();
    let fixture = Fixture::new(cluster.client(), "ports");
    fixture.set_up().await.unwrap();
    let fault = fault("A05");
    fault.inject(&fixture).await.unwrap();
    let slices = Api::<EndpointSlice>::namespaced(cluster.client(), "ports");
    let deadline = Instant::now() + Duration::from_secs(180);
    loop {
        let mut shape: Vec<(usize, usize)> = slices
            .list(&ListParams::default())
            .await
            .unwrap()
            .iter()
            .map(|slice| {
                (
                    slice.ports.iter().flatten().count(),
                    slice.endpoints.iter().flatten().count(),
                )
            })
            .collect();
        shape.sort_unstable();
        if shape == [(0, 2), (1, 1)] {
            break;
        }
        assert!(Instant::now() < deadline, "{shape:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    fault.undo(&fixture).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_endpoints_stay_behind_until_they_are_resumed() {
    let cluster = Cluster::start(ClusterConfig::default()).await.unwrap();
    let fixture = Fixture::new(cluster.client(), "stale");
    fixture.set_up().await.unwrap();
    let fault = fault("A14");
    fault.inject(&fixture).await.unwrap();
    all_pods(&fixture, "ready", |pod| {
        condition(pod, "Ready") == Some(("True", ""))
    })
    .await;
    assert_eq!(fixture.ready_endpoints().await.unwrap(), 0);
    fault.undo(&fixture).await.unwrap();
    fixture.wait_for_endpoints(3).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_pod_reaches_the_slice() {
    let cluster = Cluster::start(ClusterConfig::default()).await.unwrap();
    let fixture = Fixture::new(cluster.client(), "quick");
    fixture.set_up().await.unwrap();
    let fault = fault("A10");
    let mut times = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        fault.inject(&fixture).await.unwrap();
        fixture.wait_for_endpoints(0).await.unwrap();
        times.push(start.elapsed());
        fault.undo(&fixture).await.unwrap();
        fixture.wait_for_endpoints(3).await.unwrap();
    }
    println!("three annotated Pods left the slice after {times:?}");
    assert!(
        pods(&fixture)
            .await
            .iter()
            .all(|pod| pod.name_any().starts_with("hostnames-"))
    );
    cluster.stop().await;
}
