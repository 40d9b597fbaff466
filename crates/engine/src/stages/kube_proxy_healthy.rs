//! Is kube-proxy running?

use std::collections::BTreeSet;

use crate::{
    Finding, applicable,
    evidence::{
        Evidence,
        dials::is_udp,
        proxies::{self, Proxy},
        reports::Report,
    },
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
    let wrong: Vec<(&str, Reason)> = looks
        .iter()
        .filter_map(|(report, proxy)| Some((report.node, fault(evidence, report, proxy)?)))
        .collect();
    for &reason in ConditionType::KubeProxyHealthy.faults() {
        let nodes: Vec<&str> = wrong
            .iter()
            .filter(|(_, r)| *r == reason)
            .map(|(n, _)| *n)
            .collect();
        if !nodes.is_empty() {
            return build(evidence, reason, &nodes);
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
        let denied: Vec<String> = denied.into_iter().map(right).collect();
        message.push_str(&format!(
            " The API server does not allow it {}, but this Service is not affected.",
            text::list(&denied)
        ));
    }
    Finding::yes(Reason::Running, message)
}

/// What is wrong with kube-proxy of a node. Ports may be moved or closed by configuration: that nobody
/// listens says something only where no process is there either.
fn fault(evidence: &Evidence<'_>, report: &Report<'_>, proxy: &KubeProxy) -> Option<Reason> {
    if exit(report).is_some() {
        return Some(Reason::NotRunning);
    }
    if is_away(proxy) {
        return (!may_be_replaced(evidence, report)).then_some(Reason::NotRunning);
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
    if proxy.api_unreachable {
        return Some(Reason::APIServerUnreachable);
    }
    // A kube-proxy that is newer than its ClusterRole lacks rights that it works without.
    (proxy.denied.is_some() && suffers(report)).then_some(Reason::APIAccessDenied)
}

/// Whether the Service is not served by the node as it should be: its rules lag, or a dial of it failed there.
fn suffers(report: &Report<'_>) -> bool {
    let lags = |kind: GapKind| kind != GapKind::Incomplete;
    let rules = report.facts.rules.as_ref();
    rules.is_some_and(|rules| rules.gaps.iter().any(|gap| lags(gap.kind)))
        || report.facts.failures.iter().any(|f| f.path != DialPath::Endpoint)
}

/// Why kube-proxy ended, as its log says.
fn exit<'a>(report: &Report<'a>) -> Option<&'a str> {
    report.saved?.proxy_exit.as_deref()
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

fn build(evidence: &Evidence<'_>, reason: Reason, nodes: &[&str]) -> Finding {
    let reports = &evidence.reports;
    let on = text::nodes(nodes);
    let of_nodes = || reports.current.iter().filter(|r| nodes.contains(&r.node));
    let Some(first) = of_nodes().next() else {
        return Finding::unknown(Reason::ProbeFailed, WHAT);
    };
    let proxy = first.facts.kube_proxy.as_ref();
    let ended = of_nodes().find_map(|r| Some((r, exit(r)?)));
    let (message, remediation) = match (reason, ended) {
        (Reason::NotRunning, Some((report, why))) => (
            format!(
                "kube-proxy on {on} has exited: its log ends with \"{why}\", and nothing shows that it is running again."
            ),
            match proxy.and_then(|p| p.node_name.as_deref()) {
                Some(name) => format!(
                    "It looks for a Node named {name}. Run it under the name of its own Node: --hostname-override={node}, or hostnameOverride in its configuration. A restart alone changes nothing.",
                    node = report.node
                ),
                None => format!(
                    "Fix what that line names: a program, a setting, a file or a permission. Until then, a restart changes nothing. Its full log: {}.",
                    proxies::logs(report)
                ),
            },
        ),
        (reason, _) => by_reason(evidence, reason, nodes, first),
    };
    let affected: BTreeSet<&str> = nodes.iter().copied().collect();
    if evidence.service.is_some() && evidence.leaves_nothing(&affected) && has_dialled(evidence) {
        Finding::nothing_works(reason, message, remediation)
    } else {
        Finding::part_fails(reason, message, remediation)
    }
}

fn by_reason(
    evidence: &Evidence<'_>,
    reason: Reason,
    nodes: &[&str],
    first: &Report<'_>,
) -> (String, String) {
    let reports = &evidence.reports;
    let on = text::nodes(nodes);
    let of_nodes = || reports.current.iter().filter(|r| nodes.contains(&r.node));
    let proxy = first.facts.kube_proxy.as_ref();
    let (logs, restart) = (proxies::logs(first), proxies::restart(first));
    let others = text::same_on_others(nodes, first.node);
    match reason {
        Reason::NotRunning => (
            format!(
                "kube-proxy is not running on {on} (no process{}). Its old rules there no longer follow changes to Services.",
                if reports.current.iter().any(|r| r.saved.is_some()) {
                    ""
                } else {
                    "; ports 10256 and 10249 closed"
                }
            ),
            format!("{}{others}", proxies::away(reports, first)),
        ),
        Reason::NotLive => (
            format!("kube-proxy on {on} hangs: livez on port 10256 connects but does not answer within 3 s."),
            format!("Check what it was doing: {logs}. Then {restart}.{others}"),
        ),
        Reason::NotSyncing => {
            let why = of_nodes().find_map(|r| r.facts.kube_proxy.as_ref()?.sync_error.as_deref());
            match why {
                Some(why) => (
                    format!("kube-proxy on {on} fails to write its rules: {why}."),
                    format!(
                        "Its log names the rule, the program or the kernel feature that fails: {logs}. Until that is fixed, a restart changes nothing."
                    ),
                ),
                None => (
                    format!("kube-proxy on {on} is not writing its rules, although changes are pending."),
                    format!("Find out why: {logs}. Then {restart}.{others}"),
                ),
            }
        }
        Reason::ConntrackMissing => (
            format!(
                "kube-proxy on {on} cannot find the conntrack program, so UDP packets keep going to Pods that are gone, or kube-proxy does not start at all."
            ),
            format!(
                "Install it on {on}: `apt install conntrack` (or `yum install conntrack-tools`). Then {restart}.{others}"
            ),
        ),
        Reason::APIAccessDenied => {
            let denied = right(proxy.and_then(|p| p.denied.as_deref()).unwrap_or("?"));
            (
                format!(
                    "The API server does not allow kube-proxy on {on} {denied} (403 Forbidden), so kube-proxy's rules do not follow changes to Services."
                ),
                format!(
                    "kube-proxy's log names the account and the missing permission: {logs}. Its permissions are in a ClusterRole: `kubectl get clusterrole system:node-proxier -o yaml`. If the role lacks the permission (possible after an update of kube-proxy), add it there. If the role has it, bind the role to the account."
                ),
            )
        }
        _ => {
            let configuration = if proxies::is_in_pod(first) {
                ". The address is in `kubectl -n kube-system get configmap kube-proxy -o yaml`"
            } else {
                ""
            };
            (
                format!(
                    "All requests of kube-proxy on {on} to the API server fail: it cannot reach the API server, or is refused."
                ),
                format!(
                    "See which address and credentials it uses: {logs}{configuration}. When they are right, {restart}.{others}"
                ),
            )
        }
    }
}

/// What is denied, as it stands behind "does not allow".
fn right(denied: &str) -> String {
    match denied {
        "?" => "some of its requests".to_owned(),
        right => format!("to {right}"),
    }
}

/// Rules outlive kube-proxy: only dials tell that nothing works.
fn has_dialled(evidence: &Evidence<'_>) -> bool {
    let reports = &evidence.reports;
    reports.current.iter().any(|r| r.facts.probes_made > 0)
}
