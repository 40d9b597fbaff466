//! iptables mode: chains `KUBE-...` in the tables nat, filter and mangle of each IP family.
//!
//! Source: `syncProxyRules` and `writeServiceToEndpointRules` of kube-proxy's iptables proxier, but for what
//! only counts packets (nfacct), which not every kernel has.
//!
//! A restore that flushes nothing but the chains it names writes all chains anew; then a shell script
//! ([`TIDY`]) brings in the jumps from the base chains and removes the chains of Services that are gone.

mod frame;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use super::{
    Cluster, Family, NodeView, Script,
    names::Iptables as Names,
    ports::{Port, ports},
};

/// The programs of a backend, by IP family.
pub struct Backend {
    v4: Programs,
    v6: Programs,
}

struct Programs {
    save: &'static str,
    restore: &'static str,
}

/// The backend that writes to nf_tables.
pub const NF_TABLES: Backend = Backend {
    v4: Programs {
        save: "iptables-nft-save",
        restore: "iptables-nft-restore",
    },
    v6: Programs {
        save: "ip6tables-nft-save",
        restore: "ip6tables-nft-restore",
    },
};

/// The backend with tables of its own in the kernel.
pub const LEGACY: Backend = Backend {
    v4: Programs {
        save: "iptables-legacy-save",
        restore: "iptables-legacy-restore",
    },
    v6: Programs {
        save: "ip6tables-legacy-save",
        restore: "ip6tables-legacy-restore",
    },
};

/// With more endpoints than these kube-proxy leaves comments off the rules of endpoints.
const LARGE: usize = 1000;

/// Shell script that brings in the jumps and removes what is not wanted.
const TIDY: &str = include_str!("iptables/tidy.sh");

/// The programs that bring the chains of both families up to date.
pub fn rules(backend: &Backend, cluster: &Cluster, node: &NodeView) -> Vec<Script> {
    let mut scripts = Vec::new();
    for (family, programs) in [(Family::V4, &backend.v4), (Family::V6, &backend.v6)] {
        let ports = ports(cluster, node, family);
        if family == Family::V6 && ports.is_empty() {
            scripts.push(tidy(programs, String::new()));
            continue;
        }
        let mut tables = Tables::new(family, node, &ports);
        for port in &ports {
            tables.add(port);
        }
        scripts.push(Script {
            program: programs.restore,
            args: vec!["--noflush", "-w", "5"],
            stdin: tables.text(),
        });
        scripts.push(tidy(programs, tables.wanted()));
    }
    scripts
}

/// The programs that remove all chains and jumps.
pub fn cleanup(backend: &Backend) -> Vec<Script> {
    [&backend.v4, &backend.v6]
        .map(|programs| tidy(programs, String::new()))
        .into()
}

fn tidy(programs: &Programs, wanted: String) -> Script {
    Script {
        program: "sh",
        args: vec!["-ceu", TIDY, "sh", programs.save, programs.restore],
        stdin: wanted,
    }
}

/// The tables nat and filter in the making.
struct Tables<'a> {
    family: Family,
    node: &'a NodeView,
    is_large: bool,
    /// Chains of Services and endpoints, in nat.
    chains: BTreeSet<String>,
    nat: Vec<String>,
    filter: Vec<String>,
}

impl<'a> Tables<'a> {
    fn new(family: Family, node: &'a NodeView, ports: &[Port]) -> Self {
        Self {
            family,
            node,
            is_large: ports.iter().map(|port| port.reachable.len()).sum::<usize>() > LARGE,
            chains: BTreeSet::new(),
            nat: frame::nat(),
            filter: frame::filter(),
        }
    }

    fn add(&mut self, port: &Port) {
        let names = Names::of(&port.name);
        self.capture(port, &names);
        if port.has_endpoints && port.is_external() {
            self.external(port, &names);
        }
        if port.has_internal_endpoints()
            && let Some(pods) = self.family.first(&self.node.cluster_cidrs)
        {
            let chain = internal(port, &names);
            let to = to(port.cluster_ip, port);
            self.nat.push(format!(
                "-A {chain} ! -s {pods} {}{to} -j KUBE-MARK-MASQ",
                comment(&format!("{} cluster IP", port.name))
            ));
        }
        if !port.cluster.is_empty() {
            self.balance(port, &names, names.cluster(), &port.cluster);
        }
        if !port.local.is_empty() {
            self.balance(port, &names, names.local(), &port.local);
        }
        for endpoint in &port.reachable {
            self.endpoint(port, &names, *endpoint);
        }
    }

    /// Rules that say where packets to the Service go.
    fn capture(&mut self, port: &Port, names: &Names) {
        let name = &port.name;
        // Without any endpoint the sender is told; with none that the Local policy allows packets vanish.
        let (why, refuse) = if port.has_endpoints {
            (comment(&format!("{name} has no local endpoints")), "DROP")
        } else {
            (comment(&format!("{name} has no endpoints")), "REJECT")
        };

        let to_cluster_ip = to(port.cluster_ip, port);
        if port.has_internal_endpoints() {
            let (what, chain) = (comment(&format!("{name} cluster IP")), internal(port, names));
            self.nat
                .push(format!("-A KUBE-SERVICES {what}{to_cluster_ip} -j {chain}"));
        } else {
            self.filter
                .push(format!("-A KUBE-SERVICES {why}{to_cluster_ip} -j {refuse}"));
        }

        let is_guarded =
            port.has_endpoints && !port.load_balancer_ips.is_empty() && !port.source_ranges.is_empty();
        let balancer_chain = if is_guarded {
            names.firewall()
        } else {
            names.external()
        };
        let external = port
            .external_ips
            .iter()
            .map(|ip| (ip, "external", names.external()));
        let balancers = port
            .load_balancer_ips
            .iter()
            .map(|ip| (ip, "loadbalancer", balancer_chain.clone()));
        for (ip, kind, chain) in external.chain(balancers) {
            let to = to(*ip, port);
            if port.has_endpoints {
                let what = comment(&format!("{name} {kind} IP"));
                self.nat.push(format!("-A KUBE-SERVICES {what}{to} -j {chain}"));
            }
            if !port.has_external_endpoints() {
                self.filter
                    .push(format!("-A KUBE-EXTERNAL-SERVICES {why}{to} -j {refuse}"));
            }
        }
        if let Some(node_port) = port.node_port {
            let to = to_port(port, node_port);
            if port.has_endpoints {
                let (what, chain) = (comment(&name.to_string()), names.external());
                self.nat.push(format!("-A KUBE-NODEPORTS {what}{to} -j {chain}"));
            }
            if !port.has_external_endpoints() {
                self.filter.push(format!(
                    "-A KUBE-EXTERNAL-SERVICES {why}-m addrtype --dst-type LOCAL {to} -j {refuse}"
                ));
            }
        }
        if let Some(health) = port.health_check_node_port {
            let what = comment(&format!("{name} health check node port"));
            self.filter.push(format!(
                "-A KUBE-NODEPORTS {what}-p tcp -m tcp --dport {health} -j ACCEPT"
            ));
        }
        if is_guarded {
            self.firewall(port, names);
        }
    }

    /// loadBalancerSourceRanges: what does not get through the chain has not been sent to an endpoint, and is
    /// dropped in the filter table.
    fn firewall(&mut self, port: &Port, names: &Names) {
        let (name, chain, external) = (&port.name, names.firewall(), names.external());
        let what = comment(&format!("{name} loadbalancer IP"));
        let ranges = port.source_ranges.iter().map(ToString::to_string);
        let own = port.sources_of_node(self.node.ip(self.family));
        for source in ranges.chain(own.iter().map(ToString::to_string)) {
            self.nat
                .push(format!("-A {chain} -s {source} {what}-j {external}"));
        }
        let rest = comment(&format!(
            "other traffic to {name} will be dropped by KUBE-PROXY-FIREWALL"
        ));
        self.nat.push(format!("-A {chain} {}", rest.trim_end()));
        let why = comment(&format!("{name} traffic not accepted by {chain}"));
        for ip in &port.load_balancer_ips {
            let to = to(*ip, port);
            self.filter
                .push(format!("-A KUBE-PROXY-FIREWALL {why}{to} -j DROP"));
        }
        self.chains.insert(chain);
    }

    /// The chain of traffic from outside the cluster, or what looks like it.
    fn external(&mut self, port: &Port, names: &Names) {
        let (name, chain, cluster) = (&port.name, names.external(), names.cluster());
        let what = |what: &str| comment(&format!("{what} traffic for {name} external destinations"));
        if port.external_local {
            if let Some(pods) = self.family.first(&self.node.cluster_cidrs) {
                self.nat
                    .push(format!("-A {chain} -s {pods} {}-j {cluster}", what("pod")));
            }
            let local = "-m addrtype --src-type LOCAL";
            let (mark, route) = (what("masquerade LOCAL"), what("route LOCAL"));
            self.nat
                .push(format!("-A {chain} {mark}{local} -j KUBE-MARK-MASQ"));
            self.nat.push(format!("-A {chain} {route}{local} -j {cluster}"));
        } else {
            self.nat
                .push(format!("-A {chain} {}-j KUBE-MARK-MASQ", what("masquerade")));
        }
        if port.has_external_endpoints() {
            let policy = if port.external_local {
                names.local()
            } else {
                cluster
            };
            self.nat.push(format!("-A {chain} -j {policy}"));
        }
        self.chains.insert(chain);
    }

    /// The chain that chooses an endpoint.
    fn balance(&mut self, port: &Port, names: &Names, chain: String, endpoints: &[SocketAddr]) {
        let what = |endpoint: &SocketAddr| self.detail(format!("{} -> {endpoint}", port.name));
        let mut rules = Vec::new();
        if let Some(seconds) = port.affinity {
            rules.extend(endpoints.iter().map(|endpoint| {
                let (what, target) = (what(endpoint), names.endpoint(*endpoint));
                format!(
                    "-A {chain} {what}-m recent --name {target} --rcheck --seconds {seconds} --reap -j {target}"
                )
            }));
        }
        rules.extend(endpoints.iter().enumerate().map(|(i, endpoint)| {
            let (what, target) = (what(endpoint), names.endpoint(*endpoint));
            match endpoints.len() - i {
                1 => format!("-A {chain} {what}-j {target}"),
                #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52 endpoints")]
                left => format!(
                    "-A {chain} {what}-m statistic --mode random --probability {:.10} -j {target}",
                    1.0 / left as f64
                ),
            }
        }));
        self.nat.extend(rules);
        self.chains.insert(chain);
    }

    fn endpoint(&mut self, port: &Port, names: &Names, endpoint: SocketAddr) {
        let chain = names.endpoint(endpoint);
        let what = self.detail(port.name.to_string());
        self.nat
            .push(format!("-A {chain} {what}-s {} -j KUBE-MARK-MASQ", endpoint.ip()));
        let recent = match port.affinity {
            Some(_) => format!("-m recent --name {chain} --set "),
            None => String::new(),
        };
        let protocol = port.name.protocol.lower_case();
        self.nat.push(format!(
            "-A {chain} {what}{recent}-p {protocol} -m {protocol} -j DNAT --to-destination {endpoint}"
        ));
        self.chains.insert(chain);
    }

    /// A comment that large clusters go without.
    fn detail(&self, text: String) -> String {
        if self.is_large {
            String::new()
        } else {
            comment(&text)
        }
    }
}

/// The chain of traffic to the cluster IP.
fn internal(port: &Port, names: &Names) -> String {
    if port.internal_local {
        names.local()
    } else {
        names.cluster()
    }
}

/// Match of a comment, with a blank after it.
fn comment(text: &str) -> String {
    format!("-m comment --comment \"{text}\" ")
}

/// Match of packets to a port of an address.
fn to(ip: IpAddr, port: &Port) -> String {
    format!("-d {ip} {}", to_port(port, port.port))
}

fn to_port(port: &Port, number: u16) -> String {
    let protocol = port.name.protocol.lower_case();
    format!("-p {protocol} -m {protocol} --dport {number}")
}
