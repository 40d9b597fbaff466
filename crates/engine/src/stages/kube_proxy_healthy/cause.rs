//! What is wrong with the kube-proxy of a node, in words. Nodes are named together only where the same is wrong.

use std::collections::BTreeMap;

use crate::{
    evidence::{
        proxies,
        reports::{Report, Reports},
    },
    text::{self, SHOWN},
};
use svcdiag_api::Reason;

/// What is wrong with a kube-proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause<'a> {
    /// Its log ends with why it exited.
    Exited {
        /// The line.
        why: &'a str,
        /// The name of the Node that it looked for, if that is another one's.
        node_name: Option<&'a str>,
    },
    /// There is no process of it.
    Away {
        /// Whether its ports were dialled, and are closed.
        are_ports_closed: bool,
    },
    /// It takes connections and does not answer.
    Hangs,
    /// It finds no program conntrack.
    ConntrackMissing,
    /// It writes no rules; with the error, if it is known.
    WritesNothing(Option<&'a str>),
    /// No request of it to the API server is answered.
    APIUnreachable,
    /// It may not do this, as a verb and a resource, or `?`.
    Denied(&'a str),
}

impl Cause<'_> {
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Exited { .. } | Self::Away { .. } => Reason::NotRunning,
            Self::Hangs => Reason::NotLive,
            Self::ConntrackMissing => Reason::ConntrackMissing,
            Self::WritesNothing(_) => Reason::NotSyncing,
            Self::APIUnreachable => Reason::APIServerUnreachable,
            Self::Denied(_) => Reason::APIAccessDenied,
        }
    }

    fn message(&self, on: &str) -> String {
        match self {
            Self::Exited { why, .. } => format!(
                "kube-proxy on {on} has exited: its log ends with \"{why}\", and nothing shows that it is running again."
            ),
            Self::Away { are_ports_closed } => format!(
                "kube-proxy is not running on {on} (no process{}). Without it, the rules there do not follow changes to Services.",
                if *are_ports_closed {
                    "; ports 10256 and 10249 closed"
                } else {
                    ""
                }
            ),
            Self::Hangs => format!(
                "kube-proxy on {on} hangs: livez on port 10256 connects but does not answer within 3 s."
            ),
            Self::ConntrackMissing => format!(
                "kube-proxy on {on} cannot find the conntrack program. Without it, UDP packets can keep going to Pods that are gone, and some versions of kube-proxy do not start."
            ),
            Self::WritesNothing(Some(why)) => {
                format!("kube-proxy on {on} fails to write its rules: {why}.")
            }
            Self::WritesNothing(None) => {
                format!("kube-proxy on {on} is not writing its rules, although changes are pending.")
            }
            Self::APIUnreachable => format!(
                "All requests of kube-proxy on {on} to the API server fail: it cannot reach the API server, or is refused."
            ),
            Self::Denied("?") => {
                format!("The API server refuses some requests of kube-proxy on {on} (403 Forbidden).")
            }
            Self::Denied(right) => {
                format!("The API server does not allow kube-proxy on {on} to {right} (403 Forbidden).")
            }
        }
    }

    /// The same without what its message leaves out.
    fn observed(self) -> Self {
        match self {
            Self::Exited { why, .. } => Self::Exited { why, node_name: None },
            other => other,
        }
    }

    /// The same without what its remediation leaves out.
    fn to_fix(self) -> Self {
        match self {
            Self::Exited { node_name, .. } => Self::Exited { why: "", node_name },
            Self::WritesNothing(Some(_)) => Self::WritesNothing(Some("")),
            Self::Denied(right) if right != "?" => Self::Denied(""),
            other => other,
        }
    }

    fn remediation(&self, all: &Reports<'_>, of: &[&Report<'_>]) -> String {
        if let Self::Exited {
            node_name: Some(name),
            ..
        } = self
        {
            return other_name(name, of);
        }
        let each = proxies::for_each_way_to_run(of, |first, others| self.on_node(all, first, others));
        match self {
            Self::Denied("?") => format!("{each} {NEEDS} {ROLE}"),
            Self::Denied(_) => format!("{each} {ROLE}"),
            _ => each,
        }
    }

    /// What to do on a node, and on the others that it fits.
    fn on_node(&self, all: &Reports<'_>, first: &Report<'_>, others: &str) -> String {
        let (logs, restart) = (proxies::logs(first), proxies::restart(first));
        match self {
            Self::Exited { .. } => format!(
                "On node {}, fix what the quoted line names: a program, a setting, a file or a permission. Until then, a restart changes nothing. Its full log: {logs}.{others}",
                first.node
            ),
            Self::Away { .. } => format!("{}{others}", proxies::away(all, first)),
            Self::Hangs => format!("Check what it was doing: {logs}. Then {restart}.{others}"),
            Self::ConntrackMissing => format!(
                "Install it on node {}: `apt install conntrack` (or `yum install conntrack-tools`). Then {restart}.{others}",
                first.node
            ),
            Self::WritesNothing(Some(_)) => format!(
                "The log of kube-proxy on node {} names the rule, the program or the kernel feature that fails: {logs}. Until that is fixed, a restart changes nothing.{others}",
                first.node
            ),
            Self::WritesNothing(None) => {
                format!("Find out why: {logs}. Then {restart}.{others}")
            }
            Self::APIUnreachable => {
                let configuration = if proxies::is_in_pod(first) {
                    ". The address is in `kubectl -n kube-system get configmap kube-proxy -o yaml`"
                } else {
                    ""
                };
                format!(
                    "See which address and credentials it uses: {logs}{configuration}. When they are right, {restart}.{others}"
                )
            }
            Self::Denied(_) => format!(
                "In the log of kube-proxy on node {}, find the account and the missing permission: {logs}.{others}",
                first.node
            ),
        }
    }
}

/// What kube-proxy cannot do without, where only its counters say that it was denied something.
const NEEDS: &str = "kube-proxy has to be allowed to list and watch services, nodes and endpointslices (of discovery.k8s.io).";

/// Where its permissions are.
const ROLE: &str = "kube-proxy's permissions are in a ClusterRole: `kubectl get clusterrole system:node-proxier -o yaml`. If the role lacks the permission (possible after an update of kube-proxy), add it there. If the role has it, bind the role to the account.";

/// What to do on nodes whose kube-proxies look for a Node of another name.
fn other_name(name: &str, of: &[&Report<'_>]) -> String {
    match of {
        [only] => format!(
            "On node {node}, kube-proxy looks for a Node named {name}: run it with --hostname-override={node}, or hostnameOverride in its configuration (not in one that other nodes share).",
            node = only.node
        ),
        _ => {
            let nodes: Vec<&str> = of.iter().map(|r| r.node).collect();
            format!(
                "On {}, kube-proxy looks for a Node named {name}. {}",
                text::nodes(&nodes),
                proxies::under_own_name(of)
            )
        }
    }
}

/// Nodes with what is the same of their causes.
type Alike<'r, 'a> = BTreeMap<Cause<'a>, Vec<&'r Report<'a>>>;

fn alike<'r, 'a>(
    found: &[(&'r Report<'a>, Cause<'a>)],
    of: impl Fn(Cause<'a>) -> Cause<'a>,
) -> Alike<'r, 'a> {
    let mut alike = Alike::new();
    for (report, cause) in found {
        alike.entry(of(*cause)).or_default().push(report);
    }
    alike
}

/// What is said of nodes with one reason, and what to do there: each thing once.
pub(super) fn describe(reports: &Reports<'_>, found: &[(&Report<'_>, Cause<'_>)]) -> (String, String) {
    let observed = alike(found, Cause::observed);
    let messages = observed.iter().take(SHOWN).map(|(cause, of)| {
        let nodes: Vec<&str> = of.iter().map(|r| r.node).collect();
        cause.message(&text::nodes(&nodes))
    });
    let mut messages: Vec<String> = messages.collect();
    let rest: Vec<&str> = observed.values().skip(SHOWN).flatten().map(|r| r.node).collect();
    if !rest.is_empty() {
        messages.push(format!(
            "Other errors of this kind were seen on {}.",
            text::nodes(&rest)
        ));
    }
    if found.iter().any(|(_, cause)| matches!(cause, Cause::Denied(_))) {
        messages.push("So the rules there may not follow changes to Services.".to_owned());
    }
    let to_fix = alike(found, Cause::to_fix);
    let remediations = to_fix.iter().take(SHOWN);
    let remediations: Vec<String> = remediations
        .map(|(cause, of)| cause.remediation(reports, of))
        .collect();
    (messages.join(" "), remediations.join(" "))
}

/// What is denied, as it stands behind "does not allow".
pub(super) fn to_do(denied: &str) -> String {
    match denied {
        "?" => "some of its requests".to_owned(),
        right => format!("to {right}"),
    }
}
