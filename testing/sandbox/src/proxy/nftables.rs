//! kube-proxy's table in nftables mode.
//!
//! Source: `setupNFTables` and `syncProxyRules` of kube-proxy's nftables proxier. The table is replaced as a
//! whole in one transaction. What a Service port adds to maps, sets and chains is collected in [`Additions`];
//! what every table holds is written around it.

use std::{collections::BTreeMap, fmt::Write};

use super::{
    IpFamily, NodeView, Script,
    names::Nftables,
    select::{Refusal, ServicePort},
};

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

/// Elements of a set or map by their keys, each with what follows its key. An address that two Services
/// claim belongs to the first.
#[derive(Default)]
struct Elements(BTreeMap<String, String>);

impl Elements {
    fn add(&mut self, key: &str) {
        self.0.entry(key.to_owned()).or_default();
    }

    fn add_goto(&mut self, key: &str, chain: &str) {
        let value = format!(" : goto {chain}");
        self.0.entry(key.to_owned()).or_insert(value);
    }

    fn add_refusal(&mut self, key: &str, refusal: Refusal, port: &ServicePort) {
        let verdict = match refusal {
            Refusal::Reject => "goto reject-chain",
            Refusal::Drop => "drop",
        };
        let value = format!(" comment \"{}\" : {verdict}", port.name);
        self.0.entry(key.to_owned()).or_insert(value);
    }
}

/// What the Service ports add to the table.
#[derive(Default)]
struct Additions {
    cluster_ips: Elements,
    hairpins: Elements,
    service_ips: Elements,
    service_node_ports: Elements,
    no_endpoint_services: Elements,
    no_endpoint_node_ports: Elements,
    firewall_ips: Elements,
    affinity_sets: String,
    chains: String,
}

impl Additions {
    fn chain(&mut self, name: &str, rules: &[String]) {
        write_chain(&mut self.chains, name, rules);
    }
}

fn write_chain(text: &mut String, name: &str, rules: &[String]) {
    let _ = writeln!(text, "\tchain {name} {{");
    for rule in rules {
        let _ = writeln!(text, "\t\t{rule}");
    }
    text.push_str("\t}\n");
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

    fn render(&self, ports: &[ServicePort]) -> String {
        let mut elements = Additions::default();
        for port in ports {
            self.add(port, &mut elements);
        }
        let (ip, family) = (self.ip, self.family);
        let mut text = format!("table {ip} kube-proxy {{\n\tcomment \"rules for kube-proxy\"\n");
        let address = match family {
            IpFamily::V4 => "ipv4_addr",
            IpFamily::V6 => "ipv6_addr",
        };
        let mut node_ips = Elements::default();
        for ip in family.select(&self.node.ips) {
            node_ips.add(&ip.to_string());
        }
        let destination = format!("{address} . inet_proto . inet_service");
        let verdicts = format!("{destination} : verdict");
        let node_ports = "inet_proto . inet_service : verdict";
        let mut write = |kind, name, key: &str, comment, elements: &_| {
            write_set(&mut text, kind, name, key, comment, elements);
        };
        if self.layout == Layout::Maps {
            write(
                "set",
                "hairpin-connections",
                &format!("{address} . {destination}"),
                "service hairpin connections",
                &elements.hairpins,
            );
        }
        write(
            "set",
            "cluster-ips",
            address,
            "Active ClusterIPs",
            &elements.cluster_ips,
        );
        write(
            "set",
            "nodeport-ips",
            address,
            "IPs that accept NodePort traffic",
            &node_ips,
        );
        write(
            "map",
            "no-endpoint-services",
            &verdicts,
            "vmap to drop or reject packets to services with no endpoints",
            &elements.no_endpoint_services,
        );
        write(
            "map",
            "no-endpoint-nodeports",
            node_ports,
            "vmap to drop or reject packets to service nodeports with no endpoints",
            &elements.no_endpoint_node_ports,
        );
        write(
            "map",
            "firewall-ips",
            &verdicts,
            "destinations that are subject to LoadBalancerSourceRanges",
            &elements.firewall_ips,
        );
        write(
            "map",
            "service-ips",
            &verdicts,
            "ClusterIP, ExternalIP and LoadBalancer IP traffic",
            &elements.service_ips,
        );
        write(
            "map",
            "service-nodeports",
            node_ports,
            "NodePort traffic",
            &elements.service_node_ports,
        );
        text += &elements.affinity_sets;
        self.base_chains(&mut text);
        text += &elements.chains;
        text.push_str("}\n");
        text
    }

    /// The chains that every table has.
    fn base_chains(&self, text: &mut String) {
        let ip = self.ip;
        let lookup = |map| format!("{ip} daddr . meta l4proto . th dport vmap @{map}");
        let node_port_lookup = |map| format!("{ip} daddr @nodeport-ips meta l4proto . th dport vmap @{map}");
        let new_to = |chain: &str| format!("ct state new jump {chain}");
        let (firewall, endpoints, unused) = (
            new_to("firewall-check"),
            new_to("service-endpoints-check"),
            new_to("cluster-ips-check"),
        );
        let node_ports = new_to("nodeport-endpoints-check");
        let (services, masquerading) = ("jump services".to_owned(), "jump masquerading".to_owned());
        let hooks = [
            (
                "filter-prerouting-pre-dnat",
                "filter hook prerouting priority -110",
                vec![&firewall],
            ),
            (
                "filter-output-pre-dnat",
                "filter hook output priority -110",
                vec![&firewall],
            ),
            (
                "filter-input",
                "filter hook input priority 0",
                vec![&node_ports, &endpoints],
            ),
            (
                "filter-forward",
                "filter hook forward priority 0",
                vec![&endpoints, &unused],
            ),
            (
                "filter-output",
                "filter hook output priority 0",
                vec![&endpoints, &unused],
            ),
            (
                "nat-prerouting",
                "nat hook prerouting priority -100",
                vec![&services],
            ),
            ("nat-output", "nat hook output priority -100", vec![&services]),
            (
                "nat-postrouting",
                "nat hook postrouting priority 100",
                vec![&masquerading],
            ),
        ];
        for (name, hook, jumps) in hooks {
            let mut rules = vec![format!("type {hook}; policy accept;")];
            rules.extend(jumps.into_iter().cloned());
            write_chain(text, name, &rules);
        }

        let mut services = Vec::new();
        if self.layout == Layout::Maps
            && let Some(pods) = self.pods()
        {
            services.push(format!(
                "{ip} daddr @cluster-ips {ip} saddr != {pods} {} comment \"masquerade clusterIP traffic from \
                 outside cluster\"",
                self.mark()
            ));
        }
        services.push(lookup("service-ips"));
        services.push(node_port_lookup("service-nodeports"));
        let mut unused = vec![format!(
            "{ip} daddr @cluster-ips reject comment \"Reject traffic to invalid ports of ClusterIPs\""
        )];
        let service_nets: Vec<_> = self
            .family
            .select_nets(&self.node.service_cidrs)
            .map(|net| net.to_string())
            .collect();
        let service_nets = match service_nets.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            several => Some(format!("{{ {} }}", several.join(", "))),
        };
        unused.extend(service_nets.map(|nets| {
            format!("{ip} daddr {nets} drop comment \"Drop traffic to unallocated ClusterIPs\"")
        }));
        let unmark = format!("meta mark set meta mark ^ {MASQUERADE_MARK}");
        let masquerading = match self.layout {
            Layout::Maps => vec![
                format!("meta mark & {MASQUERADE_MARK} != 0x00000000 {unmark} masquerade fully-random"),
                format!(
                    "ct status dnat {ip} saddr . {ip} daddr . meta l4proto . th dport @hairpin-connections \
                     masquerade fully-random"
                ),
            ],
            Layout::Chains => vec![
                format!("meta mark & {MASQUERADE_MARK} == 0x00000000 return"),
                unmark,
                "masquerade fully-random".to_owned(),
            ],
        };
        write_chain(
            text,
            "nodeport-endpoints-check",
            &[node_port_lookup("no-endpoint-nodeports")],
        );
        write_chain(text, "service-endpoints-check", &[lookup("no-endpoint-services")]);
        write_chain(text, "firewall-check", &[lookup("firewall-ips")]);
        write_chain(text, "services", &services);
        write_chain(text, "masquerading", &masquerading);
        write_chain(text, "cluster-ips-check", &unused);
        let helper = "comment \"helper for @no-endpoint-services / @no-endpoint-nodeports\"";
        write_chain(text, "reject-chain", &[helper.to_owned(), "reject".to_owned()]);
        if self.layout == Layout::Chains {
            let mark = format!("meta mark set meta mark | {MASQUERADE_MARK}");
            write_chain(text, "mark-for-masquerade", &[mark]);
        }
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

/// Writes a set or map.
fn write_set(text: &mut String, kind: &str, name: &str, key: &str, comment: &str, elements: &Elements) {
    let _ = writeln!(
        text,
        "\t{kind} {name} {{\n\t\ttype {key}\n\t\tcomment \"{comment}\""
    );
    let elements: Vec<_> = elements
        .0
        .iter()
        .map(|(key, rest)| format!("{key}{rest}"))
        .collect();
    if !elements.is_empty() {
        let _ = writeln!(text, "\t\telements = {{ {} }}", elements.join(",\n\t\t\t     "));
    }
    text.push_str("\t}\n");
}
