//! Which reports of node agents count.
//!
//! A node that was asked and whose agent is not alive any more says nothing, and one that has not
//! answered the present question yet says nothing so far. Neither is evidence of a fault, and neither
//! lets a stage be True.

use jiff::Timestamp;

use crate::{Facts, Finding, Saved, UNKNOWN_NODE, plan, text};
use svcdiag_api::{ConditionType, NodeFacts, NodeProbeSpec, Reason};

/// What an agent that is alive answers to the present question.
#[derive(Clone, Copy)]
pub(crate) struct Report<'a> {
    /// The node.
    pub node: &'a str,
    /// What its agent was asked.
    pub asked: &'a NodeProbeSpec,
    /// What it saw.
    pub facts: &'a NodeFacts,
    /// What only saved files tell of the node; then all of it comes from files.
    pub saved: Option<&'a Saved>,
}

/// All that agents have to say of a Service.
pub(crate) struct Reports<'a> {
    /// Reports that count, by node.
    pub current: Vec<Report<'a>>,
    /// Nodes that were asked and whose agents have stopped reporting.
    pub silent: Vec<&'a str>,
    /// Nodes whose agents have not answered the present question yet.
    pub waiting: Vec<&'a str>,
    /// Whether there is an agent at all.
    has_agents: bool,
    /// Whether the agents are about to be asked.
    about_to_ask: bool,
    /// Whether they may not be: the namespace has as many NodeProbes as it may.
    is_withheld: bool,
}

impl<'a> Reports<'a> {
    pub(crate) fn of(facts: &'a Facts) -> Self {
        let mut nodes: Vec<_> = facts.nodes.iter().collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        let mut reports = Self {
            current: Vec::new(),
            silent: Vec::new(),
            waiting: Vec::new(),
            has_agents: !nodes.is_empty(),
            about_to_ask: false,
            is_withheld: false,
        };
        for node in nodes {
            let Some(probe) = &node.probe else { continue };
            if !node.is_alive(facts.now) {
                // Of the sample only those count who are alive.
                if !plan::is_of_sample(&probe.asked) {
                    reports.silent.push(&node.name);
                }
            } else if let Some(seen) = probe.facts.as_deref().filter(|_| probe.is_current) {
                reports.current.push(Report {
                    node: &node.name,
                    asked: &probe.asked,
                    facts: seen,
                    saved: node.saved.as_deref(),
                });
            } else {
                reports.waiting.push(&node.name);
            }
        }
        reports.is_withheld = facts.are_probes_withheld;
        reports.about_to_ask = reports.is_unasked() && !reports.is_withheld && plan::asks_anybody(facts);
        reports
    }

    fn is_unasked(&self) -> bool {
        self.current.is_empty() && self.silent.is_empty() && self.waiting.is_empty()
    }

    /// Why nobody looked, if so; `what` says what was not done.
    pub(crate) fn nobody(&self, what: &str) -> Option<Finding> {
        if !self.is_unasked() {
            return None;
        }
        Some(if self.about_to_ask {
            Finding::unknown(
                Reason::Pending,
                "Waiting for the first reports of the node agents.",
            )
        } else {
            let why = if self.is_withheld {
                "the namespace has reached its limit of NodeProbes"
            } else if self.has_agents {
                "no node with an agent is selected (spec.nodes, spec.clients)"
            } else {
                "no node agent reports"
            };
            Finding::unknown(Reason::NoVantagePoint, format!("{what}: {why}."))
        })
    }

    /// Why what was seen without a fault is not everything, if so.
    pub(crate) fn incomplete(&self) -> Option<Finding> {
        if !self.waiting.is_empty() {
            return Some(Finding::unknown(
                Reason::Pending,
                format!("Waiting for the first round on {}.", text::nodes(&self.waiting)),
            ));
        }
        let nodes = text::nodes(&self.silent);
        let what = match self.silent.len() {
            0 => return None,
            1 => format!(
                "The agent on {nodes} has stopped reporting, so what it would have observed is missing."
            ),
            _ => format!(
                "The agents on {nodes} have stopped reporting, so what they would have observed is missing."
            ),
        };
        Some(Finding::unknown(
            Reason::AgentNotResponding,
            format!(
                "{what} Check the agent Pods: \
                 `kubectl get pods --all-namespaces -l app.kubernetes.io/component=svcdiag-agent -o wide`."
            ),
        ))
    }

    /// What could not be looked at for a stage, as the agents say it; the first. What is said of rules, or of a
    /// file that is about something else, explains nothing.
    pub(crate) fn problem(&self, stage: ConditionType) -> Option<String> {
        let of_stage = |problem: &str| stage_of_file(problem).is_none_or(|of| of == stage);
        let is_about_stages = |problem: &str| !is_about_rules(problem) && !is_about_drops(problem);
        let plain = || self.problem_of(|problem| is_about_stages(problem) && of_stage(problem));
        match stage {
            ConditionType::ProxyRulesPresent => self.problem_of(is_about_rules).or_else(plain),
            _ => plain(),
        }
    }

    fn problem_of(&self, is_it: impl Fn(&str) -> bool) -> Option<String> {
        self.current.iter().find_map(|r| {
            let problem = r.facts.problems.iter().filter(|p| is_it(p)).min()?;
            Some(match r.node {
                UNKNOWN_NODE => problem.clone(),
                node => format!("On node {node}: {problem}"),
            })
        })
    }
}

/// Whether a problem is about rules: problems are sentences, of agents of other versions too.
fn is_about_rules(problem: &str) -> bool {
    ["rules", "iptables", "nft", "ipvs", "virtual servers"]
        .iter()
        .any(|word| problem.contains(word))
}

/// Whether a problem is that nobody saw who drops packets, which hides a cause and no failure.
fn is_about_drops(problem: &str) -> bool {
    problem.starts_with("Dropped packets")
}

/// The stage that a saved file tells most about, where a problem is one of a file: it begins with its path.
fn stage_of_file(problem: &str) -> Option<ConditionType> {
    use ConditionType as C;
    const STAGES: [(&str, ConditionType); 20] = [
        ("curl", C::EndpointsReachable),
        ("wget", C::EndpointsReachable),
        ("nc", C::EndpointsReachable),
        ("telnet", C::EndpointsReachable),
        ("ip-route", C::EndpointsReachable),
        ("route", C::EndpointsReachable),
        ("netstat-r", C::EndpointsReachable),
        ("ethtool", C::ProxyForwards),
        ("nslookup", C::DNSResolves),
        ("dig", C::DNSResolves),
        ("resolv.conf", C::DNSResolves),
        ("conntrack", C::ProxyForwards),
        ("kubelet", C::HairpinOK),
        ("hairpin_mode", C::HairpinOK),
        ("bridge-link", C::HairpinOK),
        ("ip-", C::HairpinOK),
        ("ps", C::KubeProxyHealthy),
        ("kube-proxy", C::KubeProxyHealthy),
        ("proxy", C::KubeProxyHealthy),
        ("livez", C::KubeProxyHealthy),
    ];
    let (path, _) = problem.split_once(": ")?;
    let (_, name) = path.rsplit_once('/')?;
    let is_file = path.starts_with("nodes/") || path.starts_with("pods/");
    let name = name.to_ascii_lowercase();
    let known = STAGES.iter().find(|(start, _)| name.starts_with(start))?;
    is_file.then_some(known.1)
}

/// When the first agent that counts as alive no longer does, unless it gives another sign.
pub(crate) fn silent_at(facts: &Facts) -> Option<Timestamp> {
    if facts.spec.suspend {
        return None;
    }
    let asked = facts.nodes.iter().filter(|n| n.probe.is_some());
    asked
        .filter_map(|n| n.alive_until)
        .filter(|until| *until > facts.now)
        .min()
}
