//! Limits for one tenant: the number of nodes, diagnoses and NodeProbes, and how often NodeProbes change.
//!
//! One object of a user may lead to many NodeProbes, each of which costs a node work. So flags of the controller limit
//! their number for each namespace, and rate limits apply to changes of NodeProbes (because of endpoints, or of the
//! annotation svcdiag.dev/refresh). The message of Ready says which limit a diagnosis exceeds.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use super::{
    Options,
    probes::{Plan, Work},
};
use crate::{
    api::{ConditionType, Probe, Reason, ServiceDiagnosisSpec},
    engine::{Diagnosis, Finding},
};

/// This many changes at once, and then one per --min-probe-interval.
const BURST: u32 = 3;

/// How often agents may be asked at once to look again at what has failed: twice for two nodes that fail both ways.
const SECOND_LOOKS: u32 = 10;

/// The message of Ready while a change is held back.
pub(super) fn too_many_questions(options: &Options) -> String {
    format!(
        " The endpoints, the spec or the annotation svcdiag.dev/refresh change faster than the agents may be asked again ({BURST} times, then once every {} seconds: --min-probe-interval). They will be asked later.",
        options.min_probe_interval
    )
}

/// The spec within the limits of the flags, and with their defaults.
pub(super) fn bounded(spec: &ServiceDiagnosisSpec, options: &Options) -> ServiceDiagnosisSpec {
    let mut spec = spec.clone();
    spec.data_path = spec.data_path.or(Some(options.data_path));
    spec.interval_seconds = spec.interval_seconds.max(options.min_interval);
    spec.nodes.max_nodes = spec.nodes.max_nodes.min(options.max_nodes);
    let (probe, most) = (&mut spec.probe, options.max_probe_seconds);
    if most > 0 {
        probe.timeout_seconds = probe.timeout_seconds.min(most);
        let attempts = most / probe.timeout_seconds.max(1);
        probe.attempts = probe.attempts.min(attempts);
    }
    spec
}

/// The result for a diagnosis beyond the limit of its namespace.
pub(super) fn beyond(limit: usize) -> Diagnosis {
    let told = format!(
        "Not checked: the controller checks only the oldest {limit} diagnoses of a namespace. Delete others, or have --max-diagnoses-per-namespace of the controller raised."
    );
    let stages = ConditionType::stages()
        .iter()
        .map(|c| (*c, Finding::unknown(Reason::Pending, told.clone())));
    Diagnosis::unjudged(stages.collect(), Reason::Pending, told)
}

/// What a limit has cut, for the message of Ready.
pub(super) fn remarks(
    spec: &ServiceDiagnosisSpec,
    bounded: &ServiceDiagnosisSpec,
    options: &Options,
    asked: usize,
    wanted: usize,
) -> Vec<String> {
    let mut remarks = Vec::new();
    if spec.nodes.max_nodes > options.max_nodes {
        remarks.push(format!(
            " spec.nodes.maxNodes is {}, but the controller uses at most {} (--max-nodes).",
            spec.nodes.max_nodes, options.max_nodes
        ));
    }
    if spec.probe != bounded.probe {
        let what = |p: &Probe| match p.attempts {
            1 => format!("1 attempt of {} s", p.timeout_seconds),
            n => format!("{n} attempts of {} s", p.timeout_seconds),
        };
        remarks.push(format!(
            " spec.probe asks for {}, but the controller allows {} (--max-probe-seconds).",
            what(&spec.probe),
            what(&bounded.probe)
        ));
    }
    if asked < wanted {
        remarks.push(format!(
            " Only {asked} of {wanted} nodes are probed: the diagnoses of a namespace may have {} NodeProbes in total. Delete others, lower their spec.nodes.maxNodes, or have --max-node-probes-per-namespace of the controller raised.",
            options.max_node_probes_per_namespace
        ));
    }
    remarks
}

/// How many NodeProbes each diagnosis has or is about to have. The watch delivers new ones a moment later; until then
/// other diagnoses must not use their share.
#[derive(Debug, Default)]
pub(super) struct Allowance(Mutex<HashMap<String, HashMap<String, usize>>>);

impl Allowance {
    /// A plan within the limit of the namespace, and how many NodeProbes were wanted. `others` are the NodeProbes of the
    /// other diagnoses of the namespace, by UID.
    pub(super) fn cut(
        &self,
        options: &Options,
        namespace: &str,
        uid: &str,
        others: &BTreeMap<String, usize>,
        plan: Plan,
    ) -> (Plan, usize) {
        let (limit, wanted) = (options.max_node_probes_per_namespace, plan.len());
        if limit == 0 {
            return (plan, wanted);
        }
        let mut all = self.0.lock();
        let promised = all.entry(namespace.to_owned()).or_default();
        let uids = others.keys().chain(promised.keys()).map(String::as_str);
        let uids: BTreeSet<&str> = uids.filter(|other| *other != uid).collect();
        let of = |uid: &str| {
            others
                .get(uid)
                .copied()
                .max(promised.get(uid).copied())
                .unwrap_or(0)
        };
        let taken: usize = uids.into_iter().map(of).sum();
        let kept = keep(plan, limit.saturating_sub(taken));
        promised.insert(uid.to_owned(), kept.len());
        (kept, wanted)
    }

    /// Returns the share of a diagnosis.
    pub(super) fn release(&self, namespace: &str, uid: &str) {
        let mut all = self.0.lock();
        if let Some(of) = all.get_mut(namespace) {
            of.remove(uid);
            if of.is_empty() {
                all.remove(namespace);
            }
        }
    }

    /// Keeps only these diagnoses, by UID.
    pub(super) fn retain(&self, uids: &BTreeSet<String>) {
        let mut all = self.0.lock();
        all.values_mut()
            .for_each(|of| of.retain(|uid, _| uids.contains(uid)));
        all.retain(|_, of| !of.is_empty());
    }
}

/// This many of the nodes: those with clients first, then those with endpoints.
fn keep(plan: Plan, most: usize) -> Plan {
    if plan.len() <= most {
        return plan;
    }
    let mut all: Vec<_> = plan.into_iter().collect();
    all.sort_by_key(|(_, spec)| (spec.clients.is_empty(), spec.endpoints.is_empty()));
    all.into_iter().take(most).collect()
}

/// A token bucket for changes of NodeProbes, by UID of the diagnosis.
#[derive(Debug, Default)]
pub(super) struct Questions(Mutex<HashMap<String, Bucket>>);

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    /// The generation of the diagnosis in the last change.
    generation: Option<i64>,
    /// Since when the next token has been accruing.
    since: Timestamp,
}

impl Bucket {
    fn full(tokens: u32, generation: Option<i64>, now: Timestamp) -> Self {
        Self {
            tokens,
            generation,
            since: now,
        }
    }

    /// Takes a token, or returns when the next one is available. At most `burst` accrue, one each `refill`.
    fn take(&mut self, burst: u32, refill: SignedDuration, now: Timestamp) -> Option<Timestamp> {
        // A clock that was set back must not block changes until it has caught up.
        self.since = self.since.min(now);
        while self.tokens < burst && self.since + refill <= now {
            self.tokens += 1;
            self.since += refill;
        }
        if self.tokens == 0 {
            return Some(self.since + refill);
        }
        if self.tokens == burst {
            self.since = now;
        }
        self.tokens -= 1;
        None
    }
}

impl Questions {
    /// Takes a token for a change, or returns when the next one is available. A new agent gets the NodeProbe that others
    /// already have, which no user can trigger.
    pub(super) fn hold(
        &self,
        uid: &str,
        generation: Option<i64>,
        work: &Work,
        options: &Options,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let refill = SignedDuration::from_secs(options.min_probe_interval.into());
        if refill.is_zero() || (!work.is_another && !work.asks_more) {
            return None;
        }
        let mut all = self.0.lock();
        let bucket = all
            .entry(uid.to_owned())
            .or_insert_with(|| Bucket::full(BURST, generation, now));
        if !work.is_another && bucket.generation == generation {
            return None;
        }
        let held = bucket.take(BURST, refill, now);
        if held.is_none() {
            bucket.generation = generation;
        }
        held
    }

    /// The same for having agents look again at what has failed. Users do not ask for that, but an agent could go on and
    /// on having others dial.
    pub(super) fn hold_second_looks(
        &self,
        uid: &str,
        work: &Work,
        options: &Options,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let refill = SignedDuration::from_secs(options.min_probe_interval.into());
        if refill.is_zero() || !work.looks_again {
            return None;
        }
        let mut all = self.0.lock();
        let bucket = all
            .entry(uid.to_owned())
            .or_insert_with(|| Bucket::full(SECOND_LOOKS, None, now));
        bucket.take(SECOND_LOOKS, refill, now)
    }

    /// Removes a diagnosis.
    pub(super) fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    /// Keeps only these, by UID.
    pub(super) fn retain(&self, uids: &BTreeSet<String>) {
        self.0.lock().retain(|uid, _| uids.contains(uid));
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        options: Options,
    }

    fn options() -> Options {
        Flags::parse_from(["controller"]).options
    }

    fn plan(nodes: usize) -> Plan {
        let spec = |node: &str| {
            serde_json::from_value(serde_json::json!({ "nodeName": node, "serviceName": "s",
                "diagnosis": { "name": "d", "uid": "u" }, "intervalSeconds": 60 }))
            .unwrap()
        };
        let names = (0..nodes).map(|n| format!("n{n:03}"));
        names.map(|n| (n.clone(), spec(&n))).collect()
    }

    #[test]
    fn a_namespace_has_no_more_node_probes_than_it_may() {
        let (allowance, options) = (Allowance::default(), options());
        let limit = options.max_node_probes_per_namespace;
        let mut made = 0;
        for n in 0..200 {
            let (kept, wanted) = allowance.cut(&options, "shop", &n.to_string(), &BTreeMap::new(), plan(15));
            assert_eq!(wanted, 15);
            made += kept.len();
        }
        assert_eq!(made, limit);
        let (kept, _) = allowance.cut(&options, "shop", "0", &BTreeMap::new(), plan(15));
        assert_eq!(kept.len(), 15, "what a diagnosis has it keeps");
        let (kept, _) = allowance.cut(&options, "other", "x", &BTreeMap::new(), plan(15));
        assert_eq!(kept.len(), 15, "another namespace has its own");
        allowance.release("shop", "0");
        let (kept, _) = allowance.cut(&options, "shop", "199", &BTreeMap::new(), plan(15));
        assert_eq!(kept.len(), 15, "there is room again");
    }

    #[test]
    fn what_is_there_already_counts_after_a_restart() {
        let (allowance, options) = (Allowance::default(), options());
        let others = BTreeMap::from([("old".to_owned(), options.max_node_probes_per_namespace - 4)]);
        let mut asked = plan(15);
        let pod = serde_json::json!({ "name": "p", "namespace": "shop", "uid": "u", "ips": [] });
        asked.get_mut("n014").unwrap().clients = vec![serde_json::from_value(pod).unwrap()];
        let (kept, _) = allowance.cut(&options, "shop", "new", &others, asked);
        let nodes: Vec<&String> = kept.keys().collect();
        assert_eq!(
            nodes,
            ["n000", "n001", "n002", "n014"],
            "a node with a client is worth most"
        );
    }

    #[test]
    fn three_questions_at_once_and_then_one_in_ten_seconds() {
        let questions = Questions::default();
        let another = Work {
            is_another: true,
            ..Work::default()
        };
        let hold = |uid: &str, now| questions.hold(uid, Some(1), &another, &options(), now);
        let at = |seconds: f64| Timestamp::UNIX_EPOCH + SignedDuration::from_secs_f64(seconds);
        let asked = |from: u32, to: u32| {
            (from..to)
                .filter(|tenth| hold("u", at(f64::from(*tenth) / 10.0)).is_none())
                .count()
        };
        assert_eq!(asked(0, 50), 3, "ten a second");
        assert_eq!(asked(50, 3600), 35, "in six minutes");
        assert_eq!(hold("u", at(360.0)), None);
        assert_eq!(hold("u", at(361.0)), Some(at(370.0)));
        assert_eq!(hold("other", at(361.0)), None);
        assert_eq!(asked(5000, 5010), 3, "after a rest");
        assert_eq!(hold("u", at(501.0)), Some(at(510.0)));
        assert_eq!(hold("u", at(100.0)), Some(at(110.0)), "the clock was set back");
    }

    #[test]
    fn second_looks_have_tokens_of_their_own() {
        let (questions, looks, now) = (Questions::default(), Questions::default(), Timestamp::UNIX_EPOCH);
        let again = Work {
            looks_again: true,
            ..Work::default()
        };
        let options = options();
        let taken = (0..50)
            .filter(|_| looks.hold_second_looks("u", &again, &options, now).is_none())
            .count();
        assert_eq!(taken, 10);
        assert_eq!(
            looks.hold_second_looks("u", &again, &options, now),
            Some(now + SignedDuration::from_secs(10))
        );
        assert_eq!(questions.hold("u", Some(1), &again, &options, now), None);
        assert_eq!(
            looks.hold_second_looks("u", &Work::default(), &options, now),
            None
        );
    }

    #[test]
    fn agents_that_come_are_asked_at_once_and_others_for_a_new_spec_in_their_turn() {
        let questions = Questions::default();
        let more = Work {
            asks_more: true,
            ..Work::default()
        };
        let now = Timestamp::UNIX_EPOCH;
        let asked = |generation: std::ops::Range<i64>| {
            generation
                .filter(|g| questions.hold("u", Some(*g), &more, &options(), now).is_none())
                .count()
        };
        for _ in 0..100 {
            assert_eq!(asked(1..2), 1, "an agent has come");
        }
        assert_eq!(asked(2..50), 3, "the spec is changed again and again");
        let none = Work::default();
        assert_eq!(
            questions.hold("u", Some(50), &none, &options(), now),
            None,
            "nobody is asked"
        );
    }

    #[test]
    fn a_dial_takes_no_longer_than_it_may() {
        let mut spec = ServiceDiagnosisSpec::for_service("s");
        let mut taken = |timeout: u32, attempts: u32, most: u32| {
            let mut options = options();
            options.max_probe_seconds = most;
            spec.probe.timeout_seconds = timeout;
            spec.probe.attempts = attempts;
            let bounded = bounded(&spec, &options);
            let is_said = !remarks(&spec, &bounded, &options, 1, 1).is_empty();
            (bounded.probe.timeout_seconds, bounded.probe.attempts, is_said)
        };
        assert_eq!(taken(4, 2, 30), (4, 2, false), "what a spec says by default");
        assert_eq!(taken(30, 1, 30), (30, 1, false));
        assert_eq!(taken(30, 10, 30), (30, 1, true));
        assert_eq!(taken(4, 10, 30), (4, 7, true));
        assert_eq!(taken(30, 10, 8), (8, 1, true));
        assert_eq!(taken(30, 10, 0), (30, 10, false), "no limit");
    }

    #[test]
    fn what_is_left_out_is_said() {
        let options = options();
        let mut spec = ServiceDiagnosisSpec::for_service("s");
        assert!(remarks(&spec, &spec, &options, 15, 15).is_empty());
        spec.nodes.max_nodes = 100;
        let bounded = bounded(&spec, &options);
        assert_eq!(bounded.nodes.max_nodes, 10);
        let all = remarks(&spec, &bounded, &options, 4, 15).concat();
        assert!(
            all.contains("(--max-nodes)") && all.contains("Only 4 of 15 nodes are probed"),
            "{all}"
        );
    }
}
