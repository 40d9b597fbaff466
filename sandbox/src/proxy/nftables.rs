//! nftables mode: a table `kube-proxy` in each IP family.
//!
//! Source: `setupNFTables`, `syncProxyRules` and `writeServiceToEndpointRules` of kube-proxy's nftables
//! proxier. kube-proxy changes its table piece by piece; here one transaction replaces it, so that clients of
//! Services with affinity may get another endpoint after each sync.

mod frame;

use std::{collections::BTreeMap, net::SocketAddr};

use super::{
    Cluster, Family, NodeView, Script,
    names::Nftables as Names,
    ports::{Port, ports},
};

/// How endpoints are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The Service's chain maps to its endpoints, but for Services with affinity; a set tells Pods that
    /// reach themselves.
    Maps,
    /// Every endpoint has a chain; packets to be masqueraded are marked in a chain of its own.
    EndpointChains,
}

/// The program that replaces kube-proxy's tables.
pub fn rules(layout: Layout, cluster: &Cluster, node: &NodeView) -> Vec<Script> {
    let mut text = String::new();
    for family in Family::ALL {
        text.push_str(&removal(family));
        let ports = ports(cluster, node, family);
        if family == Family::V4 || !ports.is_empty() {
            let mut table = Table::new(layout, family, cluster, node);
            for port in &ports {
                table.add(port);
            }
            text.push_str(&table.text());
        }
    }
    vec![nft(text)]
}

/// The program that removes them.
pub fn cleanup() -> Vec<Script> {
    vec![nft(Family::ALL.into_iter().map(removal).collect())]
}

fn nft(stdin: String) -> Script {
    Script {
        program: "nft",
        args: vec!["-f", "-"],
        stdin,
    }
}

/// Deleting takes a table that is there, adding one takes none that is not.
fn removal(family: Family) -> String {
    let ip = ip(family);
    format!("add table {ip} kube-proxy\ndelete table {ip} kube-proxy\n")
}

/// The family's name, for tables as for fields of packets.
fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// Elements of a set or map. Two Services can claim one address: the first has it.
#[derive(Debug, Default)]
struct Elements(BTreeMap<String, String>);

impl Elements {
    fn add(&mut self, key: &str, value: &str) {
        self.0.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }
}

/// A table in the making.
struct Table<'a> {
    layout: Layout,
    family: Family,
    cluster: &'a Cluster,
    node: &'a NodeView,
    hairpin_connections: Elements,
    cluster_ips: Elements,
    no_endpoint_services: Elements,
    no_endpoint_nodeports: Elements,
    firewall_ips: Elements,
    service_ips: Elements,
    service_nodeports: Elements,
    /// Sets of the clients that stay with an endpoint, with their timeouts in seconds.
    affinity: Vec<(String, i32)>,
    /// Chains of Services with their rules.
    chains: Vec<(String, Vec<String>)>,
}

impl<'a> Table<'a> {
    fn new(layout: Layout, family: Family, cluster: &'a Cluster, node: &'a NodeView) -> Self {
        Self {
            layout,
            family,
            cluster,
            node,
            hairpin_connections: Elements::default(),
            cluster_ips: Elements::default(),
            no_endpoint_services: Elements::default(),
            no_endpoint_nodeports: Elements::default(),
            firewall_ips: Elements::default(),
            service_ips: Elements::default(),
            service_nodeports: Elements::default(),
            affinity: Vec::new(),
            chains: Vec::new(),
        }
    }

    fn add(&mut self, port: &Port) {
        let names = Names::of(&port.name);
        self.capture(port, &names);
        if port.has_endpoints && port.is_external() {
            let rules = self.external_rules(port, &names);
            self.chains.push((names.external(), rules));
        }
        if !port.cluster.is_empty() {
            self.balance(port, &names, &names.cluster(), &port.cluster);
        }
        if !port.local.is_empty() {
            self.balance(port, &names, &names.local(), &port.local);
        }
        let has_endpoint_chains = self.layout == Layout::EndpointChains || port.affinity.is_some();
        for endpoint in port.reachable.iter().filter(|_| has_endpoint_chains) {
            let rules = self.endpoint_rules(port, &names, *endpoint);
            self.chains.push((names.endpoint(*endpoint), rules));
        }
        if let Some(seconds) = port.affinity {
            let sets = port.reachable.iter().map(|e| (names.affinity(*e), seconds));
            self.affinity.extend(sets);
        }
        let protocol = port.name.protocol.lower_case();
        for endpoint in &port.here {
            let (ip, port) = (endpoint.ip(), endpoint.port());
            self.hairpin_connections
                .add(&format!("{ip} . {ip} . {protocol} . {port}"), "");
        }
    }

    /// Elements of the maps that say where packets to the Service go.
    fn capture(&mut self, port: &Port, names: &Names) {
        let protocol = port.name.protocol.lower_case();
        let address = |ip| format!("{ip} . {protocol} . {}", port.port);
        let goto = |chain: &str| format!(" : goto {chain}");
        // Without any endpoint the sender is told; with none that the Local policy allows packets vanish.
        let refused = {
            let verdict = if port.has_endpoints {
                "drop"
            } else {
                "goto reject-chain"
            };
            format!(" comment \"{}\" : {verdict}", port.name)
        };

        self.cluster_ips.add(&port.cluster_ip.to_string(), "");
        let key = address(port.cluster_ip);
        if port.has_internal_endpoints() {
            let chain = if port.internal_local {
                names.local()
            } else {
                names.cluster()
            };
            self.service_ips.add(&key, &goto(&chain));
        } else {
            self.no_endpoint_services.add(&key, &refused);
        }

        for ip in port.external_ips.iter().chain(&port.load_balancer_ips) {
            let key = address(*ip);
            if port.has_endpoints {
                self.service_ips.add(&key, &goto(&names.external()));
            }
            if !port.has_external_endpoints() {
                self.no_endpoint_services.add(&key, &refused);
            }
        }
        if let Some(node_port) = port.node_port {
            let key = format!("{protocol} . {node_port}");
            if port.has_endpoints {
                self.service_nodeports.add(&key, &goto(&names.external()));
            }
            if !port.has_external_endpoints() {
                self.no_endpoint_nodeports.add(&key, &refused);
            }
        }

        if !port.load_balancer_ips.is_empty() && !port.source_ranges.is_empty() {
            for ip in &port.load_balancer_ips {
                self.firewall_ips.add(&address(*ip), &goto(&names.firewall()));
            }
            let ranges = port.source_ranges.iter().map(ToString::to_string);
            let own = port
                .sources_of_node(self.node.ip(self.family))
                .iter()
                .map(ToString::to_string);
            let sources: Vec<String> = ranges.chain(own).collect();
            let rule = format!("{} saddr != {{ {} }} drop", ip(self.family), sources.join(", "));
            self.chains.push((names.firewall(), vec![rule]));
        }
    }

    /// The statement that has a packet masqueraded.
    fn mark(&self) -> &'static str {
        match self.layout {
            Layout::Maps => "meta mark set meta mark | 0x4000",
            Layout::EndpointChains => "jump mark-for-masquerade",
        }
    }

    /// Rules for traffic from outside the cluster, or what looks like it.
    fn external_rules(&self, port: &Port, names: &Names) -> Vec<String> {
        let mark = self.mark();
        let mut rules = Vec::new();
        if port.external_local {
            let cluster = names.cluster();
            if let Some(pods) = self.family.first(&self.node.cluster_cidrs) {
                rules.push(format!(
                    "{} saddr {pods} goto {cluster} comment \"short-circuit pod traffic\"",
                    ip(self.family)
                ));
            }
            rules.push(format!(
                "fib saddr type local {mark} comment \"masquerade local traffic\""
            ));
            rules.push(format!(
                "fib saddr type local goto {cluster} comment \"short-circuit local traffic\""
            ));
        } else {
            rules.push(match self.layout {
                Layout::Maps => format!("{mark} comment \"masquerade\""),
                Layout::EndpointChains => mark.to_owned(),
            });
        }
        if port.has_external_endpoints() {
            let chain = if port.external_local {
                names.local()
            } else {
                names.cluster()
            };
            rules.push(format!("goto {chain}"));
        }
        rules
    }

    /// The chain that chooses an endpoint.
    fn balance(&mut self, port: &Port, names: &Names, chain: &str, endpoints: &[SocketAddr]) {
        let ip = ip(self.family);
        let protocol = port.name.protocol.lower_case();
        let mut rules = Vec::new();
        let internal = if port.internal_local {
            names.local()
        } else {
            names.cluster()
        };
        if self.layout == Layout::EndpointChains
            && chain == internal
            && let Some(pods) = self.family.first(&self.node.cluster_cidrs)
        {
            rules.push(format!(
                "{ip} daddr {} {protocol} dport {} {ip} saddr != {pods} {}",
                port.cluster_ip,
                port.port,
                self.mark()
            ));
        }
        if port.affinity.is_some() {
            rules.extend(endpoints.iter().map(|e| {
                let (set, chain) = (names.affinity(*e), names.endpoint(*e));
                format!("{ip} saddr @{set} goto {chain}")
            }));
        }
        let count = endpoints.len();
        if self.layout == Layout::Maps && port.affinity.is_none() {
            let elements = endpoints.iter().map(|e| format!("{} . {}", e.ip(), e.port()));
            rules.push(format!(
                "meta l4proto {protocol} dnat {ip} to numgen random mod {count} map {}",
                numbered(elements)
            ));
        } else {
            let elements = endpoints.iter().map(|e| format!("goto {}", names.endpoint(*e)));
            rules.push(format!("numgen random mod {count} vmap {}", numbered(elements)));
        }
        self.chains.push((chain.to_owned(), rules));
    }

    fn endpoint_rules(&self, port: &Port, names: &Names, endpoint: SocketAddr) -> Vec<String> {
        let ip = ip(self.family);
        let mut rules = Vec::new();
        if self.layout == Layout::EndpointChains {
            rules.push(format!("{ip} saddr {} {}", endpoint.ip(), self.mark()));
        }
        if port.affinity.is_some() {
            rules.push(format!("update @{} {{ {ip} saddr }}", names.affinity(endpoint)));
        }
        let protocol = port.name.protocol.lower_case();
        rules.push(format!("meta l4proto {protocol} dnat to {endpoint}"));
        rules
    }
}

/// `{ 0 : a, 1 : b }`
fn numbered(elements: impl Iterator<Item = String>) -> String {
    let elements: Vec<String> = elements.enumerate().map(|(i, e)| format!("{i} : {e}")).collect();
    format!("{{ {} }}", elements.join(", "))
}
