//! What does kube-proxy's work on each node.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    evidence::reports::{Report, Reports},
    text::{self, SHOWN, quoted},
};
use svcdiag_api::{DialPath, KubeProxy, PortState, RunsAs};
use svcdiag_kube_proxy::{Backend, ProxyMode};

/// What forwards the Services' packets on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proxy<'a> {
    /// kube-proxy, or nothing.
    Own,
    /// Another product.
    Replaced(&'a str),
}

/// What does kube-proxy's work on the node of a report.
///
/// Not every replacement is known by its program: where there is neither kube-proxy nor a rule of its
/// and the Service answers from the node all the same, something else sees to it.
pub(crate) fn of<'a>(report: &Report<'a>) -> Proxy<'a> {
    let Some(proxy) = &report.facts.kube_proxy else {
        return Proxy::Own;
    };
    if shows_itself(proxy) {
        return Proxy::Own;
    }
    if let Some(name) = &proxy.replacement {
        return Proxy::Replaced(name);
    }
    let answers =
        report.facts.dials.iter().any(|d| {
            d.from.is_none() && d.path == DialPath::Service && d.made > d.failed && !d.port.is_udp()
        });
    // Files without rules do not say that there are none.
    let may_be_there = proxy.process.is_some() && report.saved.is_some();
    if report.facts.rules.is_none() && answers && !may_be_there {
        return Proxy::Replaced("something other than kube-proxy");
    }
    Proxy::Own
}

/// Whether kube-proxy is there for sure. Programs that carry it, such as k3s, may be told to leave it out: then
/// none of its ports is open.
pub(crate) fn shows_itself(proxy: &KubeProxy) -> bool {
    let has_ports = || proxy.livez != PortState::Closed || proxy.metrics != PortState::Closed;
    proxy
        .process
        .as_deref()
        .is_some_and(|process| process == "kube-proxy" || has_ports())
}

/// The product that does the work on every node that was looked at, if so.
pub(crate) fn replaced_everywhere<'a>(reports: &Reports<'a>) -> Option<&'a str> {
    let mut name = None;
    for report in &reports.current {
        match of(report) {
            Proxy::Own => return None,
            Proxy::Replaced(by) => name = name.max(Some(by)),
        }
    }
    name
}

/// What is told for reports whose kube-proxies are run alike: by the first of them, and which others it fits.
pub(crate) fn for_each_way_to_run(
    reports: &[&Report<'_>],
    tell: impl Fn(&Report<'_>, &str) -> String,
) -> String {
    let mut alike: BTreeMap<(Run<'_>, Option<&str>), Vec<&Report<'_>>> = BTreeMap::new();
    for report in reports {
        alike
            .entry((run(report), program(report)))
            .or_default()
            .push(report);
    }
    let mut groups: Vec<Vec<&Report<'_>>> = alike.into_values().collect();
    groups.sort_by_key(|group| group.first().map(|r| r.node));
    let told = groups.iter().take(SHOWN).filter_map(|group| {
        let (first, rest) = group.split_first()?;
        let rest: Vec<&str> = rest.iter().map(|r| r.node).collect();
        let others = match rest.is_empty() {
            true => String::new(),
            false => format!(" Do the same on {}.", text::nodes(&rest)),
        };
        Some(tell(first, &others))
    });
    told.collect::<Vec<_>>().join(" ")
}

/// How kube-proxies are run under the names of their Nodes.
pub(crate) fn under_own_name(reports: &[&Report<'_>]) -> String {
    let where_to = "or hostnameOverride in its configuration (not in one that other nodes share). A restart alone changes nothing.";
    if let [only] = reports {
        return format!(
            "Run kube-proxy on node {node} under the name of its Node: --hostname-override={node}, {where_to}",
            node = only.node
        );
    }
    let each: Vec<String> = reports
        .iter()
        .map(|r| format!("--hostname-override={node} on node {node}", node = r.node))
        .collect();
    format!(
        "Run each kube-proxy under the name of its own Node: {}, {where_to}",
        text::list(&each)
    )
}

/// Where the log of kube-proxy of a node is, with the command that shows it.
pub(crate) fn logs(report: &Report<'_>) -> String {
    let node = quoted(report.node);
    match run(report) {
        Run::Pod => format!(
            "`kubectl -n kube-system logs $(kubectl -n kube-system get pods -l k8s-app=kube-proxy --field-selector spec.nodeName={node} -o name)`"
        ),
        Run::StaticPod => format!("`kubectl -n kube-system logs kube-proxy-{node}`"),
        Run::Unit(unit) => format!("`journalctl -u {} -n 200` on node {node}", quoted(unit)),
        Run::Unknown => format!(
            "`kubectl -n kube-system get pods -o wide --field-selector spec.nodeName={node}` shows whether it runs in a Pod; if not, its log is in the node's journal"
        ),
    }
}

/// How kube-proxy of a node is restarted, as a clause; with a command where it is known how it is run.
pub(crate) fn restart(report: &Report<'_>) -> String {
    format!(
        "restart kube-proxy on node {}{}",
        report.node,
        way_to_restart(report)
    )
}

/// How a restart has the rules rewritten, as sentences. The log is read before: with its Pod it is gone.
pub(crate) fn rewrite(report: &Report<'_>) -> String {
    let name = report.node;
    let first = match run(report) {
        Run::Pod => {
            let node = quoted(name);
            format!(
                "Save the log of kube-proxy on node {name}, which a restart loses: `kubectl -n kube-system logs $(kubectl -n kube-system get pods -l k8s-app=kube-proxy --field-selector spec.nodeName={node} -o name) > {node}.log`"
            )
        }
        Run::Unit(unit) => format!(
            "First read the log of kube-proxy on node {name}: `journalctl -u {} -n 200` there",
            quoted(unit)
        ),
        Run::StaticPod | Run::Unknown => format!(
            "First read the log of kube-proxy on node {name}: {}",
            logs(report)
        ),
    };
    format!(
        "{first}. Then, to have the rules rewritten, restart it{}.",
        way_to_restart(report)
    )
}

/// What follows "restart kube-proxy on the node".
fn way_to_restart(report: &Report<'_>) -> String {
    match run(report) {
        Run::Pod => format!(
            ": `kubectl -n kube-system delete pod -l k8s-app=kube-proxy --field-selector spec.nodeName={}` (its DaemonSet creates it again)",
            quoted(report.node)
        ),
        Run::StaticPod => {
            ": `crictl stop $(crictl ps -q --name '^kube-proxy$')` there (once its container has stopped, the kubelet starts it again)".to_owned()
        }
        Run::Unit(unit) if program(report) == Some("kube-proxy") => {
            format!(": `systemctl restart {}` there", quoted(unit))
        }
        Run::Unit(unit) => format!(
            ", which is part of {}: its unit is {unit}",
            program(report).unwrap_or_default()
        ),
        Run::Unknown => " in the way it is run there".to_owned(),
    }
}

/// What to do where no kube-proxy runs: how those of other nodes are run tells where to look.
pub(crate) fn away(reports: &Reports<'_>, report: &Report<'_>) -> String {
    let node = quoted(report.node);
    let others = reports.current.iter().map(run);
    match others.into_iter().find(|run| !matches!(run, Run::Unknown)) {
        Some(Run::Pod) => format!(
            "Find out why the Pod of kube-proxy on node {node} does not run: `kubectl -n kube-system get pods -l k8s-app=kube-proxy -o wide --field-selector spec.nodeName={node}`, and `kubectl -n kube-system describe daemonset kube-proxy`."
        ),
        Some(Run::StaticPod) => format!(
            "On other nodes the kubelet runs kube-proxy as a static Pod. Check whether node {node} has its manifest file, and `kubectl -n kube-system describe pod kube-proxy-{node}`."
        ),
        Some(Run::Unit(unit)) => format!(
            "On other nodes kube-proxy runs as unit {unit}. Check that unit on node {node}: `systemctl status {name}` and `journalctl -u {name} -n 200`.",
            name = quoted(unit)
        ),
        Some(Run::Unknown) | None => format!(
            "Start kube-proxy again on node {node}. If it runs in a Pod, this shows it: `kubectl -n kube-system get pods -o wide --field-selector spec.nodeName={node}`. If not, look for a systemd unit on the node; in k3s, MicroK8s and k0s kube-proxy is part of the program."
        ),
    }
}

/// Whether kube-proxy of a node is run in a Pod of a DaemonSet.
pub(crate) fn is_in_pod(report: &Report<'_>) -> bool {
    matches!(run(report), Run::Pod)
}

/// How a kube-proxy is run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Run<'a> {
    Pod,
    StaticPod,
    Unit(&'a str),
    Unknown,
}

fn run<'a>(report: &Report<'a>) -> Run<'a> {
    let Some(proxy) = &report.facts.kube_proxy else {
        return Run::Unknown;
    };
    match (proxy.runs_as, proxy.unit.as_deref()) {
        (Some(RunsAs::Pod), _) => Run::Pod,
        (Some(RunsAs::StaticPod), _) => Run::StaticPod,
        (Some(RunsAs::Unit), Some(unit)) => Run::Unit(unit),
        (Some(RunsAs::Unit), None) | (None, _) => Run::Unknown,
    }
}

fn program<'a>(report: &Report<'a>) -> Option<&'a str> {
    report.facts.kube_proxy.as_ref()?.process.as_deref()
}

/// iptables, nftables, ipvs, userspace, mixed, or the replacement; None where nothing is known.
pub(crate) fn mode(reports: &Reports<'_>) -> Option<String> {
    let name = |report: &Report<'_>| match of(report) {
        Proxy::Replaced(by) => Some(by.to_owned()).filter(|name| !name.contains(' ')),
        Proxy::Own => mode_of(report).map(|mode| mode.to_string()),
    };
    let modes: BTreeSet<String> = reports.current.iter().filter_map(name).collect();
    let mut modes = modes.into_iter();
    match (modes.next(), modes.next()) {
        (Some(only), None) => Some(only),
        (Some(_), Some(_)) => Some("mixed".to_owned()),
        (None, _) => None,
    }
}

/// The mode of kube-proxy on one node: the one it says it is in, else the one its rules are in.
pub(crate) fn mode_of(report: &Report<'_>) -> Option<ProxyMode> {
    let said = report.facts.kube_proxy.as_ref().and_then(|p| p.mode.as_deref());
    said.and_then(ProxyMode::parse).or_else(|| {
        let layout = report.facts.rules.as_ref()?.layout.as_str();
        let known = Backend::parse(layout).map(Backend::mode);
        known.or_else(|| ProxyMode::parse(layout))
    })
}
