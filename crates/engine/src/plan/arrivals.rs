//! Whose packets a node watches for: those of clients on other nodes whose dials of its endpoints are lost.
//!
//! Three steps, each by what the agents have reported so far. The node of the endpoint begins to watch; once it says so, the
//! node of the client repeats its failed dials; once that says so, the watch ends. So what was not seen was not there,
//! whatever the nodes' clocks say. None of it changes the question, to which the answers stay.

use std::{
    cell::LazyCell,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use sha2::{Digest, Sha256};

use crate::{
    Facts,
    evidence::{WINDOW, targets::key},
    plan::{hex, probe_of, subject},
    pods::behind_endpoints::EndpointPods,
    policies::effects,
    questions,
};
use svcdiag_api::{
    Answer, DialFailure, DialPath, NodeFacts, NodeProbeSpec, ProbeArrival, ProbeArrivals, WatchState,
};
use svcdiag_objects::{EndpointSlice, IpFamily, Pod};

/// Dials that one node watches for, and nodes that watch for one client's node.
const MOST: usize = 8;
const MOST_NODES: usize = 4;

/// A watch is repeated after this time: the packets may be lost elsewhere by then.
const LASTS_SECONDS: i64 = 300;

/// Characters of a token that say when it was chosen, and what for.
const OF_TIME: usize = 8;

/// Adds to the questions of all nodes what they are to watch, and which are to dial again.
pub(super) fn add(facts: &Facts, questions: &mut BTreeMap<String, NodeProbeSpec>) {
    let mut wanted = wanted(facts, questions);
    let mut repeats: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (node, watch) in &mut wanted {
        let Some(id) = begun(facts, questions, node, &watch.token) else {
            continue;
        };
        if before(facts, node).is_some_and(|before| before.ended == id) {
            watch.ended = id;
            continue;
        }
        for dial in &watch.dials {
            repeats.entry(dial.node.clone()).or_default().insert(id.clone());
        }
        let has_dialled = |dial: &ProbeArrival| {
            let said = answers(facts, questions, &dial.node).map(|facts| facts.repeated.as_str());
            said.is_some_and(|said| has(said, &id))
        };
        if watch.dials.iter().all(has_dialled) {
            watch.ended = id;
        }
    }
    for (node, question) in questions.iter_mut() {
        let asked = probe_of(facts, node).map(|probe| probe.asked.repeat.as_str());
        let asked = asked.unwrap_or_default();
        // Less to repeat is no reason to dial.
        question.repeat = match repeats.get(node) {
            Some(ids) if !ids.iter().all(|id| has(asked, id)) => {
                let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                ids.join(",")
            }
            _ => asked.to_owned(),
        };
        question.arrivals = wanted.remove(node);
    }
}

/// Whether an id is among those of a list with commas between them.
fn has(ids: &str, id: &str) -> bool {
    ids.split(',').any(|known| known == id)
}

/// What an agent that is alive has answered to the question that it is asked now, if it tells questions apart by their
/// digest: another would take each step for another question.
fn answers<'a>(
    facts: &'a Facts,
    questions: &BTreeMap<String, NodeProbeSpec>,
    node: &str,
) -> Option<&'a NodeFacts> {
    let report = facts.report_of(node)?;
    let probe = report.probe.as_ref().filter(|_| report.is_alive(facts.now))?;
    let is_answer = probe.is_current
        && questions::is_same(&probe.asked, questions.get(node)?)
        && questions::is_digest_of(&probe.question, &probe.asked);
    probe.facts.as_deref().filter(|_| is_answer)
}

/// The watch that a node has begun, unless it has given up.
fn begun(
    facts: &Facts,
    questions: &BTreeMap<String, NodeProbeSpec>,
    node: &str,
    token: &str,
) -> Option<String> {
    let said = answers(facts, questions, node)?.arrivals.as_ref()?;
    (said.token == token && said.state != WatchState::Failed).then(|| said.id.clone())
}

/// What each node is to watch for: for each node with clients one dial.
fn wanted(facts: &Facts, questions: &BTreeMap<String, NodeProbeSpec>) -> BTreeMap<String, ProbeArrivals> {
    let behind = LazyCell::new(|| pods_behind(facts));
    let mut lost: BTreeMap<(&str, &str), BTreeSet<ProbeArrival>> = BTreeMap::new();
    for report in &facts.nodes {
        // Nothing more is worked out where nothing is lost.
        let said = report.probe.as_ref().and_then(|probe| probe.facts.as_deref());
        if !said.is_some_and(|said| said.failures.iter().any(is_lost)) {
            continue;
        }
        let Some(seen) = answers(facts, questions, &report.name) else {
            continue;
        };
        for failure in &seen.failures {
            let dial = || {
                let endpoint: SocketAddr = failure.target.parse().ok()?;
                // What Pods send to nodes most plugins give the node's address, by which nobody is known.
                let pod = behind.get(&endpoint.ip()).filter(|pod| !pod.is_host_network())?;
                let node = pod
                    .spec
                    .node_name
                    .as_deref()
                    .filter(|node| *node != &*report.name)?;
                let there = answers(facts, questions, node)?;
                let fails_at_home = there.failures.iter().any(|f| f.target == failure.target);
                let client = client(facts, failure.from.as_deref()?)?;
                let ips = client.ips().filter_map(|ip| ip.parse().ok());
                let ip = ips
                    .into_iter()
                    .find(|ip| IpFamily::of(*ip) == IpFamily::of(endpoint.ip()))?;
                let dial = ProbeArrival {
                    from: key(client),
                    node: report.name.as_ref().to_owned(),
                    node_ips: subject::node(facts.cluster_node(&report.name)).ips,
                    ip: ip.to_string(),
                    protocol: failure.port.protocol,
                    endpoint: failure.target.clone(),
                };
                let is_meant_to_fail = fails_at_home || effects::may_be_shut_out(facts, client);
                (!client.is_host_network() && !is_meant_to_fail).then_some((node, dial))
            };
            if let Some((node, dial)) = is_lost(failure).then(dial).flatten() {
                lost.entry((node, &report.name)).or_default().insert(dial);
            }
        }
    }
    if lost.is_empty() || has_a_window(facts) {
        return BTreeMap::new();
    }
    let mut asked: BTreeMap<&str, usize> = BTreeMap::new();
    let mut wanted: BTreeMap<String, ProbeArrivals> = BTreeMap::new();
    for ((node, from), dials) in lost {
        let of_client = asked.entry(from).or_default();
        *of_client += 1;
        if *of_client > MOST_NODES {
            continue;
        }
        // The same as before for as long as it fails, since another one is another watch.
        let was_asked =
            |dial: &&ProbeArrival| before(facts, node).is_some_and(|before| before.dials.contains(dial));
        let chosen = dials.iter().find(was_asked).or_else(|| dials.first());
        let watch = wanted.entry(node.to_owned()).or_default();
        watch
            .dials
            .extend(chosen.filter(|_| watch.dials.len() < MOST).cloned());
    }
    for (node, watch) in &mut wanted {
        let time = of_time(facts, questions.get(node));
        let before = before(facts, node).filter(|before| before.token.starts_with(&time));
        match before.filter(|before| !before.ended.is_empty()) {
            // Who comes and goes meanwhile waits for the next one.
            Some(before) if before.dials.iter().any(|dial| watch.dials.contains(dial)) => {
                watch.token.clone_from(&before.token);
                watch.dials.clone_from(&before.dials);
            }
            _ => watch.token = time + &of_dials(&watch.dials),
        }
    }
    wanted
}

/// The Pods behind the ready endpoints.
fn pods_behind(facts: &Facts) -> BTreeMap<IpAddr, &Pod> {
    let pods = EndpointPods::of(facts);
    let endpoints = facts.slices.iter().flat_map(|slice| slice.ready());
    endpoints
        .filter_map(|(ip, endpoint)| Some((ip, pods.behind(endpoint)?)))
        .collect()
}

/// Whether a dial of an endpoint on another node got no answer.
fn is_lost(failure: &DialFailure) -> bool {
    failure.path == DialPath::Endpoint
        && failure.outcome() == Answer::TimedOut
        && failure.same_node == Some(false)
}

/// What a node was asked to watch before.
fn before<'a>(facts: &'a Facts, node: &str) -> Option<&'a ProbeArrivals> {
    probe_of(facts, node)?.asked.arrivals.as_ref()
}

/// Whether a round leaves out endpoints, so that a dial may not be repeated.
fn has_a_window(facts: &Facts) -> bool {
    let of_slice = |slice: &Arc<EndpointSlice>| slice.ready().count() * slice.ports.len();
    facts.slices.iter().map(of_slice).sum::<usize>() > WINDOW
}

fn client<'a>(facts: &'a Facts, name: &str) -> Option<&'a Pod> {
    let others = facts
        .client_namespace
        .iter()
        .flat_map(|namespace| &namespace.pods);
    let mut pods = facts.pods.iter().chain(others).map(AsRef::as_ref);
    pods.find(|pod: &&Pod| key(pod) == name)
}

/// Another one when anything changes, and after some time, which is another one for each diagnosis.
fn of_time(facts: &Facts, question: Option<&NodeProbeSpec>) -> String {
    let mut hasher = Sha256::new();
    let uid = question.map_or("", |question| question.diagnosis.uid.as_str());
    let offset: i64 = uid.bytes().map(i64::from).sum();
    hasher.update(((facts.now.as_second() + 37 * offset) / LASTS_SECONDS).to_be_bytes());
    hasher.update(question.map_or("", |question| question.revision.as_str()));
    hex(hasher, OF_TIME / 2)
}

fn of_dials(dials: &[ProbeArrival]) -> String {
    let mut hasher = Sha256::new();
    for dial in dials {
        hasher.update(format!(
            "{} {} {} {:?}\n",
            dial.from, dial.ip, dial.endpoint, dial.protocol
        ));
    }
    hex(hasher, 4)
}
