//! What the stages that judge dials have in common: from failures to a reason, and from the absence of
//! failures to an answer.

use super::super::{
    Facts, Finding,
    explaining::{Explanation, explain},
    paths::{Dials, Failed, Paths},
    told,
    vantage::Vantage,
    words,
};
use crate::{
    api::{Answer, ConditionType, Reason},
    objects::Object,
};

/// A failure and what is thought of it.
pub(super) struct Case<'a, 'b> {
    pub failed: &'b Failed<'a>,
    pub reason: Reason,
    pub explanation: Option<Explanation>,
}

/// Takes a failure for what its answer says, unless a setting of a node explains it.
pub(super) fn case<'a, 'b>(paths: &Paths<'a>, failed: &'b Failed<'a>) -> Case<'a, 'b> {
    let explanation = explain(paths, failed);
    let by_answer = match failed.dial.answer {
        Answer::Refused | Answer::Rejected => Reason::ConnectionRefused,
        Answer::Unreachable => Reason::NoRouteToHost,
        Answer::TimedOut | Answer::Accepted => Reason::TimedOut,
        Answer::Unexpected => Reason::UnexpectedResponse,
    };
    Case {
        failed,
        reason: explanation.as_ref().map_or(by_answer, |e| e.reason),
        explanation,
    }
}

/// The cases of the reason that takes precedence.
pub(super) fn foremost<'a, 'b, 'c>(
    cases: &'c [Case<'a, 'b>],
    order: &[Reason],
) -> Option<(Reason, Vec<&'c Case<'a, 'b>>)> {
    order.iter().find_map(|reason| {
        let of: Vec<&Case> = cases.iter().filter(|c| c.reason == *reason).collect();
        (!of.is_empty()).then_some((*reason, of))
    })
}

/// The failures of some cases.
pub(super) fn failures<'a, 'b>(cases: &[&Case<'a, 'b>]) -> Vec<&'b Failed<'a>> {
    cases.iter().map(|c| c.failed).collect()
}

/// Whether a setting of a node is the reason.
pub(super) fn is_explained(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::BridgeNetfilterDisabled
            | Reason::IPForwardingDisabled
            | Reason::ForwardChainDrops
            | Reason::ConntrackTableFull
            | Reason::ReversePathFiltering
    )
}

/// The settings behind cases, each once: their sentences, and what to do.
pub(super) fn settings(cases: &[&Case<'_, '_>]) -> Option<(String, String)> {
    let mut found: Vec<&Explanation> = cases.iter().filter_map(|c| c.explanation.as_ref()).collect();
    found.sort();
    found.dedup();
    let sentences: Vec<&str> = found.iter().map(|e| e.sentence.as_str()).collect();
    let first = found.first()?;
    let remediation = if found.len() > 1 {
        let others: Vec<&str> = found.iter().skip(1).map(|e| e.node.as_str()).collect();
        format!(
            "{} Do the same on {}.",
            first.remediation,
            super::super::vantage::nodes(&others)
        )
    } else {
        first.remediation.clone()
    };
    Some((words::list(&sentences), remediation))
}

/// What to do where only the answer is known.
pub(super) fn advice(facts: &Facts, reason: Reason, failures: &[&Failed<'_>]) -> String {
    let Some(first) = failures.first() else {
        return String::new();
    };
    let node = first.node;
    let address = first.dial.endpoint.as_deref().unwrap_or(&first.dial.target);
    let ip = address
        .parse::<std::net::SocketAddr>()
        .map_or_else(|_| address.to_owned(), |a| a.ip().to_string());
    let pods = told::pods(failures).join(" ");
    let namespace = &facts.namespace;
    match reason {
        Reason::NoRouteToHost => format!(
            "See which way node {node} sends packets to {ip}, and who rejects them: `ip route get {ip}` and `nft list ruleset` there; \
             the network plugin's Pods: `kubectl -n kube-system get pods -o wide --field-selector spec.nodeName={node}`."
        ),
        Reason::UnexpectedResponse if !pods.is_empty() => format!(
            "See what the application says of it: `kubectl -n {namespace} logs {}`; if the status is as it should be, list it in spec.probe.http.expectedStatuses.",
            told::pods(failures).first().copied().unwrap_or_default()
        ),
        Reason::UnexpectedResponse => format!(
            "See what the application says of it: `kubectl -n {namespace} logs service/{}`; if the status is as it should be, list it in spec.probe.http.expectedStatuses.",
            facts.spec.service_name
        ),
        Reason::ConnectionRefused => {
            format!(
                "Look for a rule on node {node} that rejects packets to {ip}: `nft list ruleset` there (and `iptables-legacy-save`)."
            )
        }
        _ => format!(
            "Look for what drops packets to {ip} on node {node}, for example a firewall: `nft list ruleset` there (and `iptables-legacy-save`), `tcpdump -ni any host {ip}` while dialling."
        ),
    }
}

/// Policies of other kinds are not judged, and may be what drops the packets.
pub(super) fn with_other_kinds(facts: &Facts, message: &mut String) {
    if !facts.other_policy_kinds.is_empty() {
        let mut kinds: Vec<&str> = facts.other_policy_kinds.iter().map(String::as_str).collect();
        kinds.sort_unstable();
        message.push_str(&format!(
            " Whether a policy of another kind ({}) drops them is not judged.",
            words::list(&kinds)
        ));
    }
}

/// Why dials without a failure that counts leave the question open, if so.
pub(super) fn left_open(
    facts: &Facts,
    vantage: &Vantage<'_>,
    dials: &Dials<'_>,
    what: &str,
) -> Option<Finding> {
    if dials.is_stale {
        return Some(Finding::unknown(
            Reason::Pending,
            "What failed belongs to an earlier state of the Service or its endpoints; the agents are looking again.",
        ));
    }
    if let Some(finding) = vantage.incomplete(what) {
        return Some(finding);
    }
    if dials.succeeded() > 0 {
        return None;
    }
    Some(if dials.is_shut_out {
        kept_away(facts)
    } else if dials.is_intercepted {
        intercepted()
    } else {
        let why = vantage
            .problem()
            .unwrap_or_else(|| "No dial could be made.".to_owned());
        Finding::unknown(Reason::ProbeFailed, format!("{what}. {why}"))
    })
}

/// Nobody but sidecars spoke.
pub(super) fn intercepted() -> Finding {
    Finding::unknown(
        Reason::InterceptedByMesh,
        "The clients' connections are taken by a proxy beside them (a service mesh), so that they prove nothing; spec.probe.http makes the agents speak HTTP through it.",
    )
}

fn kept_away(facts: &Facts) -> Finding {
    if let Some(why) = facts.why_unreadable("networkpolicies") {
        return Finding::unknown(
            Reason::ProbeFailed,
            format!(
                "Dials failed, but whether a NetworkPolicy keeps the clients away could not be read: {why}."
            ),
        );
    }
    if facts.spec.clients.pod_selector.is_some() {
        return Finding::blocked(ConditionType::NetworkPolicyAllows);
    }
    let name = facts.service.as_deref().map(|s| s.name()).unwrap_or_default();
    Finding::unknown(
        Reason::NoClientPods,
        format!(
            "The policies keep the Pods at hand away from {name}, which is no fault; name the clients in spec.clients.podSelector."
        ),
    )
}
