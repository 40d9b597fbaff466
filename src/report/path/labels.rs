//! Names and addresses of the hops, from what was observed.

use std::net::{IpAddr, SocketAddr};

use super::hops::Seen;
use crate::{
    api::{ConditionType as C, Observation, Reason},
    engine::Diagnosis,
};

/// What the hops are called.
pub(super) struct Labels<'a> {
    service: &'a str,
    diagnosis: &'a Diagnosis,
    /// The stage that is the root cause.
    cause: Option<C>,
}

impl<'a> Labels<'a> {
    pub(super) fn of(service: &'a str, diagnosis: &'a Diagnosis) -> Self {
        let cause = diagnosis.root_cause.as_ref();
        Self {
            service,
            diagnosis,
            cause: cause.and_then(|cause| cause.condition.parse().ok()),
        }
    }

    /// The observations of a stage, failures first.
    fn observed(&self, stage: C) -> impl Iterator<Item = &'a Observation> {
        let all = self.diagnosis.observations.iter();
        all.filter(move |o| o.condition == stage.as_str())
    }

    /// Whether the message of the root cause names this.
    fn is_named(&self, name: &str) -> bool {
        let cause = self.diagnosis.root_cause.as_ref();
        let is_end = |c: char| c.is_ascii_punctuation() && c != ']';
        let mut words = cause.into_iter().flat_map(|c| c.message.split_whitespace());
        words.any(|word| word.trim_start_matches('(').trim_end_matches(is_end) == name)
    }

    /// Of the dials of a stage that failed, one that the root cause names, else one from a Pod, else any.
    fn failed(&self, stage: C) -> Option<&'a Observation> {
        let failed = || self.observed(stage).filter(|o| has_failed(o));
        let is_named = |o: &&Observation| {
            let pod = o.pod.as_deref();
            pod.is_some_and(|pod| self.is_named(pod)) && address(o).is_some_and(|to| self.is_named(to))
        };
        failed()
            .find(is_named)
            .or_else(|| failed().find(|o| o.pod.is_some()))
            .or_else(|| failed().next())
    }

    /// The dial that the root cause is about, so that client and endpoint are those of one packet.
    fn witness(&self) -> Option<&'a Observation> {
        const DIALLED: [C; 4] = [
            C::EndpointsReachable,
            C::ProxyForwards,
            C::ServiceReachable,
            C::HairpinOK,
        ];
        let cause = self.cause.filter(|cause| DIALLED.contains(cause))?;
        self.failed(cause)
    }

    /// Whether the root cause is a policy, which is about the clients that it names.
    pub(super) fn is_of_policy(&self) -> bool {
        self.cause == Some(C::NetworkPolicyAllows)
    }

    /// Who dialled or looked up the name. A node only where no Pod did.
    pub(super) fn client(&self) -> Option<String> {
        const FROM_PODS: [C; 3] = [C::ServiceReachable, C::DNSResolves, C::EndpointsReachable];
        const FROM_NODES: [C; 2] = [C::ProxyForwards, C::EndpointsReachable];
        let names = FROM_PODS.into_iter().filter(|stage| Some(*stage) == self.cause);
        let mut from_pods = names.chain(FROM_PODS).flat_map(|stage| self.observed(stage));
        if self.is_of_policy() {
            let mut pods = from_pods.filter_map(|o| o.pod.as_deref());
            return pods
                .find(|pod| self.is_named(pod))
                .map(|pod| format!("Pod {pod}"));
        }
        let mut from_nodes = FROM_NODES.into_iter().flat_map(|stage| self.observed(stage));
        let found = self
            .witness()
            .or_else(|| from_pods.find(|o| o.pod.is_some()))
            .or_else(|| from_nodes.find(|o| o.node.is_some()))?;
        match (&found.pod, &found.node) {
            (Some(pod), _) => Some(format!("Pod {pod}")),
            (None, node) => node.as_ref().map(|node| format!("node {node}")),
        }
    }

    /// The address that was dialled, of a dial that failed if any did. Where the Service itself is at fault, its name.
    pub(super) fn service(&self) -> String {
        let seen = Seen(self.diagnosis);
        let name = || format!("Service {}", self.service);
        if seen.is_false(C::ServiceExists) || seen.is_false(C::DefinitionValid) {
            return name();
        }
        let mut stages = vec![C::ServiceReachable, C::HairpinOK, C::ProxyForwards];
        // Sorting is stable: beside that, addresses that Pods dialled come first.
        stages.sort_by_key(|stage| !seen.is_false(*stage));
        let dialled = |stage: C| {
            let failed = self.failed(stage).and_then(address);
            failed.or_else(|| self.observed(stage).find_map(address))
        };
        let found = stages.into_iter().find_map(dialled);
        found.map_or_else(name, str::to_owned)
    }

    /// The rules, with the mode and the nodes where they are right of those where they were compared.
    pub(super) fn proxy(&self) -> String {
        let seen = Seen(self.diagnosis);
        let mode = self.diagnosis.proxy_mode.as_deref();
        let is_replaced = |reason| {
            [C::KubeProxyHealthy, C::ProxyRulesPresent]
                .iter()
                .any(|stage| seen.has(*stage, reason))
        };
        if is_replaced(Reason::ProxyReplaced) {
            return mode.unwrap_or("replacement of kube-proxy").to_owned();
        }
        if is_replaced(Reason::HandledByAnotherProxy) {
            return "another proxy".to_owned();
        }
        let is_of_rules = seen.is_false(C::ProxyRulesPresent)
            || !seen.is_false(C::KubeProxyHealthy) && !seen.has(C::ProxyRulesPresent, Reason::NotApplicable);
        if !is_of_rules {
            return mode.map_or_else(|| "kube-proxy".to_owned(), |mode| format!("kube-proxy ({mode})"));
        }
        // As in "nftables 2/3"; without rules that were compared it is a word.
        let words = self.diagnosis.summary.proxy.split(' ');
        let counts = words.filter_map(|word| word.split_once('/')).next();
        let nodes = counts.filter(|(right, of)| is_number(right) && is_number(of));
        let nodes = nodes.map(|(right, of)| {
            let noun = if of == "1" { "node" } else { "nodes" };
            format!("{right}/{of} checked {noun}")
        });
        let details: Vec<String> = mode.map(str::to_owned).into_iter().chain(nodes).collect();
        match details.is_empty() {
            true => "rules".to_owned(),
            false => format!("rules ({})", details.join(", ")),
        }
    }

    /// The endpoint that does not answer.
    pub(super) fn failed_endpoint(&self) -> Option<String> {
        self.failed(C::EndpointsReachable)
            .and_then(address)
            .map(str::to_owned)
    }

    /// How many endpoints there are. That all are ready is not said of endpoints at fault.
    pub(super) fn endpoint(&self) -> String {
        let seen = Seen(self.diagnosis);
        let is_at_fault = [C::PodsHealthy, C::EndpointsPopulated, C::EndpointsReachable]
            .iter()
            .any(|stage| seen.is_false(*stage))
            || seen.has(C::NetworkPolicyAllows, Reason::IngressDenied);
        match self.diagnosis.summary.endpoints.split_once('/') {
            // They may be known from elsewhere than EndpointSlices.
            Some((_, "0")) if seen.is_true(C::EndpointsPopulated) => "endpoints".to_owned(),
            Some((_, "0")) => "no endpoints".to_owned(),
            Some((ready, all)) if is_number(ready) && is_number(all) => {
                let noun = if all == "1" { "endpoint" } else { "endpoints" };
                match is_at_fault && ready == all {
                    true => noun.to_owned(),
                    false => format!("{noun} ({ready}/{all} ready)"),
                }
            }
            _ => "endpoints".to_owned(),
        }
    }
}

fn is_number(text: &str) -> bool {
    text.parse::<u32>().is_ok()
}

/// Whether it is a dial that failed. Those that succeeded are counted, but for the Pods that dialled themselves.
pub(super) fn has_failed(observation: &Observation) -> bool {
    address(observation).is_some() && observation.result != "connected"
}

/// The target, if it is an address. Where dials of a stage that succeeded are counted, it is not.
fn address(observation: &Observation) -> Option<&str> {
    let target = observation.target.as_deref()?;
    let is_address = target.parse::<SocketAddr>().is_ok() || target.parse::<IpAddr>().is_ok();
    is_address.then_some(target)
}
