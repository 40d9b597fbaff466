//! The rules that kube-proxy would write on a node.
//!
//! It exists so that nodes of the sandbox hold what real nodes hold, down to the names of the chains.
//! [`rules`] is pure: it turns the Services and EndpointSlices of a cluster, as one node sees them, into
//! scripts, and whoever has the node's network namespace at hand runs them there. `select` says what
//! becomes of the packets to each Service port; `nftables` and `iptables` lay that out as kube-proxy's
//! proxiers of these names do. Every sync is a full one; in iptables mode, `merge` keeps the rules of others.

mod iptables;
mod merge;
pub mod names;
mod nftables;
mod select;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};

/// How kube-proxy writes its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProxyMode {
    /// nftables, as since Kubernetes 1.36: the endpoints of a Service stand in its own rule.
    Nftables,
    /// nftables, as before: a chain for every endpoint.
    NftablesOld,
    /// iptables with the backend nf_tables.
    Iptables,
    /// iptables with the legacy backend.
    IptablesLegacy,
}

impl ProxyMode {
    /// All modes.
    pub const ALL: [Self; 4] = [
        Self::Nftables,
        Self::NftablesOld,
        Self::Iptables,
        Self::IptablesLegacy,
    ];

    /// What kube-proxy answers at `/proxyMode`.
    #[must_use]
    pub fn proxy_mode(self) -> &'static str {
        match self {
            Self::Nftables | Self::NftablesOld => "nftables",
            Self::Iptables | Self::IptablesLegacy => "iptables",
        }
    }
}

impl fmt::Display for ProxyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nftables => "nftables",
            Self::NftablesOld => "nftables-old",
            Self::Iptables => "iptables",
            Self::IptablesLegacy => "iptables-legacy",
        })
    }
}

/// A name that is none of a proxy mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of nftables, nftables-old, iptables, iptables-legacy")]
pub struct UnknownMode(String);

impl FromStr for ProxyMode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|mode| mode.to_string() == text)
            .ok_or_else(|| UnknownMode(text.to_owned()))
    }
}

/// What kube-proxy watches.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Services of all namespaces.
    pub services: Vec<Service>,
    /// EndpointSlices of all namespaces.
    pub slices: Vec<EndpointSlice>,
}

/// What kube-proxy knows of its node and of the cluster's networks.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    /// Name of the node.
    pub name: String,
    /// Its zone, by its label topology.kubernetes.io/zone.
    pub zone: Option<String>,
    /// Its addresses; node ports answer on these. The first of a family is the node's address in it.
    pub ips: Vec<IpAddr>,
    /// Networks of the cluster's Pods (kube-proxy's clusterCIDR): packets from elsewhere are masqueraded.
    /// Of a family only the first counts; without one, nothing is masqueraded for that.
    pub pod_cidrs: Vec<IpNet>,
    /// Networks that ClusterIPs are taken from: in nftables mode, packets to an address there that no
    /// Service has are dropped.
    pub service_cidrs: Vec<IpNet>,
}

/// How rules are written in the node's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The program that prints the rules that are there; none where all are replaced.
    pub present: Option<&'static str>,
    /// The program that writes rules.
    pub program: &'static str,
    /// Its arguments.
    pub args: &'static [&'static str],
    /// The rules that are wanted.
    pub wanted: String,
}

impl Script {
    /// What [`Self::program`] has to read, given what [`Self::present`] printed; `None` if nothing has to change.
    #[must_use]
    pub fn input(&self, present: &str) -> Option<Cow<'_, str>> {
        if self.present.is_none() {
            return Some(Cow::Borrowed(&self.wanted));
        }
        let changes = merge::changes(present, &self.wanted);
        (!changes.is_empty()).then_some(Cow::Owned(changes))
    }
}

/// A protocol that Services know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The protocol of a port; the API's default is TCP.
    #[must_use]
    pub fn of(name: Option<&str>) -> Option<Self> {
        match name.unwrap_or("TCP") {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// Its name as kube-proxy and the tools write it.
    #[must_use]
    pub fn lower_case(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePortName {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub service: String,
    /// Name of the port; empty where it has none.
    pub port: String,
    /// Its protocol.
    pub protocol: Protocol,
}

impl fmt::Display for ServicePortName {
    /// As in kube-proxy's comments.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.service)?;
        if !self.port.is_empty() {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

/// An IP family; kube-proxy runs a proxier for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IpFamily {
    V4,
    V6,
}

impl IpFamily {
    const ALL: [Self; 2] = [Self::V4, Self::V6];

    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The family's addresses of several.
    fn select(self, addresses: &[IpAddr]) -> impl Iterator<Item = IpAddr> {
        addresses.iter().copied().filter(move |a| Self::of(*a) == self)
    }

    /// The family's networks of several.
    fn select_nets(self, nets: &[IpNet]) -> impl Iterator<Item = IpNet> {
        nets.iter()
            .copied()
            .filter(move |net| Self::of(net.addr()) == self)
    }
}

/// Whether a family is in use: IPv6 only where the node or a Service has it.
fn is_used(family: IpFamily, cluster: &Cluster, node: &NodeView) -> bool {
    let mut service_ips = cluster.services.iter().flat_map(select::cluster_ips);
    family == IpFamily::V4 || node.ips.iter().any(IpAddr::is_ipv6) || service_ips.any(|ip| ip.is_ipv6())
}

/// What makes the node's rules those that kube-proxy would write now, whatever it wrote before in this
/// mode. Rules of others are left alone.
#[must_use]
pub fn rules(mode: ProxyMode, cluster: &Cluster, node: &NodeView) -> Vec<Script> {
    // What was written for a family goes when nobody uses it any longer.
    let families = IpFamily::ALL.map(|family| {
        let ports = is_used(family, cluster, node).then(|| select::ports(cluster, node, family));
        (family, ports)
    });
    match mode {
        ProxyMode::Nftables => vec![nftables::sync(nftables::Layout::Maps, &families, node)],
        ProxyMode::NftablesOld => vec![nftables::sync(nftables::Layout::Chains, &families, node)],
        ProxyMode::Iptables => iptables::sync(iptables::Backend::NfTables, &families, node),
        ProxyMode::IptablesLegacy => iptables::sync(iptables::Backend::Legacy, &families, node),
    }
}

/// What removes all rules that were written in a mode.
#[must_use]
pub fn cleanup(mode: ProxyMode) -> Vec<Script> {
    match mode {
        ProxyMode::Nftables | ProxyMode::NftablesOld => vec![nftables::cleanup()],
        ProxyMode::Iptables => iptables::cleanup(iptables::Backend::NfTables),
        ProxyMode::IptablesLegacy => iptables::cleanup(iptables::Backend::Legacy),
    }
}
