//! Does the Service work by DNS name?
//!
//! Clients in the Service's namespace have to find the short name, others the one with the namespace.
//! `names` says what a client got and why it got nothing, `servers` what single servers answer, `silence` who does not;
//! `describe` and `hints` have the words for it.

mod cache;
mod describe;
mod hints;
mod lookups;
mod lost_route;
mod names;
mod servers;
mod silence;

use std::collections::BTreeSet;

use crate::{
    Finding, applicable,
    evidence::{Evidence, losses, reports::Report},
    pods::state,
    policies::{dns, effects},
    stages::{checks::Check, dns_resolves::names::Client},
    text::{self, quoted},
};
use svcdiag_api::{ConditionType, LossyPath, Reason, Resolver};
use svcdiag_objects::{Object, Pod};

pub(super) use self::lost_route::wait_for_lost_route;

const WHAT: &str = "No name was looked up";

/// Whether the question arises.
const APPLIES: [Check; 4] = [
    cluster_dns_is_not_ready,
    only_provides_a_name,
    no_clients,
    nobody_looked,
];

/// What the clients' lookups say, in the order of precedence.
const CHECKS: [fn(&Survey<'_>) -> Option<Finding>; 6] = [
    clients_do_not_resolve,
    some_servers_fail,
    answers_may_be_old,
    reports_are_missing,
    nobody_asked,
    lookups_are_inconclusive,
];

/// How the clients fare that may ask DNS.
struct Survey<'a> {
    evidence: &'a Evidence<'a>,
    clients: Vec<Client<'a>>,
    /// Whether Pods asked that policies may cut off from DNS.
    were_cut_off: bool,
}

pub(super) fn judge(evidence: &Evidence<'_>) -> Finding {
    if let Some(finding) = APPLIES.iter().find_map(|check| check(evidence)) {
        return finding;
    }
    let survey = Survey::of(evidence);
    let found = CHECKS.iter().find_map(|check| check(&survey));
    found.unwrap_or_else(|| works(evidence, &survey.clients))
}

impl<'a> Survey<'a> {
    fn of(evidence: &'a Evidence<'a>) -> Self {
        let of_report = |report: &'a Report<'a>| report.facts.resolvers.iter().map(move |r| (report, r));
        let all = evidence.reports.current.iter().flat_map(of_report);
        let mut resolvers: Vec<(&Report<'_>, &Resolver)> = all.collect();
        // A report that names a Pod twice is read the same way whatever its order.
        resolvers.sort_by_cached_key(|(report, r)| (report.node, r.pod.clone(), format!("{r:?}")));
        let all = resolvers.len();
        // A Pod that policies cut off from DNS is no client; NetworkPolicyAllows judges those that are.
        resolvers.retain(|(_, r)| !is_no_client(evidence, &r.pod));
        let clients = resolvers.iter();
        Self {
            evidence,
            were_cut_off: resolvers.len() < all,
            clients: clients
                .map(|(report, resolver)| Client::of(evidence, **report, resolver))
                .collect(),
        }
    }

    fn with(&self, fault: Reason) -> Vec<&Client<'a>> {
        self.clients.iter().filter(|c| c.fault == Some(fault)).collect()
    }
}

fn only_provides_a_name(evidence: &Evidence<'_>) -> Option<Finding> {
    applicable::only_a_name(evidence.facts)
}

fn no_clients(evidence: &Evidence<'_>) -> Option<Finding> {
    applicable::no_clients(evidence)
}

fn nobody_looked(evidence: &Evidence<'_>) -> Option<Finding> {
    evidence.reports.nobody(WHAT)
}

/// The first fault in the order of the table, with all clients that have it.
fn clients_do_not_resolve(survey: &Survey<'_>) -> Option<Finding> {
    let mut order = ConditionType::DNSResolves.faults().iter().copied();
    let reason = order.find(|reason| !survey.with(*reason).is_empty())?;
    if reason == Reason::ClusterDNSUnreachable
        && let Some(doubt) = dropped_on_the_way(survey.evidence).or_else(|| policies_are_unread(survey))
    {
        return Some(doubt);
    }
    let (message, remediation) = describe::fault(survey.evidence, reason, &survey.with(reason));
    let all_fail = survey.clients.iter().all(|c| c.fault.is_some() && !c.is_partly);
    Some(if all_fail {
        Finding::nothing_works(reason, message, remediation)
    } else {
        Finding::part_fails(reason, message, remediation)
    })
}

/// Silence may be what a policy wants.
fn policies_are_unread(survey: &Survey<'_>) -> Option<Finding> {
    let why = survey.evidence.facts.why_unreadable("networkpolicies")?;
    Some(Finding::unknown(
        Reason::ProbeFailed,
        format!(
            "Cluster DNS does not answer. NetworkPolicies could not be read, so one may be blocking the clients: {why}."
        ),
    ))
}

fn some_servers_fail(survey: &Survey<'_>) -> Option<Finding> {
    servers::some_fail(survey.evidence)
}

fn answers_may_be_old(survey: &Survey<'_>) -> Option<Finding> {
    let at = survey.clients.iter().filter_map(|c| c.settles_at).min()?;
    let finding = Finding::unknown(
        Reason::Pending,
        "The DNS answers may be older than the last change of the Service. Waiting until they cannot be.",
    );
    Some(finding.recheck_at(Some(at)))
}

fn reports_are_missing(survey: &Survey<'_>) -> Option<Finding> {
    survey.evidence.reports.incomplete()
}

fn nobody_asked(survey: &Survey<'_>) -> Option<Finding> {
    let is_untried = survey.clients.is_empty();
    is_untried.then(|| why_nobody_asked(survey.evidence, survey.were_cut_off))
}

fn lookups_are_inconclusive(survey: &Survey<'_>) -> Option<Finding> {
    let unsure = survey.clients.iter().find(|c| !c.resolves)?;
    let message = hints::open(survey.evidence, unsure);
    Some(Finding::unknown(Reason::ProbeFailed, message))
}

/// Whether something keeps a Pod, as namespace/name, away from DNS, so that its silence says nothing of DNS.
fn is_no_client(evidence: &Evidence<'_>, key: &str) -> bool {
    let facts = evidence.facts;
    let gets_answers = dns::resolver_of(facts, key).is_some_and(dns::gets_answers);
    !gets_answers && (effects::is_cut_off_from_dns(facts, key) || may_go_nowhere(evidence, key))
}

/// Whether a Pod that only may be a client hears nothing and reaches nobody, which policies of other kinds may want.
fn may_go_nowhere(evidence: &Evidence<'_>, key: &str) -> bool {
    evidence.service.is_some()
        && !evidence.facts.other_policy_kinds.is_empty()
        && !evidence.clients.are_named()
        && evidence.reaches_nobody(key)
}

/// A node that drops packets for want of room in its table is at fault, not cluster DNS. Whether it is found by
/// other dials as well is for other stages to say.
fn dropped_on_the_way(evidence: &Evidence<'_>) -> Option<Finding> {
    let reports = &evidence.reports;
    let is_full = |r: &&Report<'_>| r.facts.settings.conntrack_full == Some(true);
    let full: BTreeSet<&str> = reports.current.iter().filter(is_full).map(|r| r.node).collect();
    let first = full.first()?;
    Some(Finding::unknown(
        Reason::ProbeFailed,
        format!(
            "Cluster DNS does not answer, but the conntrack table of node {first} is full, or within one percent of it, so packets may be lost there."
        ),
    ))
}

fn works(evidence: &Evidence<'_>, clients: &[Client<'_>]) -> Finding {
    let wanted: BTreeSet<&str> = clients.iter().map(|c| c.name.as_str()).collect();
    let wanted: Vec<&str> = wanted.into_iter().collect();
    let mut message = format!(
        "{} resolved the Service as {}.",
        text::count(clients.len(), "client Pod"),
        text::list(&wanted)
    );
    let odd: BTreeSet<String> = clients.iter().filter_map(hints::hint).collect();
    for hint in odd {
        message.push_str(&format!(" {hint}"));
    }
    message.push_str(&losses::hint(evidence, losses::From::Anybody, &[LossyPath::DNS]));
    Finding::yes(Reason::Resolves, message)
}

fn why_nobody_asked(evidence: &Evidence<'_>, were_cut_off: bool) -> Finding {
    let reports = &evidence.reports;
    if were_cut_off {
        return if evidence.clients.are_named() {
            Finding::blocked(ConditionType::NetworkPolicyAllows)
        } else {
            Finding::unknown(
                Reason::NoClientPods,
                "Policies block, or may block, the candidate client Pods from DNS, so that they resolve nothing is no fault of DNS.",
            )
        };
    }
    let saved = reports.current.iter().filter_map(|r| r.saved);
    if let Some(pod) = saved.flat_map(|s| &s.asks_its_node).min() {
        return Finding::unknown(
            Reason::ProbeFailed,
            format!(
                "The lookups of Pod {pod} were ignored: its dnsPolicy is Default, so it uses the name servers of its node, and only cluster DNS knows the names of Services. If the Pod should use these names, set dnsPolicy: ClusterFirst in its template."
            ),
        );
    }
    let asked = reports.current.iter().any(|r| !r.asked.clients.is_empty());
    if !asked {
        return Finding::unknown(
            Reason::NoVantagePoint,
            format!("{WHAT}: no client Pod runs on a probed node."),
        );
    }
    let saved = reports.current.iter().filter_map(|r| r.saved);
    if let Some(said) = saved.flat_map(|s| &s.not_resolved).min() {
        return Finding::unknown(
            Reason::ProbeFailed,
            format!(
                "{said}. The program that tried to connect does not say why, and the name was not looked up separately."
            ),
        );
    }
    let why = reports.problem(ConditionType::DNSResolves).unwrap_or_default();
    Finding::unknown(
        Reason::ProbeFailed,
        format!("{WHAT}. {why}").trim_end().to_owned(),
    )
}

/// Cluster DNS has Pods and none is ready. A cluster without a DNS Service of its own (managed
/// DNS), or with one that selects no Pods, cannot be judged from the API.
fn cluster_dns_is_not_ready(evidence: &Evidence<'_>) -> Option<Finding> {
    let facts = evidence.facts;
    let dns = facts.cluster_dns.as_ref()?;
    let pods: Vec<&Pod> = dns
        .pods
        .iter()
        .map(AsRef::as_ref)
        .filter(|p| !p.has_ended())
        .collect();
    if pods.is_empty() || pods.iter().any(|p| p.is_ready()) {
        return None;
    }
    let (namespace, name) = (quoted(dns.service.namespace()), quoted(dns.service.name()));
    let deadlines = pods.iter().filter_map(|p| state::settles_at(facts, p));
    if let Some(until) = deadlines.min() {
        return Some(
            Finding::unknown(
                Reason::Pending,
                format!("The Pods of cluster DNS ({namespace}/{name}) are starting."),
            )
            .recheck_at(Some(until)),
        );
    }
    let mut troubles: Vec<String> = pods
        .iter()
        .map(|pod| format!("{} ({})", pod.name(), state::trouble(facts, pod).describe()))
        .collect();
    troubles.sort();
    let why = match troubles.is_empty() {
        true => String::new(),
        false => format!(": {}", text::list(&troubles)),
    };
    Some(Finding::nothing_works(
        Reason::ClusterDNSNotReady,
        format!(
            "{} of cluster DNS (Service {namespace}/{name}) is{} ready, so Service names may not resolve{why}.",
            match pods.len() {
                1 => "The only Pod".to_owned(),
                n => format!("{} Pods", text::capitalized(&text::none_of(n))),
            },
            if pods.len() == 1 { " not" } else { "" }
        ),
        format!(
            "Diagnose cluster DNS: `svcdiag check {name} -n {namespace}`. Its Pods: `kubectl -n {namespace} get pods`."
        ),
    ))
}
