//! What the table holds whatever Services there are, and the text of it all.

use std::fmt::Write as _;

use ipnet::IpNet;

use super::{Elements, Layout, Table, ip};
use crate::proxy::Family;

impl Table<'_> {
    /// The table as `nft` reads it.
    pub(super) fn text(&self) -> String {
        let ip = ip(self.family);
        let address = match self.family {
            Family::V4 => "ipv4_addr",
            Family::V6 => "ipv6_addr",
        };
        let to_service = format!("{address} . inet_proto . inet_service : verdict");
        let to_node_port = "inet_proto . inet_service : verdict";
        let mut text = format!("table {ip} kube-proxy {{\n\tcomment \"rules for kube-proxy\"\n");
        if self.layout == Layout::Maps {
            let kind = format!("{address} . {address} . inet_proto . inet_service");
            let comment = "service hairpin connections";
            text.push_str(&set(
                "set hairpin-connections",
                &kind,
                comment,
                &self.hairpin_connections,
            ));
        }
        let mut node_ips = Elements::default();
        if let Some(ip) = self.node.ip(self.family) {
            node_ips.add(&ip.to_string(), "");
        }
        for (name, kind, comment, elements) in [
            ("set cluster-ips", address, "Active ClusterIPs", &self.cluster_ips),
            (
                "set nodeport-ips",
                address,
                "IPs that accept NodePort traffic",
                &node_ips,
            ),
            (
                "map no-endpoint-services",
                &to_service,
                "vmap to drop or reject packets to services with no endpoints",
                &self.no_endpoint_services,
            ),
            (
                "map no-endpoint-nodeports",
                to_node_port,
                "vmap to drop or reject packets to service nodeports with no endpoints",
                &self.no_endpoint_nodeports,
            ),
            (
                "map firewall-ips",
                &to_service,
                "destinations that are subject to LoadBalancerSourceRanges",
                &self.firewall_ips,
            ),
            (
                "map service-ips",
                &to_service,
                "ClusterIP, ExternalIP and LoadBalancer IP traffic",
                &self.service_ips,
            ),
            (
                "map service-nodeports",
                to_node_port,
                "NodePort traffic",
                &self.service_nodeports,
            ),
        ] {
            text.push_str(&set(name, kind, comment, elements));
        }
        for (name, seconds) in &self.affinity {
            let _ = write!(
                text,
                "\tset {name} {{\n\t\ttype {address}\n\t\tflags dynamic,timeout\n\t\ttimeout {seconds}s\n\t}}\n"
            );
        }
        let pods = self.family.first(&self.node.cluster_cidrs);
        let services = self.family.first(&self.cluster.service_cidrs);
        for (name, rules) in frame(self.layout, ip, pods, services).iter().chain(&self.chains) {
            let _ = write!(text, "\tchain {name} {{\n\t\t{}\n\t}}\n", rules.join("\n\t\t"));
        }
        text.push_str("}\n");
        text
    }
}

/// A set or a map.
fn set(name: &str, kind: &str, comment: &str, elements: &Elements) -> String {
    let all: Vec<String> = elements
        .0
        .iter()
        .map(|(key, value)| format!("{key}{value}"))
        .collect();
    let elements = match all[..] {
        [] => String::new(),
        _ => format!("\t\telements = {{ {} }}\n", all.join(",\n\t\t\t")),
    };
    format!("\t{name} {{\n\t\ttype {kind}\n\t\tcomment \"{comment}\"\n{elements}\t}}\n")
}

/// The chains that are the same whatever Services there are.
fn frame(
    layout: Layout,
    ip: &str,
    pods: Option<IpNet>,
    services: Option<IpNet>,
) -> Vec<(String, Vec<String>)> {
    let hook = |kind: &str, hook: &str, priority: &str| {
        format!("type {kind} hook {hook} priority {priority}; policy accept;")
    };
    let text = str::to_owned;
    let new = |chain: &str| format!("ct state new jump {chain}");
    let mut capture = vec![
        format!("{ip} daddr . meta l4proto . th dport vmap @service-ips"),
        format!("{ip} daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports"),
    ];
    let mut masquerading = vec![text(
        "meta mark & 0x4000 != 0 meta mark set meta mark ^ 0x4000 masquerade fully-random",
    )];
    if layout == Layout::Maps {
        if let Some(pods) = pods {
            capture.insert(
                0,
                format!(
                    "{ip} daddr @cluster-ips {ip} saddr != {pods} meta mark set meta mark | 0x4000 \
                     comment \"masquerade clusterIP traffic from outside cluster\""
                ),
            );
        }
        masquerading.push(format!(
            "ct status dnat {ip} saddr . {ip} daddr . meta l4proto . th dport @hairpin-connections \
             masquerade fully-random"
        ));
    }
    let mut cluster_ips_check = vec![format!(
        "{ip} daddr @cluster-ips reject comment \"Reject traffic to invalid ports of ClusterIPs\""
    )];
    cluster_ips_check.extend(services.map(|services| {
        format!("{ip} daddr {services} drop comment \"Drop traffic to unallocated ClusterIPs\"")
    }));
    let mut chains = vec![
        (
            "filter-prerouting-pre-dnat",
            vec![hook("filter", "prerouting", "-110"), new("firewall-check")],
        ),
        (
            "filter-output-pre-dnat",
            vec![hook("filter", "output", "-110"), new("firewall-check")],
        ),
        (
            "filter-input",
            vec![
                hook("filter", "input", "0"),
                new("nodeport-endpoints-check"),
                new("service-endpoints-check"),
            ],
        ),
        (
            "filter-forward",
            vec![
                hook("filter", "forward", "0"),
                new("service-endpoints-check"),
                new("cluster-ips-check"),
            ],
        ),
        (
            "filter-output",
            vec![
                hook("filter", "output", "0"),
                new("service-endpoints-check"),
                new("cluster-ips-check"),
            ],
        ),
        (
            "nat-prerouting",
            vec![hook("nat", "prerouting", "-100"), text("jump services")],
        ),
        (
            "nat-output",
            vec![hook("nat", "output", "-100"), text("jump services")],
        ),
        (
            "nat-postrouting",
            vec![hook("nat", "postrouting", "100"), text("jump masquerading")],
        ),
        (
            "nodeport-endpoints-check",
            vec![format!(
                "{ip} daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports"
            )],
        ),
        (
            "service-endpoints-check",
            vec![format!(
                "{ip} daddr . meta l4proto . th dport vmap @no-endpoint-services"
            )],
        ),
        (
            "firewall-check",
            vec![format!("{ip} daddr . meta l4proto . th dport vmap @firewall-ips")],
        ),
        ("services", capture),
        ("masquerading", masquerading),
        ("cluster-ips-check", cluster_ips_check),
        (
            "reject-chain",
            vec![
                text("comment \"helper for @no-endpoint-services / @no-endpoint-nodeports\""),
                text("reject"),
            ],
        ),
    ];
    if layout == Layout::EndpointChains {
        let mark = text("meta mark set meta mark | 0x4000");
        chains.push(("mark-for-masquerade", vec![mark]));
    }
    chains
        .into_iter()
        .map(|(name, rules)| (text(name), rules))
        .collect()
}
