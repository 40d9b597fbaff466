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
            Self::Denied(right) => format!(
                "The API server does not allow kube-proxy on {on} {} (403 Forbidden), so kube-proxy's rules may not follow changes to Services.",
                to_do(right)
            ),
        }
    }

    fn remediation(&self, all: &Reports<'_>, of: &[&Report<'_>]) -> String {
        if let Self::Exited {
            node_name: Some(name),
            ..
        } = self
        {
            return format!(
                "It looks for a Node named {name}. {}",
                proxies::under_own_name(of)
            );
        }
        proxies::for_each_way_to_run(of, |first, others| self.on_node(all, first, others))
    }

    /// What to do on a node, and on the others that it fits.
    fn on_node(&self, all: &Reports<'_>, first: &Report<'_>, others: &str) -> String {
        let (logs, restart) = (proxies::logs(first), proxies::restart(first));
        match self {
            Self::Exited { .. } => format!(
                "Fix what that line names: a program, a setting, a file or a permission. Until then, a restart changes nothing. Its full log: {logs}.{others}"
            ),
            Self::Away { .. } => format!("{}{others}", proxies::away(all, first)),
            Self::Hangs => format!("Check what it was doing: {logs}. Then {restart}.{others}"),
            Self::ConntrackMissing => format!(
                "Install it on node {}: `apt install conntrack` (or `yum install conntrack-tools`). Then {restart}.{others}",
                first.node
            ),
            Self::WritesNothing(Some(_)) => format!(
                "Its log names the rule, the program or the kernel feature that fails: {logs}. Until that is fixed, a restart changes nothing.{others}"
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
            Self::Denied(right) => format!(
                "kube-proxy's log names the account and the missing permission: {logs}.{} Its permissions are in a ClusterRole: `kubectl get clusterrole system:node-proxier -o yaml`. If the role lacks the permission (possible after an update of kube-proxy), add it there. If the role has it, bind the role to the account.",
                if *right == "?" { NEEDS } else { "" }
            ),
        }
    }
}

/// What kube-proxy cannot do without, where only its counters say that it was denied something.
const NEEDS: &str =
    " It has to be allowed to list and watch services, nodes and endpointslices (of discovery.k8s.io).";

/// What is said of nodes with one reason, and what to do there: a sentence for each cause.
pub(super) fn describe(reports: &Reports<'_>, found: &[(&Report<'_>, Cause<'_>)]) -> (String, String) {
    let mut causes: BTreeMap<Cause<'_>, Vec<&Report<'_>>> = BTreeMap::new();
    for (report, cause) in found {
        causes.entry(*cause).or_default().push(report);
    }
    let described = causes.iter().take(SHOWN).map(|(cause, of)| {
        let nodes: Vec<&str> = of.iter().map(|r| r.node).collect();
        (
            cause.message(&text::nodes(&nodes)),
            cause.remediation(reports, of),
        )
    });
    let (mut messages, remediations): (Vec<String>, Vec<String>) = described.unzip();
    let rest: Vec<&str> = causes.values().skip(SHOWN).flatten().map(|r| r.node).collect();
    if !rest.is_empty() {
        messages.push(format!(
            "Other errors of this kind were seen on {}.",
            text::nodes(&rest)
        ));
    }
    (messages.join(" "), remediations.join(" "))
}

/// What is denied, as it stands behind "does not allow".
pub(super) fn to_do(denied: &str) -> String {
    match denied {
        "?" => "some of its requests".to_owned(),
        right => format!("to {right}"),
    }
}
