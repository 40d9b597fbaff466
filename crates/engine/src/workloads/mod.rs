//! The workloads of a namespace, their Pods, and the labels by which those can be selected.

pub(crate) mod compare;
pub(crate) mod matching;
pub(crate) mod near_miss;

use std::collections::BTreeMap;

use crate::Facts;
use svcdiag_objects::{Labels, Object, Pod, ReplicaSet, matches_labels};

/// A workload with its Pods.
#[derive(Clone, Debug)]
pub(crate) struct Workload<'a> {
    /// Its kind, as the API writes it.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Whether its Pod template is known; without one nothing is known of Pods to come.
    pub has_template: bool,
    /// Labels that each of its Pods has, whatever becomes of it: those of the Pod template, or else those that all
    /// of its present Pods share. Labels of one revision or of one Pod are left out.
    pub labels: Labels,
    /// Its Pods that neither ended nor are going away, by name.
    pub pods: Vec<&'a Pod>,
}

impl Workload<'_> {
    /// As kubectl names it: `deployment/web`.
    pub(crate) fn resource(&self) -> String {
        format!("{}/{}", self.kind.to_lowercase(), self.name)
    }

    /// As people name it: `Deployment web`.
    pub(crate) fn describe(&self) -> String {
        format!("{} {}", self.kind, self.name)
    }

    /// Whether its Pods run to an end and serve nobody.
    pub(crate) fn is_job(&self) -> bool {
        self.kind == "Job"
    }
}

/// Labels that the controllers of Kubernetes and Argo Rollouts write on Pods of one revision, or on one Pod: a
/// selector that holds one of them loses its Pods with the next rollout.
pub(crate) fn is_of_revision(key: &str) -> bool {
    key.ends_with("pod-template-hash")
        || matches!(
            key,
            "controller-revision-hash"
                | "pod-template-generation"
                | "statefulset.kubernetes.io/pod-name"
                | "apps.kubernetes.io/pod-index"
                | "controller-uid"
                | "job-name"
                | "batch.kubernetes.io/controller-uid"
                | "batch.kubernetes.io/job-name"
                | "batch.kubernetes.io/job-completion-index"
        )
}

/// Kind and name of the workload that a Pod belongs to; without a controller it is its own.
pub(crate) fn owner(facts: &Facts, pod: &Pod) -> (String, String) {
    let uid = pod.controller_uid();
    let set = facts
        .replica_sets
        .iter()
        .find(|r| uid.is_some() && r.metadata.uid.as_deref() == uid);
    owner_with(pod, set.map(AsRef::as_ref))
}

/// The same, where the ReplicaSet that controls the Pod is known already.
fn owner_with(pod: &Pod, set: Option<&ReplicaSet>) -> (String, String) {
    let Some(owner) = pod.controller() else {
        return ("Pod".to_owned(), pod.name().to_owned());
    };
    if owner.kind != "ReplicaSet" {
        return (owner.kind.clone(), owner.name.clone());
    }
    if let Some(set) = set {
        let of_set = set.metadata.owner_references.iter().flatten();
        return of_set
            .filter(|o| o.controller == Some(true))
            .map(|o| (o.kind.clone(), o.name.clone()))
            .next()
            .unwrap_or_else(|| ("ReplicaSet".to_owned(), set.name().to_owned()));
    }
    // A ReplicaSet that nobody may read is called like its Deployment and the hash.
    let hash = |key: &str| pod.labels().get(key).map(|hash| format!("-{hash}"));
    let without = |hash: Option<String>| Some(owner.name.strip_suffix(hash?.as_str())?.to_owned());
    if let Some(name) = without(hash("rollouts-pod-template-hash")) {
        ("Rollout".to_owned(), name)
    } else if let Some(name) = without(hash("pod-template-hash")) {
        ("Deployment".to_owned(), name)
    } else {
        (owner.kind.clone(), owner.name.clone())
    }
}

/// The workloads of the namespace with a Pod or a Pod template, by kind and name.
pub(crate) fn all(facts: &Facts) -> Vec<Workload<'_>> {
    of_pods(facts, facts.pods.iter().map(AsRef::as_ref))
}

/// The workloads with a Pod that a selector matches; none where one controller has them all.
pub(crate) fn several<'a>(facts: &'a Facts, selector: &Labels) -> Vec<Workload<'a>> {
    let is_selected =
        |p: &&'a Pod| matches_labels(selector, p.labels()) && !p.has_ended() && !p.is_terminating();
    let pods = || facts.pods.iter().map(AsRef::as_ref).filter(is_selected);
    let first = pods().next().and_then(|p| p.controller_uid());
    if first.is_some() && pods().all(|p| p.controller_uid() == first) {
        return Vec::new();
    }
    let mut found = of_pods(facts, pods());
    found.retain(|w| !w.pods.is_empty());
    if found.len() < 2 {
        found.clear();
    }
    found
}

/// All workloads with a Pod template, and those of some Pods.
fn of_pods<'a>(facts: &'a Facts, of: impl Iterator<Item = &'a Pod>) -> Vec<Workload<'a>> {
    let sets: BTreeMap<&str, &ReplicaSet> = facts
        .replica_sets
        .iter()
        .filter_map(|r| Some((r.metadata.uid.as_deref()?, r.as_ref())))
        .collect();
    let mut templates: BTreeMap<(String, String), &Labels> = BTreeMap::new();
    let mut template = |kind: &str, name: &str, labels| {
        templates.insert((kind.to_owned(), name.to_owned()), labels);
    };
    for d in &facts.deployments {
        template("Deployment", d.name(), &d.spec.template.metadata.labels);
    }
    for s in &facts.stateful_sets {
        template("StatefulSet", s.name(), &s.spec.template.metadata.labels);
    }
    for r in &facts.replica_sets {
        // One with an owner is a revision of that.
        if r.metadata.owner_references.as_ref().is_none_or(Vec::is_empty) {
            template("ReplicaSet", r.name(), &r.spec.template.metadata.labels);
        }
    }
    let mut pods: BTreeMap<(String, String), Vec<&Pod>> = BTreeMap::new();
    for key in templates.keys() {
        pods.insert(key.clone(), Vec::new());
    }
    // Pods that nobody controls belong together if they have the same labels.
    let mut bare: BTreeMap<&Labels, Vec<&Pod>> = BTreeMap::new();
    for pod in of.filter(|p| !p.has_ended() && !p.is_terminating()) {
        // The mirror of a static Pod is controlled by its Node.
        match pod.controller().filter(|c| c.kind != "Node") {
            Some(owner) => {
                let set = sets.get(owner.uid.as_str()).copied();
                pods.entry(owner_with(pod, set)).or_default().push(pod);
            }
            None => bare.entry(pod.labels()).or_default().push(pod),
        }
    }
    for of_labels in bare.into_values() {
        let name = of_labels.iter().map(|p| p.name()).min().unwrap_or_default();
        pods.insert(("Pod".to_owned(), name.to_owned()), of_labels);
    }
    let of_workload = pods.into_iter().map(|((kind, name), mut pods)| {
        pods.sort_by(|a, b| a.name().cmp(b.name()));
        let template = templates.get(&(kind.clone(), name.clone()));
        let labels = template.map_or_else(|| shared(&pods), |labels| (*labels).clone());
        Workload {
            has_template: template.is_some(),
            labels: labels.into_iter().filter(|(k, _)| !is_of_revision(k)).collect(),
            kind,
            name,
            pods,
        }
    });
    of_workload.collect()
}

/// The labels that all Pods have.
fn shared(pods: &[&Pod]) -> Labels {
    let Some((first, rest)) = pods.split_first() else {
        return Labels::new();
    };
    let mut labels = first.labels().clone();
    labels.retain(|k, v| rest.iter().all(|p| p.labels().get(k) == Some(v)));
    labels
}
