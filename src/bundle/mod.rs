//! A Service's evidence in files: the same [`Facts`] as of a live cluster, read from a bundle.
//!
//! `files` reads a directory or an archive, `objects` takes the API objects out of the files, `gaps`
//! says what the bundle does not hold (which is something else than that there is none), and
//! `diagnose` judges and prints. `svcdiag collect` writes such bundles; they can be made by hand, too.

pub mod diagnose;
mod documents;
mod evidence;
pub mod files;
mod gaps;
mod manifest;
mod moments;
mod objects;
mod one_offs;
pub mod paste;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use jiff::Timestamp;

use crate::{
    api::{ServiceDiagnosis, ServiceDiagnosisSpec},
    engine::{Facts, PodTemplate, SavedObjects, TableEvidence},
    inventory::{Inventory, Listed},
    kube_proxy::ProxyMode,
    objects::Object,
};

use paste::tables::Tables;

pub use files::{Files, FilesError, Problem};
pub use manifest::{MANIFEST, Manifest};

/// What is in a bundle.
#[derive(Debug, Default)]
pub struct Bundle {
    /// Its files; text evidence is in `nodes/NODE/...` and `pods/NAMESPACE/NAME/...`.
    pub files: Files,
    /// What whoever made it says of it.
    pub manifest: Manifest,
    /// Its API objects.
    pub inventory: Inventory,
    /// The mode of kube-proxy, as its ConfigMap has it: what it was told when it last started, or will be.
    pub configured_mode: Option<ProxyMode>,
    /// The ConfigMap of cluster DNS, and the domain that it has the cluster's names in.
    pub dns_config: Option<(String, String)>,
    /// Who sends to which Service from outside.
    backends: Vec<objects::routes::Backend>,
    /// Endpoints of which no EndpointSlice was made, by namespace and name.
    unmirrored: BTreeMap<(String, String), objects::endpoints::Unmirrored>,
    /// What manifests say that no API server has seen.
    manifests: Manifests,
    /// What tables of kubectl show.
    tables: Tables,
    /// Services that are known from tables only, by namespace and name.
    from_tables: BTreeSet<(String, String)>,
    /// Pods that were made for one command, of which no list tells.
    one_offs: one_offs::OneOffs,
    /// When Pods and EndpointSlices were listed.
    moments: moments::Moments,
    /// Whether the Nodes were listed, so that there are no others.
    has_all_nodes: bool,
    /// Files that are nothing but tables and descriptions, all of which count.
    read_as_tables: BTreeSet<String>,
    /// The namespace that was asked for.
    asked_namespace: Option<String>,
    /// Whether it is a paste, of which nobody says when it was made.
    pub is_paste: bool,
    /// How many objects do not say their namespace.
    pub without_namespace: usize,
    /// Its diagnoses.
    pub diagnoses: Vec<ServiceDiagnosis>,
    /// What was listed as a whole, so that what is not in the bundle does not exist.
    pub listed: Listed,
    /// What was left out or not understood.
    pub problems: Vec<Problem>,
}

/// What manifests say that no API server has seen.
#[derive(Debug, Default)]
struct Manifests {
    /// Services, by namespace and name.
    services: BTreeSet<(String, String)>,
    /// Pod templates, by namespace.
    templates: BTreeMap<String, BTreeSet<PodTemplate>>,
}

impl Manifests {
    fn templates_of(&self, namespace: &str) -> Vec<PodTemplate> {
        let of = self.templates.get(namespace).into_iter().flatten();
        of.cloned().collect()
    }
}

impl Bundle {
    /// Reads a bundle.
    ///
    /// # Errors
    /// When there is none at the path. What is wrong in a bundle is in its problems.
    pub fn read(path: &Path) -> Result<Self, FilesError> {
        Files::read(path).map(Self::of)
    }

    /// Takes a bundle out of its files.
    #[must_use]
    pub fn of(files: Files) -> Self {
        Self::within(files, None)
    }

    /// The same, with the namespace of objects that do not say theirs.
    #[must_use]
    pub fn within(files: Files, namespace: Option<&str>) -> Self {
        Self::take(files, namespace, false)
    }

    /// The same of the objects of a paste, whose lists are no proof of what is not in them.
    fn pasted(files: Files, namespace: Option<&str>) -> Self {
        Self::take(files, namespace, true)
    }

    fn take(files: Files, namespace: Option<&str>, is_paste: bool) -> Self {
        let mut bundle = Self {
            problems: files.problems.clone(),
            files,
            asked_namespace: namespace.map(str::to_owned),
            is_paste,
            ..Self::default()
        };
        manifest::take(&mut bundle);
        objects::take(&mut bundle);
        paste::read_texts(&mut bundle);
        bundle
    }

    /// When it was made: as the manifest says, else when its newest file was written, else now.
    #[must_use]
    pub fn time(&self, now: Timestamp) -> Timestamp {
        // A file may have been copied to a machine whose clock is ahead.
        let written = self.files.newest().filter(|written| *written <= now);
        self.manifest.time.or(written).unwrap_or(now)
    }

    /// Whether a kind was listed in a namespace as a whole. A list that does not say its namespace is
    /// one of the manifest's; without that, of any that is asked about.
    fn has_listed(&self, resource: &str, namespace: &str) -> bool {
        self.listed.has(resource, namespace) || self.is_home(namespace) && self.listed.has(resource, "")
    }

    /// Whether all EndpointSlices of a Service are in the bundle.
    fn knows_slices(&self, namespace: &str, service: &str) -> bool {
        self.has_listed("endpointslices", namespace)
            || self.listed.has_for("endpointslices", namespace, service)
    }

    /// The namespace of objects that do not say theirs: as it was asked for, else as the manifest of the bundle says, else
    /// that in which kubectl works unless it is told otherwise.
    #[must_use]
    pub fn home(&self) -> &str {
        let namespace = self
            .asked_namespace
            .as_deref()
            .or(self.manifest.namespace.as_deref());
        namespace.unwrap_or("default")
    }

    fn is_home(&self, namespace: &str) -> bool {
        self.manifest.namespace.as_deref().is_none_or(|n| n == namespace)
    }

    /// The diagnosis to judge: with what was asked when the bundle was made, else with what the
    /// ServiceDiagnosis in it asks, and with the probes of that.
    #[must_use]
    pub fn diagnosis(&self, namespace: &str, service: &str) -> ServiceDiagnosis {
        let asks = |d: &&ServiceDiagnosis| {
            d.namespace() == namespace && d.spec.service_name == service && !d.spec.suspend
        };
        let key = |d: &ServiceDiagnosis| (namespace.to_owned(), d.name().to_owned());
        let is_asked = |d: &&ServiceDiagnosis| {
            let uid = d.metadata.uid.as_ref();
            self.inventory
                .probes_of(&key(d))
                .any(|p| Some(&p.spec.diagnosis.uid) == uid)
        };
        let found = self.diagnoses.iter().filter(asks);
        let found = found
            .clone()
            .find(is_asked)
            .or_else(|| found.clone().next())
            .cloned();
        let spec = self.manifest.spec_for(namespace, service);
        let spec = spec.or_else(|| found.as_ref().map(|d| d.spec.clone()));
        let spec = spec.unwrap_or_else(|| ServiceDiagnosisSpec::for_service(service));
        ServiceDiagnosis::asked_now(found, namespace, spec)
    }
}

/// What the bundle knows of a Service, and what of its text evidence could not be understood.
#[must_use]
pub fn facts(bundle: &Bundle, diagnosis: &ServiceDiagnosis, now: Timestamp) -> (Facts, Vec<Problem>) {
    let mut diagnosis = diagnosis.clone();
    if diagnosis.spec.clients.namespace.is_none() {
        diagnosis.spec.clients.namespace = evidence::only_namespace_of_clients(bundle, diagnosis.namespace());
    }
    let diagnosis = &diagnosis;
    let mut facts = bundle.inventory.facts(diagnosis, now, true);
    // A Namespace lends its Pods so that agents may dial from them. Files are read only, and whoever has the
    // Pods in them need not ask.
    let clients = facts.client_namespace.as_ref();
    let has_pods = |namespace: &str| {
        bundle.inventory.has_pods(namespace) || bundle.one_offs.keys().any(|(of, _)| of == namespace)
    };
    if clients.is_some_and(|c| has_pods(&c.name)) {
        bundle.inventory.lend(&mut facts);
    }
    facts.saved_objects = saved_objects(bundle, &facts);
    one_offs::add(bundle, &mut facts);
    facts.saved_objects.apart = moments::apart(bundle, &facts).into_iter().collect();
    bundle.tables.add_events_to(&mut facts);
    gaps::add(bundle, &mut facts);
    if let (Some(dns), Some((config_map, domain))) = (&mut facts.cluster_dns, &bundle.dns_config) {
        dns.config_map = Some(config_map.clone());
        dns.domain = Some(domain.clone());
    }
    let problems = evidence::add(bundle, diagnosis, &mut facts);
    (facts, problems)
}

/// What objects tell that nobody watches in a cluster.
fn saved_objects(bundle: &Bundle, facts: &Facts) -> SavedObjects {
    let (namespace, name) = (&facts.namespace, &facts.spec.service_name);
    let listed = facts.service.iter().flat_map(|s| &s.spec.ports);
    let listed: Vec<(String, &str)> = listed.map(|p| (p.port.to_string(), p.name())).collect();
    let is_listed = |port: &str| listed.iter().any(|(number, of)| number == port || *of == port);
    let sent = bundle
        .backends
        .iter()
        .filter(|b| b.namespace == *namespace && b.service == *name);
    let elsewhere: BTreeSet<(String, String)> = sent
        .filter(|b| !listed.is_empty() && !is_listed(&b.port))
        .map(|b| (b.by.clone(), b.port.clone()))
        .collect();
    let unmirrored = bundle.unmirrored.get(&(namespace.clone(), name.clone()));
    SavedObjects {
        sent_elsewhere: elsewhere.into_iter().collect(),
        endpoints: unmirrored.map(|u| u.addresses),
        skips_mirror: unmirrored.is_some_and(|u| u.skips),
        unlabelled_slices: bundle.inventory.unlabelled_slices(namespace, name),
        same_addresses: bundle.inventory.others_at(facts),
        is_from_manifest: bundle
            .manifests
            .services
            .contains(&(namespace.clone(), name.clone())),
        templates: bundle.manifests.templates_of(namespace),
        tables: TableEvidence {
            has_service: bundle.from_tables.contains(&(namespace.clone(), name.clone())),
            ..bundle.tables.evidence(namespace, name)
        },
        events: Vec::new(),
        apart: BTreeSet::new(),
        dns_logs: Vec::new(),
        one_offs: BTreeSet::new(),
    }
}

#[cfg(test)]
mod tests;
