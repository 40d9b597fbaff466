//! The kinds that are served: built-in ones as a table, custom ones from their CRDs.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::schema::CustomSchema;

/// A kind that is served.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    /// Whether status is a subresource of its own, so that other writes do not touch it.
    pub status: bool,
    /// Whether it can be scaled.
    pub scale: bool,
    /// Whether changes of what is wanted are counted in metadata.generation.
    pub generation: bool,
    /// Field selectors beyond metadata.name and metadata.namespace.
    pub selectable: Vec<String>,
    /// What a CRD says of its kind; `None` for built-in kinds.
    pub custom: Option<Arc<CustomSchema>>,
}

impl Resource {
    /// `deployments.apps`, `pods`.
    pub(crate) fn qualified(&self) -> String {
        match self.group.as_str() {
            "" => self.plural.clone(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// `apps/v1`, `v1`.
    pub(crate) fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// `ServiceDiagnosis.svcdiag.dev`, `Pod`.
    pub(crate) fn qualified_kind(&self) -> String {
        match self.group.as_str() {
            "" => self.kind.clone(),
            group => format!("{}.{group}", self.kind),
        }
    }

    /// Verbs of discovery.
    pub(crate) const VERBS: [&'static str; 8] = [
        "create",
        "delete",
        "deletecollection",
        "get",
        "list",
        "patch",
        "update",
        "watch",
    ];
}

/// A row of the table: group, version, kind, plural, short names, flags (n: namespaced, s: status,
/// c: scale, g: generation, a: category all), field selectors.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

const BUILT_IN: &[Row] = &[
    ("", "v1", "ConfigMap", "configmaps", "cm", "n", ""),
    ("", "v1", "Endpoints", "endpoints", "ep", "n", ""),
    (
        "",
        "v1",
        "Event",
        "events",
        "ev",
        "n",
        "involvedObject.kind,involvedObject.name,involvedObject.namespace,involvedObject.uid,reason,type",
    ),
    ("", "v1", "Namespace", "namespaces", "ns", "s", "status.phase"),
    ("", "v1", "Node", "nodes", "no", "s", "spec.unschedulable"),
    (
        "",
        "v1",
        "Pod",
        "pods",
        "po",
        "nsga",
        "spec.nodeName,spec.restartPolicy,spec.hostNetwork,status.phase,status.podIP",
    ),
    ("", "v1", "Secret", "secrets", "", "n", "type"),
    (
        "",
        "v1",
        "Service",
        "services",
        "svc",
        "nsa",
        "spec.clusterIP,spec.type",
    ),
    ("", "v1", "ServiceAccount", "serviceaccounts", "sa", "n", ""),
    (
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicy",
        "validatingadmissionpolicies",
        "",
        "sg",
        "",
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
        "",
        "g",
        "",
    ),
    (
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        "crd,crds",
        "sg",
        "",
    ),
    ("apps", "v1", "DaemonSet", "daemonsets", "ds", "nsga", ""),
    ("apps", "v1", "Deployment", "deployments", "deploy", "nscga", ""),
    ("apps", "v1", "ReplicaSet", "replicasets", "rs", "nscga", ""),
    ("apps", "v1", "StatefulSet", "statefulsets", "sts", "nscga", ""),
    ("batch", "v1", "CronJob", "cronjobs", "cj", "nsga", ""),
    ("batch", "v1", "Job", "jobs", "", "nsga", ""),
    ("coordination.k8s.io", "v1", "Lease", "leases", "", "n", ""),
    (
        "discovery.k8s.io",
        "v1",
        "EndpointSlice",
        "endpointslices",
        "",
        "ng",
        "",
    ),
    ("events.k8s.io", "v1", "Event", "events", "ev", "n", ""),
    (
        "networking.k8s.io",
        "v1",
        "NetworkPolicy",
        "networkpolicies",
        "netpol",
        "ng",
        "",
    ),
    (
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        "pdb",
        "ns",
        "",
    ),
    (
        "rbac.authorization.k8s.io",
        "v1",
        "ClusterRole",
        "clusterroles",
        "",
        "",
        "",
    ),
    (
        "rbac.authorization.k8s.io",
        "v1",
        "ClusterRoleBinding",
        "clusterrolebindings",
        "",
        "",
        "",
    ),
    ("rbac.authorization.k8s.io", "v1", "Role", "roles", "", "n", ""),
    (
        "rbac.authorization.k8s.io",
        "v1",
        "RoleBinding",
        "rolebindings",
        "",
        "n",
        "",
    ),
];

/// All kinds that are served, by group and plural.
#[derive(Clone, Debug)]
pub(crate) struct Registry(BTreeMap<(String, String), Arc<Resource>>);

impl Registry {
    /// The built-in kinds.
    pub(crate) fn built_in() -> Self {
        let words = |s: &str| {
            s.split(',')
                .filter(|w| !w.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let resource = |(group, version, kind, plural, short, flags, selectable): &Row| Resource {
            group: (*group).to_owned(),
            version: (*version).to_owned(),
            kind: (*kind).to_owned(),
            plural: (*plural).to_owned(),
            singular: kind.to_lowercase(),
            short_names: words(short),
            categories: if flags.contains('a') {
                vec!["all".to_owned()]
            } else {
                Vec::new()
            },
            namespaced: flags.contains('n'),
            status: flags.contains('s'),
            scale: flags.contains('c'),
            generation: flags.contains('g'),
            selectable: words(selectable),
            custom: None,
        };
        let entry = |r: Resource| ((r.group.clone(), r.plural.clone()), Arc::new(r));
        Self(BUILT_IN.iter().map(resource).map(entry).collect())
    }

    pub(crate) fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.0
            .get(&(group.to_owned(), plural.to_owned()))
            .filter(|r| r.version == version)
    }

    /// Whether a group is one of those that the server itself has.
    pub(crate) fn is_built_in(&self, group: &str) -> bool {
        group == "authorization.k8s.io" || self.all().any(|r| r.group == group && r.custom.is_none())
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.0.values()
    }

    /// Serves the kind of a CRD from now on.
    pub(crate) fn add(&mut self, resource: Resource) {
        self.0.insert(
            (resource.group.clone(), resource.plural.clone()),
            Arc::new(resource),
        );
    }

    /// Serves the kind of a CRD no longer.
    pub(crate) fn remove(&mut self, group: &str, plural: &str) -> Option<Arc<Resource>> {
        self.0.remove(&(group.to_owned(), plural.to_owned()))
    }
}

/// The kind that a CRD declares, with its storage version's schema.
pub(crate) fn from_crd(crd: &Value) -> Option<Resource> {
    let spec = &crd["spec"];
    let names = &spec["names"];
    let version = spec["versions"]
        .as_array()?
        .iter()
        .find(|v| v["served"] != false)?;
    let text = |v: &Value| v.as_str().map(str::to_owned);
    let texts = |v: &Value| {
        v.as_array()
            .into_iter()
            .flatten()
            .filter_map(text)
            .collect::<Vec<_>>()
    };
    let kind = text(&names["kind"])?;
    let field = |f: &Value| {
        f["jsonPath"]
            .as_str()
            .map(|p| p.trim_start_matches('.').to_owned())
    };
    Some(Resource {
        group: text(&spec["group"])?,
        version: text(&version["name"])?,
        plural: text(&names["plural"])?,
        singular: text(&names["singular"]).unwrap_or_else(|| kind.to_lowercase()),
        kind,
        short_names: texts(&names["shortNames"]),
        categories: texts(&names["categories"]),
        namespaced: spec["scope"] == "Namespaced",
        status: version["subresources"]["status"].is_object(),
        scale: false,
        generation: true,
        selectable: version["selectableFields"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(field)
            .collect(),
        custom: Some(Arc::new(CustomSchema::new(version))),
    })
}
