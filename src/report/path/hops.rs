//! Which hops there are, and what the stages say of each.

use super::{
    Hop, Place, State,
    labels::{Labels, has_failed},
};
use crate::{
    api::{ConditionType as C, Impact, Reason},
    engine::{Diagnosis, Finding, Verdict},
};

/// The stages that dial the Service's address.
const THROUGH_SERVICE: [C; 2] = [C::ServiceReachable, C::ProxyForwards];

/// The hops of a packet to the Service `service` (namespace/name).
///
/// What is False is broken; what is not applicable is left out. Empty for a Service that nothing passes, and while nothing is
/// checked.
#[must_use]
pub fn hops(service: &str, diagnosis: &Diagnosis) -> Vec<Hop> {
    if diagnosis.ready.reason == Reason::Suspended {
        return Vec::new();
    }
    let seen = Seen(diagnosis);
    let labels = Labels::of(service, diagnosis);
    let hop = |place, label, state| Hop { place, label, state };
    let mut hops = vec![client(&seen, &labels)];
    if !seen.are_not_applicable(&[C::DNSResolves]) {
        hops.push(hop(Place::Dns, "DNS".to_owned(), seen.of(C::DNSResolves)));
    }
    if has_address(&seen) {
        hops.push(hop(Place::Service, labels.service(), service_state(&seen)));
        hops.push(hop(Place::Proxy, labels.proxy(), proxy_state(&seen)));
    }
    if !seen.are_not_applicable(&[C::EndpointsPopulated, C::EndpointsReachable]) {
        hops.push(hop(Place::Endpoint, labels.endpoint(), endpoint_state(&seen)));
    }
    mark_broken(&mut hops, diagnosis);
    name_broken(&mut hops, diagnosis, &labels);
    // A Service that is only a name leads nowhere.
    let leads_nowhere = matches!(hops.as_slice(), [only] if !matches!(only.state, State::Broken { .. }));
    if leads_nowhere { Vec::new() } else { hops }
}

/// What the stages say.
pub(super) struct Seen<'a>(pub(super) &'a Diagnosis);

impl<'a> Seen<'a> {
    pub(super) fn finding(&self, stage: C) -> Option<&'a Finding> {
        let mut stages = self.0.stages.iter();
        stages
            .find(|(condition, _)| *condition == stage)
            .map(|(_, finding)| finding)
    }

    pub(super) fn has(&self, stage: C, reason: Reason) -> bool {
        self.finding(stage).is_some_and(|f| f.reason == reason)
    }

    pub(super) fn is_true(&self, stage: C) -> bool {
        self.finding(stage).is_some_and(|f| f.verdict == Verdict::True)
    }

    pub(super) fn is_false(&self, stage: C) -> bool {
        let finding = self.finding(stage);
        finding.is_some_and(|f| matches!(f.verdict, Verdict::False { .. }))
    }

    /// Whether the stages that were not skipped are not applicable.
    fn are_not_applicable(&self, stages: &[C]) -> bool {
        let reasons = stages
            .iter()
            .filter_map(|stage| Some(self.finding(*stage)?.reason));
        let asked: Vec<Reason> = reasons.filter(|reason| *reason != Reason::Skipped).collect();
        !asked.is_empty() && asked.iter().all(|reason| *reason == Reason::NotApplicable)
    }

    /// Whether a dial failed that the stage is about. Where it is not applicable, its dials prove nothing.
    fn has_failed_dials(&self, stage: C) -> bool {
        let mut observations = self.0.observations.iter();
        !self.has(stage, Reason::NotApplicable)
            && observations.any(|o| o.condition == stage.as_str() && has_failed(o))
    }

    /// What a stage says of its hop. That it is False is marked later.
    fn of(&self, stage: C) -> State {
        known(self.is_true(stage))
    }
}

fn known(is_known: bool) -> State {
    if is_known { State::Passed } else { State::Unknown }
}

/// Whether the Service has an address, and rules for it. Stages that wait for others, or were skipped, do not say.
fn has_address(seen: &Seen<'_>) -> bool {
    const ABOUT_IT: [C; 4] = [
        C::KubeProxyHealthy,
        C::ProxyRulesPresent,
        C::ProxyForwards,
        C::ServiceReachable,
    ];
    let is_judged = |stage: &C| seen.is_true(*stage) || seen.is_false(*stage);
    // Neither dials nor rules need to be judged: ports may be of a protocol that is not dialled, and a mode's rules not compared.
    ABOUT_IT.iter().any(is_judged)
        || !seen.has(C::KubeProxyHealthy, Reason::NotApplicable)
            && !seen.has(C::ServiceReachable, Reason::NotApplicable)
            && !seen.are_not_applicable(&ABOUT_IT)
}

/// A client that dialled or looked up a name is there.
fn client(seen: &Seen<'_>, labels: &Labels<'_>) -> Hop {
    let observed = labels.client();
    // Observations are bounded: the client's may have been left out.
    let is_left_out =
        !labels.is_of_policy() && (seen.is_true(C::ServiceReachable) || seen.is_true(C::DNSResolves));
    Hop {
        place: Place::Client,
        state: known(observed.is_some() || is_left_out),
        label: observed.unwrap_or_else(|| "client Pod".to_owned()),
    }
}

/// The address is in order if it answers whoever dialled it. Dials through it pass the later hops as well: where one of
/// those is broken, it is not the address for which they fail, or are not judged.
fn service_state(seen: &Seen<'_>) -> State {
    let fails = |stage: &C| seen.is_false(*stage) || seen.has_failed_dials(*stage);
    let is_dialled_in_vain = THROUGH_SERVICE.iter().any(fails);
    if is_dialled_in_vain && is_broken_beyond_service(seen.0) {
        State::BrokenFurtherOn
    } else {
        known(!is_dialled_in_vain && THROUGH_SERVICE.iter().any(|stage| seen.is_true(*stage)))
    }
}

fn endpoint_state(seen: &Seen<'_>) -> State {
    known(seen.is_true(C::EndpointsReachable) && !seen.has_failed_dials(C::EndpointsReachable))
}

/// The rules are in order if they were compared. In modes whose rules are not compared, kube-proxy is all there is to check.
fn proxy_state(seen: &Seen<'_>) -> State {
    let is_not_compared = seen.has(C::ProxyRulesPresent, Reason::NotApplicable);
    known(seen.is_true(C::ProxyRulesPresent) || is_not_compared && seen.is_true(C::KubeProxyHealthy))
}

/// The stages that are False.
fn faults(diagnosis: &Diagnosis) -> impl Iterator<Item = &(C, Finding)> {
    let stages = diagnosis.stages.iter();
    stages.filter(|(_, finding)| matches!(finding.verdict, Verdict::False { .. }))
}

/// Whether a hop after the Service's address is broken.
fn is_broken_beyond_service(diagnosis: &Diagnosis) -> bool {
    faults(diagnosis).any(|(stage, finding)| {
        let places = blamed(*stage, finding.reason);
        matches!(places, [Place::Proxy | Place::Endpoint, ..])
    })
}

/// Marks a hop for each stage that is False. Of several stages that are about one hop the root cause counts, else the
/// first. That dials through the Service fail is no fault of its own where a later hop is broken.
fn mark_broken(hops: &mut Vec<Hop>, diagnosis: &Diagnosis) {
    let cause = diagnosis.root_cause.as_ref().map(|c| c.condition.as_str());
    let is_cause = |stage: C| cause == Some(stage.as_str());
    let explains_dials = is_broken_beyond_service(diagnosis);
    for (stage, finding) in faults(diagnosis) {
        if THROUGH_SERVICE.contains(stage) && explains_dials && !is_cause(*stage) {
            continue;
        }
        let state = State::Broken {
            stage: *stage,
            reason: finding.reason,
        };
        if *stage == C::HairpinOK {
            hops.push(Hop {
                place: Place::Hairpin,
                label: "back to the same Pod".to_owned(),
                state,
            });
            continue;
        }
        let places = blamed(*stage, finding.reason);
        let position = |place: &Place| hops.iter().position(|hop| hop.place == *place);
        // A Service that lacks all of them still has a last hop.
        let at = places.iter().find_map(position).or(hops.len().checked_sub(1));
        if let Some(hop) = at.and_then(|at| hops.get_mut(at)) {
            let is_marked = matches!(hop.state, State::Broken { .. });
            if !is_marked || is_cause(*stage) {
                hop.state = state;
            }
        }
    }
}

/// Says of the broken hops which endpoint does not answer, and that not everything that passes them fails. Of the way of a
/// Pod back to itself that goes without saying.
fn name_broken(hops: &mut [Hop], diagnosis: &Diagnosis, labels: &Labels<'_>) {
    for hop in hops {
        let State::Broken { stage, .. } = hop.state else {
            continue;
        };
        if stage == C::EndpointsReachable
            && hop.place == Place::Endpoint
            && let Some(address) = labels.failed_endpoint()
        {
            hop.label = address;
        }
        let finding = Seen(diagnosis).finding(stage);
        let impact = finding.map(|finding| &finding.verdict);
        if let Some(Verdict::False {
            impact: Impact::Some, ..
        }) = impact
            && hop.place != Place::Hairpin
        {
            hop.label = match hop.label.strip_suffix(')') {
                Some(details) => format!("{details}; some)"),
                None => format!("{} (some)", hop.label),
            };
        }
    }
}

/// Where a fault of a stage is; of several places the first that the Service has.
fn blamed(stage: C, reason: Reason) -> &'static [Place] {
    match (stage, reason) {
        (C::NetworkPolicyAllows, Reason::EgressDenied) => &[Place::Client],
        (C::NetworkPolicyAllows, Reason::EgressToDNSDenied) => &[Place::Dns, Place::Client],
        // The clients' own settings.
        (
            C::DNSResolves,
            Reason::NameserverNotClusterDNS | Reason::SearchPathMissing | Reason::NdotsTooLow,
        ) => &[Place::Client],
        (C::DefinitionValid, Reason::ExternalNameIsIP) | (C::DNSResolves, _) => &[Place::Dns],
        // Without an address the definition is about the endpoints alone.
        (C::ServiceExists | C::DefinitionValid | C::ProxyForwards | C::ServiceReachable, _) => {
            &[Place::Service, Place::Endpoint]
        }
        (C::KubeProxyHealthy | C::ProxyRulesPresent, _) => &[Place::Proxy],
        (C::PodsHealthy | C::EndpointsPopulated | C::NetworkPolicyAllows | C::EndpointsReachable, _) => {
            &[Place::Endpoint]
        }
        (C::HairpinOK, _) => &[Place::Hairpin],
        (C::Ready | C::Reconciling | C::Stalled, _) => &[],
    }
}
