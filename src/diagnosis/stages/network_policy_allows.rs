//! Does any NetworkPolicy keep the clients away from the target Pods or from DNS?
//!
//! Policies are meant to keep somebody away. A denial is a fault only where it certainly hits those
//! who use the Service: clients that the user named; everybody, because no rule admits anyone; or
//! Pods of the namespace that may go nowhere at all. A policy that admits others than the Pods at
//! hand is taken for what it says: the clients are those others.

use std::collections::BTreeSet;

use super::{
    super::{
        Facts, Finding,
        clients::{Clients, Role},
        ports,
        vantage::Vantage,
        words,
    },
    applicable,
    policy_probes::{self, Probed},
    policy_scene::{Client, DNS_PORT, Denial, PortVerdict, Scene, names},
};
use crate::{
    api::Reason,
    objects::{Object, ServicePort},
};

pub(super) fn judge(facts: &Facts) -> Finding {
    let Some(service) = facts.service.as_deref() else {
        return Finding::not_applicable("There is no Service.");
    };
    if service.is_external_name() {
        return Finding::not_applicable("No Pod of the cluster is behind an ExternalName Service.");
    }
    if let Some(why) = facts.why_unreadable("networkpolicies") {
        return Finding::unknown(
            Reason::ProbeFailed,
            format!("NetworkPolicies could not be read: {why}."),
        );
    }
    let (clients, role) = match Clients::of(facts) {
        Clients::Pods { pods, role } => (pods, role),
        Clients::NotGranted(_) => {
            return applicable::no_clients(facts)
                .unwrap_or_else(|| Finding::not_applicable("There are no clients."));
        }
    };
    let scene = Scene::new(facts, service, &clients, role);
    let ports = ports::judged(facts, service);
    let verdicts: Vec<(&ServicePort, PortVerdict)> =
        ports.iter().map(|p| (*p, scene.judge_port(p))).collect();
    let denied: Vec<(&ServicePort, &Denial)> = verdicts
        .iter()
        .filter_map(|(port, verdict)| match verdict {
            PortVerdict::Denied(denial) => Some((*port, denial)),
            _ => None,
        })
        .collect();
    let vantage = Vantage::of(facts);
    let mut unenforced = None;
    // What the policies say is held against what clients see, where any has tried.
    if let Some((finding, clients)) = scene.denied(&denied, verdicts.len()) {
        match policy_probes::to_the_service(facts, &vantage, &clients) {
            Probed::Passes => unenforced = Some(finding.message),
            Probed::Pending(pending) => return pending,
            Probed::Fails | Probed::Nobody => return finding,
        }
    }
    if let Some((finding, clients)) = scene.dns_denied(&ports) {
        match policy_probes::to_dns(&vantage, &clients) {
            Probed::Passes => unenforced = unenforced.or(Some(finding.message)),
            Probed::Pending(pending) => return pending,
            Probed::Fails | Probed::Nobody => return finding,
        }
    }
    if let Some(denial) = unenforced {
        return with_other_kinds(
            facts,
            Finding::yes(
                Reason::DeniedButNotEnforced,
                format!("{denial} But the traffic passes: the network plugin does not enforce the policies."),
            ),
        );
    }
    let has = |wanted: fn(&PortVerdict) -> bool| verdicts.iter().any(|(_, v)| wanted(v));
    let is_undecided = has(|v| matches!(v, PortVerdict::Undecided));
    let is_for_others =
        !verdicts.is_empty() && verdicts.iter().all(|(_, v)| matches!(v, PortVerdict::ForOthers));
    let probed = match policy_probes::to_the_service(facts, &vantage, &[]) {
        Probed::Pending(pending) if is_undecided => return pending,
        probed => probed,
    };
    let finding = if is_undecided && matches!(probed, Probed::Passes) {
        Finding::yes(
            Reason::Allowed,
            format!(
                "The policies {} let the clients through, as their dials show.",
                words::list(&scene.policy_names())
            ),
        )
    } else if is_undecided && matches!(probed, Probed::Fails) {
        Finding::unknown(
            Reason::ProbeFailed,
            format!(
                "A rule of {} admits a block of addresses (ipBlock) or a Namespace whose labels are not known; the clients' dials fail, which may be what the policies ask for.",
                words::list(&scene.policy_names())
            ),
        )
    } else if is_undecided {
        Finding::unknown(
            Reason::NoVantagePoint,
            "A rule admits a block of addresses (ipBlock) or a Namespace whose labels are not known; whether that holds for the clients' Pods, only a probe can tell.",
        )
    } else if is_for_others && matches!(probed, Probed::Passes) {
        Finding::yes(
            Reason::DeniedButNotEnforced,
            format!(
                "The policies {} admit others than the Pods that tried, and these get through all the same: the network plugin does not enforce the policies.",
                words::list(&scene.policy_names())
            ),
        )
    } else if is_for_others {
        Finding::unknown(
            Reason::NoClientPods,
            format!(
                "The policies admit others than the running Pods of namespace {}; name the clients in spec.clients.podSelector to have them judged.",
                scene.client_namespace
            ),
        )
    } else if scene.isolates_anybody() {
        Finding::yes(
            Reason::Allowed,
            format!(
                "The policies {} let the clients through.",
                words::list(&scene.policy_names())
            ),
        )
    } else {
        Finding::yes(
            Reason::NoPolicySelects,
            "No NetworkPolicy selects the Pods involved.",
        )
    };
    with_other_kinds(facts, finding)
}

/// Policies of other kinds are not judged; the reader has to know that there may be some.
fn with_other_kinds(facts: &Facts, mut finding: Finding) -> Finding {
    if !facts.other_policy_kinds.is_empty() {
        let mut kinds: Vec<&str> = facts.other_policy_kinds.iter().map(String::as_str).collect();
        kinds.sort_unstable();
        finding.message.push_str(&format!(
            " The cluster also serves {}, which are not judged.",
            words::list(&kinds)
        ));
    }
    finding
}

impl Scene<'_> {
    /// What is denied, and the clients that it is denied to, as namespace/name; none when it is everybody.
    fn denied(&self, denied: &[(&ServicePort, &Denial)], ports: usize) -> Option<(Finding, Vec<String>)> {
        let by_precedence = [Reason::IngressDenied, Reason::EgressDenied];
        let (port, denial) = by_precedence
            .iter()
            .find_map(|r| denied.iter().find(|(_, d)| d.reason == *r))?;
        let all = denied.len() == ports && denied.iter().all(|(_, d)| !d.partly);
        let policies: Vec<&String> = denial.policies.iter().collect();
        let who = match denial.clients.as_slice() {
            [] => "anybody".to_owned(),
            clients => format!("{} of namespace {}", words::list(clients), self.client_namespace),
        };
        let policy = words::list(&policies);
        let on_port = port.describe();
        let target = port.target_port();
        let selector = super::super::near_miss::selector(&self.service.spec.selector);
        let (message, namespace, fix) = match denial.reason {
            Reason::IngressDenied => (
                format!(
                    "NetworkPolicy {policy} does not admit {who} to the {}Pods of port {on_port}.",
                    if denial.partly { "some of the " } else { "" }
                ),
                &*self.facts.namespace,
                format!(
                    "an ingress rule for the clients, to port {target} of the Pods (not port {} of the Service)",
                    port.port
                ),
            ),
            _ => (
                format!("NetworkPolicy {policy} does not let {who} out to the Pods of port {on_port}."),
                self.client_namespace,
                format!(
                    "an egress rule to the Pods {selector}, port {target} (not port {} of the Service)",
                    port.port
                ),
            ),
        };
        let first = policies.first().map(|p| p.as_str()).unwrap_or_default();
        let remediation = format!("Add {fix}: `kubectl -n {namespace} edit networkpolicy {first}`.");
        let finding = if all {
            Finding::nothing_works(denial.reason, message, remediation)
        } else {
            Finding::part_fails(denial.reason, message, remediation)
        };
        let keys = denial
            .clients
            .iter()
            .map(|name| format!("{}/{name}", self.client_namespace));
        Some((finding, keys.collect()))
    }

    /// Clients that get to the Service but not to cluster DNS, so that they never find it.
    fn dns_denied(&self, ports: &[&ServicePort]) -> Option<(Finding, Vec<String>)> {
        let asks_dns = |c: &&Client| {
            c.pod
                .spec
                .dns_policy
                .as_deref()
                .is_none_or(|p| p.starts_with("ClusterFirst"))
        };
        let gets_through = |c: &&Client| {
            ports
                .iter()
                .any(|p| self.ways(c, &self.targets_of(p)).denied == 0)
        };
        let clients: Vec<&Client> = self
            .clients
            .iter()
            .filter(asks_dns)
            .filter(gets_through)
            .collect();
        let shut_out: Vec<&Client> = clients
            .iter()
            .copied()
            .filter(|c| self.is_cut_off_from_dns(c))
            .collect();
        let counts = match self.role {
            Role::Named => true,
            Role::Candidate => shut_out.len() == clients.len(),
            Role::Endpoint => false,
        };
        if shut_out.is_empty() || !counts {
            return None;
        }
        let policies: BTreeSet<String> = shut_out.iter().flat_map(|c| names(&c.isolating)).collect();
        let policies: Vec<String> = policies.into_iter().collect();
        let who: Vec<&str> = shut_out.iter().map(|c| c.pod.name()).collect();
        let message = format!(
            "NetworkPolicy {} does not let {} of namespace {} out to cluster DNS (UDP port {DNS_PORT}); they cannot look the Service up.",
            words::list(&policies),
            words::list(&who),
            self.client_namespace
        );
        let remediation = format!(
            "Add an egress rule to UDP and TCP port {DNS_PORT} of cluster DNS: `kubectl -n {} edit networkpolicy {}`.",
            self.client_namespace,
            policies.first().map(String::as_str).unwrap_or_default()
        );
        let finding = if shut_out.len() == clients.len() {
            Finding::nothing_works(Reason::EgressToDNSDenied, message, remediation)
        } else {
            Finding::part_fails(Reason::EgressToDNSDenied, message, remediation)
        };
        let keys = who.iter().map(|name| format!("{}/{name}", self.client_namespace));
        Some((finding, keys.collect()))
    }
}
