//! When each NodeProbe of the node gets a round, and when its facts are written.
//!
//! The NodeProbe has everything that a round needs, and nothing else is read, so no round is about an older state of
//! the Service than the controller's. If the NodeProbe changes during a round, the round is aborted unless it ends
//! soon, and its facts are dropped as outdated.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::StreamExt;
use kube::{
    Api,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::{
    cluster::{self, Cluster},
    now,
    round::{self, Memory, Node, Source},
};
use svcdiag_api::{Answer, DialPath, NodeFacts, NodeProbe, PathLoss};
use svcdiag_client::{Pauses, routes};
use svcdiag_engine::{asked::Subject, is_same_question};
use svcdiag_objects::Object;

/// Pause before a failed write is retried, and the maximum pause for one that is rejected repeatedly.
const RETRY: Duration = Duration::from_secs(2);
const LAST_RETRY: Duration = Duration::from_secs(300);

/// Minimum time between the starts of two rounds of one NodeProbe, however often it changes.
const SMALLEST_PAUSE: Duration = Duration::from_secs(1);

/// How long a round may continue after its NodeProbe has changed: most are over by then. Those that confirm a
/// failure, or wait for kube-proxy, would delay the new round.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// A NodeProbe's task.
struct Task {
    probe: watch::Sender<Arc<NodeProbe>>,
    handle: JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// Keeps watching the NodeProbes of the node, on the current route to the API server.
pub(super) async fn run(node: Arc<Node>, cluster: Cluster) {
    let mut access = cluster.access();
    let mut tasks = HashMap::new();
    loop {
        let api = Api::all(access.latest());
        tokio::select! {
            () = follow(api, &node, &cluster, &mut tasks) => {}
            () = access.changed() => {}
        }
    }
}

/// Starts and stops tasks to match the NodeProbes of the node.
async fn follow(api: Api<NodeProbe>, node: &Arc<Node>, cluster: &Cluster, tasks: &mut HashMap<String, Task>) {
    let mine = watcher::Config::default().fields(&format!("spec.nodeName={}", node.name));
    let mut events = std::pin::pin!(watcher(api, mine).backoff(Pauses::default()));
    let mut listed: HashMap<String, Arc<NodeProbe>> = HashMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(probe)) => {
                listed.insert(uid(&probe), Arc::new(probe));
            }
            Ok(Event::InitDone) => {
                tasks.retain(|uid, _| listed.contains_key(uid));
                for (_, probe) in listed.drain() {
                    give(tasks, node, cluster, probe);
                }
            }
            Ok(Event::Apply(probe)) => give(tasks, node, cluster, Arc::new(probe)),
            Ok(Event::Delete(probe)) => {
                tasks.remove(&uid(&probe));
            }
            Err(error) => {
                if is_unreachable(&error) {
                    cluster.access().is_in_trouble();
                    // Known long before the next renewal of the Lease.
                    node.reached().note(false);
                }
                tracing::warn!("The watch on NodeProbes was interrupted and will be resumed: {error}.");
            }
        }
    }
}

fn is_unreachable(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(source) | WatchStartFailed(source) | WatchFailed(source) => {
            routes::is_unreachable(source)
        }
        _ => false,
    }
}

fn uid(probe: &NodeProbe) -> String {
    probe.metadata.uid.clone().unwrap_or_default()
}

/// Passes a NodeProbe to its task, which reacts only to a new generation.
fn give(tasks: &mut HashMap<String, Task>, node: &Arc<Node>, cluster: &Cluster, probe: Arc<NodeProbe>) {
    match tasks.get(&uid(&probe)).filter(|task| !task.handle.is_finished()) {
        Some(task) => {
            task.probe.send_if_modified(|known| {
                let is_new = known.metadata.generation != probe.metadata.generation;
                *known = probe;
                is_new
            });
        }
        None => {
            let key = uid(&probe);
            let (sender, receiver) = watch::channel(probe);
            let handle = tokio::spawn(serve(node.clone(), cluster.clone(), receiver));
            tasks.insert(
                key,
                Task {
                    probe: sender,
                    handle,
                },
            );
        }
    }
}

/// The NodeProbe as it is now.
struct Latest(watch::Receiver<Arc<NodeProbe>>);

impl Source for Latest {
    fn latest(&self) -> Subject {
        Subject::of(&self.0.borrow().spec)
    }
}

/// Runs a round at once, after every change, and at the interval.
async fn serve(node: Arc<Node>, cluster: Cluster, mut probes: watch::Receiver<Arc<NodeProbe>>) {
    let mut state = State::default();
    let mut not_before = Instant::now();
    loop {
        tokio::time::sleep_until(not_before).await;
        not_before = Instant::now() + SMALLEST_PAUSE;
        let probe = probes.borrow_and_update().clone();
        let source = Latest(probes.clone());
        let round = async {
            let (namespace, spec, memory) = (probe.namespace(), &probe.spec, &state.memory);
            if let Some(facts) = state.answered(&probe) {
                let again = round::look_again(&node, namespace, spec, &source, memory, facts);
                if let Some(facts) = again.await {
                    return (facts, true);
                }
            }
            let facts = round::probe(&node, namespace, spec, &source, memory).await;
            (facts, false)
        };
        let (facts, was_answered) = tokio::select! {
            round = round => round,
            () = is_outdated(&probe, probes.clone()) => continue,
        };
        // The same question in the newest version: our own last report has changed the resourceVersion.
        let latest = probes.borrow().clone();
        if !is_same_question(&probe.spec, &latest.spec) {
            continue;
        }
        let pause = match state.write(&cluster, &latest, &probe, facts).await {
            Ok(()) => state.pause(&probe, was_answered),
            Err(error) => {
                if error.is_outage() {
                    node.reached().note(false);
                }
                tracing::warn!(
                    namespace = probe.namespace(),
                    name = probe.name(),
                    "The result of a round was lost: {error}."
                );
                state.next_retry(&error)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = probes.changed() => if changed.is_err() { return },
        }
    }
}

/// Waits until the round of a NodeProbe is outdated, because that asks for something else, and has had its time to end.
async fn is_outdated(probe: &NodeProbe, mut probes: watch::Receiver<Arc<NodeProbe>>) {
    loop {
        if probes.changed().await.is_err() {
            // The task itself is stopping.
            std::future::pending::<()>().await;
        }
        if !is_same_question(&probe.spec, &probes.borrow_and_update().spec) {
            break;
        }
    }
    tokio::time::sleep(LAST_MOMENT).await;
}

/// A report.
struct Written {
    of: Arc<NodeProbe>,
    generation: Option<i64>,
    facts: NodeFacts,
}

/// What a task remembers of its NodeProbe.
#[derive(Default)]
struct State {
    memory: Memory,
    /// What was last written, of a round for which NodeProbe, and for which generation.
    written: Option<Written>,
    /// When the next round is due that nothing but time asks for.
    due: Option<Instant>,
    /// How often in a row the API server has rejected the report.
    refused: u32,
}

impl State {
    /// The facts that answer a NodeProbe already: it asks for nothing new but to look again at what has failed.
    fn answered(&self, probe: &NodeProbe) -> Option<NodeFacts> {
        let Written { of, facts, .. } = self.written.as_ref()?;
        let is_to_look_again = of.spec.arrivals != probe.spec.arrivals || of.spec.repeat != probe.spec.repeat;
        let is_due = self.due.is_none_or(|due| due <= Instant::now());
        let is_answered = is_to_look_again && !is_due && is_same_question(&of.spec, &probe.spec);
        is_answered.then(|| facts.clone())
    }

    /// The pause before the next round, which a watch does not put off.
    fn pause(&mut self, probe: &NodeProbe, was_answered: bool) -> Duration {
        let now = Instant::now();
        let due = self
            .due
            .filter(|_| was_answered)
            .unwrap_or_else(|| now + jittered(probe));
        self.due = Some(due);
        due.saturating_duration_since(now)
    }

    /// Writes the facts of a round for a NodeProbe that was `of` when it began.
    async fn write(
        &mut self,
        cluster: &Cluster,
        probe: &NodeProbe,
        of: &Arc<NodeProbe>,
        facts: NodeFacts,
    ) -> Result<(), cluster::Error> {
        let generation = probe.metadata.generation;
        let is_known = self
            .written
            .as_ref()
            .is_some_and(|written| written.generation == generation && says_the_same(&written.facts, &facts));
        if !is_known {
            self.written = None;
            match cluster.report(probe, &facts, now()).await {
                Ok(()) => {}
                Err(error) => {
                    if error.is_refusal() && self.refused == 0 {
                        self.say(cluster, probe, &facts, &error).await;
                    }
                    return Err(error);
                }
            }
            self.written = Some(Written {
                of: of.clone(),
                generation,
                facts,
            });
        }
        self.refused = 0;
        Ok(())
    }

    /// Replaces a rejected report with a problem: nobody reads the log of an agent, and the old facts would remain in
    /// effect.
    async fn say(&self, cluster: &Cluster, probe: &NodeProbe, facts: &NodeFacts, error: &cluster::Error) {
        let remark = NodeFacts {
            slices: facts.slices.clone(),
            problems: vec![format!("The agent could not write its report: {error}.")],
            ..NodeFacts::default()
        };
        if let Err(error) = cluster.report(probe, &remark, now()).await {
            tracing::debug!("Could not record in the NodeProbe that a report was refused: {error}.");
        }
    }

    /// Pause after a failure: short in an outage, growing if the API server rejects the report.
    fn next_retry(&mut self, error: &cluster::Error) -> Duration {
        if error.is_outage() {
            return RETRY;
        }
        let wait = RETRY.saturating_mul(1 << self.refused.min(10)).min(LAST_RETRY);
        self.refused += 1;
        wait
    }
}

/// Whether two rounds observed the same. TTLs of DNS answers, how often chance picked an endpoint, and how many
/// packets were dropped or counted by the kernel do not matter, nor how a node port is closed. Of the share that is lost
/// only that it is twice as large as was written, or half.
fn says_the_same(a: &NodeFacts, b: &NodeFacts) -> bool {
    let essence = |facts: &NodeFacts| {
        let mut facts = facts.clone();
        facts.probes_made = 0;
        for count in &mut facts.dials {
            if count.path != DialPath::Endpoint && count.failed == 0 {
                count.made = 1;
            }
        }
        for drop in &mut facts.drops {
            drop.packets = 0;
            for dropper in &mut drop.droppers {
                dropper.rose = None;
            }
        }
        for left in &mut facts.left {
            (left.sent, left.answers) = (left.sent.min(1), left.answers.min(1));
        }
        for port in &mut facts.other_node_ports {
            if port.answer != Answer::Accepted {
                port.answer = Answer::TimedOut;
            }
        }
        for loss in &mut facts.losses {
            (loss.tries, loss.lost) = (0, 0);
            for counter in &mut loss.counters {
                (counter.rose, counter.rounds) = (0, 0);
            }
        }
        for lookup in facts.resolvers.iter_mut().flat_map(|r| &mut r.lookups) {
            lookup.ttl_seconds = 0;
        }
        facts
    };
    essence(a) == essence(b)
        && a.losses
            .iter()
            .zip(&b.losses)
            .all(|(a, b)| !is_twice(a, b) && !is_twice(b, a))
}

/// Whether one report has at least twice the share of losses of another.
fn is_twice(loss: &PathLoss, of: &PathLoss) -> bool {
    let product = |lost, tries| u64::from(lost) * u64::from(tries);
    let share = product(loss.lost, of.tries);
    share > 0 && share >= product(of.lost, loss.tries).saturating_mul(2)
}

/// The interval, varied by up to a tenth by the NodeProbe's UID, so that rounds are spread out.
fn jittered(probe: &NodeProbe) -> Duration {
    let sum: u32 = uid(probe).bytes().map(u32::from).sum();
    let tenths = 0.9 + 0.2 * f64::from(sum % 100) / 100.0;
    Duration::from_secs(u64::from(probe.spec.interval_seconds)).mul_f64(tenths)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::{Json, extract::Request, http::StatusCode, response::IntoResponse};
    use kube::Client;
    use serde_json::{Value, json};

    use super::*;

    /// A minimal API server that rejects reports with dials and stores the others.
    async fn refuse(kept: Arc<Mutex<Vec<Value>>>, request: Request) -> axum::response::Response {
        let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
        let mut patch: Value = serde_json::from_slice(&body).unwrap();
        if patch.pointer("/status/facts/dials").is_some() {
            let refusal = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "reason": "Invalid", "code": 422, "message": "NodeProbe \"p\" is invalid: status.facts: Too long" });
            return (StatusCode::UNPROCESSABLE_ENTITY, Json(refusal)).into_response();
        }
        kept.lock().unwrap().push(patch["status"]["facts"].clone());
        patch["spec"] = spec();
        Json(patch).into_response()
    }

    fn spec() -> Value {
        json!({ "nodeName": "n1", "diagnosis": { "name": "d", "uid": "u" }, "serviceName": "s", "intervalSeconds": 60 })
    }

    #[test]
    fn how_much_is_lost_is_news_where_it_doubles_and_by_which_counter_is() {
        let facts = |lost: u32, counter: &str| -> NodeFacts {
            let counter = json!({ "counter": counter, "rose": 3 * lost, "rounds": lost });
            let loss = json!({ "path": "DNS", "tries": 100, "lost": lost, "counters": [counter] });
            serde_json::from_value(json!({ "losses": [loss] })).unwrap()
        };
        let known = facts(5, "UDPChecksumErrors");
        assert!(says_the_same(&known, &facts(9, "UDPChecksumErrors")));
        assert!(says_the_same(&known, &facts(3, "UDPChecksumErrors")));
        assert!(!says_the_same(&known, &facts(10, "UDPChecksumErrors")));
        assert!(!says_the_same(&known, &facts(2, "UDPChecksumErrors")));
        let none = facts(0, "UDPChecksumErrors");
        assert!(says_the_same(&none, &none) && !says_the_same(&none, &known));
        assert!(!says_the_same(&known, &facts(5, "ConntrackInsertFailed")));
        assert!(!says_the_same(&known, &NodeFacts::default()));
    }

    fn asked(change: Value) -> Arc<NodeProbe> {
        let mut spec = spec();
        spec.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let probe = json!({ "apiVersion": "svcdiag.dev/v1alpha1", "kind": "NodeProbe",
            "metadata": { "name": "p", "namespace": "default", "generation": 1 }, "spec": spec });
        Arc::new(serde_json::from_value(probe).unwrap())
    }

    #[tokio::test]
    async fn a_second_look_takes_no_round_and_puts_none_off() {
        let mut state = State::default();
        let again = asked(json!({ "repeat": "w1" }));
        assert_eq!(state.answered(&again), None, "nothing was answered yet");
        let first = asked(json!({}));
        let pause = state.pause(&first, false);
        assert!(pause > Duration::from_secs(50), "{pause:?}");
        state.written = Some(Written {
            of: first.clone(),
            generation: Some(1),
            facts: NodeFacts::default(),
        });
        assert_eq!(state.answered(&again), Some(NodeFacts::default()));
        let watch = json!({ "arrivals": { "token": "t", "dials": [] } });
        assert_eq!(state.answered(&asked(watch)), Some(NodeFacts::default()));
        assert_eq!(state.answered(&first), None, "the next round");
        let another = json!({ "repeat": "w1", "revision": "2" });
        assert_eq!(state.answered(&asked(another)), None, "another question");
        let due = state.due;
        state.pause(&again, true);
        assert_eq!(state.due, due);
        state.due = Some(Instant::now());
        assert_eq!(state.answered(&again), None, "a round is due");
    }

    #[tokio::test]
    async fn what_is_refused_is_said_once_and_tried_less_and_less_often() {
        let kept: Arc<Mutex<Vec<Value>>> = Arc::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = kept.clone();
        let app = axum::Router::new().fallback(move |request| refuse(seen.clone(), request));
        let server = tokio::spawn(async { axum::serve(listener, app).await });
        let client = Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
        let cluster = Cluster::new(client, "n1");
        let probe: NodeProbe =
            serde_json::from_value(json!({ "apiVersion": "svcdiag.dev/v1alpha1", "kind": "NodeProbe",
            "metadata": { "name": "p", "namespace": "default", "generation": 1 }, "spec": spec() }))
            .unwrap();
        let dial = json!({ "path": "Endpoint", "port": "80/TCP", "family": "IPv4", "made": 1, "failed": 0 });
        let facts: NodeFacts = serde_json::from_value(json!({ "dials": [dial] })).unwrap();

        let probe = Arc::new(probe);
        let mut state = State::default();
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let error = state
                .write(&cluster, &probe, &probe, facts.clone())
                .await
                .unwrap_err();
            assert!(!error.is_outage(), "{error}");
            pauses.push(state.next_retry(&error).as_secs());
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        let said = kept.lock().unwrap().clone();
        assert_eq!(said.len(), 1, "{said:?}");
        let problem = said[0]["problems"][0].as_str().unwrap();
        assert!(
            problem.starts_with("The agent could not write its report: ") && problem.contains("Too long"),
            "{problem}"
        );
        assert!(said[0].get("dials").is_none(), "{said:?}");

        // A successful write resets that.
        state
            .write(&cluster, &probe, &probe, NodeFacts::default())
            .await
            .unwrap();
        let error = state.write(&cluster, &probe, &probe, facts).await.unwrap_err();
        assert_eq!(state.next_retry(&error), RETRY);
        assert_eq!(kept.lock().unwrap().len(), 3, "said once more");
        server.abort();
        // An outage is waited out, however long it is.
        let away = cluster::Error::TimedOut { what: String::new() };
        assert_eq!([state.next_retry(&away), state.next_retry(&away)], [RETRY; 2]);
    }
}
