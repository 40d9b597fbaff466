//! The part of the Facts that only saved files tell, and no agent or watch does: the traces of old clusters, and objects
//! that nobody watches.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use svcdiag_api::{Answer, DialCount};
use svcdiag_objects::{Labels, Open, Protocol};

/// The name of the node of a Pod of which that is not known. No Node has it.
pub const UNKNOWN_NODE: &str = "(unknown)";

/// What saved files tell of a node and no agent looks for: the traces of old clusters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Saved {
    /// Whether kube-proxy logged that it finds no program conntrack.
    #[serde(default)]
    pub conntrack_missing: bool,
    /// Why kube-proxy ended, where that is the last thing that its log says, no process of it is seen, and the
    /// Service suffers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_exit: Option<String>,
    /// What says that kube-proxy does not masquerade what the node itself sends to Services, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masquerades_nothing: Option<String>,
    /// Who dialled the Service at a port that it does not list, in vain and at no other, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unlisted: Vec<String>,
    /// Pods that are one of several endpoints and may not have reached themselves, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub perhaps_itself: Vec<String>,
    /// Names that programs of Pods did not find, in words: they do not say why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_resolved: Vec<String>,
    /// Pods that looked names up at the name servers of their node, as their dnsPolicy (Default) says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asks_its_node: Vec<String>,
    /// In userspace mode, the port on which kube-proxy takes the Service's packets, and how requests of the
    /// node to it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_port: Option<(u16, Answer)>,
    /// Endpoints that somebody dialled, past the Service.
    #[serde(default)]
    pub dialled: Vec<String>,
    /// Service ports of UDP that were dialled over TCP in vain, while their endpoints answered that.
    #[serde(default)]
    pub wanted_over_tcp: Vec<u16>,
    /// Ports of a headless Service at which clients asked for it by name and its Pods, which have no such port,
    /// refused.
    #[serde(default)]
    pub untranslated: Vec<u16>,
    /// Links, and whether they leave checksums of packets to the network card.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub checksum_offload: BTreeMap<String, bool>,
    /// How Pods are to reach themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hairpin: Option<HairpinSetup>,
    /// What was saved, so that nobody is asked for it again.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub texts: BTreeSet<SavedText>,
    /// From where requests to the Service were made that printed nothing, so that it is not known how they ended.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub silent: BTreeSet<Origin>,
    /// Whether a request to an endpoint printed nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub silent_endpoint: bool,
}

/// A text that was saved on a node or in one of its client Pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SavedText {
    /// All processes, not only some that were searched for.
    Processes,
    /// kube-proxy's log.
    KubeProxyLog,
    /// Rules of any backend.
    Rules,
    /// Entries of conntrack.
    Conntrack,
    /// resolv.conf of a Pod.
    ResolvConf,
}

impl SavedText {
    pub(crate) fn is_of_node(self) -> bool {
        self != Self::ResolvConf
    }
}

/// From where somebody dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// From the node itself.
    Node,
    /// From a client Pod.
    Client,
}

impl Origin {
    pub(crate) fn of(dial: &DialCount) -> Self {
        match dial.from {
            Some(_) => Self::Client,
            None => Self::Node,
        }
    }
}

/// What a node does so that Pods reach themselves through a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HairpinSetup {
    /// Nothing: the kubelet's hairpin mode is none.
    #[serde(rename_all = "camelCase")]
    Off {
        /// Whether the kubelet logged that it is so, and was not only told to.
        is_in_force: bool,
    },
    /// The kubelet has every bridge port send packets back (hairpin-veth).
    #[serde(rename_all = "camelCase")]
    Ports {
        /// Ports that do.
        on: usize,
        /// Ports that do not.
        off: usize,
        /// The file that the kubelet was not allowed to write, if so.
        denied: Option<String>,
    },
    /// The bridge takes packets that are not for it (promiscuous-bridge).
    #[serde(rename_all = "camelCase")]
    Bridge {
        /// Its name.
        name: Option<String>,
        /// Whether it does, as far as it is known.
        is_promiscuous: Option<bool>,
    },
    /// In ipvs mode, an endpoint is not in the set KUBE-LOOP-BACK, whose packets to themselves are masqueraded.
    NotMasqueraded,
}

/// What objects tell of a Service that only bundles hold: nobody watches these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SavedObjects {
    /// Ingresses and routes that send to a port that the Service does not list: kind and name, and the port.
    pub sent_elsewhere: Vec<(String, String)>,
    /// How many addresses its Endpoints object has, where no EndpointSlice was made of it.
    pub endpoints: Option<usize>,
    /// Whether that object says that none is to be made.
    pub skips_mirror: bool,
    /// EndpointSlices called like the Service that lack the label that makes them its own.
    pub unlabelled_slices: Vec<String>,
    /// Pods of other namespaces with an address of an endpoint: the address, and the Pod as namespace/name.
    pub same_addresses: Vec<(String, String)>,
    /// Whether the Service is from a manifest: nobody has seen it in a cluster.
    pub is_from_manifest: bool,
    /// Pod templates of manifests, of any kind of workload.
    pub templates: Vec<PodTemplate>,
    /// What tables of `kubectl get` show.
    pub tables: TableEvidence,
    /// Pods that may have changed between the moments at which the Pods and the EndpointSlices were listed.
    pub apart: BTreeSet<String>,
    /// Warnings that kubectl printed of objects that are not known themselves, of each and each reason the last.
    pub events: Vec<SavedEvent>,
    /// What logs of cluster DNS complain about, what explains most first.
    pub dns_logs: Vec<DnsLog>,
    /// Pods that somebody made to try the Service from, as namespace/name. They may be no clients of it.
    pub one_offs: BTreeSet<String>,
}

/// A line of cluster DNS's log. Later lines seldom say that something is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsLog {
    /// The Pod, as namespace/name, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// What the line means, as it stands behind "that".
    pub meaning: String,
    /// The last line that says so, from 1.
    pub line: usize,
    /// How many lines the log has.
    pub lines: usize,
    /// The words of that line.
    pub words: String,
}

/// A Warning that kubectl printed. It is of the past: that something is over is said by no Event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SavedEvent {
    /// Kind of the object that it is about.
    pub kind: String,
    /// Name of that object.
    pub name: String,
    /// Why, for programs.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// How long before it was printed it was last seen, where kubectl knew.
    pub seconds_ago: Option<i64>,
}

impl SavedEvent {
    /// What it says, and how old that is.
    #[must_use]
    pub fn dated(&self) -> String {
        let message = self.message.trim().trim_end_matches('.');
        match self.seconds_ago.map(SignedDuration::from_secs) {
            Some(age) => format!("{message} (last seen {age:#} before this was saved)"),
            None => format!("{message} (when is not known)"),
        }
    }
}

/// What tables of `kubectl get` show of a Service and its namespace. They may not show everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TableEvidence {
    /// Pods whose labels are shown.
    pub pods: Vec<TablePod>,
    /// How many Pods are shown without labels.
    pub unlabelled_pods: usize,
    /// The ready endpoints of the Service; None where no table shows them.
    pub endpoints: Option<Vec<String>>,
    /// Whether the Service is known from a table only.
    pub has_service: bool,
    /// Nodes that are shown as not ready.
    pub lost_nodes: BTreeSet<String>,
}

/// A Pod as a table shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TablePod {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Whether it is ready.
    pub is_ready: bool,
    /// Its columns READY and STATUS.
    pub state: String,
    /// Its node, where that is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// What a manifest says of the Pods of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodTemplate {
    /// Kind of the workload; Pod for a Pod of its own.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Labels of the Pods.
    pub labels: Labels,
    /// Ports of the containers that run as long as the Pod.
    pub ports: Vec<TemplatePort>,
}

/// A port that a container of a Pod template declares.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TemplatePort {
    /// Its name, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its number.
    pub number: i32,
    /// Its protocol.
    pub protocol: Open<Protocol>,
}
