//! The dials of all agents, by the way they took: which of their failures count, and for whom.
//!
//! An agent has tried a failure twice before it reports it. Here it is held against the present: an
//! endpoint that is no longer ready, or an address that is no longer the Service's, proves nothing. Nor
//! does a dial from a Pod that a NetworkPolicy may keep away, or one that a sidecar takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use super::{
    Facts, ports, stages,
    targets::{Target, is_address_of, key, number, targets},
    vantage::{Report, Vantage},
};
use crate::{
    api::{Answer, DialFailure, DialPath, HttpScheme, NodeSettings},
    objects::{Pod, Service, ServicePort},
};

/// Containers of service meshes that take the connections of their Pod.
const SIDECARS: [&str; 4] = ["istio-proxy", "linkerd-proxy", "kuma-sidecar", "consul-dataplane"];

/// Of more endpoints an agent dials a part in each round.
const WINDOW: usize = 50;

/// Whom a dial was made to, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To the endpoints, past the Service.
    Direct,
    /// To the Service's addresses, from client Pods.
    FromClients,
    /// To the Service's addresses and node ports, from the nodes themselves.
    FromNodes,
}

/// A failure that counts.
#[derive(Clone, Copy)]
pub(super) struct Failed<'a> {
    /// The node it was seen on.
    pub node: &'a str,
    /// What failed.
    pub dial: &'a DialFailure,
    /// The endpoint, as far as it is known.
    pub endpoint: Option<SocketAddr>,
    /// What is known of it.
    pub target: Option<Target<'a>>,
    /// Whether the one who dialled uses the network of the node.
    pub from_host: bool,
}

impl Failed<'_> {
    /// Whether the endpoint itself has refused a datagram. A rule on the way refuses those who come that way, and
    /// through the Service the two look alike.
    fn is_closed_to_datagrams(&self) -> bool {
        is_udp(&self.dial.port) && self.dial.path == DialPath::Endpoint && self.dial.answer == Answer::Refused
    }
}

/// The dials of one origin to one Service port.
#[derive(Clone, Copy)]
pub(super) struct Count<'a> {
    pub node: &'a str,
    pub from: Option<&'a str>,
    pub port: &'a str,
    pub is_v4: bool,
    pub same_node: Option<bool>,
    pub made: u32,
    pub succeeded: u32,
}

/// All dials that took one way.
#[derive(Default)]
pub(super) struct Dials<'a> {
    /// Dials that prove something.
    pub counts: Vec<Count<'a>>,
    /// Failures that count.
    pub failures: Vec<Failed<'a>>,
    /// Whether a failure did not count because its object has changed since.
    pub is_stale: bool,
    /// Whether a sidecar spoke for a client.
    pub is_intercepted: bool,
    /// Whether a client failed that a policy may keep away.
    pub is_shut_out: bool,
    /// Whether a node failed that a policy may keep away.
    pub is_node_shut_out: bool,
    /// Every failure reported, whether or not it counts.
    reported: BTreeSet<(&'a str, Option<&'a str>, Option<SocketAddr>)>,
}

/// What the reports are held against.
pub(super) struct Paths<'a> {
    facts: &'a Facts,
    service: &'a Service,
    reports: &'a [Report<'a>],
    /// Ready endpoints of the judged ports.
    pub targets: BTreeMap<SocketAddr, Target<'a>>,
    /// The judged ports, as number/protocol.
    ports: BTreeMap<String, &'a ServicePort>,
    pods: BTreeMap<String, &'a Pod>,
    intercepted: BTreeSet<&'a str>,
    shut_out: BTreeSet<String>,
}

impl<'a> Paths<'a> {
    pub(super) fn of(facts: &'a Facts, vantage: &'a Vantage<'a>) -> Option<Self> {
        let service = facts.service.as_deref()?;
        let others = facts.client_namespace.iter().flat_map(|n| &n.pods);
        let mut pods: BTreeMap<String, &Pod> = BTreeMap::new();
        for pod in facts.pods.iter().chain(others).map(AsRef::as_ref) {
            let known = pods.entry(key(pod)).or_insert(pod);
            // Files may hold a Pod twice; which comes first means nothing.
            if *known != pod && format!("{known:?}") < format!("{pod:?}") {
                *known = pod;
            }
        }
        let ports: BTreeMap<String, &ServicePort> = ports::judged(facts, service)
            .into_iter()
            .map(|p| (number(p), p))
            .collect();
        let speaking: BTreeSet<&str> = vantage
            .reports
            .iter()
            .flat_map(|r| &r.facts.failures)
            .filter_map(|f| f.from.as_deref())
            .collect();
        // Without the policies nobody can say who is kept away.
        let unreadable = facts.why_unreadable("networkpolicies").is_some();
        let shut_out = speaking
            .into_iter()
            .filter(|key| {
                unreadable
                    || pods
                        .get(*key)
                        .is_some_and(|pod| stages::may_be_shut_out(facts, pod))
            })
            .map(str::to_owned)
            .collect();
        Some(Self {
            facts,
            service,
            reports: &vantage.reports,
            targets: targets(facts, &ports, &pods),
            intercepted: vantage
                .reports
                .iter()
                .flat_map(|r| &r.facts.intercepted)
                .map(String::as_str)
                .collect(),
            ports,
            pods,
            shut_out,
        })
    }

    /// The judged ports that can be dialled.
    pub(super) fn has_ports_to_dial(&self) -> bool {
        self.ports.values().any(|p| matches!(p.protocol(), "TCP" | "UDP"))
    }

    pub(super) fn pod(&self, key: &str) -> Option<&'a Pod> {
        self.pods.get(key).copied()
    }

    pub(super) fn service_port(&self, port: &str) -> Option<&'a ServicePort> {
        self.ports.get(port).copied()
    }

    pub(super) fn reports(&self) -> &'a [Report<'a>] {
        self.reports
    }

    pub(super) fn settings(&self, node: &str) -> Option<&'a NodeSettings> {
        self.reports
            .iter()
            .find(|r| r.node == node)
            .map(|r| &r.facts.settings)
    }

    /// The dials that took a way.
    pub(super) fn dials(&self, way: Way) -> Dials<'a> {
        let mut dials = Dials::default();
        for report in self.reports {
            for count in &report.facts.dials {
                let from = count.from.as_deref();
                if !takes(way, count.path, from) || !self.ports.contains_key(&count.port) {
                    continue;
                }
                if self.is_spoken_for(report, from, &count.port) {
                    dials.is_intercepted |= count.made > 0;
                    continue;
                }
                let succeeded = count.made.saturating_sub(count.failed);
                if succeeded == 0 && from.is_some_and(|key| self.shut_out.contains(key)) {
                    continue;
                }
                dials.counts.push(Count {
                    node: report.node,
                    from,
                    port: &count.port,
                    is_v4: count.family != "IPv6",
                    same_node: count.same_node,
                    made: count.made,
                    succeeded,
                });
            }
            for failure in &report.facts.failures {
                if takes(way, failure.path, failure.from.as_deref()) {
                    self.note(&mut dials, report, failure);
                }
            }
        }
        dials
            .failures
            .sort_by(|a, b| (a.node, order(a.dial)).cmp(&(b.node, order(b.dial))));
        self.take_silence_for_nothing(&mut dials);
        dials
    }

    /// Over UDP whoever is not refused hears nothing, and refusals are rationed by the kernel: where every
    /// endpoint has refused a port, those who heard nothing of it have not reached it either.
    fn take_silence_for_nothing(&self, dials: &mut Dials<'a>) {
        let all: BTreeSet<_> = self.targets.keys().map(SocketAddr::ip).collect();
        let mut refused: BTreeMap<&str, BTreeSet<_>> = BTreeMap::new();
        for failed in dials.failures.iter().filter(|f| f.is_closed_to_datagrams()) {
            let ips = refused.entry(&failed.dial.port).or_default();
            ips.extend(failed.endpoint.map(|e| e.ip()));
        }
        for count in &mut dials.counts {
            if refused.get(count.port).is_some_and(|ips| *ips == all) {
                count.succeeded = 0;
            }
        }
    }

    fn note(&self, dials: &mut Dials<'a>, report: &Report<'a>, dial: &'a DialFailure) {
        let from = dial.from.as_deref();
        let endpoint = dial.endpoint.as_deref().and_then(|e| e.parse().ok());
        dials.reported.insert((report.node, from, endpoint));
        if !self.ports.contains_key(&dial.port) || self.is_spoken_for(report, from, &dial.port) {
            return;
        }
        let target = endpoint.and_then(|e| self.targets.get(&e).copied());
        let is_of_today = self.is_the_services(dial)
            && match dial.path {
                DialPath::Endpoint => target.is_some(),
                DialPath::Service | DialPath::NodePort => dial.endpoint.is_none() || target.is_some(),
            };
        if !is_of_today {
            dials.is_stale = true;
            return;
        }
        // Beside Pods that are ready, one that is published though it is not does as it says.
        if self.is_not_ready(target) && self.targets.values().any(|t| !self.is_not_ready(Some(*t))) {
            return;
        }
        // A policy lets packets vanish or has them rejected; a Pod that refuses or answers was reached. Through
        // the Service all that is refused over UDP seems to come from its address, whoever says so.
        let may_be_policy = match dial.answer {
            Answer::TimedOut | Answer::Rejected | Answer::Unreachable => true,
            Answer::Refused => is_udp(&dial.port) && dial.path != DialPath::Endpoint,
            Answer::Accepted | Answer::Unexpected => false,
        };
        match from {
            Some(key) if may_be_policy && self.shut_out.contains(key) => {
                dials.is_shut_out = true;
                return;
            }
            None if may_be_policy && self.may_keep_nodes_away(target) => {
                dials.is_node_shut_out = true;
                return;
            }
            _ => {}
        }
        dials.failures.push(Failed {
            node: report.node,
            dial,
            endpoint,
            target,
            from_host: from.is_none_or(|key| self.pod(key).is_some_and(Pod::is_host_network)),
        });
    }

    /// Whether an endpoint's Pod is known not to be ready (publishNotReadyAddresses).
    fn is_not_ready(&self, target: Option<Target<'_>>) -> bool {
        self.service.publishes_not_ready() && target.and_then(|t| t.pod).is_some_and(|pod| !pod.is_ready())
    }

    /// Whether a proxy beside the client speaks for it, so that its connections prove nothing.
    fn is_spoken_for(&self, report: &Report<'_>, from: Option<&str>, port: &str) -> bool {
        let Some(key) = from else { return false };
        self.has_sidecar(key) && !self.speaks_http(report, port)
    }

    /// Whether a sidecar takes the connections of a Pod.
    pub(super) fn has_sidecar(&self, key: &str) -> bool {
        let named = |pod: &Pod| pod.long_running().any(|c| SIDECARS.contains(&c.name.as_str()));
        self.intercepted.contains(key) || self.pod(key).is_some_and(named)
    }

    fn speaks_http(&self, report: &Report<'_>, port: &str) -> bool {
        let (Some(http), Some(port)) = (&report.asked.probe.http, self.service_port(port)) else {
            return false;
        };
        http.scheme == HttpScheme::HTTP
            && port.protocol() == "TCP"
            && http.port.as_ref().is_none_or(|wanted| port.is_named_by(wanted))
    }

    /// Whether what was dialled still belongs to the Service.
    fn is_the_services(&self, dial: &DialFailure) -> bool {
        let (Some(port), Ok(target)) = (self.service_port(&dial.port), dial.target.parse::<SocketAddr>())
        else {
            return false;
        };
        let is_number = |number: Option<i32>| number == Some(i32::from(target.port()));
        match dial.path {
            DialPath::Endpoint => true,
            DialPath::NodePort => is_number(port.node_port),
            DialPath::Service => is_number(Some(port.port)) && is_address_of(self.service, target.ip()),
        }
    }

    /// Policies often let Pods in and leave nodes out.
    fn may_keep_nodes_away(&self, target: Option<Target<'_>>) -> bool {
        if !self.facts.other_policy_kinds.is_empty() || self.facts.why_unreadable("networkpolicies").is_some()
        {
            return true;
        }
        let isolated = |t: &Target<'_>| t.pod.is_some_and(|pod| stages::is_isolated(self.facts, pod));
        match target {
            Some(target) => isolated(&target),
            None => self.targets.values().any(isolated),
        }
    }

    /// Whether what is wrong on some nodes leaves nothing working: nobody gets through, and those who try
    /// are all on these nodes. Clients count for more than nodes.
    pub(super) fn leaves_nothing(&self, nodes: &BTreeSet<&str>) -> bool {
        let clients = self.dials(Way::FromClients);
        let dials = if clients.has_clients() {
            clients
        } else {
            self.dials(Way::FromNodes)
        };
        if dials.made() == 0 {
            return self.reports.iter().all(|r| nodes.contains(r.node));
        }
        dials.succeeded() == 0 && dials.counts.iter().all(|c| c.made == 0 || nodes.contains(c.node))
    }

    /// Whether no one who dialled an endpoint directly has reached it.
    pub(super) fn fails_from_everywhere(&self, dials: &Dials<'_>, endpoint: SocketAddr, port: &str) -> bool {
        let Some(target) = self.targets.get(&endpoint) else {
            return false;
        };
        // In a window one cannot tell who dialled it.
        self.targets.len() > WINDOW
            || !dials
                .counts
                .iter()
                .any(|count| self.has_reached(dials, count, endpoint, *target, port))
    }

    /// Whether somebody on the endpoint's own node has reached it.
    pub(super) fn is_reached_at_home(&self, dials: &Dials<'_>, endpoint: SocketAddr, port: &str) -> bool {
        let Some(target) = self.targets.get(&endpoint) else {
            return false;
        };
        dials.counts.iter().any(|count| {
            target.node == Some(count.node) && self.has_reached(dials, count, endpoint, *target, port)
        })
    }

    fn has_reached(
        &self,
        dials: &Dials<'_>,
        count: &Count<'_>,
        endpoint: SocketAddr,
        target: Target<'_>,
        port: &str,
    ) -> bool {
        let is_itself = count
            .from
            .and_then(|key| self.pod(key))
            .is_some_and(|pod| pod.ips().any(|ip| ip.parse() == Ok(endpoint.ip())));
        let is_its_refusal =
            |f: &Failed| f.endpoint == Some(endpoint) && f.dial.port == port && f.is_closed_to_datagrams();
        count.succeeded > 0
            && !dials.failures.iter().any(is_its_refusal)
            && count.port == port
            && count.is_v4 == endpoint.is_ipv4()
            && count.same_node == Some(target.node == Some(count.node))
            && !is_itself
            && !dials.reported.contains(&(count.node, count.from, Some(endpoint)))
    }
}

impl Dials<'_> {
    /// Whether anybody who counts tried.
    pub(super) fn made(&self) -> u32 {
        self.counts.iter().map(|c| c.made).fold(0, u32::saturating_add)
    }

    pub(super) fn succeeded(&self) -> u32 {
        self.counts
            .iter()
            .map(|c| c.succeeded)
            .fold(0, u32::saturating_add)
    }

    /// Whether clients tried; what they reach counts for more than what nodes reach.
    pub(super) fn has_clients(&self) -> bool {
        self.counts.iter().any(|c| c.from.is_some() && c.made > 0)
    }

    /// Whether nothing reached a port, by those whose word counts most.
    pub(super) fn is_dead(&self, port: &str) -> bool {
        let of_port = || self.counts.iter().filter(|c| c.port == port && c.made > 0);
        let clients_tried = of_port().any(|c| c.from.is_some());
        of_port()
            .filter(|c| !clients_tried || c.from.is_some())
            .all(|c| c.succeeded == 0)
    }

    /// What those do who were reached, as far as it was heard: over UDP silence is all there is.
    pub(super) fn answer(&self) -> &'static str {
        let made = || self.counts.iter().filter(|c| c.made > 0);
        match (made().any(|c| is_udp(c.port)), made().all(|c| is_udp(c.port))) {
            (false, _) => "answer",
            (true, false) => "answer, and do not refuse datagrams",
            (true, true) => "do not refuse datagrams",
        }
    }

    /// Whether nothing reached any port.
    pub(super) fn is_all_dead(&self) -> bool {
        self.counts.iter().all(|c| self.is_dead(c.port))
    }
}

fn takes(way: Way, path: DialPath, from: Option<&str>) -> bool {
    match way {
        Way::Direct => path == DialPath::Endpoint,
        Way::FromClients => path == DialPath::Service && from.is_some(),
        Way::FromNodes => path != DialPath::Endpoint && from.is_none(),
    }
}

/// Whether a Service port, as number/protocol, is of UDP.
pub(super) fn is_udp(port: &str) -> bool {
    port.ends_with("/UDP")
}

fn order(dial: &DialFailure) -> (Option<&str>, &str, &str, Option<&str>, &str) {
    (
        dial.from.as_deref(),
        &dial.port,
        &dial.target,
        dial.endpoint.as_deref(),
        dial.answer.as_str(),
    )
}
