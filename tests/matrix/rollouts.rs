//! Rollouts of a Service that works: nothing is False while its Pods are restarted without end, and over a restart
//! Ready stays True and little is written.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use kube::api::PostParams;
use serde_json::json;
use svcdiag_sandbox::{
    error::chain,
    faults::{Fixture, Recorder, Verdict, kinds::Target},
    kernel::Wiring,
    proxy::ProxyMode,
};

use crate::harness::{Harness, Kind, SOON};

const KIND: Kind = Kind {
    mode: ProxyMode::Nftables,
    wiring: Wiring::Bridge,
};

/// Reports of agents that are waited for.
const REPORTS: usize = 50;

const REPORTS_WITHIN: Duration = Duration::from_secs(240);

/// Rollouts over which writes are counted, and the most of them for each diagnosis and rollout; of one that takes long
/// somebody may want to see how far it is, once a minute.
const ROLLOUTS: usize = 3;
const MOST_WRITES: usize = 3;
const DETAILS_WAIT: Duration = Duration::from_secs(60);

/// Diagnoses of the Service beside the walk-through's.
const FURTHER: usize = 4;

/// Details are written when the endpoints have been at rest for ten seconds, and this much later for sure.
const AT_REST: Duration = Duration::from_secs(15);

/// So many reports of agents. A round lasts as long as a second probe takes where Pods come and go, and the
/// next one follows at once, as the endpoints have changed meanwhile.
async fn reports(harness: &Harness) -> Result<(), String> {
    let start = Instant::now();
    let mut seen = BTreeSet::new();
    while seen.len() < REPORTS {
        if start.elapsed() > REPORTS_WITHIN {
            return Err(format!("only {} reports within {REPORTS_WITHIN:?}", seen.len()));
        }
        for probe in harness.probes().await? {
            if let Some(generation) = probe.status.and_then(|s| s.observed_generation) {
                seen.insert((probe.metadata.uid, generation));
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// Begins a rollout whenever the last one is done; how many were begun stands in `begun`.
async fn restart_without_end(harness: &Harness, begun: &AtomicUsize) -> String {
    loop {
        begun.fetch_add(1, Ordering::Relaxed);
        if let Err(why) = harness.fixture.roll_out().await {
            return chain(&why);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_false_while_the_pods_are_restarted_without_end() {
    let start = Instant::now();
    let harness = Harness::start(KIND).await.unwrap();
    let begun = AtomicUsize::new(0);
    let work = async {
        tokio::select! {
            result = reports(&harness) => result,
            why = restart_without_end(&harness, &begun) => Err(why),
        }
    };
    let result = harness.unblamed_while(work).await;
    let rollouts = begun.into_inner();
    println!(
        "restarts without end (N42): {REPORTS} rounds, {rollouts} rollouts, {} ({:.0} s)",
        if result.is_ok() { "nothing False" } else { "BLAMED" },
        start.elapsed().as_secs_f64()
    );
    let result = match result {
        Ok(()) => harness
            .wait("well at the end", SOON, Verdict::works)
            .await
            .map(drop)
            .map_err(String::from),
        Err(why) => Err(why),
    };
    harness.stop().await;
    if let Err(why) = result {
        panic!("{why}");
    }
    assert!(rollouts >= 3, "{rollouts} rollouts are no restlessness");
}

/// Further diagnoses of the Service, all of them well.
async fn further(harness: &Harness) -> Result<(), String> {
    for number in 0..FURTHER {
        let name = format!("further-{number}");
        let object = serde_json::from_value(json!({
            "apiVersion": "svcdiag.dev/v1alpha1", "kind": "ServiceDiagnosis", "metadata": { "name": name },
            "spec": { "serviceName": Fixture::NAME },
        }))
        .map_err(|e| chain(&e))?;
        let target = Target::of(&object, "default").ok_or("unknown kind")?;
        let api = target.api(harness.fixture.client());
        api.create(&PostParams::default(), &object)
            .await
            .map_err(|e| chain(&e))?;
        let start = Instant::now();
        loop {
            let diagnosis = api.get(&name).await.map_err(|e| chain(&e))?;
            let diagnosis = serde_json::to_value(diagnosis).map_err(|e| chain(&e))?;
            if Verdict::read(&diagnosis).works() {
                break;
            }
            if start.elapsed() > SOON {
                return Err(format!("{name} is not well within {SOON:?}"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

/// The writes of each diagnosis in each of a few rollouts with the most that there may be, and what they were.
async fn counted(harness: &Harness) -> Result<(Vec<(usize, usize)>, String), String> {
    further(harness).await?;
    tokio::time::sleep(AT_REST).await;
    let recorder = Recorder::start(&harness.fixture).await.map_err(|e| chain(&e))?;
    let mut writes = Vec::new();
    for _ in 0..ROLLOUTS {
        let (begun, before) = (Instant::now(), recorder.counts());
        harness.fixture.roll_out().await.map_err(|e| chain(&e))?;
        harness
            .fixture
            .wait_until_settled()
            .await
            .map_err(|e| chain(&e))?;
        tokio::time::sleep(AT_REST).await;
        let after = recorder.counts();
        let minutes = begun.elapsed().as_secs() / DETAILS_WAIT.as_secs();
        let most = MOST_WRITES + usize::try_from(minutes).unwrap_or(usize::MAX);
        writes.extend(after.iter().map(|(name, count)| (count - before[name], most)));
    }
    let not_ready = recorder.not_ready();
    if not_ready.is_empty() {
        Ok((writes, recorder.changes(Fixture::NAME)))
    } else {
        Err(format!("Ready left True: {}", not_ready.join("\n")))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_stays_true_over_a_rolling_restart_and_little_is_written() {
    let harness = Harness::start(KIND).await.unwrap();
    let result = counted(&harness).await;
    harness.stop().await;
    let (writes, changes) = result.unwrap_or_else(|why| panic!("{why}"));
    let counts: Vec<usize> = writes.iter().map(|(count, _)| *count).collect();
    println!(
        "rolling restarts (N42): {ROLLOUTS} of {} Pods behind {} diagnoses, Ready never left True; writes of a diagnosis per rollout: {counts:?}",
        Fixture::ENDPOINTS,
        1 + FURTHER
    );
    assert!(
        writes.iter().all(|(count, most)| count <= most),
        "{writes:?}\n{changes}"
    );
    // The watch sees them: Pods have other names afterwards, which somebody has to say.
    assert!(counts.iter().sum::<usize>() > 0, "nothing was written");
}
