//! A Service that works is never blamed: at rest in every proxy mode, and while its Pods are replaced
//! without end.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use svcdiag_sandbox::{
    error::chain,
    faults::{Scene, Verdict},
    kernel::Wiring,
    proxy::ProxyMode,
};

use crate::lane::{Kind, Lane, SOON};

const ROUNDS: usize = 50;

const REPORTS_WITHIN: Duration = Duration::from_secs(240);

fn kind(mode: ProxyMode) -> Kind {
    Kind {
        mode,
        wiring: Wiring::Bridge,
    }
}

async fn rounds(lane: &Lane) -> Result<(), String> {
    for round in 1..=ROUNDS {
        lane.round(SOON)
            .await
            .map_err(|e| format!("round {round}: {e}"))?;
    }
    Ok(())
}

/// So many rounds in a mode; nothing may be False at any time.
async fn rest(mode: ProxyMode) -> Result<(), String> {
    let lane = Lane::start(kind(mode)).await?;
    let result = lane.unblamed_while(rounds(&lane)).await;
    let result = match result {
        Ok(()) => lane
            .wait("well at the end", SOON, Verdict::works)
            .await
            .map(drop)
            .map_err(String::from),
        Err(why) => Err(why),
    };
    lane.stop().await;
    result.map_err(|why| format!("{mode}: {why}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_false_at_rest_in_any_mode() {
    let start = Instant::now();
    let results = futures::future::join_all(ProxyMode::ALL.map(rest)).await;
    let failures: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    println!(
        "at rest: {ROUNDS} rounds x {} modes, {} with anything False ({:.0} s)",
        ProxyMode::ALL.len(),
        failures.len(),
        start.elapsed().as_secs_f64()
    );
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// So many reports of agents. A round lasts as long as a second look takes where Pods come and go, and the
/// next one follows at once, as the endpoints have changed meanwhile.
async fn reports(lane: &Lane) -> Result<(), String> {
    let start = Instant::now();
    let mut seen = BTreeSet::new();
    while seen.len() < ROUNDS {
        if start.elapsed() > REPORTS_WITHIN {
            return Err(format!("only {} reports within {REPORTS_WITHIN:?}", seen.len()));
        }
        for probe in lane.probes().await? {
            if let Some(generation) = probe.status.and_then(|s| s.observed_generation) {
                seen.insert((probe.metadata.uid, generation));
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// Begins a rollout whenever the last one is done; how many were begun stands in `begun`.
async fn restart_without_end(lane: &Lane, begun: &std::sync::atomic::AtomicUsize) -> String {
    let deployments: Api<Deployment> = Api::namespaced(lane.cluster.client(), "default");
    loop {
        let number = begun.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // What `kubectl rollout restart` does.
        let patch = json!({ "spec": { "template": { "metadata": { "annotations": {
            "kubectl.kubernetes.io/restartedAt": number.to_string() } } } } });
        let patched = deployments
            .patch(Scene::NAME, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        if let Err(error) = patched {
            return chain(&error);
        }
        loop {
            match deployments.get(Scene::NAME).await {
                Ok(deployment) if is_done(&deployment) => break,
                Ok(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                Err(error) => return chain(&error),
            }
        }
    }
}

/// As `kubectl rollout status` sees it.
fn is_done(deployment: &Deployment) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|s| s.replicas);
    deployment.status.as_ref().is_some_and(|s| {
        s.observed_generation == deployment.metadata.generation
            && [s.replicas, s.updated_replicas, s.available_replicas] == [wanted; 3]
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_false_while_the_pods_are_restarted_without_end() {
    let start = Instant::now();
    let lane = Lane::start(kind(ProxyMode::Nftables)).await.unwrap();
    let begun = std::sync::atomic::AtomicUsize::new(0);
    let work = async {
        tokio::select! {
            result = reports(&lane) => result,
            why = restart_without_end(&lane, &begun) => Err(why),
        }
    };
    let result = lane.unblamed_while(work).await;
    let rollouts = begun.into_inner();
    println!(
        "restarts without end (N42): {ROUNDS} rounds, {rollouts} rollouts, {} ({:.0} s)",
        if result.is_ok() { "nothing False" } else { "BLAMED" },
        start.elapsed().as_secs_f64()
    );
    let result = match result {
        Ok(()) => lane
            .wait("well at the end", SOON, Verdict::works)
            .await
            .map(drop)
            .map_err(String::from),
        Err(why) => Err(why),
    };
    lane.stop().await;
    if let Err(why) = result {
        panic!("{why}");
    }
    assert!(rollouts >= 3, "{rollouts} rollouts are no restlessness");
}
