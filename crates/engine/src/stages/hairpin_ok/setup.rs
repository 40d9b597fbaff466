//! How the kubelet of old clusters keeps the way of Pods to themselves open, as saved files tell it.
//!
//! Nothing in current kubelets acts on --hairpin-mode: where agents look, the dial decides, in `hairpin_ok`.

use crate::{
    Finding, HairpinSetup,
    evidence::{Evidence, proxies, reports::Report},
    text::{self, quoted},
};
use svcdiag_api::Reason;

/// What the files say; None where they say nothing of it.
pub(super) fn judge(evidence: &Evidence<'_>) -> Option<Finding> {
    let reports = &evidence.reports;
    let setups: Vec<(&Report<'_>, &HairpinSetup)> = reports
        .current
        .iter()
        .filter_map(|r| Some((r, r.saved?.hairpin.as_ref()?)))
        .collect();
    let wrong = setups.iter().find_map(|(report, setup)| fault(report, setup));
    if wrong.is_some() {
        return wrong;
    }
    let right: Vec<&str> = setups
        .iter()
        .filter(|(_, s)| is_right(s))
        .map(|(report, _)| report.node)
        .collect();
    (!right.is_empty() && right.len() == setups.len()).then(|| {
        Finding::yes(
            Reason::HairpinConfigured,
            format!(
                "The kubelet has set up hairpin mode on {}. The files contain no dial of a Pod to itself.",
                text::nodes(&right)
            ),
        )
    })
}

fn is_right(setup: &HairpinSetup) -> bool {
    match setup {
        HairpinSetup::Ports { on, off, denied } => *on > 0 && *off == 0 && denied.is_none(),
        HairpinSetup::Bridge { is_promiscuous, .. } => *is_promiscuous == Some(true),
        HairpinSetup::Off { .. } | HairpinSetup::NotMasqueraded => false,
    }
}

fn fault(report: &Report<'_>, setup: &HairpinSetup) -> Option<Finding> {
    let node = report.node;
    Some(match setup {
        HairpinSetup::Off { is_in_force } => off(node, *is_in_force),
        HairpinSetup::Ports {
            denied: Some(path), ..
        } => write_denied(node, path),
        HairpinSetup::Ports { on, off, .. } if *off > 0 => some_ports_are_off(node, *on, *off),
        HairpinSetup::Bridge {
            name,
            is_promiscuous: Some(false),
        } => not_promiscuous(node, name.as_deref().unwrap_or("cbr0")),
        HairpinSetup::NotMasqueraded => Finding::part_fails(
            Reason::MasqueradeMissing,
            format!(
                "On node {node}, an endpoint is missing from the ipset KUBE-LOOP-BACK, so packets that a Pod sends to itself are not masqueraded."
            ),
            format!("To have the sets rewritten, {}.", proxies::restart(report)),
        ),
        HairpinSetup::Ports { .. } | HairpinSetup::Bridge { .. } => return None,
    })
}

fn off(node: &str, is_in_force: bool) -> Finding {
    let how = if is_in_force {
        "has set"
    } else {
        "is configured with"
    };
    Finding::part_fails(
        Reason::HairpinModeDisabled,
        format!(
            "The kubelet on node {node} {how} hairpin mode none, so Pods may not reach themselves through the Service."
        ),
        format!("Start the kubelet on node {node} with --hairpin-mode=hairpin-veth (or promiscuous-bridge)."),
    )
}

fn write_denied(node: &str, path: &str) -> Finding {
    Finding::part_fails(
        Reason::HairpinModeDisabled,
        format!(
            "The kubelet on node {node} was not allowed to write {path}, so bridge ports may not send packets back to the Pod they came from."
        ),
        format!(
            "Allow the kubelet on node {node} to write to /sys: run it privileged, or mount /sys writable if it runs in a container."
        ),
    )
}

fn some_ports_are_off(node: &str, on: usize, off: usize) -> Finding {
    let do_not = if off == 1 { "does not" } else { "do not" };
    Finding::part_fails(
        Reason::HairpinModeDisabled,
        format!(
            "On node {node}, {off} of {} bridge ports {do_not} send packets back to the Pod they came from (hairpin_mode is 0).",
            on + off
        ),
        format!(
            "Enable it on the bridge ports of Pods: `bridge -d link` on node {node} shows those that have \"hairpin off\"."
        ),
    )
}

fn not_promiscuous(node: &str, bridge: &str) -> Finding {
    Finding::part_fails(
        Reason::BridgeNotPromiscuous,
        format!(
            "The kubelet on node {node} uses promiscuous-bridge mode, but bridge {bridge} is not promiscuous, so it may not accept packets that a Pod sends to itself."
        ),
        format!(
            "Allow the kubelet on node {node} to change links (CAP_NET_ADMIN), or set it by hand: `ip link set {} promisc on`.",
            quoted(bridge)
        ),
    )
}
