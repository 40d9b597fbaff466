//! Every row of the catalogue and every lookalike: the verdict of the real controller, and the way back.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use futures::StreamExt;
use svcdiag::api::STAGES;
use svcdiag_sandbox::{
    error::chain,
    faults::{Error, Fault, Fixture, Lookalike, Verdict, catalogue},
};

use crate::harness::{Harness, SOON};

/// How long nothing may be False on a lookalike: some rounds of Pods coming and going. The way to it may
/// lead through states that are broken, such as a rollout half done, so the time starts again with
/// each of them.
const LOOKALIKE_WATCHED: Duration = Duration::from_secs(3);

const POLL_INTERVAL: Duration = Duration::from_millis(150);

/// Fixtures at the same time. Most of them wait for endpoints to come to rest.
const WIDTH: usize = 32;

/// What is run on a fixture.
enum Scenario<'a> {
    Fault(&'a Fault),
    Lookalike(&'a Lookalike),
}

impl Scenario<'_> {
    fn title(&self) -> String {
        match self {
            Scenario::Fault(fault) => format!("{}: {}", fault.id, fault.title),
            Scenario::Lookalike(lookalike) => {
                format!("lookalike of {}: {}", lookalike.fault, lookalike.title)
            }
        }
    }

    fn is_exclusive(&self) -> bool {
        match self {
            Scenario::Fault(fault) => fault.exclusive,
            Scenario::Lookalike(lookalike) => lookalike.exclusive,
        }
    }

    async fn undo(&self, fixture: &Fixture) -> Result<(), Error> {
        match self {
            Scenario::Fault(fault) => fault.undo(fixture).await,
            Scenario::Lookalike(lookalike) => lookalike.undo(fixture).await,
        }
    }
}

/// Waits for a verdict that passes, and notes every reason on the way.
async fn watch(
    fixture: &Fixture,
    seen: &mut BTreeSet<String>,
    within: Duration,
    passes: impl Fn(&Verdict) -> bool,
) -> Result<Verdict, String> {
    let start = Instant::now();
    loop {
        let verdict = fixture.verdict().await.map_err(|error| chain(&error))?;
        seen.extend(verdict.conditions().iter().map(|c| c.reason.clone()));
        if passes(&verdict) {
            return Ok(verdict);
        }
        if start.elapsed() > within {
            let said: Vec<String> = verdict.conditions().iter().map(ToString::to_string).collect();
            return Err(format!("{verdict}; {}", said.join(", ")));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Type, status and reason of all conditions, in a fixed order.
fn content(verdict: &Verdict) -> BTreeSet<String> {
    verdict.conditions().iter().map(ToString::to_string).collect()
}

/// The reasons that were seen.
async fn run_scenario(
    harness: &Harness,
    number: usize,
    scenario: &Scenario<'_>,
) -> Result<BTreeSet<String>, String> {
    let mut seen = BTreeSet::new();
    let fixture = Fixture::new(harness.cluster.client(), format!("scenario-{number}"));
    let result = run_on(&fixture, scenario, &mut seen).await;
    let torn_down = fixture.tear_down().await;
    result.map_err(|why| format!("{}: {why}", scenario.title()))?;
    torn_down.map_err(|error| chain(&error))?;
    Ok(seen)
}

async fn run_on(
    fixture: &Fixture,
    scenario: &Scenario<'_>,
    seen: &mut BTreeSet<String>,
) -> Result<(), String> {
    let told = |step: &'static str| move |error: Error| format!("{step}: {}", chain(&error));
    fixture.set_up().await.map_err(told("set up"))?;
    // Details follow once the endpoints have come to rest.
    let is_at_rest = |v: &Verdict| v.is_healthy() && content(v).contains("PodsHealthy True/AllPodsReady");
    let healthy = watch(fixture, seen, SOON, is_at_rest)
        .await
        .map_err(|last| format!("not healthy at the start: {last}"))?;
    let before = fixture.snapshot().await.map_err(told("snapshot"))?;
    match scenario {
        Scenario::Fault(fault) => {
            fault.inject(fixture).await.map_err(told("inject"))?;
            watch(fixture, seen, SOON, |v| fault.expected.is_met_by(v))
                .await
                .map_err(|last| format!("expected {}, found {last}", fault.expected))?;
        }
        Scenario::Lookalike(lookalike) => {
            lookalike.apply(fixture).await.map_err(told("apply"))?;
            if let Some(expected) = &lookalike.expected {
                watch(fixture, seen, SOON, |v| expected.is_met_by(v))
                    .await
                    .map_err(|last| format!("expected {expected}, found {last}"))?;
            }
            let start = Instant::now();
            let mut quiet = Instant::now();
            while quiet.elapsed() < LOOKALIKE_WATCHED {
                let unblamed = watch(fixture, seen, Duration::ZERO, |v| v.broken_stages().is_empty()).await;
                if let Err(found) = unblamed {
                    quiet = Instant::now();
                    if start.elapsed() > SOON {
                        return Err(format!("false blame: {found}"));
                    }
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }
    }
    scenario.undo(fixture).await.map_err(told("undo"))?;
    fixture.wait_until_settled().await.map_err(told("settle"))?;
    let after = fixture.snapshot().await.map_err(told("snapshot"))?;
    for name in before.keys().chain(after.keys()) {
        if before.get(name) != after.get(name) {
            return Err(format!(
                "{name} was {:?}, is {:?}",
                before.get(name),
                after.get(name)
            ));
        }
    }
    watch(fixture, seen, SOON, |v| content(v) == content(&healthy))
        .await
        .map_err(|last| format!("after the undo: {last}; before: {:?}", content(&healthy)))?;
    Ok(())
}

/// Faults of the API's objects that no row leads to: an API server refuses them, agents see them, or only a rare
/// moment shows them. The engine's tests emit them.
const NOT_RUN: [&str; 6] = [
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
        .filter(|reason| !NOT_RUN.contains(reason))
        .chain(OTHERS)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_found_and_no_lookalike_is_blamed() {
    let harness = Harness::start().await;
    let faults = catalogue().unwrap();
    let runnable = |fault: &&Fault| fault.refused.is_none();
    let scenarios: Vec<Scenario> = faults
        .iter()
        .filter(runnable)
        .map(Scenario::Fault)
        .chain(
            faults
                .iter()
                .flat_map(|fault| fault.lookalikes.iter().map(Scenario::Lookalike)),
        )
        .collect();
    let run = |exclusive: bool, width: usize| {
        let chosen = scenarios
            .iter()
            .enumerate()
            .filter(move |(_, scenario)| scenario.is_exclusive() == exclusive);
        futures::stream::iter(chosen.map(|(number, scenario)| run_scenario(&harness, number, scenario)))
            .buffer_unordered(width)
            .collect::<Vec<_>>()
    };
    let mut results = run(false, WIDTH).await;
    results.extend(run(true, 1).await);
    let (passed, failed): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    let refused: Vec<&str> = faults
        .iter()
        .filter(|fault| fault.refused.is_some())
        .map(|fault| fault.id.as_str())
        .collect();
    println!(
        "{} of {} faults and lookalikes passed on {}; refused by a current API server: {}",
        passed.len(),
        scenarios.len(),
        harness.cluster.describe(),
        refused.join(", ")
    );
    let failures: Vec<String> = failed.into_iter().filter_map(Result::err).collect();
    assert!(failures.is_empty(), "{}\n{}", failures.join("\n"), harness.log());
    let seen: BTreeSet<String> = passed.into_iter().flatten().flatten().collect();
    let missing: Vec<&str> = reasons().filter(|reason| !seen.contains(*reason)).collect();
    assert!(missing.is_empty(), "never emitted: {missing:?}");
    harness.stop().await;
}
