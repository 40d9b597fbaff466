//! Every row of the catalogue and every twin: the verdict of the real controller, and the way back.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use futures::StreamExt;
use svcdiag::api::STAGES;
use svcdiag_sandbox::{
    error::chain,
    faults::{Error, Fault, Scene, Twin, Verdict, catalogue},
};

use crate::rig::{Rig, SOON};

/// How long nothing may be False on a twin: some rounds of Pods coming and going. The way to it may
/// lead through states that are broken, such as a rollout half done, so the time starts anew with
/// each of them.
const TWIN_WATCHED: Duration = Duration::from_secs(3);

const LOOK_EVERY: Duration = Duration::from_millis(150);

/// Scenes at the same time. Most of them wait for endpoints to come to rest.
const WIDTH: usize = 32;

/// What is played on a scene.
enum Act<'a> {
    Fault(&'a Fault),
    Twin(&'a Twin),
}

impl Act<'_> {
    fn title(&self) -> String {
        match self {
            Act::Fault(fault) => format!("{}: {}", fault.id, fault.title),
            Act::Twin(twin) => format!("twin of {}: {}", twin.fault, twin.title),
        }
    }

    fn is_exclusive(&self) -> bool {
        match self {
            Act::Fault(fault) => fault.exclusive,
            Act::Twin(twin) => twin.exclusive,
        }
    }

    async fn undo(&self, scene: &Scene) -> Result<(), Error> {
        match self {
            Act::Fault(fault) => fault.undo(scene).await,
            Act::Twin(twin) => twin.undo(scene).await,
        }
    }
}

/// Waits for a verdict that passes, and notes every reason on the way.
async fn watch(
    scene: &Scene,
    seen: &mut BTreeSet<String>,
    within: Duration,
    passes: impl Fn(&Verdict) -> bool,
) -> Result<Verdict, String> {
    let start = Instant::now();
    loop {
        let verdict = scene.verdict().await.map_err(|error| chain(&error))?;
        seen.extend(verdict.conditions().iter().map(|c| c.reason.clone()));
        if passes(&verdict) {
            return Ok(verdict);
        }
        if start.elapsed() > within {
            let said: Vec<String> = verdict.conditions().iter().map(ToString::to_string).collect();
            return Err(format!("{verdict}; {}", said.join(", ")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Type, status and reason of all conditions, in a fixed order.
fn content(verdict: &Verdict) -> BTreeSet<String> {
    verdict.conditions().iter().map(ToString::to_string).collect()
}

/// The reasons that were seen.
async fn play(rig: &Rig, number: usize, act: &Act<'_>) -> Result<BTreeSet<String>, String> {
    let mut seen = BTreeSet::new();
    let scene = Scene::new(rig.cluster.client(), format!("act-{number}"));
    let played = play_on(&scene, act, &mut seen).await;
    let torn_down = scene.tear_down().await;
    played.map_err(|why| format!("{}: {why}", act.title()))?;
    torn_down.map_err(|error| chain(&error))?;
    Ok(seen)
}

async fn play_on(scene: &Scene, act: &Act<'_>, seen: &mut BTreeSet<String>) -> Result<(), String> {
    let told = |step: &'static str| move |error: Error| format!("{step}: {}", chain(&error));
    scene.set_up().await.map_err(told("set up"))?;
    // Details follow once the endpoints have come to rest.
    let is_at_rest = |v: &Verdict| v.is_healthy() && content(v).contains("PodsHealthy True/AllPodsReady");
    let healthy = watch(scene, seen, SOON, is_at_rest)
        .await
        .map_err(|last| format!("not healthy at the start: {last}"))?;
    let before = scene.snapshot().await.map_err(told("look"))?;
    match act {
        Act::Fault(fault) => {
            fault.inject(scene).await.map_err(told("inject"))?;
            watch(scene, seen, SOON, |v| fault.expected.is_met_by(v))
                .await
                .map_err(|last| format!("expected {}, found {last}", fault.expected))?;
        }
        Act::Twin(twin) => {
            twin.apply(scene).await.map_err(told("apply"))?;
            if let Some(expected) = &twin.expected {
                watch(scene, seen, SOON, |v| expected.is_met_by(v))
                    .await
                    .map_err(|last| format!("expected {expected}, found {last}"))?;
            }
            let start = Instant::now();
            let mut quiet = Instant::now();
            while quiet.elapsed() < TWIN_WATCHED {
                let unblamed = watch(scene, seen, Duration::ZERO, |v| v.broken_stages().is_empty()).await;
                if let Err(found) = unblamed {
                    quiet = Instant::now();
                    if start.elapsed() > SOON {
                        return Err(format!("false blame: {found}"));
                    }
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }
    act.undo(scene).await.map_err(told("undo"))?;
    scene.wait_until_settled().await.map_err(told("settle"))?;
    let after = scene.snapshot().await.map_err(told("look"))?;
    for name in before.keys().chain(after.keys()) {
        if before.get(name) != after.get(name) {
            return Err(format!(
                "{name} was {:?}, is {:?}",
                before.get(name),
                after.get(name)
            ));
        }
    }
    watch(scene, seen, SOON, |v| content(v) == content(&healthy))
        .await
        .map_err(|last| format!("after the undo: {last}; before: {:?}", content(&healthy)))?;
    Ok(())
}

/// Faults of the API's objects that no row plays: an API server refuses them, agents see them, or only a rare
/// moment shows them. The engine's tests emit them.
const NOT_PLAYED: [&str; 6] = [
    "NumericTargetPortName",
    "ProtocolMismatch",
    "NodeNotReady",
    "PodsStuckTerminating",
    "InitContainerFailing",
    "PortHasNoEndpoints",
];

/// Other reasons that the API alone can lead to.
const OTHERS: [&str; 17] = [
    "ServiceFound",
    "Valid",
    "ValidWithHints",
    "AllPodsReady",
    "SomePodsNotReady",
    "RestartingOften",
    "PodsStarting",
    "EndpointsReady",
    "NoPolicySelects",
    "Allowed",
    "ClientNamespaceNotGranted",
    "ClusterDNSNotReady",
    "Suspended",
    "Pending",
    "Blocked",
    "NotApplicable",
    "NoVantagePoint",
];

/// What has to be seen here.
fn reasons() -> impl Iterator<Item = &'static str> {
    let of_objects = STAGES.iter().filter(|stage| stage.is_decided_by_objects);
    of_objects
        .flat_map(|stage| stage.faults)
        .map(|reason| reason.as_str())
        .filter(|reason| !NOT_PLAYED.contains(reason))
        .chain(OTHERS)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_found_and_no_twin_is_blamed() {
    let rig = Rig::start().await;
    let faults = catalogue().unwrap();
    let playable = |fault: &&Fault| fault.refused.is_none();
    let acts: Vec<Act> = faults
        .iter()
        .filter(playable)
        .map(Act::Fault)
        .chain(faults.iter().flat_map(|fault| fault.twins.iter().map(Act::Twin)))
        .collect();
    let run = |exclusive: bool, width: usize| {
        let chosen = acts
            .iter()
            .enumerate()
            .filter(move |(_, act)| act.is_exclusive() == exclusive);
        futures::stream::iter(chosen.map(|(number, act)| play(&rig, number, act)))
            .buffer_unordered(width)
            .collect::<Vec<_>>()
    };
    let mut results = run(false, WIDTH).await;
    results.extend(run(true, 1).await);
    let (played, failed): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    let refused: Vec<&str> = faults
        .iter()
        .filter(|fault| fault.refused.is_some())
        .map(|fault| fault.id.as_str())
        .collect();
    println!(
        "{} of {} faults and twins passed on {}; refused by a current API server: {}",
        played.len(),
        acts.len(),
        rig.cluster.describe(),
        refused.join(", ")
    );
    let failures: Vec<String> = failed.into_iter().filter_map(Result::err).collect();
    assert!(failures.is_empty(), "{}\n{}", failures.join("\n"), rig.log());
    let seen: BTreeSet<String> = played.into_iter().flatten().flatten().collect();
    let missing: Vec<&str> = reasons().filter(|reason| !seen.contains(*reason)).collect();
    assert!(missing.is_empty(), "never emitted: {missing:?}");
    rig.stop().await;
}
