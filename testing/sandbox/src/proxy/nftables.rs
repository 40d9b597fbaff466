//! kube-proxy's table in nftables mode.
//!
//! Source: `setupNFTables` and `syncProxyRules` of kube-proxy's nftables proxier. The table is replaced as a
//! whole in one transaction. What a Service port adds to maps, sets and chains is collected in [`Additions`];
//! what every table holds (`base.rs`) is written around it.

mod base;
mod elements;

use std::fmt::Write;

use self::elements::Additions;
use super::{IpFamily, NodeView, Script, names::Nftables, select::ServicePort};

/// How endpoints are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// In a map of the Service's rule; packets of endpoints to themselves are found by a set.
    Maps,
    /// Each in a chain of its own, which also finds its packets to itself.
    Chains,
}

/// The mark of packets that are to be masqueraded, as nft writes it.
const MASQUERADE_MARK: &str = "0x00004000";

/// What replaces kube-proxy's tables; a family without ports has none.
pub(super) fn sync(
    layout: Layout,
    families: &[(IpFamily, Option<Vec<ServicePort>>)],
    node: &NodeView,
) -> Script {
    let mut text = String::new();
    for (family, ports) in families {
        text += &removal(*family);
        if let Some(ports) = ports {
            text += &Table::of(layout, *family, node).render(ports);
        }
    }
    script(text)
}

/// What removes kube-proxy's tables.
pub(super) fn cleanup() -> Script {
    script(IpFamily::ALL.into_iter().map(removal).collect())
}

fn script(wanted: String) -> Script {
    Script {
        present: None,
        program: "nft",
        args: &["-f", "-"],
        wanted,
    }
}

/// Removes a table that may not exist.
fn removal(family: IpFamily) -> String {
    let ip = keyword(family);
    format!("add table {ip} kube-proxy\ndelete table {ip} kube-proxy\n")
}

fn keyword(family: IpFamily) -> &'static str {
    match family {
        IpFamily::V4 => "ip",
        IpFamily::V6 => "ip6",
    }
}

/// A table of one family.
struct Table<'a> {
    layout: Layout,
    node: &'a NodeView,
    /// `ip` or `ip6`.
    ip: &'static str,
    family: IpFamily,
}

impl<'a> Table<'a> {
    fn of(layout: Layout, family: IpFamily, node: &'a NodeView) -> Self {
        Self {
            layout,
            node,
            ip: keyword(family),
            family,
        }
    }

    /// The rule that marks packets for masquerading.
    fn mark(&self) -> String {
        match self.layout {
            Layout::Maps => format!("meta mark set meta mark | {MASQUERADE_MARK}"),
            Layout::Chains => "jump mark-for-masquerade".to_owned(),
        }
    }

    /// The network of Pods.
    fn pods(&self) -> Option<String> {
        let mut nets = self.family.select_nets(&self.node.pod_cidrs);
        nets.next().map(|net| net.to_string())
    }

    /// Adds what a Service port needs.
    fn add(&self, port: &ServicePort, to: &mut Additions) {
        let names = Nftables::of(&port.name);
        let protocol = port.name.protocol.lower_case();
        let number = port.port;
        let internal = if port.internally_local {
            names.local()
        } else {
            names.cluster()
        };

        to.cluster_ips.add(&port.cluster_ip.to_string());
        let key = format!("{} . {protocol} . {number}", port.cluster_ip);
        match port.internal_refusal() {
            None => to.service_ips.add_goto(&key, &internal),
            Some(refusal) => to.no_endpoint_services.add_refusal(&key, refusal, port),
        }
        for ip in port.external_ips.iter().chain(&port.load_balancer_ips) {
            let key = format!("{ip} . {protocol} . {number}");
            if port.uses_external_chain() {
                to.service_ips.add_goto(&key, &names.external());
            }
            if let Some(refusal) = port.external_refusal() {
                to.no_endpoint_services.add_refusal(&key, refusal, port);
            }
        }
        if let Some(node_port) = port.node_port {
            let key = format!("{protocol} . {node_port}");
            if port.uses_external_chain() {
                to.service_node_ports.add_goto(&key, &names.external());
            }
            if let Some(refusal) = port.external_refusal() {
                to.no_endpoint_node_ports.add_refusal(&key, refusal, port);
            }
        }
        if port.is_guarded() {
            let firewall = names.firewall();
            for ip in &port.load_balancer_ips {
                let key = format!("{ip} . {protocol} . {number}");
                to.firewall_ips.add_goto(&key, &firewall);
            }
            let sources: Vec<_> = port.admitted(self.node).iter().map(ToString::to_string).collect();
            let rule = format!("{} saddr != {{ {} }} drop", self.ip, sources.join(", "));
            to.chain(&firewall, &[rule]);
        }
        if port.uses_external_chain() {
            to.chain(&names.external(), &self.external_rules(port, &names));
        }
        self.add_endpoints(port, &names, to);
    }

    fn external_rules(&self, port: &ServicePort, names: &Nftables) -> Vec<String> {
        let mark = self.mark();
        let cluster = names.cluster();
        if !port.externally_local {
            return vec![
                format!("{mark} comment \"masquerade\""),
                format!("goto {cluster}"),
            ];
        }
        let mut rules = Vec::new();
        rules.extend(self.pods().map(|pods| {
            let ip = self.ip;
            format!("{ip} saddr {pods} goto {cluster} comment \"short-circuit pod traffic\"")
        }));
        rules.push(format!(
            "fib saddr type local {mark} comment \"masquerade local traffic\""
        ));
        rules.push(format!(
            "fib saddr type local goto {cluster} comment \"short-circuit local traffic\""
        ));
        if port.external_refusal().is_none() {
            rules.push(format!("goto {}", names.local()));
        }
        rules
    }

    /// Chains of the policies in use and what stands behind them.
    fn add_endpoints(&self, port: &ServicePort, names: &Nftables, to: &mut Additions) {
        let ip = self.ip;
        let protocol = port.name.protocol.lower_case();
        let endpoints = &port.endpoints;
        let policies = [
            (
                false,
                port.uses_cluster_chain(),
                names.cluster(),
                &endpoints.cluster,
            ),
            (true, port.uses_local_chain(), names.local(), &endpoints.local),
        ];
        let has_chains = self.layout == Layout::Chains || port.affinity.is_some();
        for (is_local, is_used, chain, endpoints) in policies {
            if !is_used {
                continue;
            }
            let mut rules = Vec::new();
            if self.layout == Layout::Chains
                && port.internally_local == is_local
                && port.internal_refusal().is_none()
                && let Some(pods) = self.pods()
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
            let choice = format!("numgen random mod {}", endpoints.len());
            rules.push(if has_chains {
                let chains = numbered(endpoints.iter().map(|e| format!("goto {}", names.endpoint(*e))));
                format!("{choice} vmap {{ {chains} }}")
            } else {
                let addresses = numbered(endpoints.iter().map(|e| format!("{} . {}", e.ip(), e.port())));
                format!("meta l4proto {protocol} dnat {ip} to {choice} map {{ {addresses} }}")
            });
            to.chain(&chain, &rules);
        }
        if self.layout == Layout::Maps {
            for endpoint in &endpoints.here {
                let ip = endpoint.ip();
                let key = format!("{ip} . {ip} . {protocol} . {}", endpoint.port());
                to.hairpins.add(&key);
            }
        }
        if !has_chains {
            return;
        }
        for endpoint in &endpoints.reachable {
            let mut rules = Vec::new();
            if self.layout == Layout::Chains {
                rules.push(format!("{ip} saddr {} {}", endpoint.ip(), self.mark()));
            }
            if let Some(seconds) = port.affinity {
                let set = names.affinity(*endpoint);
                let address = match self.family {
                    IpFamily::V4 => "ipv4_addr",
                    IpFamily::V6 => "ipv6_addr",
                };
                let _ = writeln!(
                    to.affinity_sets,
                    "\tset {set} {{\n\t\ttype {address}\n\t\tflags dynamic,timeout\n\t\ttimeout {seconds}s\n\t}}"
                );
                rules.push(format!("update @{set} {{ {ip} saddr }}"));
            }
            rules.push(format!("meta l4proto {protocol} dnat to {endpoint}"));
            to.chain(&names.endpoint(*endpoint), &rules);
        }
    }
}

/// The elements of a map by number.
fn numbered(values: impl Iterator<Item = String>) -> String {
    let elements: Vec<_> = values
        .enumerate()
        .map(|(i, value)| format!("{i} : {value}"))
        .collect();
    elements.join(", ")
}
