//! Reads what the engine needs of one Service over the API.
//!
//! The Service, its EndpointSlices and the Pods are indispensable. What else the user may not read
//! becomes a gap in the Facts, and the stage that needs it says so.

use std::{fmt::Debug, sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    Api, Client, Resource,
    api::{ListParams, ObjectList},
    core::NamespaceResourceScope,
};
use serde::de::DeserializeOwned;

use crate::{
    api::ServiceDiagnosisSpec,
    diagnosis::{ClientNamespace, ClusterDns, Facts, Unreadable},
    objects::{
        EndpointSlice, Namespace, NetworkPolicy, Object, Pod, Service, grants_clients_to, matches_labels,
        trim_metadata,
    },
};

/// Longest wait for one answer of the API server.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Objects of one page of a list, the size that kubectl asks for.
const PAGE: u32 = 500;

/// Why the Facts could not be gathered.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// A right is missing.
    #[error("not allowed to {what}; ask for that right, or try: kubectl auth can-i {command}")]
    Forbidden {
        /// Verb, resource and place, in words.
        what: String,
        /// The same as arguments of `kubectl auth can-i`.
        command: String,
    },
    /// The API server did not answer.
    #[error("could not {what}: no answer within {} seconds", TIMEOUT.as_secs())]
    Timeout {
        /// Verb, resource and place, in words.
        what: String,
    },
    /// Anything else.
    #[error("could not {what}: {source}")]
    Api {
        /// Verb, resource and place, in words.
        what: String,
        /// What the client says.
        #[source]
        source: Box<kube::Error>,
    },
}

/// Where cluster DNS is looked for: upstream's and OpenShift's names.
const CLUSTER_DNS: [(&str, &str); 3] = [
    ("kube-system", "kube-dns"),
    ("kube-system", "coredns"),
    ("openshift-dns", "dns-default"),
];

/// Reads everything about one Service.
///
/// # Errors
/// When the Service, its EndpointSlices or its namespace's Pods cannot be read.
pub(super) async fn gather(
    client: &Client,
    namespace: &str,
    spec: ServiceDiagnosisSpec,
    now: Timestamp,
) -> Result<Facts, GatherError> {
    let mut facts = Facts::new(now, namespace, spec);
    let mut gaps = Gaps::default();
    let name = facts.spec.service_name.clone();

    let services = list::<Service>(client, Some(namespace), None).await?;
    facts.service = services.iter().find(|s| s.name() == name).cloned();
    facts.other_services = services
        .iter()
        .map(|s| s.name().to_owned())
        .filter(|s| *s != name)
        .collect();
    let of_service = format!("{}={name}", EndpointSlice::SERVICE_LABEL);
    facts.slices = list(client, Some(namespace), Some(&of_service)).await?;
    facts.pods = list(client, Some(namespace), None).await?;

    facts.deployments = gaps.note("deployments", list(client, Some(namespace), None).await)?;
    facts.replica_sets = gaps.note("replicasets", list(client, Some(namespace), None).await)?;
    facts.stateful_sets = gaps.note("statefulsets", list(client, Some(namespace), None).await)?;
    facts.policies = gaps.note(
        "networkpolicies",
        list::<NetworkPolicy>(client, Some(namespace), None).await,
    )?;
    facts.namespaces = gaps.note("namespaces", list_cluster::<Namespace>(client).await)?;
    if facts.service.is_none() {
        facts.namesakes = namesakes(client, namespace, &name).await;
        facts.name_other_namespaces = true;
    }
    if let Some(other) = facts
        .spec
        .clients
        .namespace
        .clone()
        .filter(|other| other != namespace)
    {
        let granted = facts
            .namespaces
            .iter()
            .any(|n| n.name() == other && grants_clients_to(n, namespace));
        let pods = if granted {
            list(client, Some(&other), None).await?
        } else {
            Vec::new()
        };
        if granted {
            facts
                .policies
                .extend(gaps.note("networkpolicies", list(client, Some(&other), None).await)?);
        }
        facts.client_namespace = Some(ClientNamespace {
            name: other,
            granted,
            pods,
        });
    }
    facts.cluster_dns = cluster_dns(client).await;
    facts.unreadable = gaps.0;
    Ok(facts)
}

/// What the user may not read, but the engine can do without.
#[derive(Default)]
struct Gaps(Vec<Unreadable>);

impl Gaps {
    fn note<T>(&mut self, resource: &str, read: Result<Vec<T>, GatherError>) -> Result<Vec<T>, GatherError> {
        match read {
            Err(error @ GatherError::Forbidden { .. }) => {
                self.0.push(Unreadable {
                    resource: resource.to_owned(),
                    why: error.to_string(),
                });
                Ok(Vec::new())
            }
            other => other,
        }
    }
}

/// Namespaces that have a Service of the same name; none where the user may not look.
async fn namesakes(client: &Client, namespace: &str, name: &str) -> Vec<String> {
    let params = ListParams::default().fields(&format!("metadata.name={name}"));
    let found = tokio::time::timeout(TIMEOUT, Api::<Service>::all(client.clone()).list(&params)).await;
    let Ok(Ok(found)) = found else { return Vec::new() };
    found
        .items
        .iter()
        .map(|s| s.namespace().to_owned())
        .filter(|n| n != namespace)
        .collect()
}

/// Cluster DNS, where the user may see it; a cluster without one is judged as with managed DNS.
async fn cluster_dns(client: &Client) -> Option<ClusterDns> {
    for (namespace, name) in CLUSTER_DNS {
        let api = Api::<Service>::namespaced(client.clone(), namespace);
        let Ok(Ok(Some(service))) = tokio::time::timeout(TIMEOUT, api.get_opt(name)).await else {
            continue;
        };
        let pods: Vec<Arc<Pod>> = list(client, Some(namespace), None).await.unwrap_or_default();
        let selector = service.spec.selector.clone();
        let selected = |p: &Arc<Pod>| !selector.is_empty() && matches_labels(&selector, p.labels());
        return Some(ClusterDns {
            service: Arc::new(service),
            pods: pods.into_iter().filter(selected).collect(),
        });
    }
    None
}

/// All objects of a kind in a namespace, page by page.
async fn list<K>(
    client: &Client,
    namespace: Option<&str>,
    labels: Option<&str>,
) -> Result<Vec<Arc<K>>, GatherError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let api = match namespace {
        Some(namespace) => Api::<K>::namespaced(client.clone(), namespace),
        None => Api::<K>::all(client.clone()),
    };
    pages(&api, namespace, labels).await
}

async fn list_cluster<K>(client: &Client) -> Result<Vec<Arc<K>>, GatherError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    pages(&Api::<K>::all(client.clone()), None, None).await
}

async fn pages<K>(
    api: &Api<K>,
    namespace: Option<&str>,
    labels: Option<&str>,
) -> Result<Vec<Arc<K>>, GatherError>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let mut params = ListParams {
        label_selector: labels.map(str::to_owned),
        ..ListParams::default().limit(PAGE)
    };
    let mut objects = Vec::new();
    loop {
        let page: ObjectList<K> = match tokio::time::timeout(TIMEOUT, api.list(&params)).await {
            Ok(answer) => answer.map_err(|e| failed::<K>(namespace, e))?,
            Err(_) => {
                return Err(GatherError::Timeout {
                    what: to_list::<K>(namespace),
                });
            }
        };
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        objects.extend(page.items.into_iter().map(|mut object| {
            trim_metadata(object.meta_mut());
            Arc::new(object)
        }));
        if params.continue_token.is_none() {
            return Ok(objects);
        }
    }
}

fn to_list<K: Resource<DynamicType = ()>>(namespace: Option<&str>) -> String {
    let place = namespace.map_or_else(|| "in all namespaces".to_owned(), |n| format!("in namespace {n}"));
    format!("list {} {place}", K::plural(&()))
}

fn failed<K: Resource<DynamicType = ()>>(namespace: Option<&str>, error: kube::Error) -> GatherError {
    let what = to_list::<K>(namespace);
    match error {
        kube::Error::Api(status) if status.is_forbidden() => {
            let group = K::group(&());
            let dot = if group.is_empty() { "" } else { "." };
            let place = namespace.map_or_else(|| "-A".to_owned(), |n| format!("-n {n}"));
            GatherError::Forbidden {
                what,
                command: format!("list {}{dot}{group} {place}", K::plural(&())),
            }
        }
        error => GatherError::Api {
            what,
            source: Box::new(error),
        },
    }
}
