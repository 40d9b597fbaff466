//! The dials of all agents, by the route they took: which of their failures count, and for whom.
//!
//! An agent has tried a failure twice before it reports it. Here it is held against the present: an
//! endpoint that is no longer ready, or an address that is no longer the Service's, proves nothing. Nor
//! does a dial from a Pod that a NetworkPolicy may keep away, or one that a sidecar takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use crate::{
    Facts,
    evidence::{
        dials::{Count, Dials, Failed, Route, may_be_policy},
        ends::Ends,
        reports::{Report, Reports},
        sender::Senders,
        targets::{Target, is_address_of},
    },
    policies::effects,
};
use svcdiag_api::{DialFailure, DialPath, HttpScheme, PortProtocol};
use svcdiag_objects::{IpFamily, Pod, Protocol};

/// What dials are collected from.
pub(super) struct Collector<'a, 'e> {
    pub facts: &'a Facts,
    pub reports: &'e Reports<'a>,
    pub ends: &'e Ends<'a>,
    /// Pods that a policy may keep away, as namespace/name.
    pub shut_out: &'e BTreeSet<String>,
}

impl<'a> Collector<'a, '_> {
    /// The dials that took a route.
    pub(super) fn dials(&self, route: Route) -> Dials<'a> {
        let mut dials = Dials::default();
        for report in &self.reports.current {
            for count in &report.facts.dials {
                let from = count.from.as_deref();
                if !takes(route, count.path, from)
                    || self.ends.service_port(count.port).is_none()
                    || !self.ends.has_family(report.node, from, count.family)
                {
                    continue;
                }
                if self.is_spoken_for(report, from, count.port) {
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
                    port: count.port,
                    family: count.family,
                    same_node: count.same_node,
                    made: count.made,
                    succeeded,
                });
            }
            for failure in &report.facts.failures {
                if takes(route, failure.path, failure.from.as_deref()) {
                    self.note(&mut dials, report, failure);
                }
            }
        }
        dials
            .failures
            .sort_by(|a, b| (a.node, order(a.dial)).cmp(&(b.node, order(b.dial))));
        self.count_silence_as_nothing(&mut dials);
        dials
    }

    /// Over UDP whoever is not refused hears nothing, and refusals are rationed by the kernel: where every
    /// endpoint of a family has refused a port, those who heard nothing of it have not reached it either.
    fn count_silence_as_nothing(&self, dials: &mut Dials<'a>) {
        let mut refused: BTreeMap<(PortProtocol, IpFamily), BTreeSet<_>> = BTreeMap::new();
        for failed in dials.failures.iter().filter(|f| f.is_closed_to_datagrams()) {
            let ips = refused.entry((failed.dial.port, failed.family())).or_default();
            ips.extend(failed.endpoint.map(|e| e.ip()));
        }
        for ((port, family), ips) in refused {
            let of_family = self.ends.targets.keys().map(SocketAddr::ip);
            let all: BTreeSet<_> = of_family.filter(|ip| IpFamily::of(*ip) == family).collect();
            let of_port = |c: &&mut Count<'_>| c.port == port && c.family == family;
            for count in dials.counts.iter_mut().filter(of_port).filter(|_| ips == all) {
                count.succeeded = 0;
            }
        }
    }

    fn note(&self, dials: &mut Dials<'a>, report: &Report<'a>, dial: &'a DialFailure) {
        let from = dial.from.as_deref();
        let endpoint = dial.endpoint.as_deref().and_then(|e| e.parse().ok());
        dials.reported.insert((report.node, from, endpoint));
        if self.ends.service_port(dial.port).is_none() || self.is_spoken_for(report, from, dial.port) {
            return;
        }
        let answer = dial.outcome();
        let targets = &self.ends.targets;
        let target = endpoint.and_then(|e| targets.get(&e).copied());
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
        if self.is_not_ready(target) && targets.values().any(|t| !self.is_not_ready(Some(*t))) {
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
        let senders = Senders {
            facts: self.facts,
            reports: self.reports,
            ends: self.ends,
        };
        let failed = Failed {
            node: report.node,
            dial,
            answer,
            endpoint,
            target,
            from_host: from.is_none_or(|key| self.ends.pod(key).is_some_and(Pod::is_host_network)),
            rejected: senders.rejected(report, dial, target),
        };
        if !self.ends.has_family(report.node, from, failed.family()) {
            return;
        }
        // A mesh that wants its own TLS turns others away, as it is told to.
        if let Some(pod) = self.ends.resets_for_its_mesh(&failed)
            && self.facts.spec.clients.pod_selector.is_none()
        {
            dials.reset_by_mesh.get_or_insert(pod);
            return;
        }
        dials.failures.push(failed);
    }

    /// Whether an endpoint's Pod is known not to be ready (publishNotReadyAddresses).
    fn is_not_ready(&self, target: Option<Target<'_>>) -> bool {
        let service = self.facts.service.as_deref();
        service.is_some_and(|s| s.publishes_not_ready())
            && target.and_then(|t| t.pod).is_some_and(|pod| !pod.is_ready())
    }

    /// Whether a proxy beside the client speaks for it, so that its connections prove nothing.
    fn is_spoken_for(&self, report: &Report<'_>, from: Option<&str>, port: PortProtocol) -> bool {
        let Some(key) = from else { return false };
        self.ends.has_sidecar(key) && !self.speaks_http(report, port)
    }

    fn speaks_http(&self, report: &Report<'_>, port: PortProtocol) -> bool {
        let (Some(http), Some(port)) = (&report.asked.probe.http, self.ends.service_port(port)) else {
            return false;
        };
        http.scheme == HttpScheme::HTTP
            && port.protocol == Protocol::Tcp
            && http.port.as_ref().is_none_or(|wanted| port.is_named_by(wanted))
    }

    /// Whether what was dialled still belongs to the Service.
    fn is_the_services(&self, dial: &DialFailure) -> bool {
        let (Some(service), Some(port), Ok(target)) = (
            self.facts.service.as_deref(),
            self.ends.service_port(dial.port),
            dial.target.parse::<SocketAddr>(),
        ) else {
            return false;
        };
        let is_number = |number: Option<i32>| number == Some(i32::from(target.port()));
        match dial.path {
            DialPath::Endpoint => true,
            DialPath::NodePort => is_number(port.node_port),
            DialPath::Service => is_number(Some(port.port)) && is_address_of(service, target.ip()),
        }
    }

    /// Policies often let Pods in and leave nodes out.
    fn may_keep_nodes_away(&self, target: Option<Target<'_>>) -> bool {
        let may_be = |target: &Target<'_>| effects::may_be_closed_to_nodes(self.facts, target.pod);
        match target {
            Some(target) => may_be(&target),
            None => {
                effects::may_be_closed_to_nodes(self.facts, None) || self.ends.targets.values().any(may_be)
            }
        }
    }
}

fn takes(route: Route, path: DialPath, from: Option<&str>) -> bool {
    match route {
        Route::Direct => path == DialPath::Endpoint,
        Route::FromClients => path == DialPath::Service && from.is_some(),
        Route::FromNodes => path != DialPath::Endpoint && from.is_none(),
    }
}

fn order(dial: &DialFailure) -> (Option<&str>, PortProtocol, &str, Option<&str>, &str) {
    (
        dial.from.as_deref(),
        dial.port,
        &dial.target,
        dial.endpoint.as_deref(),
        dial.answer.as_str(),
    )
}
