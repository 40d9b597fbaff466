//! Settings of the node's network that explain why packets do not arrive. They are only read.

use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::{
    netfilter::{legacy::Legacy, nf_tables::NfTables},
    netns::Netns,
};
use crate::proxy::{IpFamily, Layout, Table};

/// Settings of the node's network. None means not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// net.ipv4.ip_forward: whether the node forwards IPv4 packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4_forwarding: Option<bool>,
    /// net.ipv6.conf.all.forwarding: whether the node forwards IPv6 packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_forwarding: Option<bool>,
    /// net.bridge.bridge-nf-call-iptables: whether rules see packets between ports of a bridge. None without br_netfilter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge_netfilter: Option<bool>,
    /// Whether the FORWARD chain of iptables drops what no rule accepts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward_drops: Option<bool>,
    /// Whether the table of tracked connections is full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conntrack_full: Option<bool>,
    /// Whether an interface drops packets that come in by another way than their answers would leave (rp_filter 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict_reverse_path: Option<bool>,
}

/// Reads the settings of a network namespace.
///
/// # Errors
/// When the namespace cannot be entered. What cannot be read in it is None.
pub fn read(node: &Netns) -> io::Result<Settings> {
    node.run(|| Ok(read_here()))
}

fn read_here() -> Settings {
    let count = number("netfilter/nf_conntrack_count");
    let max = number("netfilter/nf_conntrack_max");
    Settings {
        ipv4_forwarding: number("ipv4/ip_forward").map(|n| n != 0),
        ipv6_forwarding: number("ipv6/conf/all/forwarding").map(|n| n != 0),
        bridge_netfilter: number("bridge/bridge-nf-call-iptables").map(|n| n != 0),
        forward_drops: forward_drops(),
        // The kernel makes room for a connection before it counts it.
        conntrack_full: count.zip(max).map(|(count, max)| max > 0 && count >= max),
        strict_reverse_path: strict_reverse_path(),
    }
}

/// A number below /proc/sys/net, which shows the namespace of the calling thread.
fn number(name: &str) -> Option<i64> {
    fs::read_to_string(format!("/proc/sys/net/{name}"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Either backend may have the chain; what one drops the other cannot save.
fn forward_drops() -> Option<bool> {
    let nf_tables = NfTables::open(Layout::Iptables).ok()?;
    let by_nf_tables = nf_tables
        .drops_by_default(IpFamily::V4, Table::Filter, "FORWARD")
        .ok()?;
    let legacy = Legacy::open().ok()?;
    let by_legacy = legacy.drops_by_default(IpFamily::V4, Table::Filter, "FORWARD");
    Some(by_nf_tables.unwrap_or(false) || by_legacy.unwrap_or(false))
}

/// The kernel takes the greater of the setting for all interfaces and the interface's own: 1 is strict,
/// 2 is loose (Documentation/networking/ip-sysctl.rst).
fn strict_reverse_path() -> Option<bool> {
    let all = number("ipv4/conf/all/rp_filter")?;
    let interfaces = fs::read_dir("/proc/sys/net/ipv4/conf").ok()?;
    let mut names = interfaces
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    Some(names.any(|name| {
        !["all", "default", "lo"].contains(&name.as_str())
            && number(&format!("ipv4/conf/{name}/rp_filter")).is_some_and(|own| own.max(all) == 1)
    }))
}

/// How many packets the namespace has dropped for coming in by another way than their answers would
/// leave (IPReversePathFilter of /proc/net/netstat).
///
/// # Errors
/// When the namespace cannot be entered or does not tell.
pub fn reverse_path_drops(node: &Netns) -> io::Result<u64> {
    node.run(|| {
        let text = fs::read_to_string("/proc/thread-self/net/netstat")?;
        counter(&text, "TcpExt:", "IPReversePathFilter")
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "IPReversePathFilter is not counted"))
    })
}

/// A counter of /proc/net/netstat: a line of names, and a line of numbers with the same beginning.
fn counter(text: &str, group: &str, name: &str) -> Option<u64> {
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
