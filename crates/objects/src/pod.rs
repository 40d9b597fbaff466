//! Pod.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1 as core,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::Resource;
use serde::{Deserialize, Serialize};

use super::{IntOrString, Open, Protocol, null_is_default};

/// A Pod.
#[derive(Resource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[resource(inherit = "core::Pod")]
pub struct Pod {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is asked for.
    #[serde(default, deserialize_with = "null_is_default")]
    pub spec: PodSpec,
    /// What there is.
    #[serde(default, deserialize_with = "null_is_default")]
    pub status: PodStatus,
}

/// PodSpec.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Node the Pod is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Whether the Pod uses its node's network namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_network: Option<bool>,
    /// ClusterFirst, ClusterFirstWithHostNet, Default or None; ClusterFirst when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_policy: Option<String>,
    /// Runtime class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<String>,
    /// Containers.
    #[serde(deserialize_with = "null_is_default")]
    pub containers: Vec<Container>,
    /// Init containers; those with restartPolicy Always are native sidecars.
    #[serde(deserialize_with = "null_is_default")]
    pub init_containers: Vec<Container>,
    /// Conditions beyond the containers that the Pod needs to be ready.
    #[serde(deserialize_with = "null_is_default")]
    pub readiness_gates: Vec<ReadinessGate>,
    /// What has to be removed before the Pod is placed on a node.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub scheduling_gates: Vec<SchedulingGate>,
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Name.
    pub name: String,
    /// Image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Declared ports.
    #[serde(deserialize_with = "null_is_default")]
    pub ports: Vec<ContainerPort>,
    /// Always for a native sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<String>,
    /// Start-up probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup_probe: Option<Probe>,
    /// Readiness probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness_probe: Option<Probe>,
    /// Liveness probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveness_probe: Option<Probe>,
}

/// A declared port of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Number.
    pub container_port: i32,
    /// TCP, UDP or SCTP; TCP when absent.
    #[serde(deserialize_with = "null_is_default")]
    pub protocol: Open<Protocol>,
}

/// Timing of a kubelet's probe, and the port that it asks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Probe {
    /// Pause before the first try, in seconds; 0 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_delay_seconds: Option<i32>,
    /// Pause between tries, in seconds; 10 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period_seconds: Option<i32>,
    /// Failures in a row that count; 3 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_threshold: Option<i32>,
    /// An HTTP request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_get: Option<ProbeTarget>,
    /// A connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_socket: Option<ProbeTarget>,
    /// A gRPC health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<ProbeTarget>,
}

/// What a probe asks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbeTarget {
    /// Number of the port, or its name in the same container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<IntOrString>,
}

impl Probe {
    /// How long the probe may fail before the kubelet gives up, in seconds.
    #[must_use]
    pub fn budget_seconds(&self) -> i64 {
        let positive = |value: Option<i32>, default| i64::from(value.filter(|v| *v > 0).unwrap_or(default));
        positive(self.initial_delay_seconds, 0)
            + positive(self.period_seconds, 10) * positive(self.failure_threshold, 3)
    }

    /// The port that it asks; none where it runs a program.
    #[must_use]
    pub fn port(&self) -> Option<&IntOrString> {
        let targets = [&self.http_get, &self.tcp_socket, &self.grpc];
        targets.into_iter().flatten().find_map(|t| t.port.as_ref())
    }
}

/// A condition that the Pod needs to be ready.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReadinessGate {
    /// Type of the condition.
    pub condition_type: String,
}

/// What keeps the Pod from being placed on a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SchedulingGate {
    /// Its name; the controller of this name removes it.
    pub name: String,
}

/// PodStatus.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// Pending, Running, Succeeded, Failed or Unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Address.
    #[serde(rename = "podIP", skip_serializing_if = "Option::is_none")]
    pub pod_ip: Option<String>,
    /// Addresses, one for each IP family.
    #[serde(rename = "podIPs", deserialize_with = "null_is_default")]
    pub pod_ips: Vec<PodIp>,
    /// When the kubelet took the Pod on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// Conditions.
    #[serde(deserialize_with = "null_is_default")]
    pub conditions: Vec<PodCondition>,
    /// States of the containers.
    #[serde(deserialize_with = "null_is_default")]
    pub container_statuses: Vec<ContainerStatus>,
    /// States of the init containers.
    #[serde(deserialize_with = "null_is_default")]
    pub init_container_statuses: Vec<ContainerStatus>,
}

/// An address of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodIp {
    /// The address.
    pub ip: String,
}

/// A condition of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCondition {
    /// Type, for example Ready.
    #[serde(rename = "type")]
    pub type_: String,
    /// True, False or Unknown.
    pub status: String,
    /// Why, for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When the status last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Timestamp>,
}

/// State of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    /// Name.
    pub name: String,
    /// Whether the container is ready.
    pub ready: bool,
    /// Whether the start-up probe has passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<bool>,
    /// How often the container was started anew.
    pub restart_count: i32,
    /// Present state.
    #[serde(deserialize_with = "null_is_default")]
    pub state: ContainerState,
    /// State before that.
    #[serde(deserialize_with = "null_is_default")]
    pub last_state: ContainerState,
}

/// State of a container; one of the fields is present.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerState {
    /// Not running yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
    /// Has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminated: Option<Terminated>,
}

/// Why a container waits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Waiting {
    /// For programs, for example CrashLoopBackOff.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Since when a container runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Running {
    /// Start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Terminated {
    /// Exit code.
    pub exit_code: i32,
    /// For programs, for example OOMKilled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// End.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
}

impl Pod {
    /// The condition of a type.
    #[must_use]
    pub fn condition(&self, type_: &str) -> Option<&PodCondition> {
        self.status.conditions.iter().find(|c| c.type_ == type_)
    }

    /// Whether the Pod is ready to take traffic.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(|c| c.status == "True")
    }

    /// Whether all containers have ended for good, so that the Pod is no endpoint any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"))
    }

    /// Whether the Pod uses its node's network namespace.
    #[must_use]
    pub fn is_host_network(&self) -> bool {
        self.spec.host_network == Some(true)
    }

    /// All addresses of the Pod.
    pub fn ips(&self) -> impl Iterator<Item = &str> {
        let single = if self.status.pod_ips.is_empty() {
            self.status.pod_ip.as_deref()
        } else {
            None
        };
        self.status
            .pod_ips
            .iter()
            .map(|p| p.ip.as_str())
            .chain(single)
            .filter(|ip| !ip.is_empty())
    }

    /// Containers that run as long as the Pod: the ordinary ones and the native sidecars.
    pub fn long_running(&self) -> impl Iterator<Item = &Container> {
        let sidecars = self.spec.init_containers.iter().filter(|c| c.is_sidecar());
        self.spec.containers.iter().chain(sidecars)
    }

    /// The number that a target port stands for on this Pod: names are looked up as the endpoints
    /// controller does, by name and protocol.
    #[must_use]
    pub fn resolve_port(&self, target: &IntOrString, protocol: &Open<Protocol>) -> Option<i32> {
        match target {
            IntOrString::Int(number) => Some(*number),
            IntOrString::String(name) => self
                .long_running()
                .flat_map(|c| &c.ports)
                .find(|p| p.name.as_deref() == Some(name) && p.protocol == *protocol)
                .map(|p| p.container_port),
        }
    }

    /// The object that controls the Pod, for example its ReplicaSet.
    #[must_use]
    pub fn controller(&self) -> Option<&OwnerReference> {
        let mut owners = self.metadata.owner_references.iter().flatten();
        owners.find(|o| o.controller == Some(true))
    }

    /// UID of the object that controls the Pod.
    #[must_use]
    pub fn controller_uid(&self) -> Option<&str> {
        self.controller().map(|o| o.uid.as_str())
    }

    /// Whether a Pod of the same kind takes the place of this one when it is deleted. That of a Job may count as
    /// a failure of the Job, and one without a controller is gone.
    #[must_use]
    pub fn is_recreated(&self) -> bool {
        self.controller()
            .is_some_and(|o| matches!(o.kind.as_str(), "ReplicaSet" | "StatefulSet" | "DaemonSet"))
    }
}

impl Container {
    /// Whether an init container runs as long as the Pod: a native sidecar.
    #[must_use]
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy.as_deref() == Some("Always")
    }
}
