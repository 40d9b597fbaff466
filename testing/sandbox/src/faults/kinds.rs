//! The kinds of objects that the sandbox handles by name, and how to reach them.

use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// As in a manifest: `Deployment`.
    pub kind: &'static str,
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    namespaced: bool,
}

/// All of them.
pub const KINDS: [Kind; 13] = [
    kind("Namespace", "", "v1", "namespaces", false),
    kind("Node", "", "v1", "nodes", false),
    kind("ConfigMap", "", "v1", "configmaps", true),
    kind("Pod", "", "v1", "pods", true),
    kind("Service", "", "v1", "services", true),
    kind("Deployment", "apps", "v1", "deployments", true),
    kind("Job", "batch", "v1", "jobs", true),
    kind("ReplicaSet", "apps", "v1", "replicasets", true),
    kind("StatefulSet", "apps", "v1", "statefulsets", true),
    kind("EndpointSlice", "discovery.k8s.io", "v1", "endpointslices", true),
    kind(
        "NetworkPolicy",
        "networking.k8s.io",
        "v1",
        "networkpolicies",
        true,
    ),
    kind(
        "ServiceDiagnosis",
        "svcdiag.dev",
        "v1alpha1",
        "servicediagnoses",
        true,
    ),
    kind("NodeProbe", "svcdiag.dev", "v1alpha1", "nodeprobes", true),
];

const fn kind(
    kind: &'static str,
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    namespaced: bool,
) -> Kind {
    Kind {
        kind,
        group,
        version,
        plural,
        namespaced,
    }
}

impl Kind {
    /// The kind of this name.
    pub fn parse(name: &str) -> Option<Self> {
        KINDS.into_iter().find(|kind| kind.kind == name)
    }

    /// The objects of this kind in `namespace`, which says nothing for kinds without namespaces.
    pub fn api(&self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        let gvk = GroupVersionKind::gvk(self.group, self.version, self.kind);
        let resource = ApiResource::from_gvk_with_plural(&gvk, self.plural);
        if self.namespaced {
            Api::namespaced_with(client.clone(), namespace, &resource)
        } else {
            Api::all_with(client.clone(), &resource)
        }
    }
}

/// One object: `Service/hostnames`, or `kube-system/Service/kube-dns`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for kinds without namespaces.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Target {
    /// Reads the text form; without a namespace in it, the object is in `namespace`.
    pub fn parse(text: &str, namespace: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let (namespace, kind, name) = match parts[..] {
            [kind, name] => (namespace, kind, name),
            [namespace, kind, name] => (namespace, kind, name),
            _ => return None,
        };
        Some(Self::new(Kind::parse(kind)?, namespace, name))
    }

    /// The object that a manifest describes; without a namespace in it, it goes to `namespace`.
    pub fn of(object: &DynamicObject, namespace: &str) -> Option<Self> {
        let kind = Kind::parse(&object.types.as_ref()?.kind)?;
        Some(Self::new(
            kind,
            &object.namespace().unwrap_or_else(|| namespace.to_owned()),
            &object.name_any(),
        ))
    }

    fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        let namespace = if kind.namespaced {
            namespace.to_owned()
        } else {
            String::new()
        };
        Self {
            kind,
            namespace,
            name: name.to_owned(),
        }
    }

    /// The API to reach it.
    pub fn api(&self, client: &Client) -> Api<DynamicObject> {
        self.kind.api(client, &self.namespace)
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace.as_str() {
            "" => write!(formatter, "{} {}", self.kind.kind, self.name),
            namespace => write!(formatter, "{} {namespace}/{}", self.kind.kind, self.name),
        }
    }
}
