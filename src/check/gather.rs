//! Reads from the API what the engine needs about one Service.
//!
//! The Service, its EndpointSlices and the Pods are required. Anything else that the user may not read becomes a gap in
//! the Facts, and the stage that needs it says so. If a ServiceDiagnosis already has agents probe the same Service, their
//! reports are used, if the user may read them.

mod every;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{Api, Client, Resource, api::ListParams};

use super::{live, query::Query};
use crate::{
    api::{AGENT_LABEL, NodeProbe, ServiceDiagnosis, ServiceDiagnosisSpec},
    client::policy_kinds,
    cluster::{Listable, Request, RequestError, api_in, ask, each, list, list_in, optional, pages},
    engine::{Facts, Unreadable},
    inventory::{CLUSTER_DNS, Inventory, Listed, Tracked},
    objects::{
        Deployment, EndpointSlice, Event, Lease, Namespace, NetworkPolicy, Node, Object, POLICY_KINDS, Pod,
        ReplicaSet, Service, StatefulSet, grants_clients_to, trim_metadata,
    },
};

pub(crate) use self::every::{Everything, gather_every};

/// Everything read about one Service.
#[derive(Debug)]
pub struct Gathered {
    /// The objects.
    pub inventory: Inventory,
    /// The existing diagnosis whose NodeProbes were used.
    pub diagnosis: Option<ServiceDiagnosis>,
    /// The diagnosis to evaluate.
    pub judged: ServiceDiagnosis,
    /// What was listed completely.
    pub listed: Listed,
    /// Optional kinds that the user may not read.
    pub gaps: Vec<Unreadable>,
    /// Whether no ServiceDiagnosis watches the Service from the clients that are asked for: it is known that none does,
    /// suspended ones included.
    pub is_unwatched: bool,
    /// Whether the namespace is known not to exist.
    pub namespace_is_missing: bool,
}

impl Gathered {
    /// Everything that the diagnosis depends on.
    #[must_use]
    pub fn facts(&self, now: Timestamp) -> Facts {
        let mut facts = self.inventory.facts(&self.judged, now, true);
        facts.unreadable.extend(self.gaps.iter().cloned());
        facts
    }
}

/// The spec of the diagnosis: the user's options, or else the spec of an existing ServiceDiagnosis that the user may read,
/// whose agents may have probed from other client Pods than the default ones.
///
/// # Errors
/// When the Pod that is named as a client cannot be read, or has no label by which it could be selected.
pub(crate) async fn asked(
    client: &Client,
    namespace: &str,
    service: &str,
    query: &Query,
) -> Result<ServiceDiagnosisSpec, RequestError> {
    if !query.is_bare() {
        let mut spec = query.spec(service);
        if let Some(name) = &query.from {
            let labels = labels_of(client, query.client_namespace(namespace), name).await?;
            spec.clients.pod_selector = Some(LabelSelector {
                match_labels: Some(labels),
                match_expressions: None,
            });
        }
        return Ok(spec);
    }
    // Problems with the cluster are reported by the required reads.
    let listed = list(client, namespace, None).await;
    let diagnoses: Vec<ServiceDiagnosis> = listed.unwrap_or_default();
    let own = of_service(&diagnoses, service).into_iter().next();
    Ok(own.map_or_else(|| query.spec(service), |own| own.spec.clone()))
}

/// Labels that Pods have until the next rollout.
const OF_REVISIONS: [&str; 3] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
];

/// The labels of a Pod, but for those of its revision.
async fn labels_of(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<BTreeMap<String, String>, RequestError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod = ask(pods.get_opt(name), || Request::get::<Pod>(name)).await?;
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    let Some(pod) = pod else {
        return Err(RequestError::NoPod(namespace, name));
    };
    let mut labels = pod.metadata.labels.unwrap_or_default();
    labels.retain(|label, _| !OF_REVISIONS.contains(&label.as_str()));
    match labels.is_empty() {
        false => Ok(labels),
        true => Err(RequestError::NoLabels(namespace, name)),
    }
}

/// The diagnoses of a Service that are not suspended; one of its name comes first.
fn of_service<'a>(
    diagnoses: impl IntoIterator<Item = &'a ServiceDiagnosis>,
    service: &str,
) -> Vec<&'a ServiceDiagnosis> {
    let asks =
        |d: &&ServiceDiagnosis| d.spec.service_name == service && !d.spec.suspend && !live::is_temporary(d);
    let mut own: Vec<&ServiceDiagnosis> = diagnoses.into_iter().filter(asks).collect();
    own.sort_by_key(|d| (d.name() != service, d.name()));
    own
}

/// Reads everything about one Service.
///
/// # Errors
/// When the Service, its EndpointSlices or its namespace's Pods cannot be read.
pub(crate) async fn gather(
    client: &Client,
    namespace: &str,
    spec: ServiceDiagnosisSpec,
    agent_namespace: &str,
) -> Result<Gathered, RequestError> {
    let mut reader = Reader::of(client);
    let service = spec.service_name.clone();
    let place = Some(namespace);
    reader.need::<Service>(place).await?;
    reader.slices(namespace, &service).await?;
    reader.need::<Pod>(place).await?;
    reader.workloads_and_policies(place).await?;
    reader.events(place).await?;
    let namespace_is_missing = reader.lacks_namespace(namespace).await?;
    reader.nodes().await?;
    reader.policy_kinds().await;
    reader.namesakes(&service).await;
    reader.clients(namespace, &spec).await?;
    reader.cluster_dns().await?;
    let (diagnosis, is_unwatched) = reader.agents(namespace, &spec, agent_namespace).await?;
    Ok(Gathered {
        judged: ServiceDiagnosis::asked_now(diagnosis.clone(), namespace, spec),
        diagnosis,
        inventory: reader.inventory,
        listed: reader.listed,
        gaps: reader.gaps,
        is_unwatched,
        namespace_is_missing,
    })
}

/// UIDs of the diagnoses for which agents were asked.
fn asked_for(probes: &[NodeProbe]) -> BTreeSet<String> {
    let uids = probes.iter().map(|probe| probe.spec.diagnosis.uid.clone());
    uids.collect()
}

fn is_asked(diagnosis: &ServiceDiagnosis, asked: &BTreeSet<String>) -> bool {
    diagnosis
        .metadata
        .uid
        .as_ref()
        .is_some_and(|uid| asked.contains(uid))
}

/// Fills an Inventory with what diagnoses need.
struct Reader<'a> {
    client: &'a Client,
    inventory: Inventory,
    listed: Listed,
    gaps: Vec<Unreadable>,
}

impl<'a> Reader<'a> {
    fn of(client: &'a Client) -> Self {
        Self {
            client,
            inventory: Inventory::default(),
            listed: Listed::default(),
            gaps: Vec::new(),
        }
    }

    /// Reads the objects of a kind in a namespace, or in all of them.
    async fn need<K: Listable + Tracked>(&mut self, namespace: Option<&str>) -> Result<(), RequestError> {
        for object in list_in::<K>(self.client, namespace, None).await? {
            self.inventory.apply(object);
        }
        if let Some(namespace) = namespace {
            self.listed.note(&K::plural(&()), namespace);
        }
        Ok(())
    }

    /// The same, but a missing permission only leaves a gap, and a kind that is not served has no objects.
    async fn want<K: Listable + Tracked>(&mut self, namespace: Option<&str>) -> Result<(), RequestError> {
        match (self.need::<K>(namespace).await, namespace) {
            (Err(RequestError::NotServed { .. }), Some(namespace)) => {
                self.listed.note(&K::plural(&()), namespace);
                Ok(())
            }
            (Err(RequestError::NotServed { .. }), None) => Ok(()),
            (read, _) => self.or_gap::<K, ()>(read).map(drop),
        }
    }

    async fn workloads_and_policies(&mut self, namespace: Option<&str>) -> Result<(), RequestError> {
        self.want::<Deployment>(namespace).await?;
        self.want::<ReplicaSet>(namespace).await?;
        self.want::<StatefulSet>(namespace).await?;
        self.want::<NetworkPolicy>(namespace).await
    }

    /// Reads the EndpointSlices of a Service.
    async fn slices(&mut self, namespace: &str, service: &str) -> Result<(), RequestError> {
        let of_service = format!("{}={service}", EndpointSlice::SERVICE_LABEL);
        for slice in list::<EndpointSlice>(self.client, namespace, Some(&of_service)).await? {
            self.inventory.apply(slice);
        }
        self.listed.note_slices_of(namespace, service);
        Ok(())
    }

    fn or_gap<K: Resource<DynamicType = ()>, T>(
        &mut self,
        read: Result<T, RequestError>,
    ) -> Result<Option<T>, RequestError> {
        match read {
            Ok(found) => Ok(Some(found)),
            Err(error @ RequestError::Forbidden { .. }) => {
                self.gaps.push(Unreadable {
                    resource: K::plural(&()).into_owned(),
                    why: error.to_string(),
                });
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn want_namespace(&mut self, name: &str) -> Result<Option<Namespace>, RequestError> {
        let api = Api::<Namespace>::all(self.client.clone());
        let read = ask(api.get_opt(name), || Request::get::<Namespace>(name)).await;
        let found = self.or_gap::<Namespace, _>(read)?.flatten();
        if let Some(mut namespace) = found.clone() {
            trim_metadata(namespace.meta_mut());
            self.inventory.apply(namespace);
        }
        Ok(found)
    }

    /// Reads a namespace; true if it is known not to exist.
    async fn lacks_namespace(&mut self, name: &str) -> Result<bool, RequestError> {
        let gaps = self.gaps.len();
        let found = self.want_namespace(name).await?;
        Ok(found.is_none() && self.gaps.len() == gaps)
    }

    /// The Pods of another namespace that are the clients, if that lends them.
    async fn clients(&mut self, namespace: &str, spec: &ServiceDiagnosisSpec) -> Result<(), RequestError> {
        let other = spec.clients.namespace.as_deref();
        let Some(other) = other.filter(|other| *other != namespace) else {
            return Ok(());
        };
        let granted = self.want_namespace(other).await?;
        if granted.is_some_and(|n| grants_clients_to(&n, namespace)) {
            self.need::<Pod>(Some(other)).await?;
            self.want::<NetworkPolicy>(Some(other)).await?;
        }
        Ok(())
    }

    /// Warning Events about Pods.
    async fn events(&mut self, namespace: Option<&str>) -> Result<(), RequestError> {
        let api = api_in::<Event>(self.client, namespace);
        let params = ListParams::default().fields(Event::WARNINGS);
        let request = || Request::list::<Event>(namespace);
        let read = each(&api, params, request, |mut event| {
            trim_metadata(event.meta_mut());
            self.inventory.note_event(event);
        })
        .await;
        if let (Some(()), Some(namespace)) = (self.or_gap::<Event, ()>(read)?, namespace) {
            self.listed.note(&Event::plural(&()), namespace);
        }
        Ok(())
    }

    async fn nodes(&mut self) -> Result<(), RequestError> {
        let api = Api::<Node>::all(self.client.clone());
        let read = pages(&api, ListParams::default(), || Request::list::<Node>(None)).await;
        for node in self.or_gap::<Node, _>(read)?.into_iter().flatten() {
            self.inventory.apply(node);
        }
        Ok(())
    }

    /// Every authenticated user may read these; a failure is not fatal.
    async fn policy_kinds(&mut self) {
        match ask(policy_kinds(self.client), Request::api_groups).await {
            Ok(kinds) => {
                self.inventory.note_policy_kinds(kinds);
            }
            Err(error) => self.gaps.push(Unreadable {
                resource: POLICY_KINDS.to_owned(),
                why: error.to_string(),
            }),
        }
    }

    /// Services of the same name in other namespaces: only a hint, so errors are ignored.
    async fn namesakes(&mut self, name: &str) {
        let params = ListParams::default().fields(&format!("metadata.name={name}"));
        let api = Api::<Service>::all(self.client.clone());
        let found = ask(api.list(&params), || Request::list::<Service>(None)).await;
        for service in found.into_iter().flatten() {
            self.inventory.apply(service);
        }
    }

    /// Cluster DNS, if the user may read it; a cluster without one is treated like one with managed DNS.
    async fn cluster_dns(&mut self) -> Result<(), RequestError> {
        for (namespace, name) in CLUSTER_DNS {
            let api = Api::<Service>::namespaced(self.client.clone(), namespace);
            let Ok(Some(service)) = ask(api.get_opt(name), || Request::get::<Service>(name)).await else {
                continue;
            };
            // Without its Pods nothing is known about it.
            if let Some(()) = self.or_nothing(namespace).await? {
                self.inventory.apply(service);
                // Policies with a namespaceSelector need its labels.
                self.want_namespace(namespace).await?;
            }
            return Ok(());
        }
        Ok(())
    }

    /// The agents' reports on the Service: the NodeProbes of a ServiceDiagnosis for it, and the Leases that show which agents
    /// are alive. Returns that diagnosis, and whether it is known that there is none at all.
    async fn agents(
        &mut self,
        namespace: &str,
        asked: &ServiceDiagnosisSpec,
        agent_namespace: &str,
    ) -> Result<(Option<ServiceDiagnosis>, bool), RequestError> {
        let service = &asked.service_name;
        let listed = list::<ServiceDiagnosis>(self.client, namespace, None).await;
        let is_served = listed.is_ok();
        let mut diagnoses = optional(listed)?;
        // What others dial says nothing of these clients.
        diagnoses.retain(|diagnosis| diagnosis.spec.clients == asked.clients);
        let watches = |d: &ServiceDiagnosis| d.spec.service_name == *service && !live::is_temporary(d);
        let is_unwatched = is_served && !diagnoses.iter().any(watches);
        let candidates = of_service(&diagnoses, service);
        if candidates.is_empty() {
            return Ok((None, is_unwatched));
        }
        let probes: Vec<NodeProbe> = optional(list(self.client, namespace, None).await)?;
        let asked = asked_for(&probes);
        let Some(diagnosis) = candidates.into_iter().find(|d| is_asked(d, &asked)).cloned() else {
            return Ok((None, is_unwatched));
        };
        self.leases(agent_namespace).await?;
        let uid = diagnosis.metadata.uid.as_ref();
        for probe in probes.into_iter().filter(|p| Some(&p.spec.diagnosis.uid) == uid) {
            self.inventory.apply(probe);
        }
        Ok((Some(diagnosis), is_unwatched))
    }

    /// Which agents are alive.
    async fn leases(&mut self, agent_namespace: &str) -> Result<(), RequestError> {
        let of_agents = format!("{}={}", AGENT_LABEL.0, AGENT_LABEL.1);
        let leases: Vec<Lease> = optional(list(self.client, agent_namespace, Some(&of_agents)).await)?;
        for lease in leases {
            let (Some(node), Some(renewed)) = (lease.agent_node(), &lease.spec.renew_time) else {
                continue;
            };
            // Without permission to read Nodes: the controller has selected them, so their names are enough.
            self.inventory.ensure_node(node);
            // A single read cannot show when a renewal was first seen, so the agent's clock is used.
            self.inventory.observe_at(renewed.0);
            self.inventory.apply(lease);
        }
        Ok(())
    }

    async fn or_nothing(&mut self, namespace: &str) -> Result<Option<()>, RequestError> {
        match self.need::<Pod>(Some(namespace)).await {
            Ok(()) => Ok(Some(())),
            Err(RequestError::Forbidden { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod bare;
#[cfg(test)]
mod tests;
