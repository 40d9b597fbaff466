//! kube-proxy of a node as an agent reports it, from its process, its log, and what became of dials and rules.

use std::net::SocketAddr;

use super::{super::Problem, programs::Programs};
use crate::{
    api::{Answer, DialFailure, DialPath, GapKind, KubeProxy, NodeFacts, PortState, RuleGap, Rules},
    engine::{Facts, Saved, SavedText, may_keep_nodes_away},
    formats::text::{
        kube_proxy_log::{ApiError, ApiErrorKind, KubeProxyLog},
        ps::Ps,
    },
    kube_proxy::{Backend, Protocol, ProxyMode},
    objects::{Object, Open},
};

/// What is judged with kube-proxy.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    facts: &'a Facts,
    node: &'a str,
    programs: &'a Programs<'a>,
    /// What else was seen on the node.
    seen: &'a NodeFacts,
    saved: &'a Saved,
}

impl<'a> Around<'a> {
    pub(super) fn of(
        facts: &'a Facts,
        node: &'a str,
        programs: &'a Programs<'a>,
        seen: &'a NodeFacts,
        saved: &'a Saved,
    ) -> Self {
        Self {
            facts,
            node,
            programs,
            seen,
            saved,
        }
    }

    /// kube-proxy as an agent reports it; None where no file is about it.
    pub(super) fn kube_proxy(self, mode: Option<ProxyMode>) -> Option<KubeProxy> {
        let programs = self.programs;
        let log = programs.kube_proxy_log();
        let says_mode = programs.said_mode.is_some();
        if programs.processes.is_empty() && log.is_none() && !says_mode && !programs.lives {
            return None;
        }
        let fails = self.fails();
        let faults = log.map(|log| &log.faults);
        let suffers = fails || self.has_gaps();
        // What answers on its ports runs.
        let answers = programs.lives || says_mode;
        let process = programs.kube_proxy().map(|p| p.program().to_owned());
        let process = process.or_else(|| answers.then(|| "kube-proxy".to_owned()));
        Some(KubeProxy {
            mode: mode.map(|mode| mode.to_string()),
            replacement: programs
                .processes
                .iter()
                .find_map(|ps| ps.replacement())
                .map(str::to_owned),
            processes_unread: process.is_none() && !self.would_be_shown(),
            process,
            livez: port(programs.lives),
            metrics: port(says_mode),
            not_syncing: !self.are_rules_synced()
                && (fails && self.is_behind() || suffers && faults.is_some_and(|f| f.sync.is_some())),
            sync_error: faults
                .and_then(|f| f.sync.as_ref())
                .map(|error| format!("its log says \"{error}\"")),
            api_unreachable: log.is_some_and(|log| {
                let is_away =
                    |error: &ApiError| error.recovered.is_none() && error.kind != ApiErrorKind::Forbidden;
                let is_last = log.api.as_ref().is_some_and(is_away);
                // That it came back is not logged by itself: an old error alone says nothing.
                is_last && (never_heard(log) || fails)
            }),
            denied: faults
                .and_then(|f| f.denied.clone())
                .filter(|right| is_needed(right)),
            node_name: self.other_node_name(),
            ..KubeProxy::default()
        })
    }

    /// Whether the lists of processes would show kube-proxy if it ran, and nothing does its work in its stead.
    fn would_be_shown(self) -> bool {
        let programs = self.programs;
        let is_bare = programs.leaves_proxy_out;
        // A search for kube-proxy alone does not show what does its work. Whoever leaves it out has something else
        // for that, and if nothing is known of it, it may be something unknown.
        let shows = |ps: &&Ps| {
            ps.would_show("kube-proxy")
                && (ps.would_show("cilium-agent") || self.fails() && !is_bare)
                && (self.fails() || !is_bare)
        };
        // Where the kubelet is seen nowhere, this may be no node, or kube-proxy a part of another program.
        let is_node = programs.kubelet().is_some() || is_bare;
        // Rules of kube-proxy say that it was there.
        let may_be_replaced =
            self.seen.rules.is_none() && programs.processes.iter().any(|ps| ps.may_be_replaced());
        is_node && !programs.is_cut && !may_be_replaced && programs.processes.iter().any(shows)
    }

    /// The name under which kube-proxy runs, where it is not that of its Node.
    fn other_node_name(self) -> Option<String> {
        let logged = self
            .programs
            .kube_proxy_log()
            .and_then(|log| log.faults.node_name.clone());
        let configured = || {
            let process = self.programs.kube_proxy()?;
            process.flag("hostname-override").map(str::to_lowercase)
        };
        let name = logged
            .or_else(configured)
            .filter(|name| !name.is_empty() && name != self.node);
        name.filter(|_| self.is_a_node())
    }

    /// Whether the node is one of the cluster: a directory may have a name of its own.
    fn is_a_node(self) -> bool {
        let mut endpoints = self.facts.slices.iter().flat_map(|s| &s.endpoints);
        self.facts.cluster_nodes.iter().any(|n| n.name() == self.node)
            || endpoints.any(|e| e.node_name.as_deref() == Some(self.node))
    }

    /// Whether the log tells of endpoints, and not of the Service's as they are. Without a failure nothing
    /// follows from it: logs are cut.
    fn is_behind(self) -> bool {
        let (Some(log), Some(service)) = (self.programs.kube_proxy_log(), self.facts.service.as_deref())
        else {
            return false;
        };
        if log.endpoints.is_empty() || log.mode.is_none() {
            return false;
        }
        service.spec.ports.iter().any(|port| {
            let mut ready = ready(self.facts, port.name(), &port.protocol);
            let logged = log.endpoints_of(service.namespace(), service.name(), port.name());
            let mut logged: Vec<SocketAddr> = logged.unwrap_or_default().to_vec();
            ready.sort_unstable();
            logged.sort_unstable();
            !ready.is_empty() && logged != ready
        })
    }

    /// Why kube-proxy ended. The log may be of an earlier run: that it did is blamed where nothing shows that it
    /// runs, and the Service suffers. Else it is a problem, which says what would tell.
    pub(super) fn exit(self, has_ready_pod: bool) -> Result<Option<String>, Problem> {
        let Some((file, log)) = self.programs.log else {
            return Ok(None);
        };
        let Some(exit) = &log.faults.exit else {
            return Ok(None);
        };
        let runs = has_ready_pod || self.seen.kube_proxy.as_ref().is_some_and(|p| p.process.is_some());
        if !runs && (self.fails() || self.has_gaps()) {
            return Ok(Some(exit.clone()));
        }
        let what = format!("kube-proxy exited, according to the last line ({exit}), but it");
        Err(file.problem(match self.unsaved_signs_of_life().as_slice() {
            _ if runs => format!("{what} runs again"),
            [] => format!("{what} may have been started again"),
            asked => format!("{what} may have been started again; save {}", asked.join(", or ")),
        }))
    }

    /// What would tell whether kube-proxy runs, and was not saved.
    fn unsaved_signs_of_life(self) -> Vec<&'static str> {
        let has_processes = self.saved.texts.contains(&SavedText::Processes);
        let processes = (!has_processes).then_some("`ps auxw` as ps.txt");
        let requests = (!self.has_dialled()).then_some("requests to the Service from the node as curl.txt");
        processes.into_iter().chain(requests).collect()
    }

    /// Whether the node itself has dialled the Service.
    fn has_dialled(self) -> bool {
        let mut dials = self.seen.dials.iter();
        dials.any(|d| d.from.is_none() && d.path != DialPath::Endpoint)
    }

    /// Whether kube-proxy found no program `conntrack`, and something does not work for which that may be why:
    /// the Service does not answer, or packets go on to Pods that are gone. By itself it is only a problem: of
    /// most Services nobody notices.
    pub(super) fn misses_conntrack(self) -> Result<bool, Problem> {
        let Some((file, log)) = self.programs.log else {
            return Ok(false);
        };
        let Some(line) = log.conntrack_missing else {
            return Ok(false);
        };
        if self.fails() || !self.seen.stale_connections.is_empty() {
            return Ok(true);
        }
        let what =
            format!("line {line}: kube-proxy does not find the conntrack binary, which may do no harm");
        let over_udp = "`conntrack -L -p udp` twice (conntrack-1.txt, conntrack-2.txt)";
        Err(file.problem(match (self.has_dialled(), self.saved.texts.contains(&SavedText::Conntrack)) {
            (true, true) => what,
            (true, false) => format!("{what}; for UDP, save {over_udp} to find out"),
            (false, true) => format!("{what}; to find out, save requests to the Service from the node as curl.txt"),
            (false, false) => format!(
                "{what}; to find out, save requests to the Service from the node as curl.txt or, for UDP, {over_udp}"
            ),
        }))
    }

    /// Whether a dial of the node to the Service failed, for which no policy can be the reason.
    fn fails(self) -> bool {
        if may_keep_nodes_away(self.facts) {
            return false;
        }
        let to_service = |f: &DialFailure| f.from.is_none() && f.path != DialPath::Endpoint;
        let by_port = self
            .saved
            .proxy_port
            .is_some_and(|(_, answer)| answer != Answer::Accepted);
        self.seen.failures.iter().any(to_service) || by_port
    }

    /// Whether the rules lack something that the Service needs.
    fn has_gaps(self) -> bool {
        let rules = self.seen.rules.as_ref();
        rules.is_some_and(|rules| rules.gaps.iter().any(|gap| gap.kind != GapKind::Incomplete))
    }

    /// Whether the rules hold what the EndpointSlices ask for, be it with a wrong weight. In userspace mode they do not
    /// tell the endpoints.
    fn are_rules_synced(self) -> bool {
        let is_held = |gap: &RuleGap| matches!(gap.kind, GapKind::EndpointDrained | GapKind::EndpointStuck);
        let is_userspace = |r: &&Rules| Backend::parse(&r.layout) == Some(Backend::Userspace);
        let rules = self.seen.rules.as_ref().filter(|r| !is_userspace(r));
        rules.is_some_and(|r| r.compared > 0 && r.gaps.iter().all(is_held))
    }
}

/// The rules, with those node ports marked that kube-proxy did not serve because another program has them.
pub(super) fn mark_ports_in_use(mut rules: Rules, log: Option<&KubeProxyLog>) -> Rules {
    let Some(log) = log else { return rules };
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
            port.and_then(|(port, protocol)| Some((protocol.parse::<Protocol>().ok()?, port.parse().ok()?)));
        if let Some(line) = key.and_then(|key| log.faults.ports_in_use.get(&key)) {
            gap.kind = GapKind::NodePortInUse;
            gap.detail = format!("line {line} of its log: address already in use");
        }
    }
    rules
}

fn port(is_open: bool) -> PortState {
    match is_open {
        true => PortState::Ok,
        false => PortState::Closed,
    }
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

/// Whether nothing ever came from the API server, in a log that is there from its start.
fn never_heard(log: &KubeProxyLog) -> bool {
    log.mode.is_some() && !log.heard
}

/// Ready endpoints of a port.
fn ready(facts: &Facts, port: &str, protocol: &Open<Protocol>) -> Vec<SocketAddr> {
    let mut all = Vec::new();
    for slice in &facts.slices {
        for (_, number) in slice.numbers(protocol).filter(|(name, _)| *name == port) {
            all.extend(slice.ready().map(|(ip, _)| SocketAddr::new(ip, number)));
        }
    }
    all
}
