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
                "The kubelet has set up the way of Pods to themselves on {}; no Pod's dial of itself is among the files.",
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
    let (reason, message, remediation) = match setup {
        HairpinSetup::Off { is_in_force } => {
            let how = if *is_in_force { "has set" } else { "was told" };
            (
                Reason::HairpinModeDisabled,
                format!(
                    "The kubelet of node {node} {how} hairpin mode none, so that a Pod does not reach itself through the Service."
                ),
                format!(
                    "Start the kubelet of node {node} with --hairpin-mode=hairpin-veth (or promiscuous-bridge)."
                ),
            )
        }
        HairpinSetup::Ports {
            denied: Some(path), ..
        } => (
            Reason::HairpinModeDisabled,
            format!(
                "The kubelet of node {node} was not allowed to write {path}, so that bridge ports do not send packets back to the Pod they came from."
            ),
            format!(
                "Let the kubelet of node {node} write to /sys: run it privileged, or mount /sys writable where it runs in a container."
            ),
        ),
        HairpinSetup::Ports { on, off, .. } if *off > 0 => (
            Reason::HairpinModeDisabled,
            format!(
                "On node {node} {off} of {} bridge ports do not send packets back to the Pod they came from (hairpin_mode is 0).",
                on + off
            ),
            format!(
                "Switch it on for the ports of Pods: `bridge -d link` on node {node} shows those that have \"hairpin off\"."
            ),
        ),
        HairpinSetup::Bridge {
            name,
            is_promiscuous: Some(false),
        } => {
            let name = name.as_deref().unwrap_or("cbr0");
            (
                Reason::BridgeNotPromiscuous,
                format!(
                    "The kubelet of node {node} is in promiscuous-bridge mode, and bridge {name} is not promiscuous, so that it does not take what a Pod sends to itself."
                ),
                format!(
                    "Let the kubelet of node {node} change links (CAP_NET_ADMIN), or do it by hand: `ip link set {} promisc on`.",
                    quoted(name)
                ),
            )
        }
        HairpinSetup::NotMasqueraded => (
            Reason::MasqueradeMissing,
            format!(
                "On node {node} an endpoint is not in the set KUBE-LOOP-BACK, so that what a Pod sends to itself is not masqueraded."
            ),
            format!("To have the sets written again, {}.", proxies::restart(report)),
        ),
        HairpinSetup::Ports { .. } | HairpinSetup::Bridge { .. } => return None,
    };
    Some(Finding::part_fails(reason, message, remediation))
}
