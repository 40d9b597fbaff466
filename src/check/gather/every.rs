//! Everything about every Service of a namespace, or of the cluster: each kind is listed once.

use jiff::Timestamp;
use kube::Client;

use super::*;

/// Everything read about all Services.
#[derive(Debug)]
pub(crate) struct Everything {
    inventory: Inventory,
    /// Namespaces and names of the Services.
    pub services: Vec<(String, String)>,
    diagnoses: Vec<ServiceDiagnosis>,
    /// UIDs of those for which agents were asked.
    asked: BTreeSet<String>,
    gaps: Vec<Unreadable>,
}

impl Everything {
    /// Everything that the diagnosis of one of the Services depends on: by the spec of a ServiceDiagnosis for it if there
    /// is one, as `svcdiag check SERVICE` does it.
    pub(crate) fn facts(&self, namespace: &str, service: &str, now: Timestamp) -> Facts {
        let here = self.diagnoses.iter().filter(|d| d.namespace() == namespace);
        let candidates = of_service(here, service);
        let first = candidates.first().map(|d| d.spec.clone());
        let spec = first.unwrap_or_else(|| ServiceDiagnosisSpec::for_service(service));
        let asked = candidates.into_iter().find(|d| is_asked(d, &self.asked));
        let judged = ServiceDiagnosis::asked_now(asked.cloned(), namespace, spec);
        let mut facts = self.inventory.facts(&judged, now, true);
        if asked.is_none() {
            // There are agents, but none will be asked for this check.
            facts.nodes.clear();
        }
        facts.unreadable.extend(self.gaps.iter().cloned());
        facts
    }
}

/// Reads everything about every Service.
///
/// # Errors
/// When the Services, their EndpointSlices or Pods cannot be read, or the namespace does not exist.
pub(crate) async fn gather_every(
    client: &Client,
    namespace: Option<&str>,
    agent_namespace: &str,
) -> Result<Everything, RequestError> {
    let mut reader = Reader::of(client);
    reader.need::<Service>(namespace).await?;
    let services = reader.inventory.service_names().collect();
    reader.need::<EndpointSlice>(namespace).await?;
    reader.need::<Pod>(namespace).await?;
    reader.workloads_and_policies(namespace).await?;
    reader.events(namespace).await?;
    match namespace {
        Some(namespace) => {
            if reader.lacks_namespace(namespace).await? {
                return Err(RequestError::NoNamespace(namespace.to_owned()));
            }
        }
        None => reader.namespaces().await?,
    }
    reader.nodes().await?;
    reader.policy_kinds().await;
    reader.cluster_dns().await?;
    let diagnoses: Vec<ServiceDiagnosis> = optional(list_in(client, namespace, None).await)?;
    if let Some(namespace) = namespace {
        let mut seen = BTreeSet::new();
        for diagnosis in &diagnoses {
            if seen.insert(diagnosis.spec.clients.namespace.clone()) {
                reader.clients(namespace, &diagnosis.spec).await?;
            }
        }
    }
    let probes: Vec<NodeProbe> = match diagnoses.is_empty() {
        true => Vec::new(),
        false => optional(list_in(client, namespace, None).await)?,
    };
    if !probes.is_empty() {
        reader.leases(agent_namespace).await?;
    }
    let asked = asked_for(&probes);
    for probe in probes {
        reader.inventory.apply(probe);
    }
    Ok(Everything {
        inventory: reader.inventory,
        services,
        diagnoses,
        asked,
        gaps: reader.gaps,
    })
}

impl Reader<'_> {
    async fn namespaces(&mut self) -> Result<(), RequestError> {
        let api = Api::<Namespace>::all(self.client.clone());
        let request = || Request::list::<Namespace>(None);
        let read = pages(&api, ListParams::default(), request).await;
        for namespace in self.or_gap::<Namespace, _>(read)?.into_iter().flatten() {
            self.inventory.apply(namespace);
        }
        Ok(())
    }
}
