//! Every row and every lookalike, in every mode that it asks for.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Mutex,
    time::{Duration, Instant},
};

use svcdiag_sandbox::{
    error::chain,
    faults::{Fault, Lookalike, Verdict, data_path_catalogue},
    kernel::Wiring,
    proxy::ProxyMode,
};

use crate::harness::{Failure, Harness, Kind, SOON};

/// Clusters at the same time. They wait for time-outs most of the time; with more of them on two cores the stand-ins of
/// kube-proxy write rules later than a real one would.
const WORKERS: usize = 6;

/// How long no stage of a lookalike may be False between its two rounds.
const WATCHED: Duration = Duration::from_secs(3);

/// The same where two samples ten seconds apart are compared: of kube-proxy, and of tracked connections.
const TWO_SAMPLES: Duration = Duration::from_secs(12);
const BY_TWO_SAMPLES: [&str; 5] = ["N06", "N07", "N08", "N18", "N44"];

/// A row is about a fault in a fresh and healthy cluster. That clusters are used for one scenario after the other
/// saves time; what is late on one is run again on a fresh one. A wrong verdict has no other try, unless the sandbox's
/// kube-proxy was too far behind for it to be wrong (`BEHIND`).
const ATTEMPTS: usize = 3;

/// What is run on a cluster.
#[derive(Clone)]
enum Scenario {
    Fault(Fault),
    Lookalike(Lookalike),
}

impl Scenario {
    fn title(&self) -> String {
        match self {
            Self::Fault(fault) => format!("{}: {}", fault.id, fault.title),
            Self::Lookalike(lookalike) => format!("lookalike of {}: {}", lookalike.fault, lookalike.title),
        }
    }
}

/// All scenarios, by the kind of cluster that they need.
fn scenarios() -> BTreeMap<(ProxyMode, Wiring), VecDeque<Scenario>> {
    let mut all: BTreeMap<(ProxyMode, Wiring), VecDeque<Scenario>> = BTreeMap::new();
    for fault in data_path_catalogue().unwrap() {
        if fault.driver.is_none() {
            for mode in fault.modes.all() {
                all.entry((*mode, fault.wiring))
                    .or_default()
                    .push_back(Scenario::Fault(fault.clone()));
            }
        }
        for lookalike in &fault.lookalikes {
            for mode in lookalike.modes.all() {
                all.entry((*mode, lookalike.wiring))
                    .or_default()
                    .push_back(Scenario::Lookalike(lookalike.clone()));
            }
        }
    }
    all
}

/// svcdiag gives a kube-proxy that calls nothing pending fifteen seconds for a change, and whoever is further behind is
/// blamed rightly, be it that of a busy machine. Where the machine keeps up, it is half of this.
const BEHIND: Duration = Duration::from_secs(12);

async fn run_scenario(harness: &Harness, scenario: &Scenario) -> Result<(), Failure> {
    harness.longest_lag();
    let judged = match scenario {
        Scenario::Fault(fault) => run_fault(harness, fault).await,
        Scenario::Lookalike(lookalike) => run_lookalike(harness, lookalike).await,
    };
    match (judged, harness.longest_lag()) {
        (Err(Failure::Wrong(why)), lag) if lag > BEHIND => Err(Failure::Late(format!(
            "kube-proxy was {lag:?} behind, so this may be true: {why}"
        ))),
        (judged, _) => judged,
    }?;
    harness.settle().await
}

async fn run_fault(harness: &Harness, fault: &Fault) -> Result<(), Failure> {
    let mut noted = BTreeMap::new();
    let found = match harness.inject(fault).await {
        Ok(()) => {
            let expected = |v: &Verdict| fault.expected.is_met_by(v);
            harness
                .wait_noting(&fault.expected.to_string(), SOON, expected, &mut noted)
                .await
        }
        Err(why) => Err(why),
    };
    let offline = match &found {
        Ok(_) => agrees(harness, fault).await,
        Err(_) => Ok(()),
    };
    // Undone in any case: the next scenario runs on the same cluster.
    fault
        .undo(&harness.fixture)
        .await
        .map_err(Failure::of_step("undo"))?;
    found?;
    offline?;
    // An agent that has not reported yet may hold the explanation, so that the reason may become a more
    // exact one; another stage must not be blamed.
    let stage = fault.expected.to_string();
    let stage = stage.split('/').next().unwrap_or_default();
    let is_broken = |of: &str| of == stage || fault.meanwhile.iter().any(|other| other == of);
    noted.retain(|cause, _| !cause.split('/').next().is_some_and(is_broken));
    if noted.is_empty() {
        Ok(())
    } else {
        let causes: Vec<&String> = noted.keys().collect();
        let told: Vec<&str> = noted.values().map(String::as_str).collect();
        Err(Failure::Wrong(format!(
            "blamed on the way: {causes:?}\n{}",
            told.join("\n")
        )))
    }
}

/// Whether a bundle that is collected while the fault is on says the same. It is Unknown while agents probe
/// again, as the cluster's verdict may be, and the cluster may come to a more exact reason meanwhile.
async fn agrees(harness: &Harness, fault: &Fault) -> Result<(), Failure> {
    let start = Instant::now();
    let mut others = Vec::new();
    loop {
        let offline = harness.verdict_of_a_bundle().await?;
        if fault.expected.is_met_by(&offline) {
            return Ok(());
        }
        let is_blame = !offline.broken_stages().is_empty();
        others.extend(is_blame.then(|| offline.to_string()));
        if others.len() > 2 || start.elapsed() > SOON {
            return Err(Failure::Wrong(format!(
                "the bundle says otherwise: {offline}, not {}; blamed before: {others:?}",
                fault.expected
            )));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn run_lookalike(harness: &Harness, lookalike: &Lookalike) -> Result<(), Failure> {
    let applied = lookalike
        .apply(&harness.fixture)
        .await
        .map_err(Failure::of_step("apply"));
    let judged = match applied {
        Ok(()) => watch(harness, lookalike).await,
        Err(why) => Err(why),
    };
    lookalike
        .undo(&harness.fixture)
        .await
        .map_err(Failure::of_step("undo"))?;
    judged
}

/// Two rounds, far enough from one another, and nothing False in between or afterwards.
async fn watch(harness: &Harness, lookalike: &Lookalike) -> Result<(), Failure> {
    // One that was made anew was away for a moment, which the controller may say.
    let is_there = |v: &Verdict| v.condition("ServiceExists").is_some_and(|c| c.status == "True");
    harness.round(SOON).await?;
    harness.wait("there", SOON, is_there).await?;
    let start = Instant::now();
    let is_of_two = BY_TWO_SAMPLES.contains(&lookalike.fault.as_str());
    let watched = if is_of_two { TWO_SAMPLES } else { WATCHED };
    while start.elapsed() < watched {
        unblamed(harness).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    harness.round(SOON).await?;
    match &lookalike.expected {
        Some(expected) => {
            harness
                .wait(&expected.to_string(), SOON, |v| expected.is_met_by(v))
                .await
        }
        None => harness.wait("well", SOON, Verdict::works).await,
    }?;
    unblamed(harness).await
}

async fn unblamed(harness: &Harness) -> Result<(), Failure> {
    let verdict = harness.fixture.verdict().await.map_err(|e| chain(&e))?;
    if verdict.broken_stages().is_empty() {
        Ok(())
    } else {
        Err(Failure::Wrong(format!(
            "false blame: {}",
            harness.told(&verdict).await
        )))
    }
}

/// One worker: takes scenarios of one kind after the other until none is left.
async fn work(
    queue: &Mutex<BTreeMap<(ProxyMode, Wiring), VecDeque<Scenario>>>,
    results: &Mutex<Vec<(String, Result<(), Failure>)>>,
    again: &Mutex<Vec<String>>,
) {
    let mut harness: Option<Harness> = None;
    loop {
        let next = {
            let mut queue = queue.lock().unwrap();
            queue.retain(|_, scenarios| !scenarios.is_empty());
            let own = harness.as_ref().map(|l| (l.kind().mode, l.kind().wiring));
            // Those of the own kind first, then those of which there are most.
            let kind = own.filter(|kind| queue.contains_key(kind)).or_else(|| {
                queue
                    .iter()
                    .max_by_key(|(_, scenarios)| scenarios.len())
                    .map(|(kind, _)| *kind)
            });
            kind.and_then(|kind| Some((kind, queue.get_mut(&kind)?.pop_front()?)))
        };
        let Some(((mode, wiring), scenario)) = next else {
            break;
        };
        let kind = Kind { mode, wiring };
        let is_other = harness.as_ref().is_some_and(|l| l.kind() != kind);
        if is_other && let Some(old) = harness.take() {
            old.stop().await;
        }
        let title = format!("{} [{mode}]", scenario.title());
        let may_try_again = again.lock().unwrap().iter().filter(|one| **one == title).count() < ATTEMPTS - 1;
        let put_back = |scenario: Scenario, why: &str| {
            println!("AGAIN on a fresh cluster: {title}: {why}");
            again.lock().unwrap().push(title.clone());
            let mut queue = queue.lock().unwrap();
            queue.entry((mode, wiring)).or_default().push_back(scenario);
        };
        if harness.is_none() {
            match Harness::start(kind).await {
                Ok(started) => harness = Some(started),
                Err(_) if may_try_again => {
                    put_back(scenario, "none could be started");
                    continue;
                }
                Err(why) => {
                    results.lock().unwrap().push((title, Err(why)));
                    continue;
                }
            }
        }
        let Some(current) = &harness else { continue };
        let start = Instant::now();
        let result = run_scenario(current, &scenario).await;
        println!(
            "{} {title} ({:.1} s)",
            if result.is_ok() { "ok  " } else { "FAIL" },
            start.elapsed().as_secs_f64()
        );
        if result.is_err()
            && let Some(broken) = harness.take()
        {
            broken.stop().await;
        }
        if let Err(Failure::Late(why)) = &result
            && may_try_again
        {
            put_back(scenario, why);
            continue;
        }
        results.lock().unwrap().push((title, result));
    }
    if let Some(harness) = harness {
        harness.stop().await;
    }
}

// More than there are cores: the stand-ins of several clusters block now and then.
#[tokio::test(flavor = "multi_thread", worker_threads = 12)]
async fn every_row_is_found_in_every_mode_and_no_lookalike_is_blamed() {
    // For work on some rows: `SVCDIAG_MATRIX="N04,lookalike of N05"`.
    let only = std::env::var("SVCDIAG_MATRIX").unwrap_or_default();
    let is_wanted = |title: &str| only.is_empty() || only.split(',').any(|one| title.starts_with(one));
    let mut scenarios = scenarios();
    for list in scenarios.values_mut() {
        list.retain(|scenario| is_wanted(&scenario.title()));
    }
    let total: usize = scenarios.values().map(VecDeque::len).sum();
    let queue = Mutex::new(scenarios);
    let results = Mutex::new(Vec::new());
    let again = Mutex::new(Vec::new());
    futures::future::join_all((0..WORKERS).map(|_| work(&queue, &results, &again))).await;
    let results = results.into_inner().unwrap();
    let failures: Vec<String> = results
        .iter()
        .filter_map(|(title, result)| Some(format!("{title}: {}", result.as_ref().err()?)))
        .collect();
    println!("{}", failures.join("\n\n"));
    println!(
        "fault matrix: {} of {total} rows and lookalikes x modes passed",
        results.len() - failures.len()
    );
    assert_eq!(results.len(), total);
    let in_short: Vec<&str> = failures.iter().filter_map(|f| f.lines().next()).collect();
    assert!(failures.is_empty(), "{}", in_short.join("\n"));
}
