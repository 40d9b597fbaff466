//! Requests by hand as dials: to endpoints, to the Service's addresses, to a node port.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{
    super::Problem,
    files::{Form, TextFile},
    parse, untranslated,
};
use crate::formats::text::http::{self, FEW_PACKETS, Outcome, Request};
use crate::{
    api::{Answer, DialCount, DialFailure, DialPath, Hairpin, ListeningSocket, Lookup, PodListeners},
    diagnosis::{BY_PROXY, Facts, LARGE_ANSWERS_STOP, LATE, WITHOUT_STATUS, may_keep_nodes_away},
    objects::{Endpoint, Object, Pod, ServicePort},
    proxy::{IpFamily, Protocol},
};

/// Who dialled what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    from: Option<String>,
    path: Path,
    port: String,
    target: SocketAddr,
    same_node: Option<bool>,
}

/// The ways of dials, which have no order of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Path {
    Endpoint,
    Service,
    NodePort,
}

impl From<Path> for DialPath {
    fn from(path: Path) -> Self {
        match path {
            Path::Endpoint => Self::Endpoint,
            Path::Service => Self::Service,
            Path::NodePort => Self::NodePort,
        }
    }
}

/// Most of a failure's words that a report holds.
const MAX_DETAIL: usize = 256;

/// A request that proves something.
#[derive(Clone, Debug)]
struct Attempt {
    answer: Answer,
    /// What was asked for.
    url: String,
    /// How much of an answer of known size came.
    cut_short: Option<(u64, u64)>,
    /// Whether it got a status of 400 or above.
    is_error: bool,
    /// What a proxy said in the place of the endpoint, or what else there is to say.
    detail: Option<String>,
    /// How long it took, in milliseconds, where no name had to be looked up.
    took: Option<u32>,
}

impl Attempt {
    fn is_by_proxy(&self) -> bool {
        let detail = self.detail.as_deref();
        detail.is_some_and(|detail| detail.starts_with(BY_PROXY))
    }

    fn of(request: &Request, answer: Answer) -> Self {
        let words = match request.outcome {
            Outcome::ByProxy => request.detail.as_ref().map(|said| format!("{BY_PROXY} {said}")),
            Outcome::Closed => Some("closed without an answer".to_owned()),
            Outcome::Unsaid => Some(WITHOUT_STATUS.to_owned()),
            _ => None,
        };
        let by_address = request.target.as_deref().and_then(target).is_some();
        Self {
            answer,
            url: request.target.clone().unwrap_or_default(),
            cut_short: request.cut_short(),
            is_error: request.status.is_some_and(|status| status >= 400),
            detail: words,
            took: request.took.filter(|_| by_address),
        }
    }
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
}

impl Dialled {
    /// Takes in the requests of a client Pod, else of the node itself; `found` is what its look-ups found.
    pub(super) fn read(
        &mut self,
        facts: &Facts,
        node: &str,
        from: Option<&Pod>,
        files: &[TextFile<'_>],
        found: &[Lookup],
        problems: &mut Vec<Problem>,
    ) {
        // A rule that keeps somebody away may refuse as well.
        let unsaid = if facts.policies.is_empty() && !may_keep_nodes_away(facts) {
            Answer::Refused
        } else {
            Answer::Rejected
        };
        for request in parse(files, Form::Requests, problems, http::parse)
            .iter()
            .flatten()
        {
            let asked = request.target.as_deref();
            if let Some(why) = why_nothing_follows(request, from.is_none()) {
                problems.push(at_line(files, request, why));
                continue;
            }
            if let Some(pod) = from.filter(|_| request.outcome == Outcome::NotResolved)
                && let Some(name) = asked.and_then(|url| name_of_service(facts, url))
            {
                let pod = format!("{}/{}", pod.namespace(), pod.name());
                self.not_resolved.insert(format!("Pod {pod} did not find {name}"));
            }
            let target = asked.and_then(|text| target(text).or_else(|| by_name(text, request.tried, found)));
            let Some(target) = target else { continue };
            let answer = match request.outcome {
                // Whoever speaks something else closes as well.
                Outcome::Closed if !speaks_http(facts, target) => {
                    problems.push(unheard(files, request, target));
                    continue;
                }
                _ => answer(request, unsaid),
            };
            let Some(answer) = answer else { continue };
            if is_lost(answer) && is_unlisted(facts, target) {
                let who = from.map_or_else(
                    || format!("node {node}"),
                    |pod| format!("Pod {}/{}", pod.namespace(), pod.name()),
                );
                self.unlisted.push(format!("{who} dialled {target}"));
            }
            if let Some((port, is_endpoint)) = of_udp(facts, target) {
                let (service, endpoints) = self.of_udp.entry(port).or_default();
                if is_endpoint { endpoints } else { service }.push(answer);
            }
            let name = asked
                .and_then(host)
                .map(|(host, _)| host.split(':').next().unwrap_or(host));
            if let Some(port) = name.and_then(|name| untranslated::port(facts, name, target)) {
                self.untranslated.entry(port).or_default().push(answer);
            }
            if let Some(pod) = from {
                self.note_own(pod, target, answer);
            }
            if from.is_none() && target.ip().is_loopback() {
                self.loopback.entry(target.port()).or_default().push(answer);
            } else if let Some(key) = key(facts, node, from, target)
                && let Some(pod) = from.filter(|pod| is_only_endpoint(facts, pod))
                && key.path == Path::Service
            {
                let pod = format!("{}/{}", pod.namespace(), pod.name());
                self.itself.entry((pod, target)).or_default().push(answer);
            } else if let Some(key) = key(facts, node, from, target) {
                if let Some(pod) = from.filter(|pod| key.path == Path::Service && is_endpoint(facts, pod)) {
                    let pod = format!("{}/{}", pod.namespace(), pod.name());
                    self.perhaps_itself.entry((pod, target)).or_default().push(answer);
                }
                // Its own refusal.
                let is_own = key.path == Path::Endpoint && answer == Answer::Rejected && is_own(from, target);
                let answer = if is_own { Answer::Refused } else { answer };
                if proves(facts, &key, from, answer) {
                    self.ends
                        .entry(key)
                        .or_default()
                        .push(Attempt::of(request, answer));
                }
            }
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

    /// Pods that answer at a loopback address, and refuse at their own. Where endpoints have several ports, nothing would
    /// be known of the others.
    pub(super) fn listeners(&self, facts: &Facts) -> Vec<PodListeners> {
        let ports: BTreeSet<Option<i32>> = facts
            .slices
            .iter()
            .flat_map(|s| &s.ports)
            .map(|p| p.port)
            .collect();
        if ports.len() != 1 {
            return Vec::new();
        }
        let each = self.own.iter().filter_map(|((pod, port), own)| {
            let address = own.by_loopback.filter(|_| own.is_refused && !own.is_answered)?;
            Some(PodListeners {
                pod: pod.clone(),
                ips: own.ips.clone(),
                sockets: vec![ListeningSocket {
                    protocol: Protocol::Tcp.to_string(),
                    address: address.to_string(),
                    port: *port,
                }],
            })
        });
        each.collect()
    }

    /// How requests of the node to a port of its own ended, if there were any.
    pub(super) fn on_loopback(&self, port: u16) -> Option<(u16, Answer)> {
        let answer = match end(self.loopback.get(&port)?) {
            // Whoever listens there took it.
            Answer::Reset | Answer::NoAnswer => Answer::Accepted,
            answer => answer,
        };
        Some((port, answer))
    }

    /// Service ports of UDP at which clients want TCP: the Service never answers it, and the endpoints do.
    pub(super) fn wanted_over_tcp(&self) -> Vec<u16> {
        let answers = |all: &[Answer]| all.contains(&Answer::Accepted);
        let is_wanted = |(service, endpoints): &(Vec<Answer>, Vec<Answer>)| {
            !service.is_empty() && !answers(service) && answers(endpoints)
        };
        let wanted = self.of_udp.iter().filter(|(_, ends)| is_wanted(ends));
        wanted.map(|(port, _)| *port).collect()
    }

    /// Ports of a headless Service at which everybody who asked for it by name was refused.
    pub(super) fn untranslated(&self) -> Vec<u16> {
        let are_refused = |all: &[Answer]| all.iter().all(|answer| *answer == Answer::Refused);
        let refused = self.untranslated.iter().filter(|(_, ends)| are_refused(ends));
        refused.map(|(port, _)| *port).collect()
    }

    /// How Pods that have nobody else to meet reached themselves, on a node whose bridge ports send packets back
    /// or do not, and whose rules masquerade them or do not.
    pub(super) fn hairpins(&self, hairpin_mode: Option<bool>, masqueraded: Option<bool>) -> Vec<Hairpin> {
        let each = self.itself.iter().map(|((pod, target), answers)| Hairpin {
            pod: pod.clone(),
            target: target.to_string(),
            answer: Some(end(answers)),
            bridge_port: None,
            hairpin_mode,
            masqueraded,
        });
        each.collect()
    }

    /// Ports that were dialled in vain and that the Service does not list; nothing where a listed one was dialled, too.
    pub(super) fn unlisted(&self) -> Vec<String> {
        let is_of_service = |key: &Key| key.path == Path::Service;
        if self.ends.keys().any(is_of_service) || !self.itself.is_empty() || !self.perhaps_itself.is_empty() {
            return Vec::new();
        }
        let mut unlisted = self.unlisted.clone();
        unlisted.sort();
        unlisted.dedup();
        unlisted
    }

    /// Names of the Service that Pods did not find when they wanted to connect.
    pub(super) fn not_resolved(&self) -> Vec<String> {
        self.not_resolved.iter().cloned().collect()
    }

    /// Pods that are one of several endpoints, and of whose requests to the Service so many are lost as would come
    /// back to them.
    pub(super) fn perhaps_itself(&self, facts: &Facts) -> Vec<String> {
        let each = self.perhaps_itself.iter().filter_map(|((pod, target), answers)| {
            let lost = answers.iter().filter(|a| is_lost(**a)).count();
            let count = ready(facts).count();
            is_a_share(lost, answers.len(), count).then(|| {
                format!(
                    "{lost} of {} requests of Pod {pod} to {target} are lost, and it is itself one of the {count} endpoints",
                    answers.len()
                )
            })
        });
        each.collect()
    }

    /// The endpoints that somebody dialled.
    pub(super) fn endpoints(&self) -> Vec<String> {
        let direct = self.ends.keys().filter(|key| key.path == Path::Endpoint);
        direct.map(|key| key.target.to_string()).collect()
    }

    /// Who got answers of endpoints at once, as a clock shows.
    fn answer_at_once(&self) -> BTreeSet<Option<String>> {
        let direct = self.ends.iter().filter(|(key, _)| key.path == Path::Endpoint);
        let is_fast = |a: &Attempt| a.answer == Answer::Accepted && a.took.is_some_and(|ms| ms < 1000);
        let fast = direct.filter(|(_, all)| all.iter().any(is_fast));
        fast.map(|(key, _)| key.from.clone()).collect()
    }

    /// As an agent counts them: a dial fails only if every attempt of it does. Whether a bridge passes
    /// packets on without rules (`skips_rules`) is a matter of clients that have only endpoints beside them.
    pub(super) fn told(
        self,
        facts: &Facts,
        node: &str,
        skips_rules: bool,
    ) -> (Vec<DialCount>, Vec<DialFailure>) {
        let are_beside = skips_rules && are_all_on(facts, node);
        let mut counts: Vec<DialCount> = Vec::new();
        let mut failures = Vec::new();
        let at_once = self.answer_at_once();
        let ends = self.ends.into_iter().flat_map(|(key, attempts)| {
            // Where a proxy says what it could not reach, other errors are its own as well.
            let by_proxy = attempts.iter().find(|a| a.is_by_proxy()).cloned();
            let is_other = |a: &Attempt| by_proxy.is_none() || a.is_by_proxy() || !a.is_error;
            let attempts: Vec<Attempt> = attempts.into_iter().filter(is_other).collect();
            let answers: Vec<Answer> = attempts.iter().map(|a| a.answer).collect();
            let is_way = key.path != Path::Endpoint && at_once.contains(&key.from);
            let whole = match late(&attempts).filter(|_| is_way) {
                Some(seconds) => (Answer::TimedOut, Some(format!("{LATE} {seconds} s"))),
                None => (end(&answers), attempts.iter().find_map(|a| a.detail.clone())),
            };
            let part = (whole.0 == Answer::Accepted)
                .then(|| part(facts, &key, &attempts))
                .flatten();
            [Some(whole), part]
                .into_iter()
                .flatten()
                .map(move |end| (key.clone(), end))
        });
        for (key, (answer, detail)) in ends {
            let is_failure = answer != Answer::Accepted;
            let path = DialPath::from(key.path);
            let family = IpFamily::of(key.target.ip()).to_string();
            let known = counts.iter_mut().find(|c| {
                c.from == key.from
                    && c.path == path
                    && c.port == key.port
                    && c.family == family
                    && c.same_node == key.same_node
            });
            match known {
                Some(count) => {
                    count.made += 1;
                    count.failed += u32::from(is_failure);
                }
                None => counts.push(DialCount {
                    from: key.from.clone(),
                    path,
                    port: key.port.clone(),
                    family,
                    same_node: key.same_node,
                    made: 1,
                    failed: u32::from(is_failure),
                }),
            }
            if is_failure {
                failures.push(DialFailure {
                    same_bridge: are_beside
                        && key.path == Path::Service
                        && key.from.as_deref().is_some_and(|from| !is_of_host(facts, from)),
                    from: key.from,
                    path,
                    port: key.port,
                    target: key.target.to_string(),
                    endpoint: (key.path == Path::Endpoint).then(|| key.target.to_string()),
                    same_node: key.same_node,
                    answer,
                    detail: detail.map(|text| text.chars().take(MAX_DETAIL).collect()),
                });
            }
        }
        (counts, failures)
    }
}

/// After how many seconds an answer came where all answers came late: packets that open the connection were lost, and
/// sent again after 1, 3, 7 ... seconds.
fn late(attempts: &[Attempt]) -> Option<u32> {
    let is_late = |a: &Attempt| a.answer == Answer::Accepted && a.took.is_some_and(|ms| ms >= 3000);
    let first = attempts.first()?;
    attempts.iter().all(is_late).then_some(first.took? / 1000)
}

/// What of the requests failed where others did not: large answers, or those that went to some of the endpoints. One
/// request that is late among others proves nothing.
fn part(facts: &Facts, key: &Key, attempts: &[Attempt]) -> Option<(Answer, Option<String>)> {
    let stalls = |a: &&Attempt| {
        let of_url = || attempts.iter().filter(|other| other.url == a.url);
        let all_hang = of_url().all(|a| a.answer == Answer::NoAnswer);
        all_hang && of_url().count() > 1 && a.cut_short.is_some_and(|(came, _)| came < FEW_PACKETS)
    };
    if let Some((came, all)) = attempts.iter().find(stalls).and_then(|a| a.cut_short) {
        return Some((
            Answer::NoAnswer,
            Some(format!("{LARGE_ANSWERS_STOP} after {came} of {all} bytes")),
        ));
    }
    let endpoints = ready(facts).count();
    let fails = |a: &&Attempt| a.answer != Answer::Accepted;
    let failed = attempts.iter().filter(fails).count();
    let is_part = key.path == Path::Service && key.from.is_some() && endpoints > 1;
    let first = attempts.iter().find(fails)?;
    // What failed before all that was answered may have been mended since.
    let answered = attempts.iter().position(|a| a.answer == Answer::Accepted)?;
    let fails_later = attempts.iter().skip(answered).any(|a| fails(&a));
    (is_part && fails_later && is_a_share(failed, attempts.len(), endpoints)).then(|| {
        (
            first.answer,
            Some(format!("{failed} of {} requests", attempts.len())),
        )
    })
}

/// Whether nobody took the connection.
fn is_lost(answer: Answer) -> bool {
    matches!(
        answer,
        Answer::TimedOut | Answer::Refused | Answer::Rejected | Answer::Unreachable
    )
}

/// Whether so many requests failed as one of several endpoints gets, or half of that, and more than one.
fn is_a_share(failed: usize, made: usize, endpoints: usize) -> bool {
    failed > 1 && failed < made && endpoints > 1 && failed * 2 * endpoints >= made
}

/// Whether the Service has an address, but no such port.
fn is_unlisted(facts: &Facts, target: SocketAddr) -> bool {
    let Some(service) = facts.service.as_deref() else {
        return false;
    };
    let is_it = |ip: &&str| ip.parse() == Ok(target.ip());
    let has_port = |p: &ServicePort| p.port == i32::from(target.port());
    service.cluster_ips().iter().any(|ip| is_it(&&**ip)) && !service.spec.ports.iter().any(has_port)
}

/// Whether a Service port, or the endpoints behind it, is known to be one of HTTP: by its name, or by a probe.
fn speaks_http(facts: &Facts, target: SocketAddr) -> bool {
    let number = i32::from(target.port());
    let service = facts.service.iter().flat_map(|s| &s.spec.ports);
    let named = |name: &str| name == "http" || name.starts_with("http-");
    let mut of_service = service.filter(|p| p.port == number).map(ServicePort::name);
    let slices = facts.slices.iter().flat_map(|s| &s.ports);
    let mut of_slices = slices.filter(|p| p.port == Some(number)).map(|p| p.name());
    of_service.any(named) || of_slices.any(named)
}

/// Why nothing follows from a request for the way that is asked about, if so. Of the node's own dials it counts
/// how they failed.
fn why_nothing_follows(request: &Request, is_of_node: bool) -> Option<&'static str> {
    match request.outcome {
        Outcome::ViaProxy => Some(
            "the request went to a forward proxy (http_proxy, https_proxy); addresses of the cluster and names of Services belong in NO_PROXY of whoever asks",
        ),
        Outcome::Unsaid if is_of_node => Some(
            "no status came (000), and -s hides why; without -s curl says whether it was refused or timed out",
        ),
        Outcome::Answer(answer) if is_lost(answer) && request.target.is_none() => {
            Some("a message of curl or wget, and no command that shows what was asked for")
        }
        _ => None,
    }
}

fn at_line(files: &[TextFile<'_>], request: &Request, what: &str) -> Problem {
    let file = files.iter().find(|f| f.form == Form::Requests);
    Problem {
        path: file.map_or_else(|| "requests".to_owned(), |f| f.path.to_owned()),
        what: format!("line {}: {what}", request.line),
    }
}

/// That nothing follows from a request that was closed without a word.
fn unheard(files: &[TextFile<'_>], request: &Request, target: SocketAddr) -> Problem {
    let what = format!(
        "{target} takes the connection and closes it without an answer; a port that speaks no HTTP does so, and one that does is broken: the Service's port has no name (http) that tells"
    );
    at_line(files, request, &what)
}

/// Whether a Pod asked for an address of its own.
fn is_own(from: Option<&Pod>, target: SocketAddr) -> bool {
    from.is_some_and(|pod| pod.ips().any(|ip| ip.parse() == Ok(target.ip())))
}

/// Whether an end says something of the Service: a node port may be dialled at any host, and a Pod that is
/// an endpoint may have met itself.
fn proves(facts: &Facts, key: &Key, from: Option<&Pod>, answer: Answer) -> bool {
    let is_success = answer == Answer::Accepted;
    let is_own = |address: &String| from.is_some_and(|pod| pod.ips().any(|ip| ip == address));
    match key.path {
        // A Pod that answers itself shows nothing of the way to it.
        Path::Endpoint => !self::is_own(from, key.target) || answer == Answer::Refused,
        Path::NodePort => is_success,
        Path::Service if ready(facts).any(|e| e.addresses.iter().any(is_own)) => {
            is_success && ready(facts).any(|e| !e.addresses.iter().any(is_own))
        }
        Path::Service => true,
    }
}

fn ready(facts: &Facts) -> impl Iterator<Item = &Endpoint> {
    let all = facts.slices.iter().flat_map(|s| &s.endpoints);
    all.filter(|e| e.is_ready())
}

/// Whether a Pod is an endpoint among others.
fn is_endpoint(facts: &Facts, pod: &Pod) -> bool {
    let is_own = |address: &String| pod.ips().any(|ip| ip == address);
    !pod.is_host_network() && ready(facts).any(|e| e.addresses.iter().any(is_own))
}

/// Whether a Pod has an address of its own, and meets nobody but itself through the Service.
fn is_only_endpoint(facts: &Facts, pod: &Pod) -> bool {
    let is_own = |e: &Endpoint| e.addresses.iter().all(|a| pod.ips().any(|ip| ip == a));
    !pod.is_host_network() && ready(facts).next().is_some() && ready(facts).all(is_own)
}

/// Whether all endpoints are Pods of a node with addresses of their own, as its other Pods.
fn are_all_on(facts: &Facts, node: &str) -> bool {
    let of_host = |e: &Endpoint| {
        let mut pods = facts.pods.iter();
        pods.any(|p| p.is_host_network() && e.pod_uid().is_some() && p.metadata.uid.as_deref() == e.pod_uid())
    };
    let is_here = |e: &Endpoint| e.node_name.as_deref() == Some(node) && !of_host(e);
    ready(facts).next().is_some() && ready(facts).all(is_here)
}

/// Whether who dialled is a Pod that uses the network of its node.
fn is_of_host(facts: &Facts, from: &str) -> bool {
    let is_it = |p: &&Arc<Pod>| format!("{}/{}", p.namespace(), p.name()) == from;
    facts.pods.iter().find(is_it).is_some_and(|p| p.is_host_network())
}

/// One of several attempts that went well is enough.
fn end(answers: &[Answer]) -> Answer {
    let mut answers = answers.iter();
    let first = answers.next().copied().unwrap_or(Answer::Accepted);
    answers.fold(first, |worst, answer| match answer {
        Answer::Accepted => Answer::Accepted,
        _ => worst,
    })
}

/// Any answer shows that there was a connection.
fn answer(request: &Request, unsaid: Answer) -> Option<Answer> {
    match request.outcome {
        Outcome::Answer(Answer::Unexpected) => Some(Answer::Accepted),
        Outcome::Answer(answer) => Some(answer),
        Outcome::Closed | Outcome::ByProxy | Outcome::Unsaid => Some(Answer::Unexpected),
        // Newer curl says no more; at once it fails only where somebody refuses.
        Outcome::NotConnected => Some(unsaid),
        Outcome::NotResolved | Outcome::Silent | Outcome::ViaProxy => None,
    }
}

/// Host and port as they are written, and the port of the scheme.
fn host(text: &str) -> Option<(&str, u16)> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let default = if scheme.eq_ignore_ascii_case("https") {
        443
    } else {
        80
    };
    Some((rest.split(['/', '?', '#']).next()?, default))
}

/// The name in a URL, if it is one of the Service.
fn name_of_service<'a>(facts: &Facts, url: &'a str) -> Option<&'a str> {
    let (host, _) = host(url)?;
    let name = host.split(':').next()?;
    let first = name.split('.').next()?;
    (first == facts.spec.service_name).then_some(name)
}

/// A name, by the address that was tried, else by the one that a look-up of it found.
fn by_name(text: &str, tried: Option<IpAddr>, found: &[Lookup]) -> Option<SocketAddr> {
    let (host, default) = host(text)?;
    let (name, port) = host
        .split_once(':')
        .map_or((host, None), |(name, port)| (name, Some(port)));
    let port = port.map_or(Some(default), |port| port.parse().ok())?;
    let looked_up = || {
        let lookup = found.iter().find(|l| l.name == name.trim_end_matches('.'))?;
        match lookup.addresses.as_slice() {
            [only] => only.parse().ok(),
            _ => None,
        }
    };
    Some(SocketAddr::new(tried.or_else(looked_up)?, port))
}

/// `10.0.1.175:80`, `http://10.0.1.175/path`, `[fd00::1]:80`, `localhost:48577`.
fn target(text: &str) -> Option<SocketAddr> {
    let (host, default) = host(text)?;
    let host = host
        .strip_prefix("localhost")
        .map_or_else(|| host.to_owned(), |port| format!("127.0.0.1{port}"));
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.parse()
        .ok()
        .or_else(|| Some(SocketAddr::new(bare.parse::<IpAddr>().ok()?, default)))
}

/// The Service port of UDP, and of no other protocol, that an address belongs to; and whether it is that of
/// an endpoint.
fn of_udp(facts: &Facts, target: SocketAddr) -> Option<(u16, bool)> {
    let service = facts.service.as_deref()?;
    let number = i32::from(target.port());
    let ports = || service.spec.ports.iter();
    let only_udp = |p: &&ServicePort| {
        p.protocol() == "UDP" && !ports().any(|o| o.port == p.port && o.protocol() == "TCP")
    };
    let port = |p: &ServicePort| u16::try_from(p.port).ok();
    if service
        .cluster_ips()
        .iter()
        .any(|ip| ip.parse() == Ok(target.ip()))
    {
        let found = ports().filter(only_udp).find(|p| p.port == number)?;
        return Some((port(found)?, false));
    }
    let of_address = |ip: &String| ip.parse() == Ok(target.ip());
    let slice = facts.slices.iter().find(|s| {
        s.endpoints.iter().any(|e| e.addresses.iter().any(of_address))
            && s.ports
                .iter()
                .any(|p| p.port == Some(number) && p.protocol() == "UDP")
    })?;
    let name = slice.ports.iter().find(|p| p.port == Some(number))?.name();
    let found = ports().filter(only_udp).find(|p| p.name() == name)?;
    Some((port(found)?, true))
}

fn key(facts: &Facts, node: &str, from: Option<&Pod>, target: SocketAddr) -> Option<Key> {
    let service = facts.service.as_deref()?;
    let ports = || {
        service
            .spec
            .ports
            .iter()
            .filter(|p| p.protocol() == Protocol::Tcp.to_string())
    };
    let has_number = |number: Option<i32>| number == Some(i32::from(target.port()));
    let addresses = service.cluster_ips();
    let is_service = addresses.iter().any(|ip| ip.parse() == Ok(target.ip()));
    let key = |path, port: &ServicePort, same_node| Key {
        from: from.map(|pod| format!("{}/{}", pod.namespace(), pod.name())),
        path,
        port: format!("{}/{}", port.port, port.protocol()),
        target,
        same_node,
    };
    if is_service {
        return ports()
            .find(|p| has_number(Some(p.port)))
            .map(|p| key(Path::Service, p, None));
    }
    for slice in &facts.slices {
        for port in slice.ports.iter().filter(|p| has_number(p.port)) {
            let of_address = |ip: &String| ip.parse() == Ok(target.ip());
            let Some(endpoint) = slice
                .endpoints
                .iter()
                .find(|e| e.addresses.iter().any(of_address))
            else {
                continue;
            };
            let same_node = endpoint.node_name.as_deref() == Some(node);
            let of_service = ports().find(|p| p.name() == port.name())?;
            return Some(key(Path::Endpoint, of_service, Some(same_node)));
        }
    }
    // A node port is dialled at one of many addresses, of which the objects may name none.
    let port = ports().find(|p| has_number(p.node_port))?;
    from.is_none().then(|| key(Path::NodePort, port, None))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::api::LookupResult;

    #[test]
    fn targets_are_read_however_they_are_written() {
        let cases = [
            ("10.0.1.175:80", "10.0.1.175:80"),
            ("http://10.0.1.175/x", "10.0.1.175:80"),
            ("https://10.0.1.175", "10.0.1.175:443"),
            ("localhost:48577", "127.0.0.1:48577"),
            ("http://[fd00::1]:8080/", "[fd00::1]:8080"),
            ("[fd00::1]", "[fd00::1]:80"),
        ];
        for (text, address) in cases {
            assert_eq!(target(text), Some(address.parse().unwrap()), "{text}");
        }
        assert_eq!(target("hostnames"), None);
    }

    #[test]
    fn a_name_stands_for_the_address_that_was_tried_or_looked_up() {
        let found = [Lookup {
            name: "orders.shop".to_owned(),
            result: LookupResult::Found,
            code: None,
            found_as: None,
            addresses: vec!["10.96.60.1".to_owned()],
            ttl_seconds: 30,
        }];
        let address = |text: &str| by_name(text, None, &found).map(|a| a.to_string());
        assert_eq!(
            address("http://orders.shop:8080/x").as_deref(),
            Some("10.96.60.1:8080")
        );
        assert_eq!(address("https://orders.shop.").as_deref(), Some("10.96.60.1:443"));
        assert_eq!(address("orders"), None, "nobody looked that up");
        let tried = by_name("orders", "10.96.60.9".parse().ok(), &found);
        assert_eq!(tried, Some("10.96.60.9:80".parse().unwrap()));
    }

    #[test]
    fn one_attempt_that_went_well_is_enough() {
        assert_eq!(end(&[Answer::TimedOut, Answer::Accepted]), Answer::Accepted);
        assert_eq!(end(&[Answer::Accepted, Answer::Refused]), Answer::Accepted);
        assert_eq!(end(&[Answer::Refused, Answer::TimedOut]), Answer::Refused);
    }
}
