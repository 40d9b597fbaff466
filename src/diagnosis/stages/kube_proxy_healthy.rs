//! Is kube-proxy running?

use std::collections::BTreeSet;

use super::{
    super::{
        Facts, Finding,
        dials::is_udp,
        paths::Paths,
        proxies::{self, Proxy},
        vantage::{self, Report, Vantage},
    },
    applicable,
};
use crate::api::{ConditionType, DialCount, DialPath, KubeProxy, PortState, Reason};

const WHAT: &str = "kube-proxy was not looked at";

pub(super) fn judge(facts: &Facts) -> Finding {
    if let Some(finding) = applicable::not_proxied(facts) {
        return finding;
    }
    let vantage = Vantage::of(facts);
    if let Some(finding) = vantage.nobody(WHAT) {
        return finding;
    }
    let looks: Vec<(&Report<'_>, &KubeProxy)> = vantage
        .reports
        .iter()
        .filter(|r| proxies::of(r) == Proxy::Own)
        .filter_map(|r| Some((r, r.facts.kube_proxy.as_ref()?)))
        .collect();
    let wrong: Vec<(&str, Reason)> = looks
        .iter()
        .filter_map(|(report, proxy)| Some((report.node, fault(report, proxy)?)))
        .collect();
    for &reason in ConditionType::KubeProxyHealthy.faults() {
        let nodes: Vec<&str> = wrong
            .iter()
            .filter(|(_, r)| *r == reason)
            .map(|(n, _)| *n)
            .collect();
        if !nodes.is_empty() {
            return told(facts, &vantage, reason, &nodes);
        }
    }
    if let Some(finding) = vantage.incomplete(WHAT) {
        return finding;
    }
    if let Some(by) = proxies::replaced_everywhere(&vantage) {
        return Finding::unknown(
            Reason::ProxyReplaced,
            format!("No kube-proxy runs on the nodes; {by} does its work."),
        );
    }
    if let Some((report, _)) = looks
        .iter()
        .find(|(report, proxy)| is_away(proxy) && may_be_replaced(report))
    {
        return Finding::unknown(
            Reason::ProbeFailed,
            format!(
                "No kube-proxy runs on node {}, and no rules of one are there; whether something else does its work was not seen, since nobody dialled the Service over TCP there.",
                report.node
            ),
        );
    }
    if looks.is_empty() || looks.iter().all(|(_, proxy)| proxy.processes_unread) {
        let why = vantage.problem().unwrap_or_default();
        return Finding::unknown(
            Reason::ProbeFailed,
            format!("{WHAT}. {why}").trim_end().to_owned(),
        );
    }
    let nodes: Vec<&str> = looks.iter().map(|(report, _)| report.node).collect();
    Finding::yes(
        Reason::Running,
        format!("kube-proxy runs on {}.", vantage::nodes(&nodes)),
    )
}

/// What is wrong with kube-proxy of a node. Ports may be moved or closed by configuration: that nobody
/// listens says something only where no process is there either.
fn fault(report: &Report<'_>, proxy: &KubeProxy) -> Option<Reason> {
    if is_away(proxy) {
        return (!may_be_replaced(report)).then_some(Reason::NotRunning);
    }
    if proxy.process.is_some() && proxy.livez == PortState::Silent {
        return Some(Reason::NotLive);
    }
    // It may be why nothing is written.
    if report.saved.is_some_and(|saved| saved.conntrack_missing) {
        return Some(Reason::ConntrackMissing);
    }
    if proxy.livez == PortState::Failing || proxy.not_syncing {
        return Some(Reason::NotSyncing);
    }
    proxy.api_unreachable.then_some(Reason::APIServerUnreachable)
}

fn is_away(proxy: &KubeProxy) -> bool {
    let ports_closed = proxy.livez == PortState::Closed && proxy.metrics == PortState::Closed;
    proxy.process.is_none() && !proxy.processes_unread && ports_closed
}

/// Whether something may do kube-proxy's work that no program and no dial tells of: nothing of kube-proxy is
/// left, and from the node the Service was not dialled, or over UDP only. Files tell what they tell.
fn may_be_replaced(report: &Report<'_>) -> bool {
    let is_telling =
        |d: &DialCount| d.from.is_none() && d.path == DialPath::Service && d.made > 0 && !is_udp(&d.port);
    report.saved.is_none() && report.facts.rules.is_none() && !report.facts.dials.iter().any(is_telling)
}

fn told(facts: &Facts, vantage: &Vantage<'_>, reason: Reason, nodes: &[&str]) -> Finding {
    let on = vantage::nodes(nodes);
    let first = nodes.first().copied().unwrap_or_default();
    let (logs, restart) = (proxies::logs(first), proxies::restart(first));
    let (message, remediation) = match reason {
        Reason::NotRunning => (
            format!(
                "No kube-proxy runs on {on}: no process of it is there{}. Rules that are left there do not follow the Services any more.",
                if vantage.reports.iter().any(|r| r.saved.is_some()) {
                    ""
                } else {
                    ", and ports 10256 and 10249 refuse"
                }
            ),
            format!(
                "See why its Pod does not run: {}, and `kubectl -n kube-system describe daemonset kube-proxy`.",
                proxies::pod_command("get pods -o wide", first)
            ),
        ),
        Reason::NotLive => (
            format!(
                "kube-proxy on {on} hangs: livez on port 10256 takes the connection and does not answer."
            ),
            format!("See what it was doing: {logs}; have it made anew: {restart}."),
        ),
        Reason::NotSyncing => (
            format!("kube-proxy on {on} writes no rules though changes wait."),
            format!("See why: {logs}; have it made anew: {restart}."),
        ),
        Reason::ConntrackMissing => (
            format!(
                "kube-proxy on {on} finds no program conntrack, so that UDP packets go on to Pods that are gone, or it does not start at all."
            ),
            format!(
                "Install it on {on}: `apt install conntrack` (or `yum install conntrack-tools`); then have kube-proxy start anew."
            ),
        ),
        _ => (
            format!(
                "kube-proxy on {on} cannot reach the API server, or is not let in: its requests fail and none is answered."
            ),
            format!(
                "See the address and credentials that it uses: {logs}, `kubectl -n kube-system get configmap kube-proxy -o yaml`; then have it made anew: {restart}."
            ),
        ),
    };
    let affected: BTreeSet<&str> = nodes.iter().copied().collect();
    match Paths::of(facts, vantage) {
        Some(paths) if paths.leaves_nothing(&affected) && has_dialled(vantage) => {
            Finding::nothing_works(reason, message, remediation)
        }
        _ => Finding::part_fails(reason, message, remediation),
    }
}

/// Rules outlive kube-proxy: only dials tell that nothing works.
fn has_dialled(vantage: &Vantage<'_>) -> bool {
    vantage.reports.iter().any(|r| r.facts.probes_made > 0)
}
