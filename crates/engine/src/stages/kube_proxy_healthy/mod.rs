//! Is kube-proxy running?

mod cause;

use std::collections::BTreeSet;

use crate::{
    Finding,
    evidence::{
        Evidence,
        proxies::{self, Proxy},
        reports::Report,
    },
    stages::{
        checks::{Check, not_proxied},
        kube_proxy_healthy::cause::{Cause, to_do},
    },
    text,
};
use svcdiag_api::{ConditionType, DialCount, DialPath, GapKind, KubeProxy, PortState, Reason};

const WHAT: &str = "kube-proxy was not checked";

/// Whether the question arises.
const APPLIES: [Check; 2] = [not_proxied, nobody_looked];

/// What the kube-proxies of all nodes say, in the order of precedence.
const CHECKS: [fn(&Survey<'_>) -> Option<Finding>; 6] = [
    something_is_wrong,
    reports_are_missing,
    all_are_replaced,
    one_may_be_replaced,
    none_was_checked,
    processes_are_unread,
];

/// The kube-proxies that are not replaced, each with the report of its node.
struct Survey<'a> {
    evidence: &'a Evidence<'a>,
    proxies: Vec<(&'a Report<'a>, &'a KubeProxy)>,
}

pub(super) fn judge(evidence: &Evidence<'_>) -> Finding {
    if let Some(finding) = APPLIES.iter().find_map(|check| check(evidence)) {
        return finding;
    }
    let own = evidence.reports.current.iter();
    let own = own.filter(|r| proxies::of(r) == Proxy::Own);
    let survey = Survey {
        evidence,
        proxies: own
            .filter_map(|r| Some((r, r.facts.kube_proxy.as_ref()?)))
            .collect(),
    };
    let found = CHECKS.iter().find_map(|check| check(&survey));
    found.unwrap_or_else(|| running(&survey))
}

fn nobody_looked(evidence: &Evidence<'_>) -> Option<Finding> {
    evidence.reports.nobody(WHAT)
}

/// The first fault in the order of the table, with all nodes that have it.
fn something_is_wrong(survey: &Survey<'_>) -> Option<Finding> {
    let causes = survey.proxies.iter();
    let causes = causes.filter_map(|(report, proxy)| Some((*report, fault(survey.evidence, report, proxy)?)));
    let causes: Vec<(&Report<'_>, Cause<'_>)> = causes.collect();
    let order = ConditionType::KubeProxyHealthy.faults().iter();
    order.copied().find_map(|reason| {
        let of = causes.iter().filter(|(_, cause)| cause.reason() == reason);
        let of: Vec<(&Report<'_>, Cause<'_>)> = of.copied().collect();
        (!of.is_empty()).then(|| build(survey.evidence, reason, &of))
    })
}

fn reports_are_missing(survey: &Survey<'_>) -> Option<Finding> {
    survey.evidence.reports.incomplete()
}

fn all_are_replaced(survey: &Survey<'_>) -> Option<Finding> {
    let by = proxies::replaced_everywhere(&survey.evidence.reports)?;
    Some(Finding::unknown(
        Reason::ProxyReplaced,
        format!("kube-proxy is not running on the nodes; {by} replaces it."),
    ))
}

fn one_may_be_replaced(survey: &Survey<'_>) -> Option<Finding> {
    let (report, _) = survey
        .proxies
        .iter()
        .find(|(report, proxy)| is_away(proxy) && may_be_replaced(survey.evidence, report))?;
    Some(Finding::unknown(
        Reason::ProbeFailed,
        format!(
            "kube-proxy is not running on node {}, and it has no rules there. It is not known whether something else replaces it there.",
            report.node
        ),
    ))
}

fn none_was_checked(survey: &Survey<'_>) -> Option<Finding> {
    survey.proxies.is_empty().then(|| {
        let message = format!("{WHAT}. {}", survey.problem());
        Finding::unknown(Reason::ProbeFailed, message.trim_end())
    })
}

fn processes_are_unread(survey: &Survey<'_>) -> Option<Finding> {
    let are_unread = survey.proxies.iter().all(|(_, proxy)| proxy.processes_unread);
    are_unread.then(|| {
        let message = format!(
            "It is not known whether kube-proxy is running on {}. {}",
            survey.nodes(),
            survey.problem()
        );
        Finding::unknown(Reason::ProbeFailed, message.trim_end())
    })
}

fn running(survey: &Survey<'_>) -> Finding {
    let mut message = format!("kube-proxy is running on {}.", survey.nodes());
    let denied: BTreeSet<&str> = survey
        .proxies
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

impl Survey<'_> {
    fn nodes(&self) -> String {
        let nodes: Vec<&str> = self.proxies.iter().map(|(report, _)| report.node).collect();
        text::nodes(&nodes)
    }

    /// What the agents could not read, if anything.
    fn problem(&self) -> String {
        let reports = &self.evidence.reports;
        reports
            .problem(ConditionType::KubeProxyHealthy)
            .unwrap_or_default()
    }
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
        dials.filter(move |d: &&DialCount| d.path == path && d.made > 0 && !d.port.is_udp())
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
