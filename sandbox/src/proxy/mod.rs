//! The rules that kube-proxy writes.

use std::net::IpAddr;

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};

/// How kube-proxy lays its rules out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProxyMode {
    /// nftables.
    Nftables,
    /// nftables as before.
    NftablesOld,
    /// iptables by nf_tables.
    Iptables,
    /// iptables by the legacy backend.
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

    /// What kube-proxy says of itself.
    #[must_use]
    pub fn reported(self) -> &'static str {
        match self {
            Self::Nftables | Self::NftablesOld => "nftables",
            Self::Iptables | Self::IptablesLegacy => "iptables",
        }
    }
}

/// Services and slices.
pub struct Cluster {
    /// Services.
    pub services: Vec<Service>,
    /// Slices.
    pub slices: Vec<EndpointSlice>,
}

/// A node.
pub struct NodeView {
    /// Name.
    pub name: String,
    /// Zone.
    pub zone: Option<String>,
    /// Addresses.
    pub ips: Vec<IpAddr>,
    /// Networks of the cluster's Pods.
    pub cluster_cidrs: Vec<ipnet::IpNet>,
}

/// A program and its input.
pub struct Script {
    /// Program.
    pub program: &'static str,
    /// Arguments.
    pub args: Vec<&'static str>,
    /// Input.
    pub stdin: String,
}

/// The rules.
pub fn rules(_: ProxyMode, _: &Cluster, _: &NodeView) -> Vec<Script> {
    Vec::new()
}
