//! Reads from the API what the engine needs about one Service.
//!
//! The Service, its EndpointSlices and the Pods are required. Anything else that the user may not read becomes a gap in
//! the Facts, and the stage that needs it says so. If a ServiceDiagnosis already has agents probe the same Service, their
//! reports are used, if the user may read them.

use jiff::Timestamp;
use kube::{Api, Client, Resource, api::ListParams};

use super::{
    query::Query,
    request::{GatherError, Listable, Request, ask, each, list, optional, pages},
};
use crate::{
    api::{AGENT_LABEL, NodeProbe, ServiceDiagnosis, ServiceDiagnosisSpec},
    client::policy_kinds,
    engine::{Facts, Unreadable},
    inventory::{CLUSTER_DNS, Inventory, Listed, Tracked},
    objects::{
        Deployment, EndpointSlice, Event, Lease, Namespace, NetworkPolicy, Node, POLICY_KINDS, Pod,
        ReplicaSet, Service, StatefulSet, grants_clients_to, trim_metadata,
    },
};

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
pub(crate) async fn asked(client: &Client, namespace: &str, query: &Query) -> ServiceDiagnosisSpec {
    if !query.is_bare() {
        return query.spec();
    }
    let service = query.service.as_str();
    // Problems with the cluster are reported by the required reads.
    let listed = list(client, namespace, None).await;
    let diagnoses: Vec<ServiceDiagnosis> = listed.unwrap_or_default();
    let asks = |d: &ServiceDiagnosis| d.spec.service_name == service && !d.spec.suspend;
    let mut own: Vec<ServiceDiagnosis> = diagnoses.into_iter().filter(asks).collect();
    own.sort_by_key(|d| {
        let name = d.metadata.name.clone();
        (name.as_deref() != Some(service), name)
    });
    let own = own.into_iter().next().map(|d| d.spec);
    own.unwrap_or_else(|| query.spec())
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
) -> Result<Gathered, GatherError> {
    let mut reader = Reader {
        client,
        inventory: Inventory::default(),
        listed: Listed::default(),
        gaps: Vec::new(),
    };
    let service = spec.service_name.clone();
    reader.need::<Service>(namespace).await?;
    reader.slices(namespace, &service).await?;
    reader.need::<Pod>(namespace).await?;
    reader.want::<Deployment>(namespace).await?;
    reader.want::<ReplicaSet>(namespace).await?;
    reader.want::<StatefulSet>(namespace).await?;
    reader.want::<NetworkPolicy>(namespace).await?;
    reader.events(namespace).await?;
    reader.want_namespace(namespace).await?;
    reader.nodes().await?;
    reader.policy_kinds().await;
    reader.namesakes(&service).await;
    if let Some(other) = spec
        .clients
        .namespace
        .as_deref()
        .filter(|other| *other != namespace)
    {
        let granted = reader.want_namespace(other).await?;
        if granted.is_some_and(|n| grants_clients_to(&n, namespace)) {
            reader.need::<Pod>(other).await?;
            reader.want::<NetworkPolicy>(other).await?;
        }
    }
    reader.cluster_dns().await?;
    let diagnosis = reader.agents(namespace, &service, agent_namespace).await?;
    Ok(Gathered {
        judged: ServiceDiagnosis::asked_now(diagnosis.clone(), namespace, spec),
        diagnosis,
        inventory: reader.inventory,
        listed: reader.listed,
        gaps: reader.gaps,
    })
}

/// Fills an Inventory with what one diagnosis needs.
struct Reader<'a> {
    client: &'a Client,
    inventory: Inventory,
    listed: Listed,
    gaps: Vec<Unreadable>,
}

impl Reader<'_> {
    /// Reads the objects of a kind in a namespace.
    async fn need<K: Listable + Tracked>(&mut self, namespace: &str) -> Result<(), GatherError> {
        for object in list::<K>(self.client, namespace, None).await? {
            self.inventory.apply(object);
        }
        self.listed.note(&K::plural(&()), namespace);
        Ok(())
    }

    /// The same, but a missing permission only leaves a gap, and a kind that is not served has no objects.
    async fn want<K: Listable + Tracked>(&mut self, namespace: &str) -> Result<(), GatherError> {
        match self.need::<K>(namespace).await {
            Err(GatherError::NotServed { .. }) => {
                self.listed.note(&K::plural(&()), namespace);
                Ok(())
            }
            read => self.or_gap::<K, ()>(read).map(drop),
        }
    }

    /// Reads the EndpointSlices of a Service.
    async fn slices(&mut self, namespace: &str, service: &str) -> Result<(), GatherError> {
        let of_service = format!("{}={service}", EndpointSlice::SERVICE_LABEL);
        for slice in list::<EndpointSlice>(self.client, namespace, Some(&of_service)).await? {
            self.inventory.apply(slice);
        }
        self.listed.note_slices_of(namespace, service);
        Ok(())
    }

    fn or_gap<K: Resource<DynamicType = ()>, T>(
        &mut self,
        read: Result<T, GatherError>,
    ) -> Result<Option<T>, GatherError> {
        match read {
            Ok(found) => Ok(Some(found)),
            Err(error @ GatherError::Forbidden { .. }) => {
                self.gaps.push(Unreadable {
                    resource: K::plural(&()).into_owned(),
                    why: error.to_string(),
                });
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn want_namespace(&mut self, name: &str) -> Result<Option<Namespace>, GatherError> {
        let api = Api::<Namespace>::all(self.client.clone());
        let read = ask(api.get_opt(name), || Request::get::<Namespace>(name)).await;
        let found = self.or_gap::<Namespace, _>(read)?.flatten();
        if let Some(mut namespace) = found.clone() {
            trim_metadata(namespace.meta_mut());
            self.inventory.apply(namespace);
        }
        Ok(found)
    }

    /// Warning Events about Pods.
    async fn events(&mut self, namespace: &str) -> Result<(), GatherError> {
        let api = Api::<Event>::namespaced(self.client.clone(), namespace);
        let params = ListParams::default().fields(Event::WARNINGS);
        let request = || Request::list::<Event>(Some(namespace));
        let read = each(&api, params, request, |event| {
            self.inventory.note_event(event);
        })
        .await;
        if self.or_gap::<Event, ()>(read)?.is_some() {
            self.listed.note(&Event::plural(&()), namespace);
        }
        Ok(())
    }

    async fn nodes(&mut self) -> Result<(), GatherError> {
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
    async fn cluster_dns(&mut self) -> Result<(), GatherError> {
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
    /// are alive. Returns that diagnosis.
    async fn agents(
        &mut self,
        namespace: &str,
        service: &str,
        agent_namespace: &str,
    ) -> Result<Option<ServiceDiagnosis>, GatherError> {
        let diagnoses: Vec<ServiceDiagnosis> = optional(list(self.client, namespace, None).await)?;
        let asks = |d: &ServiceDiagnosis| d.spec.service_name == service && !d.spec.suspend;
        let diagnoses: Vec<ServiceDiagnosis> = diagnoses.into_iter().filter(asks).collect();
        if diagnoses.is_empty() {
            return Ok(None);
        }
        let probes: Vec<NodeProbe> = optional(list(self.client, namespace, None).await)?;
        let is_asked = |d: &ServiceDiagnosis| {
            probes
                .iter()
                .any(|p| Some(&p.spec.diagnosis.uid) == d.metadata.uid.as_ref())
        };
        let Some(diagnosis) = diagnoses.into_iter().find(is_asked) else {
            return Ok(None);
        };
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
        let uid = diagnosis.metadata.uid.as_ref();
        for probe in probes.into_iter().filter(|p| Some(&p.spec.diagnosis.uid) == uid) {
            self.inventory.apply(probe);
        }
        Ok(Some(diagnosis))
    }

    async fn or_nothing(&mut self, namespace: &str) -> Result<Option<()>, GatherError> {
        match self.need::<Pod>(namespace).await {
            Ok(()) => Ok(Some(())),
            Err(GatherError::Forbidden { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod bare;
#[cfg(test)]
mod tests;
