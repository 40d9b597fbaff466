//! Does any NetworkPolicy keep the clients away from the target Pods or from DNS?
//!
//! Policies are meant to keep somebody away. A denial is a fault only where it certainly hits those who use the
//! Service: clients that are named, or everybody, because no rule lists the port. What keeps away Pods that only
//! might be clients is told as a hint. Where the cluster serves policies of other kinds, these may admit what
//! NetworkPolicy denies, so that nobody is blamed.

mod probes;

use std::collections::BTreeSet;

use crate::{
    Finding, applicable,
    clients::{Clients, Role},
    evidence::{Evidence, targets},
    policies::{
        describe::{Description, other_kinds},
        ports::{Denial, PortVerdict},
        rules::{self, Direction},
        view::{Client, PolicyView, names},
    },
    stages::{
        checks::{Check, no_service},
        network_policy_allows::probes::Probed,
    },
    text,
};
use svcdiag_api::{PortProtocol, Reason};
use svcdiag_objects::{Service, ServicePort};

type Verdicts<'a> = [(&'a ServicePort, PortVerdict)];

/// Whether the question arises, and whether it can be answered.
const APPLIES: [Check; 4] = [
    no_service,
    no_pods_behind_an_alias,
    policies_are_unread,
    clients_are_not_granted,
];

pub(super) fn judge(evidence: &Evidence<'_>) -> Finding {
    if let Some(finding) = APPLIES.iter().find_map(|check| check(evidence)) {
        return finding;
    }
    let (Some(service), Clients::Pods { pods, role }) = (evidence.service, &evidence.clients) else {
        return Finding::not_applicable("There are no clients.");
    };
    let view = PolicyView::new(evidence.facts, service, pods, *role);
    let ports = &evidence.ports;
    let verdicts: Vec<(&ServicePort, PortVerdict)> = ports.iter().map(|p| (*p, view.judge_port(p))).collect();
    let (mut unenforced, mut untried) = (None, None);
    let at_ports = view.denied_at_ports(evidence, &verdicts);
    for outcome in at_ports.into_iter().chain(view.denied_dns(evidence, ports)) {
        match outcome {
            Outcome::Settled(finding) => return finding,
            Outcome::Unenforced(denial) => unenforced = unenforced.or(Some(denial)),
            Outcome::Untried(denial) => untried = Some(denial),
        }
    }
    let finding = match unenforced {
        Some(denial) => Finding::yes(
            Reason::DeniedButNotEnforced,
            format!(
                "{denial} However, the traffic passes, so the network plugin does not seem to enforce the policies."
            ),
        ),
        None => match view.undenied(evidence, &verdicts) {
            finding if finding.reason == Reason::Pending => return finding,
            finding => finding,
        },
    };
    view.with_notes(finding, &verdicts, ports, untried)
}

fn no_pods_behind_an_alias(evidence: &Evidence<'_>) -> Option<Finding> {
    let is_alias = evidence.service.is_some_and(Service::is_external_name);
    is_alias.then(|| Finding::not_applicable("An ExternalName Service has no Pods of the cluster behind it."))
}

fn policies_are_unread(evidence: &Evidence<'_>) -> Option<Finding> {
    let why = evidence.facts.why_unreadable("networkpolicies")?;
    let message = format!("NetworkPolicies could not be read: {why}.");
    Some(Finding::unknown(Reason::ProbeFailed, message))
}

fn clients_are_not_granted(evidence: &Evidence<'_>) -> Option<Finding> {
    let is_refused = matches!(evidence.clients, Clients::NotGranted(_));
    applicable::no_clients(evidence).filter(|_| is_refused)
}

/// What comes of a denial when it is held against what clients saw.
enum Outcome {
    /// That is the answer.
    Settled(Finding),
    /// It is not enforced.
    Unenforced(String),
    /// It is of ports that nobody tried, who got through at others; they may well be for others.
    Untried(String),
}

impl<'a> PolicyView<'a> {
    /// The answer, with what else a reader has to know.
    fn with_notes(
        &self,
        mut finding: Finding,
        verdicts: &Verdicts<'_>,
        ports: &[&ServicePort],
        untried: Option<String>,
    ) -> Finding {
        if finding.reason != Reason::DeniedButNotEnforced {
            for hint in self.hints(verdicts, ports) {
                finding.message.push_str(&format!(" {hint}"));
            }
        }
        if let Some(denial) = untried {
            let note = format!(" {denial} That was not tested.");
            finding.message.push_str(&note);
        }
        // Other kinds are not judged; the reader has to know that there may be some.
        let kinds = other_kinds(self.facts).filter(|_| finding.reason != Reason::OtherPoliciesApply);
        if let Some(kinds) = kinds {
            finding.message.push_str(&format!(
                " The cluster also serves other kinds of policies ({kinds}), which are not evaluated."
            ));
        }
        finding
    }

    /// What is denied at ports of the Service.
    fn denied_at_ports(&self, evidence: &Evidence<'_>, verdicts: &Verdicts<'_>) -> Option<Outcome> {
        let certain = verdicts.iter().filter_map(|(port, verdict)| match verdict {
            PortVerdict::Denied(denial) => Some((*port, denial)),
            _ => None,
        });
        if let Some((finding, clients, of)) = self.foremost(certain.collect(), verdicts.len()) {
            let probed = probes::to_the_service(evidence, &clients, &of);
            let is_named = self.facts.spec.clients.pod_selector.is_some();
            let passes = || probes::to_the_service(evidence, &clients, &[]);
            if !is_named && matches!(probed, Probed::Nobody) && matches!(passes(), Probed::Passes) {
                return Some(Outcome::Untried(finding.message));
            }
            return Some(self.outcome(finding, probed));
        }
        let doubtful = verdicts.iter().filter_map(|(port, verdict)| match verdict {
            PortVerdict::Doubtful(denial) => Some((*port, denial)),
            _ => None,
        });
        let (finding, clients, of) = self.foremost(doubtful.collect(), verdicts.len())?;
        match probes::to_the_service(evidence, &clients, &of) {
            Probed::Passes => None,
            Probed::Nobody => Some(Outcome::Settled(Finding::unknown(
                Reason::NoVantagePoint,
                format!(
                    "{} Network plugins differ in this; only a probe can tell.",
                    finding.message
                ),
            ))),
            probed => Some(self.outcome(finding, probed)),
        }
    }

    fn outcome(&self, finding: Finding, probed: Probed) -> Outcome {
        match probed {
            Probed::Passes => Outcome::Unenforced(finding.message),
            Probed::Pending(pending) => Outcome::Settled(pending),
            Probed::Fails | Probed::Nobody => Outcome::Settled(match other_kinds(self.facts) {
                Some(kinds) => Finding::unknown(
                    Reason::OtherPoliciesApply,
                    format!(
                        "{} However, the cluster also serves other kinds of policies ({kinds}), which may admit the traffic and are not evaluated.",
                        finding.message
                    ),
                ),
                None => finding,
            }),
        }
    }

    /// The denials of the first reason that are of the same kind, and the clients that it is denied to, as
    /// namespace/name; none when it is everybody. And the ports, as number/protocol.
    fn foremost(
        &self,
        denied: Vec<(&ServicePort, &Denial)>,
        ports: usize,
    ) -> Option<(Finding, Vec<String>, Vec<PortProtocol>)> {
        let all = denied.len() == ports && denied.iter().all(|(_, d)| !d.partly);
        let by_precedence = [Reason::IngressDenied, Reason::EgressDenied];
        let reason = by_precedence
            .into_iter()
            .find(|r| denied.iter().any(|(_, d)| d.reason == *r))?;
        let mut of: Vec<(&ServicePort, &Denial)> =
            denied.into_iter().filter(|(_, d)| d.reason == reason).collect();
        let (_, first) = *of.first()?;
        of.retain(|(_, d)| d.clients == first.clients && d.closed.policies == first.closed.policies);
        let Description { message, remediation } = self.describe(&of)?;
        let finding = if all {
            Finding::nothing_works(reason, message, remediation)
        } else {
            Finding::part_fails(reason, message, remediation)
        };
        let keys = first
            .clients
            .iter()
            .map(|name| format!("{}/{name}", self.client_namespace));
        let of = of.iter().filter_map(|(port, _)| port.port_protocol());
        Some((finding, keys.collect(), of.collect()))
    }

    /// Clients that get to the Service but not to DNS, so that they never find it.
    fn denied_dns(&self, evidence: &Evidence<'_>, ports: &[&ServicePort]) -> Option<Outcome> {
        let mut clients = self.who_asks_dns(ports);
        clients.retain(|c| self.has_to_find_names(c));
        let cut_off = self.cut_off(&clients);
        let Description { message, remediation } = self.describe_dns(&cut_off)?;
        let reason = Reason::EgressToDNSDenied;
        let finding = if cut_off.len() == clients.len() {
            Finding::nothing_works(reason, message, remediation)
        } else {
            Finding::part_fails(reason, message, remediation)
        };
        let keys: Vec<String> = cut_off.iter().map(|c| targets::key(c.client.pod)).collect();
        Some(self.outcome(finding, probes::to_dns(evidence, &keys)))
    }

    /// Whether somebody wants a client to find names: who names it, or saves its look-ups. Who saves only what
    /// it got from an address may well use nothing but addresses.
    fn has_to_find_names(&self, client: &Client<'a>) -> bool {
        self.facts.spec.clients.pod_selector.is_some() || self.has_saved_lookups(client)
    }

    fn who_asks_dns(&self, ports: &[&ServicePort]) -> Vec<&Client<'a>> {
        let asks_dns = |c: &&Client| {
            let policy = c.pod.spec.dns_policy.as_deref();
            policy.is_none_or(|p| p.starts_with("ClusterFirst"))
        };
        let gets_through = |c: &&Client<'a>| ports.iter().any(|p| !self.routes(c, p).are_closed());
        self.clients
            .iter()
            .filter(asks_dns)
            .filter(gets_through)
            .collect()
    }

    /// What to say where nothing is denied to those who are known to be clients.
    fn undenied(&self, evidence: &Evidence<'_>, verdicts: &Verdicts<'_>) -> Finding {
        let has = |wanted: fn(&PortVerdict) -> bool| verdicts.iter().any(|(_, v)| wanted(v));
        let is_undecided = has(|v| matches!(v, PortVerdict::Undecided));
        let is_for_others = !has(|v| !matches!(v, PortVerdict::ForOthers(_))) && !verdicts.is_empty();
        let probed = probes::to_the_service(evidence, &[], &[]);
        let policies = text::list(&self.policy_names());
        if let Some(finding) = self.lost_to_other_kinds(evidence) {
            return finding;
        }
        match probed {
            Probed::Pending(pending) if is_undecided => pending,
            Probed::Passes if is_undecided => Finding::yes(
                Reason::Allowed,
                format!("The policies ({policies}) let the clients through, as their dials show."),
            ),
            Probed::Fails if is_undecided => Finding::unknown(
                Reason::ProbeFailed,
                format!(
                    "A rule of {policies} admits an ipBlock, or a Namespace whose labels are not known. The clients' dials fail, which may be what the policies intend."
                ),
            ),
            _ if is_undecided => Finding::unknown(
                Reason::NoVantagePoint,
                "A rule admits an ipBlock, or a Namespace whose labels are not known. Only a probe can tell whether it applies to the client Pods.",
            ),
            Probed::Passes if is_for_others => Finding::yes(
                Reason::DeniedButNotEnforced,
                format!(
                    "The policies ({policies}) do not admit the Pods that dialled, but these get through, so the network plugin does not seem to enforce the policies."
                ),
            ),
            _ if is_for_others => Finding::yes(
                Reason::Allowed,
                format!("The policies ({policies}) block no Pod that is known to be a client."),
            ),
            _ if self.isolates_anybody() => Finding::yes(
                Reason::Allowed,
                format!("The policies ({policies}) let the clients through."),
            ),
            _ => Finding::yes(
                Reason::NoPolicySelects,
                "No NetworkPolicy selects the Pods involved.",
            ),
        }
    }

    /// Clients that reach nobody, which policies of other kinds may want.
    fn lost_to_other_kinds(&self, evidence: &Evidence<'_>) -> Option<Finding> {
        let kinds = other_kinds(self.facts)?;
        let keys = self.clients.iter().map(|c| targets::key(c.pod));
        let lost: Vec<String> = keys.filter(|key| evidence.reaches_nobody(key)).collect();
        (!lost.is_empty()).then(|| {
            Finding::unknown(
                Reason::OtherPoliciesApply,
                format!(
                    "No NetworkPolicy denies the traffic, but {} reached no endpoint. The cluster also serves other kinds of policies ({kinds}), which may deny it and are not evaluated.",
                    text::list(&lost)
                ),
            )
        })
    }

    /// What keeps away Pods that need not be clients, and clients from outside of which there are no Pods.
    fn hints(&self, verdicts: &Verdicts<'_>, ports: &[&ServicePort]) -> Vec<String> {
        let mut hints: Vec<String> = Vec::new();
        let for_others = verdicts.iter().filter_map(|(port, verdict)| match verdict {
            PortVerdict::ForOthers(Some(denial)) => Some((*port, denial)),
            _ => None,
        });
        let kept_away = for_others.collect::<Vec<_>>();
        let kept_away = self
            .foremost(kept_away, verdicts.len())
            .map(|(finding, ..)| finding.message);
        let from_dns = || {
            let clients = self.who_asks_dns(ports);
            let cut_off = self.cut_off(&clients);
            let described = self.describe_dns(&cut_off)?;
            let need_not = clients.iter().all(|c| !self.has_to_find_names(c));
            (self.role != Role::Endpoint && need_not && cut_off.len() == clients.len())
                .then_some(described.message)
        };
        if let Some(message) = kept_away.or_else(from_dns) {
            hints.push(message);
            hints.push(
                "These Pods need not be clients. To have the actual clients checked, name them in spec.clients.podSelector."
                    .to_owned(),
            );
        }
        if let Some(hint) = self.closed_to_the_outside(ports) {
            hints.push(hint);
        }
        hints
    }

    /// Clients from outside the cluster come with addresses, and no selector matches these.
    fn closed_to_the_outside(&self, ports: &[&ServicePort]) -> Option<String> {
        if !self.service.is_for_outside() {
            return None;
        }
        let targets = ports.iter().flat_map(|p| self.targets_of(p));
        let closed = targets.filter(|(t, port)| {
            !t.isolating.is_empty()
                && !rules::admits_addresses(&t.isolating, Direction::Ingress, *port, t.pod)
        });
        let policies: BTreeSet<String> = closed.flat_map(|(t, _)| names(&t.isolating)).collect();
        let policies: Vec<&String> = policies.iter().collect();
        (!policies.is_empty()).then(|| {
            format!(
                "No rule of {} admits clients from outside the cluster: only an ipBlock matches their addresses.",
                text::list(&policies)
            )
        })
    }
}
