//! Addresses that several Pods have: the network plugin assigned one more than once, and packets reach only one of
//! its holders.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{Facts, text};
use svcdiag_objects::{Object, Pod};

/// The Pods of the namespace that have an address of their own, by that address, where there are several. Pods that use
/// the host network share it on purpose, and the address of a Pod that has ended may be assigned again.
pub(crate) fn shared(facts: &Facts) -> BTreeMap<IpAddr, BTreeSet<&str>> {
    let has_network = |p: &&Pod| !p.is_host_network() && !p.has_ended() && !p.is_terminating();
    let mut holders: BTreeMap<IpAddr, BTreeSet<&str>> = BTreeMap::new();
    for pod in facts.pods.iter().map(AsRef::as_ref).filter(has_network) {
        for ip in pod.ips().filter_map(|ip| ip.parse().ok()) {
            holders.entry(ip).or_default().insert(pod.name());
        }
    }
    holders.retain(|_, pods| pods.len() > 1);
    holders
}

/// What is said of an address that several Pods have, without a full stop.
pub(crate) fn describe(ip: IpAddr, pods: &BTreeSet<&str>) -> String {
    let names: Vec<&str> = pods.iter().copied().collect();
    let n = match names.len() {
        2 => "two".to_owned(),
        n => n.to_string(),
    };
    format!(
        "{ip} is the address of {n} Pods, {}: the network plugin seems to have assigned it more than once, and packets may reach only one of them",
        text::list(&names)
    )
}
