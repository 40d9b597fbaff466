//! The kind a user writes: which Service, seen from where, how often; and the answer in its status.

#![expect(
    unreachable_pub,
    reason = "KubeSchema copies each struct, with its visibility, to where nobody reaches it"
)]

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::LabelSelector, apimachinery::pkg::util::intstr::IntOrString,
};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{ConditionType, bounds, macros::string_enum};

mod status;

pub use status::{Impact, Observation, RootCause, ServiceDiagnosisStatus, Summary};

/// A port of a Service: its number or its name.
pub type PortRef = IntOrString;

/// What to diagnose and from where.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "svcdiag.dev",
    version = "v1alpha1",
    kind = "ServiceDiagnosis",
    plural = "servicediagnoses",
    shortname = "svcdiag",
    category = "diagnostics",
    namespaced,
    status = "ServiceDiagnosisStatus",
    derive = "PartialEq",
    doc = "ServiceDiagnosis answers, continuously and with evidence, why a Service does not work: one condition for each question of the Kubernetes page \"Debug Services\", and the root cause with its fix.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Service", type_ = "string", json_path = ".spec.serviceName"),
    printcolumn(name = "Endpoints", type_ = "string", json_path = ".status.summary.endpoints"),
    printcolumn(name = "DNS", type_ = "string", json_path = ".status.summary.dns"),
    printcolumn(name = "Proxy", type_ = "string", json_path = ".status.summary.proxy"),
    printcolumn(name = "Hairpin", type_ = "string", json_path = ".status.summary.hairpin"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(
        name = "Mode",
        type_ = "string",
        json_path = ".status.proxyMode",
        priority = 1
    ),
    printcolumn(
        name = "Since",
        type_ = "date",
        json_path = ".status.conditions[?(@.type==\"Ready\")].lastTransitionTime",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ServiceDiagnosisSpec {
    /// Name of the Service in the same namespace. It need not exist yet. Immutable.
    #[schemars(schema_with = "bounds::service_name")]
    pub service_name: String,

    /// Service ports that clients use, by number or by name. Default: all ports of the Service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::ports")]
    pub ports: Vec<PortRef>,

    /// Client Pods from which DNS and the Service are probed.
    #[serde(default)]
    pub clients: Clients,

    /// Nodes to probe from.
    #[serde(default)]
    pub nodes: Nodes,

    /// Pause between two rounds of probes, in seconds. Changes of API objects are checked at once. Default: 60.
    #[serde(default = "default_interval")]
    #[schemars(range(min = 10, max = 86400))]
    pub interval_seconds: u32,

    /// How probes are made.
    #[serde(default)]
    pub probe: Probe,

    /// Domain of the cluster's DNS names as clients have it; nodes use the cluster's own. Default: taken from the
    /// Pods' resolv.conf, or else cluster.local.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::cluster_domain")]
    pub cluster_domain: Option<String>,

    /// Condition types to skip. They become Unknown with reason Skipped and do not hold up Ready. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::skip")]
    pub skip: Vec<ConditionType>,

    /// What Ready needs of node agents. Required: the data path must have been probed. IfAvailable: the same where the
    /// cluster has agents; without any, Ready is True if nothing is wrong with the API objects (reason DefinitionWorks).
    /// Ignore: agents are not asked. Default: that of the controller (--data-path), which is Required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::data_path")]
    pub data_path: Option<DataPath>,

    /// How long Ready must be False before Stalled becomes True, in seconds. Default: 120.
    #[serde(default = "default_stalled_after")]
    #[schemars(range(min = 0, max = 3600))]
    pub stalled_after_seconds: u32,

    /// If true, nothing is probed or checked and Ready is Unknown with reason Suspended. Default: false.
    #[serde(default)]
    pub suspend: bool,
}

const fn default_interval() -> u32 {
    60
}

const fn default_stalled_after() -> u32 {
    120
}

impl ServiceDiagnosis {
    /// The diagnosis to judge: one that asks these things now, with the probes of the one that is there.
    #[must_use]
    pub fn asked_now(found: Option<Self>, namespace: &str, spec: ServiceDiagnosisSpec) -> Self {
        let mut asked = found.unwrap_or_else(|| Self::new(&spec.service_name, spec.clone()));
        asked.metadata.namespace = Some(namespace.to_owned());
        asked.spec = spec;
        asked.status = None;
        asked
    }

    /// The status, if it is about the present spec. One of an older generation is about another spec, and the default status
    /// of a new object (observedGeneration -1) is about none.
    #[must_use]
    pub fn current_status(&self) -> Option<&ServiceDiagnosisStatus> {
        let is_current = |s: &&ServiceDiagnosisStatus| s.observed_generation == self.metadata.generation;
        self.status.as_ref().filter(is_current)
    }
}

impl ServiceDiagnosisSpec {
    /// The spec that a user gets who names nothing but the Service.
    #[must_use]
    pub fn for_service(service_name: impl Into<String>) -> Self {
        Self {
            service_name: service_name.into(),
            ports: Vec::new(),
            clients: Clients::default(),
            nodes: Nodes::default(),
            interval_seconds: default_interval(),
            probe: Probe::default(),
            cluster_domain: None,
            skip: Vec::new(),
            data_path: None,
            stalled_after_seconds: default_stalled_after(),
            suspend: false,
        }
    }
}

/// Pods from whose network namespaces DNS and the Service are probed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Clients {
    /// Pods that are clients of the Service. Default: running Pods of the namespace that do not use
    /// hostNetwork, have dnsPolicy ClusterFirst and are not blocked by a NetworkPolicy; Pods that
    /// are not endpoints of the Service are preferred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::label_selector")]
    pub pod_selector: Option<LabelSelector>,

    /// Namespace of the client Pods. Any other namespace must allow it with the annotation
    /// svcdiag.dev/clients-for. Default: the namespace of the ServiceDiagnosis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::namespace")]
    pub namespace: Option<String>,

    /// Number of client Pods, spread over nodes. Default: 2.
    #[serde(default = "default_max_pods")]
    #[schemars(range(min = 1, max = 10))]
    pub max_pods: u32,
}

const fn default_max_pods() -> u32 {
    2
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            pod_selector: None,
            namespace: None,
            max_pods: default_max_pods(),
        }
    }
}

/// Nodes to probe in addition to those of the client Pods and up to three nodes with endpoints.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Nodes {
    /// Nodes that may be probed from. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::label_selector")]
    pub selector: Option<LabelSelector>,

    /// Size of the sample of additional nodes, rotated hourly. Default: 3.
    #[serde(default = "default_max_nodes")]
    #[schemars(range(min = 0, max = 100))]
    pub max_nodes: u32,
}

const fn default_max_nodes() -> u32 {
    3
}

impl Default for Nodes {
    fn default() -> Self {
        Self {
            selector: None,
            max_nodes: default_max_nodes(),
        }
    }
}

/// How probes are made.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Timeout of one attempt, in seconds. Default: 4, because ARP gives up after 3. A failure takes two probes, and the
    /// first of them waits for a connection for 2 seconds at most.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 1, max = 30))]
    pub timeout_seconds: u32,

    /// Attempts of one probe, started one second apart. Default: 2.
    #[serde(default = "default_attempts")]
    #[schemars(range(min = 1, max = 10))]
    pub attempts: u32,

    /// Send an HTTP request after connecting. Default: only connect and close, without sending a byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpProbe>,
}

const fn default_timeout() -> u32 {
    4
}

const fn default_attempts() -> u32 {
    2
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            timeout_seconds: default_timeout(),
            attempts: default_attempts(),
            http: None,
        }
    }
}

/// An HTTP request and the responses that count as success.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HttpProbe {
    /// Path of the request, for example /healthz: printable ASCII characters without spaces.
    #[schemars(schema_with = "bounds::http_path")]
    pub path: String,

    /// Service port for the HTTP request, by number or by name. Default: every TCP port that is probed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "bounds::port")]
    pub port: Option<PortRef>,

    /// HTTP or HTTPS; with HTTPS, only the TCP connection is tested. Default: HTTP.
    #[serde(default)]
    pub scheme: HttpScheme,

    /// Status codes that count as success. Default: 200 to 399.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "bounds::http_statuses")]
    pub expected_statuses: Vec<u16>,
}

string_enum! {
    /// What Ready needs of node agents.
    DataPath {
        /// The data path must have been probed.
        Required,
        /// The data path must have been probed where the cluster has agents.
        IfAvailable,
        /// Only the API objects count; agents are not asked.
        Ignore,
    }
}

string_enum! {
    /// Scheme of an HTTP probe.
    HttpScheme {
        /// Plain HTTP.
        HTTP,
        /// HTTP over TLS.
        HTTPS,
    }
}

#[expect(
    clippy::derivable_impls,
    reason = "the macro writes the enum, so its variants cannot be marked"
)]
impl Default for HttpScheme {
    fn default() -> Self {
        Self::HTTP
    }
}
