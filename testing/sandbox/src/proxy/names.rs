//! Names of the chains and sets that kube-proxy makes for a Service.
//!
//! Source: kube-proxy's iptables and nftables proxiers (`portProtoHash`, `servicePortChainName`,
//! `servicePortEndpointChainName` and `hashAndTruncate`).

use std::net::SocketAddr;

use data_encoding::BASE32;
use sha2::{Digest, Sha256};

use super::ServicePortName;

/// Longest name that kube-proxy gives a chain or set in nftables mode.
const NFTABLES_NAME_LENGTH: usize = 240;

/// The same in kube-proxy before 1.31.
const NFTABLES_NAME_LENGTH_EARLY: usize = 112;

/// First characters of base32(SHA-256(text)).
fn hash(text: &str, length: usize) -> String {
    let mut name = BASE32.encode(&Sha256::digest(text.as_bytes()));
    name.truncate(length);
    name
}

/// Names in iptables mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iptables {
    /// `namespace/name:port`, with the protocol, the text that is hashed.
    key: String,
    suffix: String,
}

impl Iptables {
    /// Names for a Service port.
    #[must_use]
    pub fn of(port: &ServicePortName) -> Self {
        let colon = if port.port.is_empty() { "" } else { ":" };
        Self::with_separator(port, colon)
    }

    /// Names for a Service port as long ago, when a port without a name left its colon behind.
    #[must_use]
    pub fn of_old(port: &ServicePortName) -> Self {
        Self::with_separator(port, ":")
    }

    fn with_separator(port: &ServicePortName, separator: &str) -> Self {
        let key = format!(
            "{}/{}{separator}{}{}",
            port.namespace,
            port.service,
            port.port,
            port.protocol.lower_case()
        );
        Self {
            suffix: hash(&key, 16),
            key,
        }
    }

    /// Chain of the endpoints of the cluster policy.
    #[must_use]
    pub fn cluster(&self) -> String {
        format!("KUBE-SVC-{}", self.suffix)
    }

    /// Chain of the endpoints on the node.
    #[must_use]
    pub fn local(&self) -> String {
        format!("KUBE-SVL-{}", self.suffix)
    }

    /// Chain of traffic from outside.
    #[must_use]
    pub fn external(&self) -> String {
        format!("KUBE-EXT-{}", self.suffix)
    }

    /// Chain of loadBalancerSourceRanges.
    #[must_use]
    pub fn firewall(&self) -> String {
        format!("KUBE-FW-{}", self.suffix)
    }

    /// Chain of an endpoint.
    #[must_use]
    pub fn endpoint(&self, endpoint: SocketAddr) -> String {
        format!("KUBE-SEP-{}", hash(&format!("{}{endpoint}", self.key), 16))
    }
}

/// Names in nftables mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nftables {
    base: String,
    length: usize,
}

impl Nftables {
    /// Names for a Service port.
    #[must_use]
    pub fn of(port: &ServicePortName) -> Self {
        Self {
            base: format!(
                "{}/{}/{}/{}",
                port.namespace,
                port.service,
                port.protocol.lower_case(),
                port.port
            ),
            length: NFTABLES_NAME_LENGTH,
        }
    }

    /// Names for a Service port as early versions cut them.
    #[must_use]
    pub fn of_early(port: &ServicePortName) -> Self {
        Self {
            length: NFTABLES_NAME_LENGTH_EARLY,
            ..Self::of(port)
        }
    }

    fn name(&self, prefix: &str, suffix: &str) -> String {
        let text = format!("{}{suffix}", self.base);
        let name = format!("{prefix}-{}-{text}", hash(&text, 8));
        // The names are ASCII: Kubernetes allows nothing else in names of namespaces, Services and ports.
        match name.get(..self.length - 3) {
            Some(start) if name.len() > self.length => format!("{start}..."),
            _ => name,
        }
    }

    /// Chain of the endpoints of the cluster policy.
    #[must_use]
    pub fn cluster(&self) -> String {
        self.name("service", "")
    }

    /// Chain of the endpoints on the node.
    #[must_use]
    pub fn local(&self) -> String {
        self.name("local", "")
    }

    /// Chain of traffic from outside.
    #[must_use]
    pub fn external(&self) -> String {
        self.name("external", "")
    }

    /// Chain of loadBalancerSourceRanges.
    #[must_use]
    pub fn firewall(&self) -> String {
        self.name("firewall", "")
    }

    /// Chain of an endpoint.
    #[must_use]
    pub fn endpoint(&self, endpoint: SocketAddr) -> String {
        self.name("endpoint", &endpoint_suffix(endpoint))
    }

    /// Set of the clients that stay with an endpoint.
    #[must_use]
    pub fn affinity(&self, endpoint: SocketAddr) -> String {
        self.name("affinity", &endpoint_suffix(endpoint))
    }
}

/// `__ip/port`; nftables takes no colons in names.
fn endpoint_suffix(endpoint: SocketAddr) -> String {
    let ip = endpoint.ip().to_string().replace(':', ".");
    format!("__{ip}/{}", endpoint.port())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::proxy::Protocol;

    fn port(namespace: &str, service: &str, port: &str, protocol: Protocol) -> ServicePortName {
        ServicePortName {
            namespace: namespace.into(),
            service: service.into(),
            port: port.into(),
            protocol,
        }
    }

    #[test]
    fn iptables_names_are_those_of_kube_proxy() {
        let dns = Iptables::of(&port("kube-system", "kube-dns", "dns", Protocol::Udp));
        assert_eq!(dns.cluster(), "KUBE-SVC-TCOU7JCQXEZGVUNU");
        assert_eq!(
            dns.endpoint("10.244.0.3:53".parse().unwrap()),
            "KUBE-SEP-6E7XQMQ4RAYOWTTM"
        );
        let unnamed = port("default", "hostnames", "", Protocol::Tcp);
        assert_eq!(Iptables::of_old(&unnamed).cluster(), "KUBE-SVC-NWV5X2332I4OT4T3");
        let itp_local = Iptables::of(&port("matrix", "itp-local", "", Protocol::Tcp));
        assert_eq!(itp_local.local(), "KUBE-SVL-ZPAYUH2YN3METALC");
    }

    #[test]
    fn nftables_names_are_those_of_kube_proxy() {
        assert!(
            Nftables::of(&port("ns1", "svc1", "p80", Protocol::Tcp))
                .cluster()
                .starts_with("service-ULMVA6XW-")
        );
        let sticky = Nftables::of(&port("matrix", "sticky", "", Protocol::Tcp));
        assert_eq!(
            sticky.endpoint("10.244.0.10:9376".parse().unwrap()),
            "endpoint-OK65PKDC-matrix/sticky/tcp/__10.244.0.10/9376"
        );
    }

    #[test]
    fn long_nftables_names_are_cut() {
        let long = port(&"n".repeat(63), &"s".repeat(63), &"p".repeat(15), Protocol::Tcp);
        let name = Nftables::of_early(&long).cluster();
        assert_eq!(name.len(), 112);
        assert!(name.ends_with("..."));
        assert!(!Nftables::of(&long).cluster().ends_with("..."));
    }
}
