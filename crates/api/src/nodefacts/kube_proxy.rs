//! kube-proxy on the node: whether it runs, how, and whether it keeps up.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{bounds, macros::string_enum};

/// kube-proxy on a node.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct KubeProxy {
    /// The mode that it reports, or else the mode of its rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = bounds::WORD))]
    pub mode: Option<String>,
    /// Name of its process, or of the process that embeds it; absent if none runs in the node's network namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = bounds::WORD))]
    pub process: Option<String>,
    /// What replaces it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = bounds::WORD))]
    pub replacement: Option<String>,
    /// Whether the processes of the node could not be listed, so that a missing one proves nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub processes_unread: bool,
    /// State of /livez on port 10256.
    #[serde(default)]
    pub livez: PortState,
    /// State of port 10249.
    #[serde(default)]
    pub metrics: PortState,
    /// How its process is run; absent if there is no process or this is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs_as: Option<RunsAs>,
    /// The systemd unit that its process belongs to, if it does not run in a Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = bounds::WORD))]
    pub unit: Option<String>,
    /// The name under which it looks for its Node, if that is not the Node's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node_name: Option<String>,
    /// Changes have been pending for more than 60 s, and no rules were written meanwhile.
    #[serde(default)]
    pub not_syncing: bool,
    /// Why it failed to write rules, according to its failure counters or its log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub sync_error: Option<String>,
    /// Requests to the API server failed in at least three samples over more than 60 s, and none was answered.
    #[serde(default)]
    pub api_unreachable: bool,
    /// What the API server does not allow it: a verb and a resource, as in `list endpointslices`; `?` if only its
    /// counters show it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub denied: Option<String>,
}

string_enum! {
    /// How kube-proxy is run.
    RunsAs {
        /// In a Pod.
        Pod,
        /// In a static Pod: the kubelet runs it from a file of the node.
        StaticPod,
        /// By systemd, on its own or as part of another program.
        Unit,
    }
}

string_enum! {
    /// State of a port.
    PortState {
        /// It reports healthy.
        Ok,
        /// It reports unhealthy.
        Failing,
        /// It connects but times out.
        Silent,
        /// Nothing listens.
        Closed,
    }
}

#[expect(clippy::derivable_impls, reason = "string_enum! has no place for #[default]")]
impl Default for PortState {
    fn default() -> Self {
        Self::Closed
    }
}
