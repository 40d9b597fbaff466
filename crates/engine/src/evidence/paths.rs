//! The dials of all agents, by the way they took: which of their failures count, and for whom.
//!
//! An agent has tried a failure twice before it reports it. Here it is held against the present: an
//! endpoint that is no longer ready, or an address that is no longer the Service's, proves nothing. Nor
//! does a dial from a Pod that a NetworkPolicy may keep away, or one that a sidecar takes.

mod kept_away;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use crate::{
    Facts,
    evidence::{
        dials::{Count, Dials, Failed, Way, is_udp},
        passing::Passing,
        paths::kept_away::may_be_policy,
        reports::{Report, Reports},
        targets::{Target, is_address_of, key, node_has_family, number, targets},
    },
    policies::effects,
    ports,
};
use svcdiag_api::{Answer, DialFailure, DialPath, HttpScheme, NodeSettings};
use svcdiag_objects::{Object, Pod, Service, ServicePort};

/// Containers of service meshes that take the connections of their Pod.
const SIDECARS: [&str; 4] = ["istio-proxy", "linkerd-proxy", "kuma-sidecar", "consul-dataplane"];

/// Of more endpoints an agent dials a part in each round.
const WINDOW: usize = 50;

/// What the reports are held against.
pub(crate) struct Paths<'a> {
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
    /// What got through the nodes in the same round.
    passing: Passing<'a>,
}

impl<'a> Paths<'a> {
    pub(crate) fn of(facts: &'a Facts, reports: &'a Reports<'a>) -> Option<Self> {
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
        let speaking: BTreeSet<&str> = reports
            .current
            .iter()
            .flat_map(|r| &r.facts.failures)
            .filter_map(|f| f.from.as_deref())
            .collect();
        let mut paths = Self {
            facts,
            service,
            reports: &reports.current,
            targets: targets(facts, &ports),
            intercepted: reports
                .current
                .iter()
                .flat_map(|r| &r.facts.intercepted)
                .map(String::as_str)
                .collect(),
            ports,
            pods,
            shut_out: BTreeSet::new(),
            passing: Passing::default(),
        };
        let speaking = speaking.into_iter().filter(|key| paths.may_be_shut_out(key));
        paths.shut_out = speaking.map(str::to_owned).collect();
        paths.passing = Passing::of(&paths);
        Some(paths)
    }

    /// What got through the nodes.
    pub(crate) fn passing(&self) -> &Passing<'a> {
        &self.passing
    }

    /// The judged ports that can be dialled.
    pub(crate) fn has_ports_to_dial(&self) -> bool {
        self.ports.values().any(|p| matches!(p.protocol(), "TCP" | "UDP"))
    }

    pub(crate) fn pod(&self, key: &str) -> Option<&'a Pod> {
        self.pods.get(key).copied()
    }

    pub(crate) fn service_port(&self, port: &str) -> Option<&'a ServicePort> {
        self.ports.get(port).copied()
    }

    pub(crate) fn reports(&self) -> &'a [Report<'a>] {
        self.reports
    }

    pub(crate) fn settings(&self, node: &str) -> Option<&'a NodeSettings> {
        self.reports
            .iter()
            .find(|r| r.node == node)
            .map(|r| &r.facts.settings)
    }

    /// The dials that took a way.
    pub(crate) fn dials(&self, way: Way) -> Dials<'a> {
        let mut dials = Dials::default();
        for report in self.reports {
            for count in &report.facts.dials {
                let from = count.from.as_deref();
                let is_v4 = count.family != "IPv6";
                if !takes(way, count.path, from)
                    || !self.ports.contains_key(&count.port)
                    || !self.has_family(report.node, from, is_v4)
                {
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
                    is_v4,
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
    /// endpoint of a family has refused a port, those who heard nothing of it have not reached it either.
    fn take_silence_for_nothing(&self, dials: &mut Dials<'a>) {
        let mut refused: BTreeMap<(&str, bool), BTreeSet<_>> = BTreeMap::new();
        for failed in dials.failures.iter().filter(|f| f.is_closed_to_datagrams()) {
            let ips = refused.entry((&failed.dial.port, failed.is_v4())).or_default();
            ips.extend(failed.endpoint.map(|e| e.ip()));
        }
        for ((port, is_v4), ips) in refused {
            let of_family = self.targets.keys().map(SocketAddr::ip);
            let all: BTreeSet<_> = of_family.filter(|ip| ip.is_ipv4() == is_v4).collect();
            let of_port = |c: &&mut Count<'_>| c.port == port && c.is_v4 == is_v4;
            for count in dials.counts.iter_mut().filter(of_port).filter(|_| ips == all) {
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
        let answer = dial.outcome();
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
        let may_be_policy = may_be_policy(dial, answer);
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
        let failed = Failed {
            node: report.node,
            dial,
            answer,
            endpoint,
            target,
            from_host: from.is_none_or(|key| self.pod(key).is_some_and(Pod::is_host_network)),
        };
        if !self.has_family(report.node, from, failed.is_v4()) {
            return;
        }
        // A mesh that wants its own TLS turns others away, as it is told to.
        if let Some(pod) = self.resets_for_its_mesh(&failed)
            && self.facts.spec.clients.pod_selector.is_none()
        {
            dials.reset_by_mesh.get_or_insert(pod);
            return;
        }
        dials.failures.push(failed);
    }

    /// The Pod whose sidecar has reset a connection: that of the endpoint, or where it is not known which one
    /// it was, of the first if all have one.
    pub(crate) fn resets_for_its_mesh(&self, failed: &Failed<'a>) -> Option<&'a str> {
        if failed.answer != Answer::Reset {
            return None;
        }
        let guarded = |target: &Target<'a>| target.pod.filter(|pod| self.has_sidecar(&key(pod)));
        let pod = match &failed.target {
            Some(target) => guarded(target)?,
            None => {
                let pods: Option<Vec<&Pod>> = self.targets.values().map(guarded).collect();
                pods?.first().copied()?
            }
        };
        Some(pod.name())
    }

    /// Whether somebody has an address of an IP family, without which nothing can be dialled in it; so it is
    /// where their addresses are not known.
    fn has_family(&self, node: &str, from: Option<&str>, is_v4: bool) -> bool {
        match from {
            Some(key) => {
                let ips = self.pod(key).into_iter().flat_map(Pod::ips);
                let ips: Vec<IpAddr> = ips.filter_map(|ip| ip.parse().ok()).collect();
                ips.is_empty() || ips.iter().any(|ip| ip.is_ipv4() == is_v4)
            }
            None => node_has_family(self.facts, node, is_v4),
        }
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
    pub(crate) fn has_sidecar(&self, key: &str) -> bool {
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
        let may_be = |target: &Target<'_>| effects::may_be_closed_to_nodes(self.facts, target.pod);
        match target {
            Some(target) => may_be(&target),
            None => effects::may_be_closed_to_nodes(self.facts, None) || self.targets.values().any(may_be),
        }
    }

    /// Whether what is wrong on some nodes leaves nothing working: nobody gets through, and those who try
    /// are all on these nodes. Clients count for more than nodes.
    pub(crate) fn leaves_nothing(&self, nodes: &BTreeSet<&str>) -> bool {
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
    pub(crate) fn fails_from_everywhere(&self, dials: &Dials<'_>, endpoint: SocketAddr, port: &str) -> bool {
        let Some(target) = self.targets.get(&endpoint) else {
            return false;
        };
        // In a window one cannot tell who dialled it.
        self.is_in_a_window()
            || !dials
                .counts
                .iter()
                .any(|count| self.has_reached(dials, count, endpoint, *target, port))
    }

    /// Whether a round may leave out endpoints, so that nobody can tell which of them answered.
    pub(crate) fn is_in_a_window(&self) -> bool {
        self.targets.len() > WINDOW
    }

    /// Whether somebody on the endpoint's own node has reached it.
    pub(crate) fn is_reached_at_home(&self, dials: &Dials<'_>, endpoint: SocketAddr, port: &str) -> bool {
        let Some(target) = self.targets.get(&endpoint) else {
            return false;
        };
        dials.counts.iter().any(|count| {
            target.node == Some(count.node) && self.has_reached(dials, count, endpoint, *target, port)
        })
    }

    pub(crate) fn has_reached(
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
            && is_of(count, target)
            && !is_itself
            && !dials.reported.contains(&(count.node, count.from, Some(endpoint)))
    }
}

fn takes(way: Way, path: DialPath, from: Option<&str>) -> bool {
    match way {
        Way::Direct => path == DialPath::Endpoint,
        Way::FromClients => path == DialPath::Service && from.is_some(),
        Way::FromNodes => path != DialPath::Endpoint && from.is_none(),
    }
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

/// Whether a count is of the dials to endpoints where a target is. Of those on no node files say that they are on
/// another one.
fn is_of(count: &Count<'_>, target: Target<'_>) -> bool {
    match target.node {
        Some(node) => count.same_node == Some(node == count.node),
        None => count.same_node != Some(true),
    }
}
