//! How the kubelet, or a plugin of the network, keeps the way of Pods to themselves open.

use super::{
    programs::Programs,
    text::{Parsed, Text},
};
use crate::{
    engine::HairpinSetup,
    formats::text::{
        bridge::Link,
        kubelet_log::{HairpinMode, KubeletLog},
        ps::Process,
    },
};

/// Flags of kubelets that still acted on --hairpin-mode; those of today take it and do nothing.
const OLD_FLAGS: [&str; 4] = [
    "configure-cbr0",
    "allow-privileged",
    "api-servers",
    "docker-endpoint",
];

/// What the kubelet does, as far as the files tell: what it set up in fact comes before what it was told.
pub(super) fn setup(
    programs: &Programs<'_>,
    files: &[Parsed<'_>],
    masqueraded: Option<bool>,
) -> Option<HairpinSetup> {
    if masqueraded == Some(false) {
        return Some(HairpinSetup::NotMasqueraded);
    }
    let kubelet = programs.kubelet();
    // With a plugin of CNI the kubelet leaves bridges alone, whatever it logs of hairpins.
    if programs.is_cni || kubelet.is_some_and(|k| k.flag("network-plugin") == Some("cni")) {
        return None;
    }
    let effective = programs.kubelet_log.and_then(|log| log.effective.clone());
    let is_in_force = effective.is_some();
    match effective.or_else(|| configured(programs, kubelet))? {
        HairpinMode::None => Some(HairpinSetup::Off { is_in_force }),
        // What is not set shows by its absence: a list that was cut does not tell.
        HairpinMode::HairpinVeth => {
            let links: Vec<&Link> = links(files.iter().filter(|f| !f.is_cut)).collect();
            Some(ports(&links, programs.kubelet_log))
        }
        HairpinMode::PromiscuousBridge => {
            let links: Vec<&Link> = links(files.iter().filter(|f| !f.is_cut)).collect();
            Some(bridge(&links))
        }
        HairpinMode::Other(_) => None,
    }
}

/// The mode that the kubelet was told, if it is old enough to act on it.
fn configured(programs: &Programs<'_>, kubelet: Option<&Process>) -> Option<HairpinMode> {
    let kubelet = kubelet.filter(|k| OLD_FLAGS.iter().any(|flag| k.has_flag(flag)))?;
    let flag = kubelet.flag("hairpin-mode").map(HairpinMode::parse);
    flag.or_else(|| programs.kubelet_config?.hairpin_mode.clone())
}

fn ports(links: &[&Link], log: Option<&KubeletLog>) -> HairpinSetup {
    let is_own = |l: &&&Link| l.bridge.as_deref().is_none_or(|name| name == "cbr0");
    let ports = || links.iter().filter(is_own).filter_map(|l| l.hairpin);
    let all_on = ports().count() > 0 && ports().all(|on| on);
    // What could not be written once may have been written since.
    let denied = log.and_then(|log| log.not_allowed.first()).filter(|_| !all_on);
    HairpinSetup::Ports {
        on: ports().filter(|on| *on).count(),
        off: ports().filter(|on| !*on).count(),
        denied: denied.map(|d| d.path.clone().unwrap_or_else(|| "hairpin_mode".to_owned())),
    }
}

/// Its ports are promiscuous in any case. What `grep PROMISC` leaves has no name.
fn bridge(links: &[&Link]) -> HairpinSetup {
    let is_bridge = |l: &&&Link| l.name.as_deref().is_none_or(|name| name == "cbr0");
    let mut bridges = links.iter().filter(is_bridge);
    let shown = bridges.find(|l| l.promiscuous.is_some());
    HairpinSetup::Bridge {
        name: shown.and_then(|l| l.name.clone()),
        is_promiscuous: shown.and_then(|l| l.promiscuous),
    }
}

/// Whether the bridge ports of the node send packets back out of themselves, where all of them do the same.
pub(super) fn mode(files: &[Parsed<'_>]) -> Option<bool> {
    let mut modes: Vec<bool> = links(files.iter()).filter_map(|link| link.hairpin).collect();
    modes.dedup();
    match modes.as_slice() {
        [only] => Some(*only),
        _ => None,
    }
}

fn links<'a>(files: impl Iterator<Item = &'a Parsed<'a>>) -> impl Iterator<Item = &'a Link> {
    let of = |file: &'a Parsed<'a>| match &file.text {
        Text::Links(links) => links.as_slice(),
        _ => &[],
    };
    files.flat_map(of)
}
