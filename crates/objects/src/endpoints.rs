//! EndpointSlice.

use std::net::IpAddr;

use k8s_openapi::{api::discovery::v1 as discovery, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::{Deserialize, Serialize};

use super::{IpFamily, Object, Open, Protocol, null_is_default};

/// An EndpointSlice.
#[derive(Resource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[resource(inherit = "discovery::EndpointSlice")]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlice {
    /// Metadata; the label kubernetes.io/service-name says whose endpoints these are.
    pub metadata: ObjectMeta,
    /// IPv4, IPv6 or FQDN.
    #[serde(default)]
    pub address_type: Open<IpFamily>,
    /// Endpoints.
    #[serde(default, deserialize_with = "null_is_default")]
    pub endpoints: Vec<Endpoint>,
    /// Ports that all endpoints of the slice have.
    #[serde(default, deserialize_with = "null_is_default")]
    pub ports: Vec<EndpointPort>,
}

/// An endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Addresses; kube-proxy uses the first.
    #[serde(deserialize_with = "null_is_default")]
    pub addresses: Vec<String>,
    /// State.
    #[serde(deserialize_with = "null_is_default")]
    pub conditions: EndpointConditions,
    /// Node the endpoint is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Zone the endpoint is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The Pod behind the endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// For whom the endpoint is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hints: Option<EndpointHints>,
}

/// For whom an endpoint is meant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointHints {
    /// Zones.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub for_zones: Vec<Hint>,
    /// Nodes.
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub for_nodes: Vec<Hint>,
}

/// A zone or a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hint {
    /// Its name.
    pub name: String,
}

/// State of an endpoint; an absent field has the meaning that the API's documentation gives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    /// Takes traffic. Absent: yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// Can take traffic though it may be terminating. Absent: as ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving: Option<bool>,
    /// Is going away. Absent: no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating: Option<bool>,
}

/// The object behind an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetRef {
    /// Kind, for example Pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// UID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// A port of all endpoints of a slice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointPort {
    /// Name, that of the Service port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Number; absent means every port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// TCP, UDP or SCTP; TCP when absent.
    #[serde(deserialize_with = "null_is_default")]
    pub protocol: Open<Protocol>,
}

impl EndpointSlice {
    /// Label that names the Service a slice belongs to.
    pub const SERVICE_LABEL: &'static str = "kubernetes.io/service-name";

    /// Name of the Service that the slice belongs to.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        self.labels().get(Self::SERVICE_LABEL).map(String::as_str)
    }

    /// The endpoints that take traffic, with the address that they are reached at.
    pub fn ready(&self) -> impl Iterator<Item = (IpAddr, &Endpoint)> {
        let ready = self.endpoints.iter().filter(|e| e.is_ready());
        ready.filter_map(|e| Some((e.addresses.first()?.parse().ok()?, e)))
    }

    /// The numbers of the ports of a protocol, with the names of the Service's ports.
    pub fn numbers<'a>(&'a self, protocol: &'a Open<Protocol>) -> impl Iterator<Item = (&'a str, u16)> {
        let ports = self.ports.iter().filter(move |p| p.protocol == *protocol);
        ports.filter_map(|p| Some((p.name(), u16::try_from(p.port?).ok()?)))
    }
}

impl EndpointPort {
    /// The name, empty when there is none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }
}

impl Endpoint {
    /// Whether the endpoint takes traffic in the normal case.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.conditions.ready.unwrap_or(true)
    }

    /// Whether the endpoint can take traffic though it may be terminating.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.conditions.serving.unwrap_or_else(|| self.is_ready())
    }

    /// Whether the endpoint is going away.
    #[must_use]
    pub fn is_terminating(&self) -> bool {
        self.conditions.terminating.unwrap_or(false)
    }

    /// Zones that the endpoint is meant for.
    #[must_use]
    pub fn hinted_zones(&self) -> Vec<&str> {
        self.hints
            .iter()
            .flat_map(|h| &h.for_zones)
            .map(|z| z.name.as_str())
            .collect()
    }

    /// Nodes that the endpoint is meant for.
    #[must_use]
    pub fn hinted_nodes(&self) -> Vec<&str> {
        self.hints
            .iter()
            .flat_map(|h| &h.for_nodes)
            .map(|n| n.name.as_str())
            .collect()
    }

    /// UID of the Pod behind the endpoint.
    #[must_use]
    pub fn pod_uid(&self) -> Option<&str> {
        self.target_ref
            .as_ref()
            .filter(|t| t.kind.as_deref() == Some("Pod"))?
            .uid
            .as_deref()
    }
}
