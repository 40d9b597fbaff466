//! kube-proxy's chains in iptables mode.
//!
//! Source: `iptablesJumpChains` and `syncProxyRules` of kube-proxy's iptables proxier. [`sync`] writes the
//! chains of the tables mangle, filter and nat as `iptables-restore` reads them; `merge` adds what removes
//! the chains that are there and no longer wanted, as kube-proxy does it, so that rules of others stay.

mod table;

use ipnet::IpNet;

use self::table::{Table, comment_of};
use super::{
    IpFamily, NodeView, Script,
    names::Iptables,
    select::{Refusal, ServicePort},
};

/// Which kernel interface the tools use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    /// nf_tables.
    NfTables,
    /// The old one.
    Legacy,
}

/// With more endpoints, kube-proxy leaves comments off the rules of endpoints.
const MANY_ENDPOINTS: usize = 1_000;

/// Wanted rules where none are wanted.
const NOTHING: &str = "*mangle\nCOMMIT\n*filter\nCOMMIT\n*nat\nCOMMIT\n";

/// What makes kube-proxy's chains the wanted ones; a family without ports has none.
pub(super) fn sync(
    backend: Backend,
    families: &[(IpFamily, Option<Vec<ServicePort>>)],
    node: &NodeView,
) -> Vec<Script> {
    families
        .iter()
        .map(|(family, ports)| match ports {
            Some(ports) => script(backend, *family, &Writer::of(*family, ports, node).render(ports)),
            None => script(backend, *family, NOTHING),
        })
        .collect()
}

/// What removes kube-proxy's chains.
pub(super) fn cleanup(backend: Backend) -> Vec<Script> {
    IpFamily::ALL
        .into_iter()
        .map(|family| script(backend, family, NOTHING))
        .collect()
}

fn script(backend: Backend, family: IpFamily, wanted: &str) -> Script {
    let (save, restore) = match (backend, family) {
        (Backend::NfTables, IpFamily::V4) => ("iptables-nft-save", "iptables-nft-restore"),
        (Backend::NfTables, IpFamily::V6) => ("ip6tables-nft-save", "ip6tables-nft-restore"),
        (Backend::Legacy, IpFamily::V4) => ("iptables-legacy-save", "iptables-legacy-restore"),
        (Backend::Legacy, IpFamily::V6) => ("ip6tables-legacy-save", "ip6tables-legacy-restore"),
    };
    Script {
        present: Some(save),
        program: restore,
        args: &["-w", "5", "--noflush"],
        wanted: wanted.to_owned(),
    }
}

/// Rules of one family.
struct Writer<'a> {
    family: IpFamily,
    node: &'a NodeView,
    filter: Table,
    nat: Table,
    is_large: bool,
}

impl<'a> Writer<'a> {
    fn of(family: IpFamily, ports: &[ServicePort], node: &'a NodeView) -> Self {
        let endpoints: usize = ports.iter().map(|port| port.endpoints.reachable.len()).sum();
        Self {
            family,
            node,
            filter: Table::with_chains(&[
                "KUBE-EXTERNAL-SERVICES",
                "KUBE-FORWARD",
                "KUBE-NODEPORTS",
                "KUBE-PROXY-CANARY",
                "KUBE-PROXY-FIREWALL",
                "KUBE-SERVICES",
            ]),
            nat: Table::with_chains(&[
                "KUBE-MARK-MASQ",
                "KUBE-NODEPORTS",
                "KUBE-POSTROUTING",
                "KUBE-PROXY-CANARY",
                "KUBE-SERVICES",
            ]),
            is_large: endpoints > MANY_ENDPOINTS,
        }
    }

    fn render(mut self, ports: &[ServicePort]) -> String {
        for port in ports {
            self.add(port);
        }
        let not_localhost = match self.family {
            IpFamily::V4 => "",
            IpFamily::V6 => "! -d ::1/128",
        };
        let last = comment_of("kubernetes service nodeports; NOTE: this must be the last rule in this chain");
        let local = "-m addrtype --dst-type LOCAL";
        self.nat.rule(
            "KUBE-SERVICES",
            &[not_localhost, &last, local, "-j KUBE-NODEPORTS"],
        );
        self.nat
            .rule("KUBE-MARK-MASQ", &["-j MARK --set-xmark 0x4000/0x4000"]);
        let postrouting = [
            "-m mark ! --mark 0x4000/0x4000 -j RETURN",
            "-j MARK --set-xmark 0x4000/0x0",
            "-m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully",
        ];
        for rule in postrouting {
            self.nat.rule("KUBE-POSTROUTING", &[rule]);
        }
        let forward = [
            "-m conntrack --ctstate INVALID -j DROP",
            "-m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT",
            "-m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate \
             RELATED,ESTABLISHED -j ACCEPT",
        ];
        for rule in forward {
            self.filter.rule("KUBE-FORWARD", &[rule]);
        }
        let mangle = Table::with_chains(&["KUBE-PROXY-CANARY"]);
        mangle.render("mangle") + &self.filter.render("filter") + &self.nat.render("nat")
    }

    /// The network of Pods.
    fn pods(&self) -> Option<IpNet> {
        self.family.select_nets(&self.node.pod_cidrs).next()
    }

    fn add(&mut self, port: &ServicePort) {
        let names = Iptables::of(&port.name);
        self.capture_internal(port, &names);
        self.capture_external(port, &names);
        self.add_external_chain(port, &names);
        self.add_endpoints(port, &names);
    }

    /// The ClusterIP.
    fn capture_internal(&mut self, port: &ServicePort, names: &Iptables) {
        let (protocol, dport) = protocol_and_port(port, port.port);
        let to = format!("-d {}", IpNet::from(port.cluster_ip));
        if let Some(refusal) = port.internal_refusal() {
            let (comment, verdict) = refused(port, refusal, self.family);
            self.filter
                .rule("KUBE-SERVICES", &[&to, &protocol, &comment, &dport, verdict]);
            return;
        }
        let chain = if port.internally_local {
            names.local()
        } else {
            names.cluster()
        };
        let comment = comment_of(&format!("{} cluster IP", port.name));
        let jump = format!("-j {chain}");
        self.nat
            .rule("KUBE-SERVICES", &[&to, &protocol, &comment, &dport, &jump]);
        if let Some(pods) = self.pods() {
            let from = format!("! -s {pods}");
            self.nat.rule(
                &chain,
                &[&from, &to, &protocol, &comment, &dport, "-j KUBE-MARK-MASQ"],
            );
        }
    }

    /// External addresses, load balancer addresses and the node port.
    fn capture_external(&mut self, port: &ServicePort, names: &Iptables) {
        let (protocol, dport) = protocol_and_port(port, port.port);
        let external = names.external();
        let is_guarded = port.is_guarded() && port.endpoints.exist;
        let balanced = if is_guarded {
            names.firewall()
        } else {
            external.clone()
        };
        let refused = port.external_refusal().map(|r| refused(port, r, self.family));
        let external_ips = port.external_ips.iter().map(|ip| (ip, "external IP", &external));
        let balancer_ips = port
            .load_balancer_ips
            .iter()
            .map(|ip| (ip, "loadbalancer IP", &balanced));
        for (ip, what, chain) in external_ips.chain(balancer_ips) {
            let to = format!("-d {}", IpNet::from(*ip));
            if port.uses_external_chain() {
                let comment = comment_of(&format!("{} {what}", port.name));
                let jump = format!("-j {chain}");
                self.nat
                    .rule("KUBE-SERVICES", &[&to, &protocol, &comment, &dport, &jump]);
            }
            if let Some((comment, verdict)) = &refused {
                let parts = [&to, &protocol, comment.as_str(), &dport, verdict];
                self.filter.rule("KUBE-EXTERNAL-SERVICES", &parts);
            }
        }
        if is_guarded {
            let comment = format!("{} traffic not accepted by {}", port.name, names.firewall());
            let comment = comment_of(&comment);
            for ip in &port.load_balancer_ips {
                let to = format!("-d {}", IpNet::from(*ip));
                self.filter.rule(
                    "KUBE-PROXY-FIREWALL",
                    &[&to, &protocol, &comment, &dport, "-j DROP"],
                );
            }
        }
        if let Some(node_port) = port.node_port {
            let (protocol, dport) = protocol_and_port(port, node_port);
            if port.uses_external_chain() {
                let comment = comment_of(&port.name.to_string());
                let jump = format!("-j {external}");
                self.nat
                    .rule("KUBE-NODEPORTS", &[&protocol, &comment, &dport, &jump]);
            }
            if let Some((comment, verdict)) = &refused {
                let local = "-m addrtype --dst-type LOCAL";
                self.filter.rule(
                    "KUBE-EXTERNAL-SERVICES",
                    &[&protocol, comment, local, &dport, verdict],
                );
            }
        }
        if let Some(health) = port.health_check_node_port {
            let comment = comment_of(&format!("{} health check node port", port.name));
            let dport = format!("-m tcp --dport {health}");
            self.filter
                .rule("KUBE-NODEPORTS", &["-p tcp", &comment, &dport, "-j ACCEPT"]);
        }
    }

    /// What becomes of packets to external addresses, and who may send them to load balancer addresses.
    fn add_external_chain(&mut self, port: &ServicePort, names: &Iptables) {
        if !port.uses_external_chain() {
            return;
        }
        let external = names.external();
        let (to_cluster, mark) = (format!("-j {}", names.cluster()), "-j KUBE-MARK-MASQ");
        let comment = |what| comment_of(&format!("{what} for {} external destinations", port.name));
        self.nat.chain(&external);
        if port.externally_local {
            if let Some(pods) = self.pods() {
                let from = format!("-s {pods}");
                self.nat
                    .rule(&external, &[&from, &comment("pod traffic"), &to_cluster]);
            }
            let local = "-m addrtype --src-type LOCAL";
            self.nat
                .rule(&external, &[&comment("masquerade LOCAL traffic"), local, mark]);
            self.nat
                .rule(&external, &[&comment("route LOCAL traffic"), local, &to_cluster]);
            if port.external_refusal().is_none() {
                self.nat.rule(&external, &[&format!("-j {}", names.local())]);
            }
        } else {
            self.nat.rule(&external, &[&comment("masquerade traffic"), mark]);
            self.nat.rule(&external, &[&to_cluster]);
        }
        if port.is_guarded() {
            let firewall = names.firewall();
            self.nat.chain(&firewall);
            let comment = comment_of(&format!("{} loadbalancer IP", port.name));
            let jump = format!("-j {external}");
            for source in port.admitted(self.node) {
                self.nat
                    .rule(&firewall, &[&format!("-s {source}"), &comment, &jump]);
            }
            let rest = format!(
                "other traffic to {} will be dropped by KUBE-PROXY-FIREWALL",
                port.name
            );
            self.nat.rule(&firewall, &[&comment_of(&rest)]);
        }
    }

    /// Chains of the policies in use, and those of the endpoints.
    fn add_endpoints(&mut self, port: &ServicePort, names: &Iptables) {
        let endpoints = &port.endpoints;
        let policies = [
            (port.uses_cluster_chain(), names.cluster(), &endpoints.cluster),
            (port.uses_local_chain(), names.local(), &endpoints.local),
        ];
        let optional = |text: String| {
            if self.is_large {
                String::new()
            } else {
                comment_of(&text)
            }
        };
        for (_, chain, endpoints) in policies.into_iter().filter(|(is_used, ..)| *is_used) {
            self.nat.chain(&chain);
            let steps: Vec<_> = endpoints
                .iter()
                .map(|e| (names.endpoint(*e), optional(format!("{} -> {e}", port.name))))
                .collect();
            if let Some(seconds) = port.affinity {
                for (next, comment) in &steps {
                    let known = format!("-m recent --rcheck --seconds {seconds} --reap --name {next}");
                    self.nat.rule(&chain, &[comment, &known, &format!("-j {next}")]);
                }
            }
            for (i, (next, comment)) in steps.iter().enumerate() {
                let share = match steps.len() - i {
                    1 => String::new(),
                    left => {
                        // Thousands of endpoints at most: the number is exact.
                        let probability = 1.0 / f64::from(u32::try_from(left).unwrap_or(u32::MAX));
                        format!("-m statistic --mode random --probability {probability:.10}")
                    }
                };
                self.nat.rule(&chain, &[comment, &share, &format!("-j {next}")]);
            }
        }
        let comment = optional(port.name.to_string());
        let protocol = port.name.protocol.lower_case();
        for endpoint in &endpoints.reachable {
            let chain = names.endpoint(*endpoint);
            let from = format!("-s {}", IpNet::from(endpoint.ip()));
            let known = port
                .affinity
                .map_or_else(String::new, |_| format!("-m recent --set --name {chain}"));
            let matches = format!("-m {protocol}");
            let to = format!("-j DNAT --to-destination {endpoint}");
            self.nat.chain(&chain);
            self.nat.rule(&chain, &[&from, &comment, "-j KUBE-MARK-MASQ"]);
            self.nat.rule(
                &chain,
                &[&format!("-p {protocol}"), &comment, &known, &matches, &to],
            );
        }
    }
}

fn protocol_and_port(port: &ServicePort, number: u16) -> (String, String) {
    let protocol = port.name.protocol.lower_case();
    (
        format!("-p {protocol}"),
        format!("-m {protocol} --dport {number}"),
    )
}

/// The comment and the target of a rule that refuses packets.
fn refused(port: &ServicePort, refusal: Refusal, family: IpFamily) -> (String, &'static str) {
    let (comment, target) = match (refusal, family) {
        (Refusal::Reject, IpFamily::V4) => (
            format!("{} has no endpoints", port.name),
            "-j REJECT --reject-with icmp-port-unreachable",
        ),
        (Refusal::Reject, IpFamily::V6) => (
            format!("{} has no endpoints", port.name),
            "-j REJECT --reject-with icmp6-port-unreachable",
        ),
        (Refusal::Drop, _) => (format!("{} has no local endpoints", port.name), "-j DROP"),
    };
    (comment_of(&comment), target)
}
