//! What does kube-proxy's work on each node.

use std::collections::BTreeSet;

use super::vantage::{Report, Vantage};
use crate::api::{DialPath, KubeProxy, PortState};

/// What forwards the Services' packets on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proxy<'a> {
    /// kube-proxy, or nothing.
    Own,
    /// Another product.
    Replaced(&'a str),
}

/// What does kube-proxy's work on the node of a report.
///
/// Not every replacement is known by its program: where there is neither kube-proxy nor a rule of its
/// and the Service answers from the node all the same, something else sees to it.
pub(super) fn of<'a>(report: &Report<'a>) -> Proxy<'a> {
    let Some(proxy) = &report.facts.kube_proxy else {
        return Proxy::Own;
    };
    if shows_itself(proxy) {
        return Proxy::Own;
    }
    if let Some(name) = &proxy.replacement {
        return Proxy::Replaced(name);
    }
    let answers = report.facts.dials.iter().any(|d| {
        d.from.is_none() && d.path == DialPath::Service && d.made > d.failed && !d.port.ends_with("UDP")
    });
    // Files without rules do not say that there are none.
    let may_be_there = proxy.process.is_some() && report.saved.is_some();
    if report.facts.rules.is_none() && answers && !may_be_there {
        return Proxy::Replaced("something else than kube-proxy");
    }
    Proxy::Own
}

/// Whether kube-proxy is there for sure. Programs that carry it, such as k3s, may be told to leave it out: then
/// none of its ports is open.
fn shows_itself(proxy: &KubeProxy) -> bool {
    let has_ports = || proxy.livez != PortState::Closed || proxy.metrics != PortState::Closed;
    proxy
        .process
        .as_deref()
        .is_some_and(|process| process == "kube-proxy" || has_ports())
}

/// The product that does the work on every node that was looked at, if so.
pub(super) fn replaced_everywhere<'a>(vantage: &Vantage<'a>) -> Option<&'a str> {
    let mut name = None;
    for report in &vantage.reports {
        match of(report) {
            Proxy::Own => return None,
            Proxy::Replaced(by) => name = name.max(Some(by)),
        }
    }
    name
}

/// A command about the Pod of kube-proxy on a node: `get pods`, `delete pod`.
pub(super) fn pod_command(verb: &str, node: &str) -> String {
    format!("`kubectl -n kube-system {verb} -l k8s-app=kube-proxy --field-selector spec.nodeName={node}`")
}

/// The command that has kube-proxy of a node made anew.
pub(super) fn restart(node: &str) -> String {
    pod_command("delete pod", node)
}

/// The command that shows the log of kube-proxy on a node.
pub(super) fn logs(node: &str) -> String {
    format!(
        "`kubectl -n kube-system logs $(kubectl -n kube-system get pods -l k8s-app=kube-proxy --field-selector spec.nodeName={node} -o name)`"
    )
}

/// iptables, nftables, ipvs, userspace, mixed, or the replacement; None where nothing is known.
pub(super) fn mode(vantage: &Vantage<'_>) -> Option<String> {
    let modes: BTreeSet<&str> = vantage.reports.iter().filter_map(mode_of).collect();
    let mut modes = modes.into_iter();
    match (modes.next(), modes.next()) {
        (Some(only), None) => Some(only.to_owned()),
        (Some(_), Some(_)) => Some("mixed".to_owned()),
        (None, _) => None,
    }
}

/// The mode of one node.
pub(super) fn mode_of<'a>(report: &Report<'a>) -> Option<&'a str> {
    if let Proxy::Replaced(by) = of(report) {
        return Some(by).filter(|name| !name.contains(' '));
    }
    let said = report.facts.kube_proxy.as_ref().and_then(|p| p.mode.as_deref());
    let layout = report.facts.rules.as_ref().map(|r| match r.layout.as_str() {
        "iptables-legacy" => "iptables",
        other => other,
    });
    said.or(layout)
}
