//! Rollouts of a Service that works: nothing is False while its Pods are restarted without end, and over a restart
//! Ready stays True and little is written.

use std::{
    collections::{BTreeMap, BTreeSet},
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

/// An answer from before a change stands for half a minute. Agents that take nearly as long, as those of a busy machine
/// do, leave it no choice: Ready may be Unknown then, and that is written.
const IN_TIME: Duration = Duration::from_secs(20);

/// Details are written when the endpoints have been at rest for ten seconds. An answer that comes later is written for
/// itself.
const BEFORE_DETAILS: Duration = Duration::from_secs(9);

/// The answers of agents to questions of their time.
#[derive(Default)]
struct Answers {
    slowest: Duration,
    /// Each with its diagnosis.
    at: Vec<(String, Instant)>,
}

/// Notes the answers until the work is done.
async fn answers_during<T>(
    harness: &Harness,
    work: impl Future<Output = Result<T, String>>,
) -> Result<(T, Answers), String> {
    let mut answers = Answers::default();
    let watch = async {
        let mut asked: BTreeMap<(Option<String>, Option<i64>), (Instant, bool)> = BTreeMap::new();
        loop {
            for probe in harness.probes().await? {
                let generation = probe.metadata.generation;
                let answered = probe.status.and_then(|status| status.observed_generation);
                let is_answered = answered == generation;
                let (since, was_answered) = asked
                    .entry((probe.metadata.uid, generation))
                    .or_insert_with(|| (Instant::now(), is_answered));
                if is_answered && !*was_answered {
                    answers.at.push((probe.spec.diagnosis.name, Instant::now()));
                }
                if !is_answered {
                    answers.slowest = answers.slowest.max(since.elapsed());
                }
                *was_answered = is_answered;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let done = tokio::select! {
        done = work => done,
        never = watch => never,
    };
    done.map(|done| (done, answers))
}

/// What was written over a rollout.
#[derive(Debug)]
struct Rollout {
    /// Of each diagnosis, and how many answers came after the details.
    writes: Vec<(usize, usize)>,
    minutes: usize,
    /// Versions in which Ready was not True.
    not_ready: BTreeSet<String>,
    slowest_answer: Duration,
}

impl Rollout {
    fn is_as_it_should_be(&self) -> bool {
        let mut writes = self.writes.iter();
        self.slowest_answer > IN_TIME
            || self.not_ready.is_empty()
                && writes.all(|(writes, late)| *writes <= MOST_WRITES + self.minutes + late)
    }
}

async fn roll_out(harness: &Harness, recorder: &Recorder) -> Result<Rollout, String> {
    let (begun, before) = (Instant::now(), recorder.counts());
    let not_ready_before = recorder.ready_other_than(&["True"]);
    let work = async {
        harness.fixture.roll_out().await.map_err(|e| chain(&e))?;
        let settled = harness.fixture.wait_until_settled().await;
        settled.map_err(|e| chain(&e))?;
        let settled = Instant::now();
        tokio::time::sleep(AT_REST).await;
        Ok(settled)
    };
    let (settled, answers) = answers_during(harness, work).await?;
    let late = |name: &String| {
        let of = answers.at.iter().filter(|(diagnosis, _)| diagnosis == name);
        of.filter(|(_, at)| *at > settled + BEFORE_DETAILS).count()
    };
    let minutes = begun.elapsed().as_secs() / DETAILS_WAIT.as_secs();
    let after = recorder.counts();
    let writes = after
        .iter()
        .map(|(name, count)| (count - before[name], late(name)));
    Ok(Rollout {
        writes: writes.collect(),
        minutes: usize::try_from(minutes).unwrap_or(usize::MAX),
        not_ready: &recorder.ready_other_than(&["True"]) - &not_ready_before,
        slowest_answer: answers.slowest,
    })
}

/// A few rollouts, and what was written in words.
async fn counted(harness: &Harness) -> Result<(Vec<Rollout>, String), String> {
    further(harness).await?;
    tokio::time::sleep(AT_REST).await;
    let recorder = Recorder::start(&harness.fixture).await.map_err(|e| chain(&e))?;
    let mut rollouts = Vec::new();
    for _ in 0..ROLLOUTS {
        rollouts.push(roll_out(harness, &recorder).await?);
    }
    let blamed = recorder.ready_other_than(&["True", "Unknown"]);
    match blamed.is_empty() {
        true => Ok((rollouts, recorder.changes(Fixture::NAME))),
        false => Err(format!("blamed: {blamed:#?}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_stays_true_over_a_rolling_restart_and_little_is_written() {
    let harness = Harness::start(KIND).await.unwrap();
    let result = counted(&harness).await;
    harness.stop().await;
    let (rollouts, changes) = result.unwrap_or_else(|why| panic!("{why}"));
    let of = |rollout: &Rollout| {
        let Rollout {
            writes, not_ready, ..
        } = rollout;
        format!(
            "{writes:?}, not True {} times, the slowest answer of an agent after {:.1} s",
            not_ready.len(),
            rollout.slowest_answer.as_secs_f64()
        )
    };
    println!(
        "rolling restarts (N42) of {} Pods behind {} diagnoses; writes of each diagnosis, and answers after the details: {}",
        Fixture::ENDPOINTS,
        1 + FURTHER,
        rollouts.iter().map(of).collect::<Vec<_>>().join("; ")
    );
    assert!(
        rollouts.iter().all(Rollout::is_as_it_should_be),
        "{rollouts:#?}\n{changes}"
    );
    // The watch sees them: Pods have other names afterwards, which somebody has to say.
    let writes: usize = rollouts
        .iter()
        .flat_map(|rollout| &rollout.writes)
        .map(|(writes, _)| writes)
        .sum();
    assert!(writes > 0, "nothing was written");
}
