//! Is kube-proxy running?

mod cause;

use std::collections::BTreeSet;

use crate::{
    Finding, applicable,
    evidence::{
        Evidence,
        dials::is_udp,
        proxies::{self, Proxy},
        reports::Report,
    },
    stages::kube_proxy_healthy::cause::{Cause, to_do},
    text,
};
use svcdiag_api::{ConditionType, DialCount, DialPath, GapKind, KubeProxy, PortState, Reason};

const WHAT: &str = "kube-proxy was not checked";

pub(super) fn judge(evidence: &Evidence<'_>) -> Finding {
    let facts = evidence.facts;
    if let Some(finding) = applicable::not_proxied(facts) {
        return finding;
    }
    let reports = &evidence.reports;
    if let Some(finding) = reports.nobody(WHAT) {
        return finding;
    }
    let looks: Vec<(&Report<'_>, &KubeProxy)> = reports
        .current
        .iter()
        .filter(|r| proxies::of(r) == Proxy::Own)
        .filter_map(|r| Some((r, r.facts.kube_proxy.as_ref()?)))
        .collect();
    let wrong: Vec<(&Report<'_>, Cause<'_>)> = looks
        .iter()
        .filter_map(|(report, proxy)| Some((*report, fault(evidence, report, proxy)?)))
        .collect();
    for &reason in ConditionType::KubeProxyHealthy.faults() {
        let of = wrong.iter().filter(|(_, cause)| cause.reason() == reason);
        let of: Vec<(&Report<'_>, Cause<'_>)> = of.copied().collect();
        if !of.is_empty() {
            return build(evidence, reason, &of);
        }
    }
    if let Some(finding) = reports.incomplete() {
        return finding;
    }
    if let Some(by) = proxies::replaced_everywhere(reports) {
        return Finding::unknown(
            Reason::ProxyReplaced,
            format!("kube-proxy is not running on the nodes; {by} replaces it."),
        );
    }
    if let Some((report, _)) = looks
        .iter()
        .find(|(report, proxy)| is_away(proxy) && may_be_replaced(evidence, report))
    {
        return Finding::unknown(
            Reason::ProbeFailed,
            format!(
                "kube-proxy is not running on node {}, and it has no rules there. It is not known whether something else replaces it there.",
                report.node
            ),
        );
    }
    if looks.is_empty() {
        let why = reports
            .problem(ConditionType::KubeProxyHealthy)
            .unwrap_or_default();
        return Finding::unknown(
            Reason::ProbeFailed,
            format!("{WHAT}. {why}").trim_end().to_owned(),
        );
    }
    let nodes: Vec<&str> = looks.iter().map(|(report, _)| report.node).collect();
    let on = text::nodes(&nodes);
    if looks.iter().all(|(_, proxy)| proxy.processes_unread) {
        let why = reports
            .problem(ConditionType::KubeProxyHealthy)
            .unwrap_or_default();
        return Finding::unknown(
            Reason::ProbeFailed,
            format!("It is not known whether kube-proxy is running on {on}. {why}")
                .trim_end()
                .to_owned(),
        );
    }
    let mut message = format!("kube-proxy is running on {on}.");
    let denied: BTreeSet<&str> = looks
        .iter()
        .filter_map(|(_, proxy)| proxy.denied.as_deref())
        .collect();
    if !denied.is_empty() {
        let denied: Vec<String> = denied.into_iter().map(to_do).collect();
        message.push_str(&format!(
            " The API server does not allow it {}, but nothing observed shows that this Service is affected.",
            text::list(&denied)
        ));
    }
    Finding::yes(Reason::Running, message)
}

/// What is wrong with kube-proxy of a node. Ports may be moved or closed by configuration: that nobody
/// listens says something only where no process is there either.
fn fault<'a>(evidence: &Evidence<'_>, report: &Report<'a>, proxy: &'a KubeProxy) -> Option<Cause<'a>> {
    if let Some(why) = report.saved.and_then(|saved| saved.proxy_exit.as_deref()) {
        let node_name = proxy.node_name.as_deref();
        return Some(Cause::Exited { why, node_name });
    }
    if is_away(proxy) {
        let are_ports_closed = report.saved.is_none();
        return (!may_be_replaced(evidence, report)).then_some(Cause::Away { are_ports_closed });
    }
    if proxy.process.is_some() && proxy.livez == PortState::Silent {
        return Some(Cause::Hangs);
    }
    // It may be why nothing is written.
    if report.saved.is_some_and(|saved| saved.conntrack_missing) {
        return Some(Cause::ConntrackMissing);
    }
    if proxy.livez == PortState::Failing || proxy.not_syncing {
        return Some(Cause::WritesNothing(proxy.sync_error.as_deref()));
    }
    if proxy.api_unreachable {
        return Some(Cause::APIUnreachable);
    }
    // A kube-proxy that is newer than its ClusterRole lacks rights that it works without.
    let denied = proxy.denied.as_deref().filter(|_| suffers(report));
    denied.map(Cause::Denied)
}

/// Whether the Service is not served by the node as it should be: its rules lag, or a dial of it failed there.
fn suffers(report: &Report<'_>) -> bool {
    let lags = |kind: GapKind| kind != GapKind::Incomplete;
    let rules = report.facts.rules.as_ref();
    rules.is_some_and(|rules| rules.gaps.iter().any(|gap| lags(gap.kind)))
        || report.facts.failures.iter().any(|f| f.path != DialPath::Endpoint)
}

fn is_away(proxy: &KubeProxy) -> bool {
    let ports_closed = proxy.livez == PortState::Closed && proxy.metrics == PortState::Closed;
    proxy.process.is_none() && !proxy.processes_unread && ports_closed
}

/// Whether something may do kube-proxy's work that no program tells of. Nothing of kube-proxy is left on the node;
/// that it has to be there is known where it runs on other nodes, or where every dial of the Service failed whose
/// endpoints answered the very node. A failed dial alone may be the endpoints' fault. Files tell what they tell.
fn may_be_replaced(evidence: &Evidence<'_>, report: &Report<'_>) -> bool {
    let reports = &evidence.reports;
    if report.saved.is_some() || report.facts.rules.is_some() {
        return false;
    }
    let runs = |r: &Report<'_>| r.facts.kube_proxy.as_ref().is_some_and(proxies::shows_itself);
    if reports.current.iter().any(runs) {
        return false;
    }
    let tcp = |path| {
        let dials = report.facts.dials.iter();
        dials.filter(move |d: &&DialCount| d.path == path && d.made > 0 && !is_udp(&d.port))
    };
    let answers = |d: &DialCount| d.made > d.failed;
    let is_lost = tcp(DialPath::Service).next().is_some() && !tcp(DialPath::Service).any(answers);
    !(is_lost && tcp(DialPath::Endpoint).any(answers))
}

fn build(evidence: &Evidence<'_>, reason: Reason, found: &[(&Report<'_>, Cause<'_>)]) -> Finding {
    let (message, remediation) = cause::describe(&evidence.reports, found);
    let affected: BTreeSet<&str> = found.iter().map(|(report, _)| report.node).collect();
    if evidence.service.is_some() && evidence.leaves_nothing(&affected) && has_dialled(evidence) {
        Finding::nothing_works(reason, message, remediation)
    } else {
        Finding::part_fails(reason, message, remediation)
    }
}

/// Rules outlive kube-proxy: only dials tell that nothing works.
fn has_dialled(evidence: &Evidence<'_>) -> bool {
    let reports = &evidence.reports;
    reports.current.iter().any(|r| r.facts.probes_made > 0)
}
