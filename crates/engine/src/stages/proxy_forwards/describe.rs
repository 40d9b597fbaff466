//! What is said where the Service does not answer nodes, and what to do.

use crate::{
    Finding, applicable,
    dialling::{self, Masquerading, advice::advice, checksums, describe},
    evidence::{Evidence, dials::Failed},
    text::quoted,
};
use svcdiag_api::{Answer, ConditionType, Reason};

pub(super) fn fault<'a>(evidence: &Evidence<'a>, failures: &[&Failed<'a>]) -> Option<Finding> {
    let facts = evidence.facts;
    let dials = &evidence.from_nodes;
    let cases = dialling::cases(evidence, dials, failures);
    let (reason, of) = dialling::foremost(&cases, ConditionType::ProxyForwards.faults())?;
    let failures = dialling::failures(&of);
    let routes = describe::routes(&failures);
    let from = match failures.iter().all(|f| dials.is_dead_for(f)) {
        true => "nodes",
        false => "some dials from nodes",
    };
    let cause = dialling::cause(evidence, &of, |open| what_to_do(evidence, reason, open));
    let is_open = cause.is_none();
    let (mut message, mut remediation) = match cause {
        Some((sentence, remediation)) => (format!("{sentence}. {routes}."), remediation),
        None => (
            if failures.iter().all(|f| f.dial.port.is_udp()) {
                format!(
                    "The Service does not accept datagrams from {from}, although endpoints do not refuse them when dialled directly. {routes}."
                )
            } else {
                format!(
                    "The Service does not answer {from}, although endpoints do when dialled directly. {routes}."
                )
            },
            what_to_do(evidence, reason, &failures),
        ),
    };
    // Answers that come back another way are what reverse path filtering drops.
    let explains =
        |of: &Masquerading| is_open || reason == Reason::ReversePathFiltering && of.changes_the_way_back;
    let masquerading = dialling::masquerading(evidence, &failures);
    let masquerading = masquerading.or_else(|| never_masquerades(evidence, &failures));
    if let Some(of) = masquerading.filter(explains) {
        message.push_str(&format!(" {}", of.said));
        remediation = of.remediation;
    }
    if let Some(other) = applicable::other_proxy(facts) {
        message.push_str(&format!(
            " Its label assigns the Service to another proxy, {other}."
        ));
    }
    let is_all = dials.is_all_dead() && evidence.from_clients.succeeded() == 0;
    Some(dialling::finish(
        evidence,
        dials,
        (reason, &of),
        (message, remediation),
        is_all,
    ))
}

/// What to do where only the answer is known.
fn what_to_do(evidence: &Evidence<'_>, reason: Reason, failures: &[&Failed<'_>]) -> String {
    if failures.iter().all(|f| f.is_late()) {
        format!(
            "The packets that open a connection are lost and sent again. Check whether {}",
            checksums(evidence, failures.first().map_or("", |f| f.node))
        )
    } else if is_lost_without_masquerading(evidence, failures) {
        masquerading(evidence, failures)
    } else {
        advice(evidence, reason, failures)
    }
}

/// What kube-proxy of the node logged of not knowing which addresses are Pods', where the node's own packets are lost:
/// it then masquerades none of those that the node sends to Services.
fn never_masquerades(evidence: &Evidence<'_>, failures: &[&Failed<'_>]) -> Option<Masquerading> {
    let node = failures.first()?.node;
    let is_lost = |f: &&Failed<'_>| f.answer == Answer::TimedOut && f.node == node;
    let mut reports = evidence.reports.current.iter().filter(|r| r.node == node);
    let said = reports.find_map(|r| r.saved?.masquerades_nothing.as_deref())?;
    failures.iter().all(is_lost).then(|| Masquerading {
            said: format!(
                "kube-proxy there does not know which addresses belong to Pods, so it does not masquerade packets from the node itself: {said}."
            ),
            remediation: format!(
                "Set clusterCIDR, or another detectLocalMode, in kube-proxy's configuration. A rule on node {} then marks packets that do not come from Pods: `iptables-save -t nat` there, or `nft list ruleset`.",
                quoted(node)
            ),
            changes_the_way_back: true,
    })
}

/// Whether Pods of the node get through the Service and only what the node itself sends to other nodes is lost.
fn is_lost_without_masquerading(evidence: &Evidence<'_>, failures: &[&Failed<'_>]) -> bool {
    let clients = &evidence.from_clients;
    failures.iter().all(|f| {
        let is_elsewhere = f.dial.same_node == Some(false)
            || f.endpoint.is_none()
                && evidence
                    .ends
                    .targets
                    .values()
                    .all(|t| t.node.is_some_and(|n| n != f.node));
        let gets_through = |c: &crate::evidence::dials::Count<'_>| c.node == f.node && c.succeeded > 0;
        f.answer == Answer::TimedOut && is_elsewhere && clients.counts.iter().any(gets_through)
    })
}

/// What a node sends through the Service has to get the node's address on the tunnel as its source.
fn masquerading(evidence: &Evidence<'_>, failures: &[&Failed<'_>]) -> String {
    let node = failures.first().map_or("", |f| f.node);
    format!(
        "Pods on the node get through, so the difference is how the node's own packets leave. Check on node {} whether kube-proxy masquerades them (`nft list ruleset` or `iptables-save -t nat`: a rule that marks packets that do not come from Pods; \
         without clusterCIDR, or another detectLocalMode, in its configuration kube-proxy writes none), and whether {}",
        quoted(node),
        checksums(evidence, node)
    )
}
