//! kube-proxy, the kubelet and the settings of a node.

use std::net::{IpAddr, SocketAddr};

use super::{
    super::Problem,
    files::{Form, TextFile},
    parse,
};
use crate::formats::rules::forwarding;
use crate::formats::text::{
    bridge,
    carrier_config::CarrierConfig,
    conntrack,
    kernel_log::KernelLog,
    kube_proxy_log::{ApiError, ApiErrorKind, KubeProxyLog},
    kubelet_config::KubeletConfig,
    kubelet_log::{HairpinMode, KubeletLog},
    ps::{Process, Ps},
    sysctl::Sysctl,
};
use crate::{
    api::{
        DialPath, GapKind, KubeProxy, NodeFacts, NodeSettings, PortState, RuleGap, Rules, StaleConnection,
    },
    diagnosis::{Facts, HairpinSetup, Saved, may_keep_nodes_away},
    objects::Object,
    proxy::{Backend, ExpectedPort, Protocol, ProxyMode, Vantage, expected},
};

/// Flags of kubelets that still acted on --hairpin-mode; those of today take it and do nothing.
const OLD_FLAGS: [&str; 4] = [
    "configure-cbr0",
    "allow-privileged",
    "api-servers",
    "docker-endpoint",
];

/// Most tracked connections that a report holds.
const MAX_STALE: usize = 8;

/// The node's programs, as a list of processes and their logs show them.
#[derive(Debug, Default)]
pub(super) struct Programs {
    /// Of several lists each may show what others leave out.
    processes: Vec<Ps>,
    /// Whether the program that would carry kube-proxy was told to leave it out.
    leaves_proxy_out: bool,
    log: Option<KubeProxyLog>,
    /// As its own port says.
    mode: Option<ProxyMode>,
    kubelet_log: Option<KubeletLog>,
    kubelet_config: Option<KubeletConfig>,
}

impl Programs {
    pub(super) fn of(files: &[TextFile<'_>], leaves_proxy_out: bool, problems: &mut Vec<Problem>) -> Self {
        let said = files.iter().find(|f| f.form == Form::KubeProxyMode);
        Self {
            processes: parse(files, Form::Processes, problems, Ps::parse),
            leaves_proxy_out,
            // Rotated logs have longer names, which come behind.
            log: parse(files, Form::KubeProxyLog, problems, KubeProxyLog::parse)
                .into_iter()
                .next(),
            mode: said.and_then(|file| said_mode(file, problems)),
            kubelet_log: parse(files, Form::KubeletLog, problems, KubeletLog::parse)
                .into_iter()
                .next(),
            kubelet_config: parse(files, Form::KubeletConfig, problems, KubeletConfig::parse).pop(),
        }
    }

    /// The mode of kube-proxy: what it says comes before what it logged, and that before what it was told.
    pub(super) fn mode(&self) -> Option<ProxyMode> {
        let logged = || self.log.as_ref()?.mode.clone();
        let told = || ProxyMode::parse(self.process()?.flag("proxy-mode")?);
        self.mode.clone().or_else(logged).or_else(told)
    }

    /// kube-proxy, or the program that carries it.
    fn process(&self) -> Option<&Process> {
        let is_it = |p: &&Process| p.program() == "kube-proxy" || !self.leaves_proxy_out;
        self.processes.iter().filter_map(Ps::kube_proxy).find(is_it)
    }

    /// kube-proxy as an agent reports it; None where no file is about it.
    pub(super) fn kube_proxy(
        &self,
        facts: &Facts,
        node: &str,
        files: &[TextFile<'_>],
        mode: Option<ProxyMode>,
        seen: &NodeFacts,
        saved: &Saved,
    ) -> Option<KubeProxy> {
        let lives = files
            .iter()
            .any(|f| f.form == Form::KubeProxyLive && is_live(f.text));
        if self.processes.is_empty() && self.log.is_none() && self.mode.is_none() && !lives {
            return None;
        }
        let fails = fails(facts, seen, saved);
        let faults = self.log.as_ref().map(|log| &log.faults);
        let suffers = fails || has_gaps(seen);
        // Where the kubelet is seen nowhere, this may be no node, or kube-proxy a part of another program.
        let is_node = self.processes.iter().any(|ps| ps.program("kubelet").is_some());
        let is_whole = files.iter().all(|f| f.form != Form::Processes || !f.is_cut);
        // A search for kube-proxy alone does not show what does its work in its stead. Whoever leaves it out
        // has something else for that, and if nothing is known of it, it may be something unknown.
        let shows = |ps: &Ps| {
            let is_bare = self.leaves_proxy_out;
            ps.would_show("kube-proxy")
                && (ps.would_show("cilium-agent") || fails && !is_bare)
                && (fails || !is_bare)
        };
        // Rules of kube-proxy say that it was there.
        let may_be_replaced = seen.rules.is_none() && self.processes.iter().any(Ps::may_be_replaced);
        let is_shown = (is_node || self.leaves_proxy_out)
            && is_whole
            && !may_be_replaced
            && self.processes.iter().any(shows);
        // What answers on its ports runs.
        let answers = lives || self.mode.is_some();
        let process = self.process().map(|p| p.program().to_owned());
        let process = process.or_else(|| answers.then(|| "kube-proxy".to_owned()));
        Some(KubeProxy {
            mode: mode.map(|mode| mode.to_string()),
            replacement: self.processes.iter().find_map(Ps::replacement).map(str::to_owned),
            processes_unread: process.is_none() && !is_shown,
            process,
            livez: if lives { PortState::Ok } else { PortState::Closed },
            metrics: if self.mode.is_some() {
                PortState::Ok
            } else {
                PortState::Closed
            },
            not_syncing: !are_synced(seen)
                && (fails && self.is_behind(facts) || suffers && faults.is_some_and(|f| f.sync.is_some())),
            sync_error: faults
                .and_then(|f| f.sync.as_ref())
                .map(|error| format!("its log says \"{error}\"")),
            api_unreachable: self.log.as_ref().is_some_and(|log| {
                let is_away =
                    |error: &ApiError| error.recovered.is_none() && error.kind != ApiErrorKind::Forbidden;
                let is_last = log.api.as_ref().is_some_and(is_away);
                // That it came back is not logged by itself: an old error alone says nothing.
                is_last && (never_heard(log) || fails)
            }),
            denied: faults
                .and_then(|f| f.denied.clone())
                .filter(|right| is_needed(right)),
            node_name: self.node_name(facts, node),
            ..KubeProxy::default()
        })
    }

    /// The name under which kube-proxy runs, where it is not that of its Node.
    fn node_name(&self, facts: &Facts, node: &str) -> Option<String> {
        let logged = self.log.as_ref().and_then(|log| log.faults.node_name.clone());
        let told = || self.process()?.flag("hostname-override").map(str::to_lowercase);
        // A directory may have a name of its own.
        let is_node = facts.cluster_nodes.iter().any(|n| n.name() == node)
            || facts
                .slices
                .iter()
                .flat_map(|s| &s.endpoints)
                .any(|e| e.node_name.as_deref() == Some(node));
        let name = logged
            .or_else(told)
            .filter(|name| !name.is_empty() && name != node);
        name.filter(|_| is_node)
    }

    /// What the log says of kube-proxy not knowing which addresses are Pods'.
    pub(super) fn masquerades_nothing(&self) -> Option<String> {
        let (line, words) = self.log.as_ref()?.undetected.as_ref()?;
        Some(format!("line {line} of its log says \"{words}\""))
    }

    /// Notes which node ports kube-proxy did not serve because somebody else has them, as its log says.
    pub(super) fn mark_ports_in_use(&self, rules: &mut Rules) {
        let Some(log) = &self.log else { return };
        let missing = rules
            .gaps
            .iter_mut()
            .filter(|gap| gap.kind == GapKind::NodePortMissing);
        for gap in missing {
            let port = gap
                .destination
                .strip_prefix("node port ")
                .and_then(|p| p.split_once('/'));
            let key =
                port.and_then(|(port, protocol)| Some((Protocol::parse(protocol)?, port.parse().ok()?)));
            if let Some(line) = key.and_then(|key| log.faults.ports_in_use.get(&key)) {
                gap.kind = GapKind::NodePortInUse;
                gap.detail = format!("line {line} of its log: address already in use");
            }
        }
    }

    /// Whether the log tells of endpoints, and not of the Service's as they are. Without a failure nothing
    /// follows from it: logs are cut.
    fn is_behind(&self, facts: &Facts) -> bool {
        let (Some(log), Some(service)) = (&self.log, facts.service.as_deref()) else {
            return false;
        };
        if log.endpoints.is_empty() || log.mode.is_none() {
            return false;
        }
        service.spec.ports.iter().any(|port| {
            let mut ready: Vec<SocketAddr> = ready(facts, port.name(), port.protocol());
            let logged = log.endpoints_of(service.namespace(), service.name(), port.name());
            let mut logged: Vec<SocketAddr> = logged.unwrap_or_default().to_vec();
            ready.sort_unstable();
            logged.sort_unstable();
            !ready.is_empty() && logged != ready
        })
    }

    /// Why kube-proxy ended. The log may be of an earlier run: that it did is blamed where nothing shows that it
    /// runs, and the Service suffers.
    pub(super) fn exit(
        &self,
        facts: &Facts,
        files: &[TextFile<'_>],
        seen: &NodeFacts,
        saved: &Saved,
        has_ready_pod: bool,
        problems: &mut Vec<Problem>,
    ) -> Option<String> {
        let exit = self.log.as_ref()?.faults.exit.as_ref()?;
        let runs = has_ready_pod || seen.kube_proxy.as_ref().is_some_and(|p| p.process.is_some());
        if !runs && (fails(facts, seen, saved) || has_gaps(seen)) {
            return Some(exit.clone());
        }
        let file = files.iter().find(|f| f.form == Form::KubeProxyLog)?;
        problems.push(file.problem(format!(
            "kube-proxy ended, as its last line says ({exit}); whether that was its last run, `ps auxw` (ps.txt) or dials of the Service on the node (curl.txt) would tell"
        )));
        None
    }

    /// Whether kube-proxy found no program `conntrack`, and something does not work for which that may be why:
    /// the Service does not answer, or packets go on to Pods that are gone. By itself it is only told: of
    /// most Services nobody notices.
    pub(super) fn misses_conntrack(
        &self,
        facts: &Facts,
        files: &[TextFile<'_>],
        seen: &NodeFacts,
        saved: &Saved,
        problems: &mut Vec<Problem>,
    ) -> bool {
        let line = self.log.as_ref().and_then(|log| log.conntrack_missing);
        let file = files.iter().find(|f| f.form == Form::KubeProxyLog);
        let (Some(line), Some(file)) = (line, file) else {
            return false;
        };
        let is_harmful = fails(facts, seen, saved) || !seen.stale_connections.is_empty();
        if !is_harmful {
            problems.push(file.problem(format!(
                "line {line}: kube-proxy finds no program conntrack; whether that does harm, dials of the Service on the node (curl.txt) or, over UDP, `conntrack -L -p udp` twice (conntrack-1.txt, conntrack-2.txt) would tell"
            )));
        }
        is_harmful
    }
}

/// Whether a node's files tell that kube-proxy is left out of the program that would carry it.
pub(super) fn leaves_proxy_out(files: &[TextFile<'_>], problems: &mut Vec<Problem>) -> bool {
    let configurations = parse(files, Form::CarrierConfig, problems, CarrierConfig::parse);
    // Lists of processes are read again for their node, and told then if they are none.
    let processes = parse(files, Form::Processes, &mut Vec::new(), Ps::parse);
    configurations.iter().any(|c| c.leaves_proxy_out) || processes.iter().any(Ps::leaves_proxy_out)
}

/// Whether kube-proxy can serve no Service as it should be without a right.
fn is_needed(right: &str) -> bool {
    const RESOURCES: [&str; 4] = [
        "services",
        "endpoints",
        "endpointslices.discovery.k8s.io",
        "nodes",
    ];
    right
        .split_once(' ')
        .is_some_and(|(_, resource)| RESOURCES.contains(&resource))
}

/// Whether the rules lack something that the Service needs.
fn has_gaps(seen: &NodeFacts) -> bool {
    let rules = seen.rules.as_ref();
    rules.is_some_and(|rules| rules.gaps.iter().any(|gap| gap.kind != GapKind::Incomplete))
}

/// Whether nothing ever came from the API server, in a log that is there from its start.
fn never_heard(log: &KubeProxyLog) -> bool {
    log.mode.is_some() && !log.heard
}

/// The mode that kube-proxy's port names on a line of its own.
fn said_mode(file: &TextFile<'_>, problems: &mut Vec<Problem>) -> Option<ProxyMode> {
    let lines = file.text.lines().rev().map(str::trim);
    let last = lines.filter_map(ProxyMode::parse).find(ProxyMode::is_known);
    if last.is_none() {
        problems.push(file.problem("no line names a mode of kube-proxy (iptables, nftables, ipvs, ...)"));
    }
    last
}

/// `200`, or the body of a healthy livez, which is JSON in newer versions.
fn is_live(text: &str) -> bool {
    let has_status = text
        .lines()
        .any(|line| line.starts_with("HTTP/") && line.contains(" 200"));
    has_status
        || text.trim() == "ok"
        || text.contains("\"healthy\": true")
        || text.contains("\"healthy\":true")
}

/// Whether a dial of the node to the Service failed, for which no policy can be the reason.
fn fails(facts: &Facts, seen: &NodeFacts, saved: &Saved) -> bool {
    if may_keep_nodes_away(facts) {
        return false;
    }
    let to_service = |f: &crate::api::DialFailure| f.from.is_none() && f.path != DialPath::Endpoint;
    let by_port = saved
        .proxy_port
        .is_some_and(|(_, answer)| answer != crate::api::Answer::Accepted);
    seen.failures.iter().any(to_service) || by_port
}

/// Whether the rules hold what the EndpointSlices ask for, be it with a wrong weight. In userspace mode they do not
/// tell the endpoints.
fn are_synced(seen: &NodeFacts) -> bool {
    let is_held = |gap: &RuleGap| matches!(gap.kind, GapKind::EndpointDrained | GapKind::EndpointStuck);
    let is_userspace = |r: &&Rules| Backend::parse(&r.layout) == Some(Backend::Userspace);
    let rules = seen.rules.as_ref().filter(|r| !is_userspace(r));
    rules.is_some_and(|r| r.compared > 0 && r.gaps.iter().all(is_held))
}

fn ready(facts: &Facts, port: &str, protocol: &str) -> Vec<SocketAddr> {
    let mut all = Vec::new();
    for slice in &facts.slices {
        for (_, number) in slice.numbers(protocol).filter(|(name, _)| *name == port) {
            all.extend(slice.ready().map(|(ip, _)| SocketAddr::new(ip, number)));
        }
    }
    all
}

/// How the kubelet keeps the way of Pods to themselves open, as far as the files tell: what it set up in
/// fact comes before what it was told.
pub(super) fn hairpin(
    programs: &Programs,
    files: &[TextFile<'_>],
    masqueraded: Option<bool>,
    problems: &mut Vec<Problem>,
) -> Option<HairpinSetup> {
    if masqueraded == Some(false) {
        return Some(HairpinSetup::NotMasqueraded);
    }
    let logged = programs.kubelet_log.as_ref();
    let kubelet = programs.processes.iter().find_map(|ps| ps.program("kubelet"));
    // With a plugin of CNI the kubelet leaves bridges alone, whatever it logs of hairpins.
    let is_cni = |f: &TextFile<'_>| f.form == Form::KubeletLog && f.text.contains("managed by cni");
    if kubelet.is_some_and(|k| k.flag("network-plugin") == Some("cni")) || files.iter().any(is_cni) {
        return None;
    }
    let is_old = kubelet.is_some_and(|k| OLD_FLAGS.iter().any(|flag| k.has_flag(flag)));
    let flag = || {
        kubelet?
            .flag("hairpin-mode")
            .filter(|_| is_old)
            .map(HairpinMode::parse)
    };
    let configured = || {
        programs
            .kubelet_config
            .as_ref()?
            .hairpin_mode
            .clone()
            .filter(|_| is_old)
    };
    let effective = logged.and_then(|log| log.effective.clone());
    let in_force = effective.clone().or_else(flag).or_else(configured)?;
    // What is not set shows by its absence.
    let whole: Vec<TextFile<'_>> = files.iter().filter(|f| !f.is_cut).copied().collect();
    let links: Vec<bridge::Link> = parse(&whole, Form::Links, problems, bridge::parse)
        .into_iter()
        .flatten()
        .collect();
    Some(match in_force {
        HairpinMode::None => HairpinSetup::Off {
            is_in_force: effective.is_some(),
        },
        HairpinMode::HairpinVeth => {
            let is_own = |l: &&bridge::Link| l.bridge.as_deref().is_none_or(|name| name == "cbr0");
            let ports = || links.iter().filter(is_own).filter_map(|l| l.hairpin);
            let all_on = ports().count() > 0 && ports().all(|on| on);
            // What could not be written once may have been written since.
            let denied = logged.and_then(|log| log.not_allowed.first()).filter(|_| !all_on);
            HairpinSetup::Ports {
                on: ports().filter(|on| *on).count(),
                off: ports().filter(|on| !*on).count(),
                denied: denied.map(|d| d.path.clone().unwrap_or_else(|| "hairpin_mode".to_owned())),
            }
        }
        HairpinMode::PromiscuousBridge => {
            // Its ports are promiscuous in any case. What `grep PROMISC` leaves has no name.
            let is_bridge = |l: &&bridge::Link| l.name.as_deref().is_none_or(|name| name == "cbr0");
            let mut bridges = links.iter().filter(is_bridge);
            let told = bridges.find(|l| l.promiscuous.is_some());
            HairpinSetup::Bridge {
                name: told.and_then(|l| l.name.clone()),
                is_promiscuous: told.and_then(|l| l.promiscuous),
            }
        }
        HairpinMode::Other(_) => return None,
    })
}

/// Settings of the node's network, and whether br_netfilter is not even loaded.
pub(super) fn settings(
    facts: &Facts,
    files: &[TextFile<'_>],
    problems: &mut Vec<Problem>,
) -> (NodeSettings, bool) {
    let read = parse(files, Form::Settings, problems, Sysctl::parse).pop();
    let lacks_bridge_netfilter = read.as_ref().is_some_and(Sysctl::lacks_bridge_netfilter);
    let mut settings = read.map(|sysctl| sysctl.settings()).unwrap_or_default();
    for file in files.iter().filter(|f| f.form == Form::KernelLog) {
        let log = KernelLog::parse(file.text, facts.now);
        // What the settings say of the table is newer.
        settings.conntrack_full = settings.conntrack_full.or(log.table_full.map(|_| true));
        settings.reverse_path_drops = settings.reverse_path_drops.or(log.martian.map(|_| true));
        if let Some(line) = log.neighbours_full {
            problems.push(file.problem(format!(
                "line {line}: the kernel's table of neighbours overflowed, which loses packets to Pods and nodes; see net.ipv4.neigh.default.gc_thresh3 there"
            )));
        }
    }
    let pods: Vec<IpAddr> = facts
        .slices
        .iter()
        .flat_map(|s| &s.endpoints)
        .flat_map(|e| &e.addresses)
        .filter_map(|address| address.parse().ok())
        .collect();
    for file in files.iter().filter(|f| !f.is_cut) {
        let forwarding = match file.form {
            Form::IptablesSave | Form::NftSave | Form::LegacySave => {
                forwarding::of_iptables(file.text, &pods)
            }
            Form::Nft => forwarding::of_nft(file.text, &pods),
            _ => continue,
        };
        // What one table drops no other can save.
        settings.forward_drops = settings.forward_drops.max(forwarding.drops);
        settings.dead_ends.extend(forwarding.dead_ends);
    }
    (settings, lacks_bridge_netfilter)
}

/// Whether the bridge ports of the node send packets back out of themselves, where all of them do the same.
pub(super) fn hairpin_mode(files: &[TextFile<'_>], problems: &mut Vec<Problem>) -> Option<bool> {
    let links = parse(files, Form::Links, problems, bridge::parse)
        .into_iter()
        .flatten();
    let mut modes: Vec<bool> = links.filter_map(|link| link.hairpin).collect();
    modes.dedup();
    match modes.as_slice() {
        [only] => Some(*only),
        _ => None,
    }
}

/// Tracked UDP connections to the Service that lead to Pods that are gone, and that somebody still uses: one
/// list cannot tell those from what is about to be forgotten, so that it takes two.
pub(super) fn stale(
    facts: &Facts,
    node: &str,
    files: &[TextFile<'_>],
    problems: &mut Vec<Problem>,
) -> Vec<StaleConnection> {
    let lists = parse(files, Form::Conntrack, problems, conntrack::parse);
    let (Some(service), Some((later, [.., earlier]))) = (facts.service.as_deref(), lists.split_last()) else {
        return Vec::new();
    };
    let is_used = |entry: &&conntrack::Entry| {
        let now = &entry.connection;
        earlier.iter().map(|e| &e.connection).any(|before| {
            (before.source, before.destination, before.answers) == (now.source, now.destination, now.answers)
                && now.seconds_left > before.seconds_left
        })
    };
    let slices: Vec<_> = facts.slices.iter().map(AsRef::as_ref).collect();
    let vantage = Vantage { node: "", zone: None };
    let of_node = facts.cluster_nodes.iter().find(|n| n.name() == node);
    let own = of_node.map(|n| n.internal_ips()).unwrap_or_default();
    let mut all = Vec::new();
    // Without an endpoint there is nowhere else to lead.
    let is_served = |p: &&ExpectedPort| p.protocol == Protocol::Udp && !p.serving.is_empty();
    for port in expected(service, &slices, vantage).iter().filter(is_served) {
        let serving: Vec<SocketAddr> = port.serving.iter().copied().collect();
        let addresses = port.destinations.iter().flat_map(|destination| {
            // A node port is at the addresses of the node.
            let ips = destination.address.map_or_else(|| own.clone(), |ip| vec![ip]);
            ips.into_iter().map(|ip| SocketAddr::new(ip, destination.port))
        });
        for address in addresses {
            let found = conntrack::stale_udp(later, address, &serving);
            all.extend(found.into_iter().filter(is_used).map(|entry| StaleConnection {
                destination: address.to_string(),
                endpoint: entry.connection.answers.to_string(),
                source: entry.connection.source.to_string(),
            }));
        }
    }
    all.truncate(MAX_STALE);
    all
}
