//! Every row and every twin, in every mode that it asks for.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Mutex,
    time::{Duration, Instant},
};

use svcdiag_sandbox::{
    error::chain,
    faults::{Fault, Twin, Verdict, data_path_catalogue},
    kernel::Wiring,
    proxy::ProxyMode,
};

use crate::lane::{Failure, Kind, Lane, SOON};

/// Clusters at the same time. They wait for time-outs most of the time; with more of them on two cores the stand-ins of
/// kube-proxy write rules later than a real one would.
const LANES: usize = 6;

/// How long nothing may be False on a twin between its two rounds.
const WATCHED: Duration = Duration::from_secs(3);

/// The same where two looks ten seconds apart are compared: at kube-proxy, and at tracked connections.
const TWO_LOOKS: Duration = Duration::from_secs(12);
const OF_TWO_LOOKS: [&str; 5] = ["N06", "N07", "N08", "N18", "N44"];

/// A row is about a fault in a fresh and healthy cluster. That clusters are used for one act after the other
/// saves time; what is late on one is played again on a fresh one. A wrong verdict never has another try.
const TRIES: usize = 3;

/// What is played on a cluster.
#[derive(Clone)]
enum Act {
    Fault(Fault),
    Twin(Twin),
}

impl Act {
    fn title(&self) -> String {
        match self {
            Self::Fault(fault) => format!("{}: {}", fault.id, fault.title),
            Self::Twin(twin) => format!("twin of {}: {}", twin.fault, twin.title),
        }
    }
}

/// All acts, by the kind of cluster that they need.
fn acts() -> BTreeMap<(ProxyMode, Wiring), VecDeque<Act>> {
    let mut all: BTreeMap<(ProxyMode, Wiring), VecDeque<Act>> = BTreeMap::new();
    for fault in data_path_catalogue().unwrap() {
        if fault.driver.is_none() {
            for mode in fault.modes.all() {
                all.entry((*mode, fault.wiring))
                    .or_default()
                    .push_back(Act::Fault(fault.clone()));
            }
        }
        for twin in &fault.twins {
            for mode in twin.modes.all() {
                all.entry((*mode, twin.wiring))
                    .or_default()
                    .push_back(Act::Twin(twin.clone()));
            }
        }
    }
    all
}

async fn play(lane: &Lane, act: &Act) -> Result<(), Failure> {
    match act {
        Act::Fault(fault) => play_fault(lane, fault).await?,
        Act::Twin(twin) => play_twin(lane, twin).await?,
    }
    lane.settle().await
}

async fn play_fault(lane: &Lane, fault: &Fault) -> Result<(), Failure> {
    let mut noted = BTreeMap::new();
    let found = match lane.inject(fault).await {
        Ok(()) => {
            let expected = |v: &Verdict| fault.expected.is_met_by(v);
            lane.wait_noting(&fault.expected.to_string(), SOON, expected, &mut noted)
                .await
        }
        Err(why) => Err(why),
    };
    let offline = match &found {
        Ok(_) => agrees(lane, fault).await,
        Err(_) => Ok(()),
    };
    // Undone in any case: the next act plays on the same cluster.
    fault.undo(&lane.scene).await.map_err(Failure::of_step("undo"))?;
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

/// Whether a bundle that is collected while the fault is on says the same. It is Unknown while agents look
/// again, as the cluster's verdict may be, and the cluster may come to a more exact reason meanwhile.
async fn agrees(lane: &Lane, fault: &Fault) -> Result<(), Failure> {
    let start = Instant::now();
    let mut others = Vec::new();
    loop {
        let offline = lane.verdict_of_a_bundle().await?;
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

async fn play_twin(lane: &Lane, twin: &Twin) -> Result<(), Failure> {
    let applied = twin.apply(&lane.scene).await.map_err(Failure::of_step("apply"));
    let judged = match applied {
        Ok(()) => watch(lane, twin).await,
        Err(why) => Err(why),
    };
    twin.undo(&lane.scene).await.map_err(Failure::of_step("undo"))?;
    judged
}

/// Two rounds, far enough from one another, and nothing False in between or afterwards.
async fn watch(lane: &Lane, twin: &Twin) -> Result<(), Failure> {
    // One that was made anew was away for a moment, which the controller may say.
    let is_there = |v: &Verdict| v.condition("ServiceExists").is_some_and(|c| c.status == "True");
    lane.round(SOON).await?;
    lane.wait("there", SOON, is_there).await?;
    let start = Instant::now();
    let is_of_two = OF_TWO_LOOKS.contains(&twin.fault.as_str());
    let watched = if is_of_two { TWO_LOOKS } else { WATCHED };
    while start.elapsed() < watched {
        unblamed(lane).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    lane.round(SOON).await?;
    match &twin.expected {
        Some(expected) => {
            lane.wait(&expected.to_string(), SOON, |v| expected.is_met_by(v))
                .await
        }
        None => lane.wait("well", SOON, Verdict::works).await,
    }?;
    unblamed(lane).await
}

async fn unblamed(lane: &Lane) -> Result<(), Failure> {
    let verdict = lane.scene.verdict().await.map_err(|e| chain(&e))?;
    if verdict.broken_stages().is_empty() {
        Ok(())
    } else {
        Err(Failure::Wrong(format!(
            "false blame: {}",
            lane.told(&verdict).await
        )))
    }
}

/// One lane: takes acts of one kind after the other until none is left.
async fn run(
    queue: &Mutex<BTreeMap<(ProxyMode, Wiring), VecDeque<Act>>>,
    results: &Mutex<Vec<(String, Result<(), Failure>)>>,
    again: &Mutex<Vec<String>>,
) {
    let mut lane: Option<Lane> = None;
    loop {
        let next = {
            let mut queue = queue.lock().unwrap();
            queue.retain(|_, acts| !acts.is_empty());
            let own = lane.as_ref().map(|l| (l.kind().mode, l.kind().wiring));
            // Those of the own kind first, then those of which there are most.
            let kind = own.filter(|kind| queue.contains_key(kind)).or_else(|| {
                queue
                    .iter()
                    .max_by_key(|(_, acts)| acts.len())
                    .map(|(kind, _)| *kind)
            });
            kind.and_then(|kind| Some((kind, queue.get_mut(&kind)?.pop_front()?)))
        };
        let Some(((mode, wiring), act)) = next else { break };
        let kind = Kind { mode, wiring };
        let is_other = lane.as_ref().is_some_and(|l| l.kind() != kind);
        if is_other && let Some(old) = lane.take() {
            old.stop().await;
        }
        let title = format!("{} [{mode}]", act.title());
        let may_try_again = again.lock().unwrap().iter().filter(|one| **one == title).count() < TRIES - 1;
        if lane.is_none() {
            match Lane::start(kind).await {
                Ok(started) => lane = Some(started),
                Err(_) if may_try_again => {
                    println!("AGAIN on a fresh cluster: {title}: none could be started");
                    again.lock().unwrap().push(title);
                    queue
                        .lock()
                        .unwrap()
                        .entry((mode, wiring))
                        .or_default()
                        .push_back(act);
                    continue;
                }
                Err(why) => {
                    results.lock().unwrap().push((title, Err(why)));
                    continue;
                }
            }
        }
        let Some(current) = &lane else { continue };
        let start = Instant::now();
        let result = play(current, &act).await;
        println!(
            "{} {title} ({:.1} s)",
            if result.is_ok() { "ok  " } else { "FAIL" },
            start.elapsed().as_secs_f64()
        );
        if result.is_err()
            && let Some(broken) = lane.take()
        {
            broken.stop().await;
        }
        if let Err(Failure::Late(why)) = &result
            && may_try_again
        {
            println!("AGAIN on a fresh cluster: {title}: {why}");
            again.lock().unwrap().push(title);
            queue
                .lock()
                .unwrap()
                .entry((mode, wiring))
                .or_default()
                .push_back(act);
            continue;
        }
        results.lock().unwrap().push((title, result));
    }
    if let Some(lane) = lane {
        lane.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_is_found_in_every_mode_and_no_twin_is_blamed() {
    // For work on some rows: `SVCDIAG_MATRIX="N04,twin of N05"`.
    let only = std::env::var("SVCDIAG_MATRIX").unwrap_or_default();
    let is_wanted = |title: &str| only.is_empty() || only.split(',').any(|one| title.starts_with(one));
    let mut acts = acts();
    for list in acts.values_mut() {
        list.retain(|act| is_wanted(&act.title()));
    }
    let total: usize = acts.values().map(VecDeque::len).sum();
    let queue = Mutex::new(acts);
    let results = Mutex::new(Vec::new());
    let again = Mutex::new(Vec::new());
    futures::future::join_all((0..LANES).map(|_| run(&queue, &results, &again))).await;
    let results = results.into_inner().unwrap();
    let failures: Vec<String> = results
        .iter()
        .filter_map(|(title, result)| Some(format!("{title}: {}", result.as_ref().err()?)))
        .collect();
    println!("{}", failures.join("\n\n"));
    println!(
        "fault matrix: {} of {total} rows and twins x modes passed",
        results.len() - failures.len()
    );
    assert_eq!(results.len(), total);
    let in_short: Vec<&str> = failures.iter().filter_map(|f| f.lines().next()).collect();
    assert!(failures.is_empty(), "{}", in_short.join("\n"));
}
