//! Requests by hand as dials: to endpoints, to the Service's addresses, to a node port.
//!
//! [`Dialled::read`] puts every request that proves something where it belongs; what follows from all of them together
//! is in `conclusions`, and how an agent would have counted them in `counts`.

mod attempt;
mod conclusions;
mod counts;
mod key;
mod service;
mod target;
mod untranslated;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use self::{
    attempt::{Attempt, answer, is_lost, why_nothing_follows},
    key::{Key, Path, is_own, key, proves},
    service::{is_endpoint, is_only_endpoint, is_unlisted, of_udp, speaks_http},
    target::{by_name, host, name_of_service, target},
};
use super::text::{Parsed, Text};
use crate::{
    api::{Answer, Lookup},
    bundle::Problem,
    engine::{Facts, Origin, may_keep_nodes_away},
    formats::text::http::{Outcome, Request},
    objects::{Object, Pod},
};

/// Who sent requests.
pub(super) struct Caller<'a> {
    facts: &'a Facts,
    node: &'a str,
    /// The client Pod, else the node itself.
    from: Option<&'a Pod>,
    /// What its look-ups found.
    found: &'a [Lookup],
    /// How a request ended of which nothing is said but that it was not connected.
    unsaid: Answer,
}

/// How a Pod's requests to itself ended.
#[derive(Debug, Default)]
struct Own {
    ips: Vec<String>,
    /// Whether somebody answered at a loopback address.
    by_loopback: Option<IpAddr>,
    /// Whether its own address refused, and no request to it was answered.
    is_refused: bool,
    is_answered: bool,
}

/// What came of all requests of a node and its client Pods.
#[derive(Debug, Default)]
pub(super) struct Dialled {
    ends: BTreeMap<Key, Vec<Attempt>>,
    /// Requests to the Service of Pods that are its only endpoint, by Pod and address.
    itself: BTreeMap<(String, SocketAddr), Vec<Answer>>,
    /// Requests to the Service of Pods that are one of several endpoints, by Pod and address.
    perhaps_itself: BTreeMap<(String, SocketAddr), Vec<Answer>>,
    /// Failed requests to addresses of the Service at ports that it does not list, in words.
    unlisted: Vec<String>,
    /// What Pods get of themselves past the Service, by Pod and port.
    own: BTreeMap<(String, u16), Own>,
    /// Names of the Service that Pods did not find, in words.
    not_resolved: BTreeSet<String>,
    /// Requests of the node to ports of its own, by port.
    loopback: BTreeMap<u16, Vec<Answer>>,
    /// Requests, which go over TCP, to Service ports of UDP: how they ended at the Service and at endpoints.
    of_udp: BTreeMap<u16, (Vec<Answer>, Vec<Answer>)>,
    /// Requests by name to ports of a headless Service that its endpoints do not have, by port.
    untranslated: BTreeMap<u16, Vec<Answer>>,
    /// From where requests to the Service were made that printed nothing.
    silent: BTreeSet<Origin>,
    /// Whether a request to an endpoint printed nothing.
    silent_endpoint: bool,
}

impl<'a> Caller<'a> {
    pub(super) fn of(facts: &'a Facts, node: &'a str, from: Option<&'a Pod>, found: &'a [Lookup]) -> Self {
        // A rule that keeps somebody away may refuse as well.
        let unsaid = match facts.policies.is_empty() && !may_keep_nodes_away(facts) {
            true => Answer::Refused,
            false => Answer::Rejected,
        };
        Self {
            facts,
            node,
            from,
            found,
            unsaid,
        }
    }

    /// Where a request went and how it ended; None where it tells neither.
    ///
    /// # Errors
    /// Why nothing follows from it.
    fn outcome(&self, request: &Request) -> Result<Option<(SocketAddr, Answer)>, String> {
        if let Some(why) = why_nothing_follows(request, self.from.is_none()) {
            return Err(why.to_owned());
        }
        let asked = request.target.as_deref();
        let target = asked.and_then(|text| target(text).or_else(|| by_name(text, request.tried, self.found)));
        let Some(target) = target else {
            return Ok(None);
        };
        // Whoever speaks something else closes as well.
        if request.outcome == Outcome::Closed && !speaks_http(self.facts, target) {
            return Err(format!(
                "{target} accepts the connection and closes it without a response: either it does not speak HTTP, or it is broken; name the Service port http if it speaks HTTP"
            ));
        }
        Ok(answer(request, self.unsaid).map(|answer| (target, answer)))
    }

    /// The name of the Service that the client asked for and did not find.
    fn not_resolved<'r>(&self, request: &'r Request) -> Option<(&'a Pod, &'r str)> {
        let is_it = request.outcome == Outcome::NotResolved;
        let name = name_of_service(self.facts, request.target.as_deref()?)?;
        Some((self.from.filter(|_| is_it)?, name))
    }

    fn in_words(&self) -> String {
        match self.from {
            Some(pod) => format!("Pod {}", key_of(pod)),
            None => format!("node {}", self.node),
        }
    }
}

/// Namespace and name of a Pod.
fn key_of(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace(), pod.name())
}

impl Dialled {
    /// Takes in the requests in somebody's files; with why nothing follows from some.
    pub(super) fn read(&mut self, caller: &Caller<'_>, files: &[Parsed<'_>]) -> Vec<Problem> {
        let mut problems = Vec::new();
        for file in files {
            let Text::Requests(requests) = &file.text else {
                continue;
            };
            for request in requests {
                match caller.outcome(request) {
                    Ok(Some((target, answer))) => self.record(caller, request, target, answer),
                    Ok(None) => self.note_silent(caller, request),
                    Err(why) => problems.push(file.problem(format!("line {}: {why}", request.line))),
                }
                if let Some((pod, name)) = caller.not_resolved(request) {
                    let missed = format!("Pod {} did not find {name}", key_of(pod));
                    self.not_resolved.insert(missed);
                }
            }
        }
        problems
    }

    /// Notes a request that printed nothing.
    fn note_silent(&mut self, caller: &Caller<'_>, request: &Request) {
        let Some(asked) = request
            .target
            .as_deref()
            .filter(|_| request.outcome == Outcome::Silent)
        else {
            return;
        };
        let key = target(asked).and_then(|target| key(caller.facts, caller.node, caller.from, target));
        let is_endpoint = key.as_ref().is_some_and(|key| key.path == Path::Endpoint);
        self.silent_endpoint |= is_endpoint;
        if key.is_some() && !is_endpoint || name_of_service(caller.facts, asked).is_some() {
            self.silent
                .insert(caller.from.map_or(Origin::Node, |_| Origin::Client));
        }
    }

    fn record(&mut self, caller: &Caller<'_>, request: &Request, target: SocketAddr, answer: Answer) {
        let facts = caller.facts;
        if is_lost(answer) && is_unlisted(facts, target) {
            self.unlisted
                .push(format!("{} dialled {target}", caller.in_words()));
        }
        if let Some((port, is_endpoint)) = of_udp(facts, target) {
            let (service, endpoints) = self.of_udp.entry(port).or_default();
            if is_endpoint { endpoints } else { service }.push(answer);
        }
        let host = request.target.as_deref().and_then(host);
        let name = host.map(|(host, _)| host.split(':').next().unwrap_or(host));
        if let Some(port) = name.and_then(|name| untranslated::port(facts, name, target)) {
            self.untranslated.entry(port).or_default().push(answer);
        }
        match caller.from {
            Some(pod) => self.note_own(pod, target, answer),
            None if target.ip().is_loopback() => {
                return self.loopback.entry(target.port()).or_default().push(answer);
            }
            None => {}
        }
        let Some(key) = key(facts, caller.node, caller.from, target) else {
            return;
        };
        if let Some(pod) = caller.from.filter(|_| key.path == Path::Service) {
            let own = (key_of(pod), target);
            if is_only_endpoint(facts, pod) {
                return self.itself.entry(own).or_default().push(answer);
            }
            if is_endpoint(facts, pod) {
                self.perhaps_itself.entry(own).or_default().push(answer);
            }
        }
        // Its own refusal.
        let is_own = key.path == Path::Endpoint && answer == Answer::Rejected && is_own(caller.from, target);
        let answer = if is_own { Answer::Refused } else { answer };
        if proves(facts, &key, caller.from, answer) {
            let attempt = Attempt::of(request, answer);
            self.ends.entry(key).or_default().push(attempt);
        }
    }

    /// Notes what a Pod gets of itself. No rule and no policy stands between, so that a refusal is its own.
    fn note_own(&mut self, pod: &Pod, target: SocketAddr, answer: Answer) {
        let is_own = pod.ips().any(|ip| ip.parse() == Ok(target.ip()));
        if !is_own && !target.ip().is_loopback() || pod.is_host_network() {
            return;
        }
        let name = format!("{}/{}", pod.namespace(), pod.name());
        let own = self.own.entry((name, target.port())).or_default();
        own.ips = pod.ips().map(str::to_owned).collect();
        match answer {
            Answer::Accepted if is_own => own.is_answered = true,
            Answer::Accepted => own.by_loopback = Some(target.ip()),
            Answer::Refused | Answer::Rejected if is_own => own.is_refused = true,
            _ => {}
        }
    }
}
