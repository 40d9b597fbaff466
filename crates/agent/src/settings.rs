//! Network settings of the node that explain lost packets. They are only read.

use std::{fs, io};

use svcdiag_api::{DeadEndRule, NodeSettings};
use svcdiag_engine::dead_ends_of;
use svcdiag_formats::connection::is_full;
use svcdiag_kube_proxy::{IpFamily, Table};
use svcdiag_netns::{Netns, netfilter::rulesets::Rulesets};

/// Reads the settings of a network namespace with known rules.
///
/// # Errors
/// When the namespace cannot be entered. What cannot be read in it is None.
pub fn read(node: &Netns, rules: &Rulesets) -> io::Result<NodeSettings> {
    let mut settings = node.run(|| Ok(read_here()))?;
    settings.forward_drops = forward_drops(rules);
    Ok(settings)
}

fn read_here() -> NodeSettings {
    let count = number("netfilter/nf_conntrack_count");
    let max = number("netfilter/nf_conntrack_max");
    NodeSettings {
        ipv4_forwarding: number("ipv4/ip_forward").map(|n| n != 0),
        ipv6_forwarding: number("ipv6/conf/all/forwarding").map(|n| n != 0),
        bridge_netfilter: bridge_netfilter_here(),
        forward_drops: None,
        dead_ends: Vec::new(),
        conntrack_full: count.zip(max).map(|(count, max)| is_full(count, max)),
        reverse_path_drops: None,
    }
}

/// Whether packets between ports of a bridge pass through the rules of a network namespace; None without br_netfilter.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn bridge_netfilter(node: &Netns) -> io::Result<Option<bool>> {
    node.run(|| Ok(bridge_netfilter_here()))
}

fn bridge_netfilter_here() -> Option<bool> {
    number("bridge/bridge-nf-call-iptables").map(|n| n != 0)
}

/// Whether TCP in a network namespace finds out by itself which sizes are lost, and sends smaller packets then
/// (`net.ipv4.tcp_mtu_probing`, which holds for both families; off by default).
pub(crate) async fn tcp_probes_the_mtu(netns: &Netns) -> io::Result<bool> {
    let read = || Ok(number("ipv4/tcp_mtu_probing").is_some_and(|mode| mode != 0));
    netns.visit(read).await
}

/// A number below /proc/sys/net, which shows the namespace of the calling thread.
fn number(name: &str) -> Option<i64> {
    fs::read_to_string(format!("/proc/sys/net/{name}"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Either backend may have the chain, and a drop in one is final.
fn forward_drops(rules: &Rulesets) -> Option<bool> {
    let by_nf_tables = rules
        .iptables()
        .ok()?
        .drops_by_default(IpFamily::V4, Table::Filter, "FORWARD")
        .ok()?;
    let by_legacy = rules
        .legacy()
        .ok()?
        .drops_by_default(IpFamily::V4, Table::Filter, "FORWARD");
    Some(by_nf_tables.unwrap_or(false) || by_legacy.unwrap_or(false))
}

/// Rules of either iptables backend that drop or reject every IPv4 packet. What cannot be read counts as none.
#[must_use]
pub fn dead_ends(rules: &Rulesets) -> Vec<DeadEndRule> {
    let mut found = Vec::new();
    if let Ok(rules) = rules.iptables() {
        found.extend(dead_ends_of(rules.as_ref()));
    }
    // Reading a table of the legacy backend would create it.
    if let Some(rules) = rules.legacy().ok().filter(|legacy| !legacy.is_empty()) {
        found.extend(dead_ends_of(rules.as_ref()));
    }
    found.truncate(3);
    found
}

/// How many packets the namespace has dropped because of reverse path filtering (IPReversePathFilter of
/// /proc/net/netstat).
///
/// # Errors
/// When the namespace cannot be entered or the counter cannot be read.
pub fn reverse_path_drops(node: &Netns) -> io::Result<u64> {
    node.run(|| {
        let text = fs::read_to_string("/proc/thread-self/net/netstat")?;
        counter(&text, "TcpExt:", "IPReversePathFilter")
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "IPReversePathFilter is not counted"))
    })
}

/// A counter of /proc/net/netstat or /proc/net/snmp: a line of names, and a line of numbers with the same prefix.
pub(crate) fn counter(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(group));
    let position = lines.next()?.split_whitespace().position(|word| word == name)?;
    lines.next()?.split_whitespace().nth(position)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_name() {
        let text = "TcpExt: A IPReversePathFilter B\nTcpExt: 1 42 3\nIpExt: C\nIpExt: 5\n";
        assert_eq!(counter(text, "TcpExt:", "IPReversePathFilter"), Some(42));
        assert_eq!(counter(text, "TcpExt:", "Z"), None);
        assert_eq!(counter("", "TcpExt:", "A"), None);
    }
}
