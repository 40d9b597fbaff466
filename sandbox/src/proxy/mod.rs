//! The rules that kube-proxy writes on a node, laid out as kube-proxy does it.
//!
//! [`rules`] takes what the API says ([`Cluster`]) and which node it is for ([`NodeView`]) and gives
//! [`Script`]s: programs to be run one after the other in the node's network namespace, with the text for
//! each to read. Every time is a full sync: whatever an earlier one wrote is replaced or removed, what
//! others wrote (kubelet's chains, foreign tables) stays. [`cleanup`] removes it all. Nothing here runs
//! anything.
//!
//! [`ports`] says what a Service port needs on the node, by kube-proxy's choice of endpoints; the module of
//! each mode writes it down.

mod iptables;
mod names;
mod nftables;
mod ports;
#[cfg(test)]
mod tests;

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};

/// How kube-proxy writes its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProxyMode {
    /// nftables mode as Kubernetes 1.36 lays it out: a Service's chain maps to its endpoints.
    Nftables,
    /// nftables mode as it was before: a chain for every endpoint.
    NftablesOld,
    /// iptables mode with the nf_tables backend.
    Iptables,
    /// iptables mode with the legacy backend.
    IptablesLegacy,
}

impl ProxyMode {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Nftables,
        Self::NftablesOld,
        Self::Iptables,
        Self::IptablesLegacy,
    ];

    /// What kube-proxy answers at `/proxyMode`.
    #[must_use]
    pub fn reported(self) -> &'static str {
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

impl FromStr for ProxyMode {
    type Err = UnknownMode;

    fn from_str(name: &str) -> Result<Self, UnknownMode> {
        Self::ALL
            .into_iter()
            .find(|mode| mode.to_string() == name)
            .ok_or_else(|| UnknownMode(name.to_owned()))
    }
}

/// A name that is no [`ProxyMode`]'s.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no proxy mode; there are nftables, nftables-old, iptables and iptables-legacy")]
pub struct UnknownMode(String);

/// What kube-proxy reads from the API.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cluster {
    /// All Services.
    pub services: Vec<Service>,
    /// All EndpointSlices.
    pub slices: Vec<EndpointSlice>,
    /// Ranges of the ServiceCIDRs; unallocated addresses in them are dropped in nftables mode.
    pub service_cidrs: Vec<IpNet>,
}

/// The node that the rules are for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Its zone, by its label topology.kubernetes.io/zone.
    pub zone: Option<String>,
    /// Its addresses, the primary one of each IP family first.
    pub ips: Vec<IpAddr>,
    /// Where the cluster's Pods are; the first range of each IP family counts.
    pub cluster_cidrs: Vec<IpNet>,
}

impl NodeView {
    /// The primary address of an IP family.
    fn ip(&self, family: Family) -> Option<IpAddr> {
        self.ips.iter().copied().find(|ip| Family::of(*ip) == family)
    }
}

/// A program to be run in the node's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The program.
    pub program: &'static str,
    /// Its arguments.
    pub args: Vec<&'static str>,
    /// What it is given to read.
    pub stdin: String,
}

/// The programs that bring a node's rules up to date.
#[must_use]
pub fn rules(mode: ProxyMode, cluster: &Cluster, node: &NodeView) -> Vec<Script> {
    match mode {
        ProxyMode::Nftables => nftables::rules(nftables::Layout::Maps, cluster, node),
        ProxyMode::NftablesOld => nftables::rules(nftables::Layout::EndpointChains, cluster, node),
        ProxyMode::Iptables => iptables::rules(&iptables::NF_TABLES, cluster, node),
        ProxyMode::IptablesLegacy => iptables::rules(&iptables::LEGACY, cluster, node),
    }
}

/// The programs that remove all that a mode wrote.
#[must_use]
pub fn cleanup(mode: ProxyMode) -> Vec<Script> {
    match mode {
        ProxyMode::Nftables | ProxyMode::NftablesOld => nftables::cleanup(),
        ProxyMode::Iptables => iptables::cleanup(&iptables::NF_TABLES),
        ProxyMode::IptablesLegacy => iptables::cleanup(&iptables::LEGACY),
    }
}

/// An IP family; each has tables of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    V4,
    V6,
}

impl Family {
    const ALL: [Self; 2] = [Self::V4, Self::V6];

    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The first of some ranges that is of this family.
    fn first(self, nets: &[IpNet]) -> Option<IpNet> {
        nets.iter().copied().find(|net| Self::of(net.addr()) == self)
    }
}

/// A protocol that Services know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// The protocol of a Service port or an EndpointSlice port; without a name it is TCP.
    fn parse(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }

    fn lower_case(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ServicePortName {
    namespace: String,
    service: String,
    /// Name of the port; empty where it has none.
    port: String,
    protocol: Protocol,
}

/// `namespace/name:port`, as kube-proxy writes it into comments.
impl fmt::Display for ServicePortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.service)?;
        if self.port.is_empty() {
            Ok(())
        } else {
            write!(f, ":{}", self.port)
        }
    }
}
