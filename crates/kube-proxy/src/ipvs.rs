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
    Destination, ExpectedPort, Gap, Protocol, Purpose, RuleFault, Target, Traffic,
    audit::compare,
    walk::{Held, Reached},
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
            let mut found = BTreeSet::new();
            compare(expected, destination, &self.held(destination), &mut found);
            let drained = self.drained(expected, destination);
            // An endpoint that is held with weight 0 is not missing, and a server with no others not empty.
            let is_drained = |gap: &Gap| match gap.fault {
                RuleFault::RulesMissing => !drained.is_empty(),
                RuleFault::EndpointMissing => drained.iter().any(|d| d.endpoint == gap.endpoint),
                _ => false,
            };
            found.retain(|gap| !is_drained(gap));
            if drained.is_empty() {
                found.extend(self.stuck(expected, destination));
            }
            gaps.extend(found);
            gaps.extend(drained);
        }
        gaps.into_iter().collect()
    }

    /// Endpoints that are to take traffic and have weight 0.
    fn drained(&self, expected: &ExpectedPort, destination: &Destination) -> Vec<Gap> {
        let Traffic::To(endpoints) = &destination.inside else {
            return Vec::new();
        };
        let idle = self.idle(destination);
        let own = idle.filter(|(endpoint, _)| endpoints.contains(endpoint));
        own.filter(|(endpoint, _)| expected.serving.contains(endpoint))
            .map(|(endpoint, _)| Gap {
                fault: RuleFault::EndpointDrained,
                destination: destination.to_string(),
                endpoint: Some(endpoint),
                detail: format!("the virtual server of {destination} has {endpoint} with weight 0"),
            })
            .collect()
    }

    /// Endpoints that are gone and to which clients come back.
    fn stuck(&self, expected: &ExpectedPort, destination: &Destination) -> Vec<Gap> {
        let kept = self.idle(destination).filter(|(_, is_persistent)| *is_persistent);
        kept.filter(|(endpoint, _)| !expected.serving.contains(endpoint))
            .map(|(endpoint, _)| Gap {
                fault: RuleFault::EndpointStuck,
                destination: destination.to_string(),
                endpoint: Some(endpoint),
                detail: format!(
                    "the virtual server of {destination} keeps clients on {endpoint}, which is no longer an endpoint (weight 0)"
                ),
            })
            .collect()
    }

    /// Real servers with weight 0, and whether their virtual server keeps clients at theirs.
    fn idle(&self, destination: &Destination) -> impl Iterator<Item = (SocketAddr, bool)> {
        let server = destination
            .address
            .and_then(|ip| self.at(destination.protocol, SocketAddr::new(ip, destination.port)));
        server.into_iter().flat_map(|server| {
            let idle = server.servers.iter().filter(|(_, weight)| *weight == 0);
            idle.map(|(endpoint, _)| (*endpoint, server.is_persistent))
        })
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
    use crate::IpFamily;

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
    fn who_stays_with_an_endpoint_that_is_gone_is_told() {
        assert_eq!(
            faults(&servers(&[(1, 1), (3, 0)], true), &port(&[1], true)),
            [(RuleFault::EndpointStuck, Some(endpoint(3)))]
        );
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
            [(RuleFault::EndpointDrained, Some(endpoint(2)))]
        );
        assert_eq!(
            faults(&servers(&[(1, 0), (2, 0)], false), &expected),
            [1, 2].map(|e| (RuleFault::EndpointDrained, Some(endpoint(e))))
        );
        assert_eq!(
            faults(&servers(&[(1, 1)], false), &expected),
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
