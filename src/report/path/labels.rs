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

    /// The dials of a stage that name their target, which are those that failed; from Pods first.
    fn addressed(&self, stage: C) -> Option<&'a Observation> {
        let failed = || self.observed(stage).filter(|o| address(o).is_some());
        failed().find(|o| o.pod.is_some()).or_else(|| failed().next())
    }

    /// The dial that the root cause is about, so that client and endpoint are those of one packet.
    fn witness(&self) -> Option<&'a Observation> {
        const DIALLED: [C; 3] = [C::EndpointsReachable, C::ProxyForwards, C::ServiceReachable];
        let cause = self.cause.filter(|cause| DIALLED.contains(cause))?;
        self.addressed(cause)
    }

    /// Who dialled or looked up the name. A node only where no Pod did.
    pub(super) fn client(&self) -> Option<String> {
        const FROM_PODS: [C; 3] = [C::ServiceReachable, C::DNSResolves, C::EndpointsReachable];
        const FROM_NODES: [C; 2] = [C::ProxyForwards, C::EndpointsReachable];
        let names = FROM_PODS.into_iter().filter(|stage| Some(*stage) == self.cause);
        let mut from_pods = names.chain(FROM_PODS).flat_map(|stage| self.observed(stage));
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
        let found = stages.into_iter().find_map(|stage| self.addressed(stage));
        found.and_then(address).map_or_else(name, str::to_owned)
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
            format!("{right}/{of} {noun}")
        });
        let details: Vec<String> = mode.map(str::to_owned).into_iter().chain(nodes).collect();
        match details.is_empty() {
            true => "rules".to_owned(),
            false => format!("rules ({})", details.join(", ")),
        }
    }

    /// The endpoint that does not answer, or else how many there are. That all are ready is not said of endpoints at fault.
    pub(super) fn endpoint(&self) -> String {
        let seen = Seen(self.diagnosis);
        if seen.is_false(C::EndpointsReachable)
            && let Some(address) = self.addressed(C::EndpointsReachable).and_then(address)
        {
            return address.to_owned();
        }
        let is_at_fault = [C::PodsHealthy, C::EndpointsPopulated, C::EndpointsReachable]
            .iter()
            .any(|stage| seen.is_false(*stage))
            || seen.has(C::NetworkPolicyAllows, Reason::IngressDenied);
        match self.diagnosis.summary.endpoints.split_once('/') {
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

/// The target, if it is an address. Dials that succeeded are counted, and then it is not.
fn address(observation: &Observation) -> Option<&str> {
    let target = observation.target.as_deref()?;
    let is_address = target.parse::<SocketAddr>().is_ok() || target.parse::<IpAddr>().is_ok();
    is_address.then_some(target)
}
