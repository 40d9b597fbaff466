//! What kube-proxy holds for a Service in ipvs mode: a virtual server for each address, a real server for
//! each endpoint.
//!
//! Source: `syncProxyRules` of kube-proxy's ipvs proxier. A real server of weight 0 is being drained: it
//! keeps its connections and gets no new ones. Only ClusterIPs are compared: which of the node's addresses
//! a node port has virtual servers for is a setting of kube-proxy.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
};

use super::{
    Destination, ExpectedPort, Gap, Protocol, Purpose, Target,
    audit::{Held, Reached, compare},
};

/// The virtual servers of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VirtualServers(HashMap<(Protocol, SocketAddr), VirtualServer>);

/// A virtual server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtualServer {
    /// Whether a client stays with its real server for a while.
    pub is_persistent: bool,
    /// Real servers and their weights.
    pub servers: Vec<(SocketAddr, u32)>,
}

impl FromIterator<((Protocol, SocketAddr), VirtualServer)> for VirtualServers {
    fn from_iter<T: IntoIterator<Item = ((Protocol, SocketAddr), VirtualServer)>>(all: T) -> Self {
        Self(all.into_iter().collect())
    }
}

impl VirtualServers {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one at an address.
    #[must_use]
    pub fn at(&self, protocol: Protocol, address: SocketAddr) -> Option<&VirtualServer> {
        self.0.get(&(protocol, address))
    }

    /// Compares them with what the node has to hold for a port of a Service.
    #[must_use]
    pub fn audit(&self, expected: &ExpectedPort) -> Vec<Gap> {
        let mut gaps = BTreeSet::new();
        let cluster_ips = expected
            .destinations
            .iter()
            .filter(|d| d.purpose == Purpose::ClusterIp);
        for destination in cluster_ips {
            compare(expected, destination, &self.held(destination), &mut gaps);
        }
        gaps.into_iter().collect()
    }

    fn held(&self, destination: &Destination) -> Held {
        let mut held = Held {
            entrance: format!("the virtual server of {destination}"),
            ..Held::default()
        };
        let server = destination
            .address
            .and_then(|ip| self.at(destination.protocol, SocketAddr::new(ip, destination.port)));
        if let Some(server) = server {
            let taking = server.servers.iter().filter(|(_, weight)| *weight > 0);
            let endpoints: BTreeSet<SocketAddr> = taking.map(|(address, _)| *address).collect();
            // Without a real server the kernel refuses.
            held.refusal = endpoints.is_empty().then_some(Target::Reject);
            held.inside = Reached {
                sticky: if server.is_persistent {
                    endpoints.clone()
                } else {
                    BTreeSet::new()
                },
                endpoints,
            };
        }
        held
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::proxy::{IpFamily, RuleFault, Traffic};

    const CLUSTER_IP: &str = "10.96.0.7:80";

    fn endpoint(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 244, 0, last], 9376))
    }

    fn port(endpoints: &[u8], affinity: bool) -> ExpectedPort {
        let address: SocketAddr = CLUSTER_IP.parse().unwrap();
        let endpoints: BTreeSet<SocketAddr> = endpoints.iter().map(|e| endpoint(*e)).collect();
        let inside = if endpoints.is_empty() {
            Traffic::Reject
        } else {
            Traffic::To(endpoints.clone())
        };
        ExpectedPort {
            name: String::new(),
            protocol: Protocol::Tcp,
            family: IpFamily::V4,
            destinations: vec![Destination {
                purpose: Purpose::ClusterIp,
                address: Some(address.ip()),
                port: address.port(),
                protocol: Protocol::Tcp,
                inside,
                outside: None,
                source_ranges: Vec::new(),
            }],
            affinity,
            serving: endpoints,
        }
    }

    fn servers(real: &[(u8, u32)], is_persistent: bool) -> VirtualServers {
        let server = VirtualServer {
            is_persistent,
            servers: real.iter().map(|(e, weight)| (endpoint(*e), *weight)).collect(),
        };
        let key = (Protocol::Tcp, CLUSTER_IP.parse().unwrap());
        [(key, server)].into_iter().collect()
    }

    fn faults(held: &VirtualServers, expected: &ExpectedPort) -> Vec<(RuleFault, Option<SocketAddr>)> {
        let gaps = held.audit(expected);
        gaps.into_iter().map(|gap| (gap.fault, gap.endpoint)).collect()
    }

    #[test]
    fn what_is_complete_has_no_gaps() {
        let held = servers(&[(1, 1), (2, 1), (3, 0)], false);
        // The third is being drained.
        assert_eq!(faults(&held, &port(&[1, 2], false)), []);
        assert_eq!(faults(&servers(&[], false), &port(&[], false)), []);
        assert_eq!(faults(&servers(&[(1, 1)], true), &port(&[1], true)), []);
    }

    #[test]
    fn gaps_are_told() {
        let expected = port(&[1, 2], false);
        assert_eq!(
            faults(&VirtualServers::default(), &expected),
            [(RuleFault::RulesMissing, None)]
        );
        assert_eq!(
            faults(&servers(&[(1, 1), (2, 0)], false), &expected),
            [(RuleFault::EndpointMissing, Some(endpoint(2)))]
        );
        assert_eq!(
            faults(&servers(&[(1, 1), (2, 1), (3, 1)], false), &expected),
            [(RuleFault::StaleEndpoint, Some(endpoint(3)))]
        );
        assert_eq!(
            faults(&servers(&[(1, 1)], false), &port(&[1], true)),
            [(RuleFault::Incomplete, Some(endpoint(1)))]
        );
    }
}
