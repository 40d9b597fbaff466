//! Whether the clients get to their DNS server, by what the policies say.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    Facts,
    evidence::targets,
    facts::ClusterDns,
    policies::{
        rules::{self, Access, Direction, End, Port},
        view::{Client, PolicyView},
    },
};
use svcdiag_api::{LookupResult, Resolver};
use svcdiag_objects::{NetworkPolicy, Object, Open, Pod, Protocol};

/// Port of DNS.
pub(crate) const DNS_PORT: i32 = 53;

/// What keeps a client from looking names up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DnsDenial {
    /// No rule admits it to cluster DNS.
    ClusterDns,
    /// It asks a cache on its own node, at these addresses, in vain; no rule admits it to these.
    NodeCache(Vec<String>),
}

/// A client that cannot look names up.
pub(crate) struct CutOff<'a, 'b> {
    pub client: &'b Client<'a>,
    pub denial: DnsDenial,
}

impl<'a> PolicyView<'a> {
    /// Those of some clients that cannot look names up.
    pub(crate) fn cut_off<'b>(&self, clients: &[&'b Client<'a>]) -> Vec<CutOff<'a, 'b>> {
        let cut_off = |client: &&'b Client<'a>| {
            let denial = self.dns_access(client)?;
            Some(CutOff { client, denial })
        };
        clients.iter().filter_map(cut_off).collect()
    }

    /// What keeps a client from DNS for sure, if anything. A rule for a block of addresses may mean a DNS
    /// cache on the node, or a server outside the cluster.
    pub(crate) fn dns_access(&self, client: &Client) -> Option<DnsDenial> {
        if client.isolating.is_empty() {
            return None;
        }
        let resolver = self.resolver_of(client);
        let caches = resolver.map(|r| self.node_caches(r)).unwrap_or_default();
        if !caches.is_empty() {
            // Whether policies hold for what a node itself answers differs from plugin to plugin: its
            // silence has to be seen.
            let is_silent = resolver.is_some_and(|r| !r.lookups.is_empty() && !gets_answers(r));
            let is_denied = caches.iter().all(|ip| !self.admits_address(client, ip));
            return (is_silent && is_denied).then_some(DnsDenial::NodeCache(caches));
        }
        self.is_cut_off_from_pods(client).then_some(DnsDenial::ClusterDns)
    }

    /// Whether files hold look-ups of a client.
    pub(crate) fn has_saved_lookups(&self, client: &Client) -> bool {
        let key = targets::key(client.pod);
        let saved = self.facts.nodes.iter().filter(|n| n.saved.is_some());
        let seen = saved.filter_map(|n| n.probe.as_ref()?.facts.as_deref());
        let mut resolvers = seen.flat_map(|f| &f.resolvers);
        resolvers.any(|r| r.pod == key && !r.lookups.is_empty())
    }

    fn resolver_of(&self, client: &Client) -> Option<&Resolver> {
        resolver_of(self.facts, &targets::key(client.pod))
    }

    /// The servers of a client, where all of them are at addresses of its node (NodeLocal DNSCache).
    fn node_caches(&self, resolver: &Resolver) -> Vec<String> {
        let is_of_a_node = |ip: &String| {
            let is_link_local = match ip.parse() {
                Ok(IpAddr::V4(ip)) => ip.is_link_local(),
                Ok(IpAddr::V6(ip)) => ip.is_unicast_link_local(),
                Err(_) => false,
            };
            let mut addresses = self.facts.cluster_nodes.iter().flat_map(|n| &n.status.addresses);
            is_link_local || addresses.any(|a| a.address == *ip)
        };
        if resolver.servers.iter().all(is_of_a_node) {
            resolver.servers.clone()
        } else {
            Vec::new()
        }
    }

    fn admits_address(&self, client: &Client, ip: &str) -> bool {
        let to = End {
            pod: None,
            namespace_labels: None,
            addresses: &[ip.to_owned()],
            front: None,
        };
        rules::access(&client.isolating, Direction::Egress, to, dns_port(DNS_PORT), None) != Access::Denied
    }

    /// Whether for sure no query of the client gets to a Pod of cluster DNS.
    fn is_cut_off_from_pods(&self, client: &Client) -> bool {
        let dns = self.facts.cluster_dns.as_ref().filter(|dns| !dns.pods.is_empty());
        let resolver = self.resolver_of(client);
        let is_silent = resolver.is_some_and(|r| !r.lookups.is_empty() && !gets_answers(r));
        // Most network plugins see a DNS Pod where the Service was asked. That they do is seen by the silence.
        let is_asked = |dns: &ClusterDns| {
            let mut servers = resolver
                .iter()
                .flat_map(|r| &r.servers)
                .filter_map(|ip| ip.parse().ok());
            servers.any(|ip| targets::is_address_of(&dns.service, ip))
        };
        if !(is_silent && dns.is_some_and(is_asked))
            && rules::admits_a_block(&client.isolating, Direction::Egress, dns_port(DNS_PORT))
        {
            return false;
        }
        let Some(dns) = dns else {
            return !rules::admits_anybody(&client.isolating, Direction::Egress, dns_port(DNS_PORT), None);
        };
        dns.pods.iter().all(|pod| {
            let mut numbers = numbers(dns, pod);
            // Most network plugins see the Pod's own port. That the Service's does not help has to be seen.
            if numbers.is_empty() || !is_silent {
                numbers.push(DNS_PORT);
            }
            numbers.into_iter().all(|number| {
                let to = self.end_of(pod);
                rules::access(
                    &client.isolating,
                    Direction::Egress,
                    to,
                    dns_port(number),
                    Some(pod),
                ) == Access::Denied
            })
        })
    }
}

fn dns_port(number: i32) -> Port<'static> {
    Port {
        number,
        protocol: &Open::Known(Protocol::Udp),
    }
}

/// The ports at which a Pod of cluster DNS gets what is sent to its Service over UDP.
fn numbers(dns: &ClusterDns, pod: &Pod) -> Vec<i32> {
    let ports = dns.service.spec.ports.iter();
    let of_udp = ports.filter(|p| p.protocol == Protocol::Udp);
    of_udp
        .filter_map(|p| pod.resolve_port(&p.target_port(), &Open::Known(Protocol::Udp)))
        .collect()
}

/// Policies that let a client send nothing to any Pod of cluster DNS, as namespace/name.
pub(crate) fn closed_to(facts: &Facts, client: &Pod) -> Option<Vec<String>> {
    let dns = facts.cluster_dns.as_ref()?;
    let policies: Vec<&NetworkPolicy> = dns.policies.iter().map(AsRef::as_ref).collect();
    let from = End {
        pod: Some(client),
        namespace_labels: None,
        addresses: &[],
        front: None,
    };
    let mut names = BTreeSet::new();
    for pod in &dns.pods {
        let isolating = rules::isolating(&policies, pod, Direction::Ingress);
        let numbers = numbers(dns, pod);
        let is_denied = |number: &i32| {
            rules::access(&isolating, Direction::Ingress, from, dns_port(*number), Some(pod))
                == Access::Denied
        };
        if numbers.is_empty() || isolating.is_empty() || !numbers.iter().all(is_denied) {
            return None;
        }
        names.extend(
            isolating
                .iter()
                .map(|p| format!("{}/{}", p.namespace(), p.name())),
        );
    }
    (!names.is_empty()).then(|| names.into_iter().collect())
}

/// How a Pod, as namespace/name, looks names up, as far as it was seen.
pub(crate) fn resolver_of<'a>(facts: &'a Facts, key: &str) -> Option<&'a Resolver> {
    let reports = facts.nodes.iter().filter_map(|n| n.probe.as_ref());
    let seen = reports
        .filter(|p| p.is_current)
        .filter_map(|p| p.facts.as_deref());
    // A report that names a Pod twice is read the same way whatever its order.
    let of_pod = seen.flat_map(|f| &f.resolvers).filter(|r| r.pod == key);
    of_pod.min_by_key(|r| format!("{r:?}"))
}

/// Whether a client hears from its server at all.
pub(crate) fn gets_answers(resolver: &Resolver) -> bool {
    let is_answer = |r: LookupResult| matches!(r, LookupResult::Found | LookupResult::NotFound);
    resolver.lookups.iter().any(|l| is_answer(l.result))
}
