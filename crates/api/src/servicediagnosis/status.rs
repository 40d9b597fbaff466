//! The answer: conditions, the root cause, and what was observed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ConditionType, bounds, macros::string_enum};

string_enum! {
    /// How much of the Service a fault affects.
    Impact {
        /// Part of the Service fails: some ports, endpoints, nodes or clients.
        Some,
        /// Nothing works.
        All,
    }
}

/// The answer.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceDiagnosisStatus {
    /// metadata.generation that the status reflects; -1 before the first verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// One condition for each stage, and Ready, Reconciling and Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::conditions")]
    pub conditions: Vec<Condition>,

    /// What to fix first. Present only while Ready is False.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_cause: Option<RootCause>,

    /// Short strings for the columns of kubectl get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,

    /// Mode of kube-proxy: iptables, nftables, ipvs, userspace or mixed; or what replaces it, for example cilium.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub proxy_mode: Option<String>,

    /// Observations, failures first; at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub observations: Vec<Observation>,

    /// When the result last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_change_time: Option<Time>,
}

impl ServiceDiagnosisStatus {
    /// The condition of a type.
    #[must_use]
    pub fn condition(&self, type_: ConditionType) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.type_ == type_.as_str())
    }
}

/// The first fault in causal order that explains why the Service does not work.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RootCause {
    /// Type of the condition that is False.
    #[schemars(length(max = 63))]
    pub condition: String,
    /// Reason of that condition.
    #[schemars(length(max = 63))]
    pub reason: String,
    /// All when nothing works, Some when part of the Service fails.
    pub impact: Impact,
    /// What is wrong, with the evidence.
    #[schemars(length(max = 4096))]
    pub message: String,
    /// What to do, with the command to run.
    #[schemars(length(max = 4096))]
    pub remediation: String,
    /// Where to read more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub link: Option<String>,
}

/// Short strings for the columns of kubectl get; "?" means unknown, "n/a" not applicable.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Ready and total endpoints, for example 3/3.
    #[schemars(length(max = 63))]
    pub endpoints: String,
    /// Mode of kube-proxy, and nodes with correct rules out of those checked, for example "nftables 3/3".
    #[schemars(length(max = 63))]
    pub proxy: String,
    /// OK, Failed, n/a or ?.
    #[schemars(length(max = 63))]
    pub dns: String,
    /// OK, Failed, n/a or ?.
    #[schemars(length(max = 63))]
    pub hairpin: String,
}

/// One thing that was observed or probed.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    /// Type of the condition that it is evidence for.
    #[schemars(length(max = 63))]
    pub condition: String,
    /// Node on or from which it was observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node: Option<String>,
    /// Pod in or from which it was observed, as namespace/name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317))]
    pub pod: Option<String>,
    /// What was observed or dialled, for example an address and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317))]
    pub target: Option<String>,
    /// Outcome: an error, a status code or a state.
    #[schemars(length(max = 317))]
    pub result: String,
    /// More about the outcome. Never contains bytes or headers of a response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub detail: Option<String>,
    /// How long it took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_milliseconds: Option<u32>,
}
