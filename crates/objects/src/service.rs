//! Service.

use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::{Deserialize, Serialize};

use super::{IntOrString, IpFamily, Labels, Open, Protocol, null_is_default};
use svcdiag_api::PortProtocol;

/// A Service.
#[derive(Resource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[resource(inherit = "core::Service")]
pub struct Service {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is asked for.
    #[serde(default, deserialize_with = "null_is_default")]
    pub spec: ServiceSpec,
    /// What there is.
    #[serde(default, deserialize_with = "null_is_default")]
    pub status: ServiceStatus,
}

/// ServiceSpec.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// ClusterIP, NodePort, LoadBalancer or ExternalName; ClusterIP when absent.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// Labels of the Pods behind the Service; without any, the EndpointSlices are made by hand.
    #[serde(deserialize_with = "null_is_default")]
    pub selector: Labels,
    /// Ports.
    #[serde(deserialize_with = "null_is_default")]
    pub ports: Vec<ServicePort>,
    /// The Service's own address; "None" for a headless Service.
    #[serde(rename = "clusterIP", skip_serializing_if = "Option::is_none")]
    pub cluster_ip: Option<String>,
    /// The Service's own addresses, one for each IP family.
    #[serde(rename = "clusterIPs", deserialize_with = "null_is_default")]
    pub cluster_ips: Vec<String>,
    /// Further addresses that nodes accept for the Service.
    #[serde(rename = "externalIPs", deserialize_with = "null_is_default")]
    pub external_ips: Vec<String>,
    /// IPv4, IPv6 or both.
    #[serde(deserialize_with = "null_is_default")]
    pub ip_families: Vec<Open<IpFamily>>,
    /// Target of an ExternalName Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_name: Option<String>,
    /// Local or Cluster, for traffic from inside the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub internal_traffic_policy: Option<String>,
    /// Local or Cluster, for traffic from outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<String>,
    /// ClientIP or None; None when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_affinity: Option<String>,
    /// Networks whose traffic a load balancer's address takes; all when empty.
    #[serde(deserialize_with = "null_is_default")]
    pub load_balancer_source_ranges: Vec<String>,
    /// Whether Pods that are not ready are endpoints, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish_not_ready_addresses: Option<bool>,
}

/// A port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// Name; absent or empty where there is one port only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// TCP, UDP or SCTP; TCP when absent.
    #[serde(deserialize_with = "null_is_default")]
    pub protocol: Open<Protocol>,
    /// Number of the port on the Service's addresses.
    pub port: i32,
    /// Number or name of the port on the Pods; the same number when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_port: Option<IntOrString>,
    /// Number of the port on the nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_port: Option<i32>,
}

/// ServiceStatus.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// Addresses of the load balancer.
    #[serde(deserialize_with = "null_is_default")]
    pub load_balancer: LoadBalancerStatus,
}

/// LoadBalancerStatus.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadBalancerStatus {
    /// Addresses, only counted here.
    #[serde(deserialize_with = "null_is_default")]
    pub ingress: Vec<Ingress>,
}

/// An address of a load balancer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ingress {
    /// IP address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// VIP or Proxy; VIP when absent.
    #[serde(rename = "ipMode", skip_serializing_if = "Option::is_none")]
    pub ip_mode: Option<String>,
}

impl Ingress {
    /// Whether nodes take the traffic to the address themselves.
    #[must_use]
    pub fn is_proxied(&self) -> bool {
        self.ip_mode.as_deref() != Some("Proxy")
    }
}

impl Service {
    /// Whether the Service is an alias in DNS and nothing more.
    #[must_use]
    pub fn is_external_name(&self) -> bool {
        self.spec.type_.as_deref() == Some("ExternalName")
    }

    /// The name that an ExternalName Service stands for, without a dot at its end.
    #[must_use]
    pub fn external_name(&self) -> Option<&str> {
        let name = self
            .spec
            .external_name
            .as_deref()
            .filter(|_| self.is_external_name())?;
        Some(name.trim_end_matches('.')).filter(|name| !name.is_empty())
    }

    /// Whether the Service has no address of its own.
    #[must_use]
    pub fn is_headless(&self) -> bool {
        self.spec.cluster_ip.as_deref() == Some("None")
    }

    /// The Service's own addresses; none for a headless Service.
    #[must_use]
    pub fn cluster_ips(&self) -> Vec<&str> {
        let all = self.spec.cluster_ips.iter().map(String::as_str);
        let mut ips: Vec<&str> = all.chain(self.spec.cluster_ip.as_deref()).collect();
        ips.retain(|ip| !ip.is_empty() && *ip != "None");
        let mut seen = std::collections::BTreeSet::new();
        ips.retain(|ip| seen.insert(*ip));
        ips
    }

    /// Whether Pods are selected for the Service.
    #[must_use]
    pub fn has_selector(&self) -> bool {
        !self.spec.selector.is_empty() && !self.is_external_name()
    }

    /// Whether clients from outside the cluster are expected: type NodePort or LoadBalancer, or externalIPs.
    #[must_use]
    pub fn is_for_outside(&self) -> bool {
        matches!(self.spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"))
            || !self.spec.external_ips.is_empty()
    }

    /// Whether Pods that are not ready are published, too.
    #[must_use]
    pub fn publishes_not_ready(&self) -> bool {
        self.spec.publish_not_ready_addresses == Some(true)
    }

    /// Whether traffic from inside the cluster stays on the node of the client.
    #[must_use]
    pub fn is_internally_local(&self) -> bool {
        self.spec.internal_traffic_policy.as_deref() == Some("Local")
    }
}

impl ServicePort {
    /// The name, empty when there is none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// Its number and protocol, of a port that there can be.
    #[must_use]
    pub fn port_protocol(&self) -> Option<PortProtocol> {
        Some(PortProtocol {
            number: self.port.try_into().ok()?,
            protocol: self.protocol.known()?,
        })
    }

    /// The target port with its default; 0 stands for absent, as the API server takes it.
    #[must_use]
    pub fn target_port(&self) -> IntOrString {
        match &self.target_port {
            None | Some(IntOrString::Int(0)) => IntOrString::Int(self.port),
            Some(port) => port.clone(),
        }
    }

    /// Whether a number or name means the port.
    #[must_use]
    pub fn is_named_by(&self, wanted: &svcdiag_api::PortRef) -> bool {
        match wanted {
            svcdiag_api::PortRef::Int(number) => self.port == *number,
            svcdiag_api::PortRef::String(name) => self.name() == name,
        }
    }

    /// How people write the port: `"http" (80/TCP)` or `80/TCP`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self.name() {
            "" => format!("{}/{}", self.port, self.protocol),
            name => format!("\"{name}\" ({}/{})", self.port, self.protocol),
        }
    }
}
