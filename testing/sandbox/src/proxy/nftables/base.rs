//! What every table holds: its sets, maps and base chains, around what the Service ports add.

use super::{
    super::{IpFamily, select::ServicePort},
    Layout, MASQUERADE_MARK, Table,
    elements::{Additions, Elements, write_chain, write_set},
};

impl Table<'_> {
    pub(super) fn render(&self, ports: &[ServicePort]) -> String {
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
}
