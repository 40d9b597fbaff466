//! Applies the planned NodeProbes of a diagnosis.
//!
//! The plan ([`plan`](crate::engine::plan)) is compared with what the watch shows, and only the difference is written.
//! Names are derived from diagnosis and node, so a repeated write hits the same object. The diagnosis owns its NodeProbes,
//! so they are deleted with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::TryStreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::{Value, json};

use super::Context;
use crate::{
    api::{DiagnosisRef, FIELD_MANAGER, NodeProbe, NodeProbeSpec, ServiceDiagnosis},
    client::is_going,
    engine::{is_same_question, probe_name},
    inventory::MANAGED_BY,
    objects::Object,
};

/// Steps that are taken at once: a diagnosis is not judged again before all have been.
const AT_ONCE: usize = 4;

/// Timeout of a request to the API server.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a NodeProbe could not be applied.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The API server rejected the request or was unreachable.
    #[error("could not {what}: {source}")]
    Api {
        /// Verb and object.
        what: String,
        /// The error of the client.
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer.
    #[error("could not {what}: no answer within {} seconds", TIMEOUT.as_secs())]
    Timeout {
        /// Verb and object.
        what: String,
    },
}

/// The planned NodeProbe of each node, by node name.
pub(super) type Plan = BTreeMap<String, NodeProbeSpec>;

/// A step to take.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Apply {
        name: String,
        spec: Box<NodeProbeSpec>,
        /// Whether it withdraws a permission to dial.
        withdraws: bool,
        /// Whether it only has an agent look again at what has failed.
        looks_again: bool,
    },
    Delete {
        name: String,
        uid: Option<String>,
    },
}

impl Step {
    fn looks_again(&self) -> bool {
        matches!(
            self,
            Self::Apply {
                looks_again: true,
                ..
            }
        )
    }
}

/// A diagnosis as its NodeProbes refer to it.
pub(super) fn reference(diagnosis: &ServiceDiagnosis) -> DiagnosisRef {
    DiagnosisRef {
        name: diagnosis.name().to_owned(),
        uid: diagnosis.metadata.uid.clone().unwrap_or_default(),
    }
}

/// The steps from the existing NodeProbes of a diagnosis to the planned ones.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) steps: Vec<Step>,
    /// Whether an existing NodeProbe changes.
    pub(super) is_another: bool,
    /// Whether a NodeProbe is new.
    pub(super) asks_more: bool,
    /// Whether agents are to look again at what has failed, which is no other question.
    pub(super) looks_again: bool,
}

impl Work {
    pub(super) fn of(diagnosis: &ServiceDiagnosis, present: &[NodeProbe], plan: Plan) -> Self {
        if diagnosis.is_terminating() {
            // They are garbage-collected with it.
            return Self::default();
        }
        let steps = steps(diagnosis, present, plan);
        let asked: BTreeSet<&str> = present.iter().map(|p| p.name()).collect();
        let asks = |known: bool| {
            let mut names = steps.iter().filter_map(|step| match step {
                Step::Apply {
                    name,
                    looks_again: false,
                    ..
                } => Some(name.as_str()),
                Step::Apply { .. } | Step::Delete { .. } => None,
            });
            names.any(|name| asked.contains(name) == known)
        };
        Self {
            is_another: asks(true),
            asks_more: asks(false),
            looks_again: steps.iter().any(Step::looks_again),
            steps,
        }
    }

    /// The steps that cannot wait: a permission to dial is withdrawn at once, or a user could change the endpoints while changes
    /// are rate-limited. Granting it again counts as a change, so this does not bypass the limit.
    pub(super) fn without_questions(mut self) -> Self {
        self.steps.retain(|step| match step {
            Step::Apply { withdraws, .. } => *withdraws,
            Step::Delete { .. } => true,
        });
        self
    }

    /// The steps without those that only have agents look again.
    pub(super) fn without_second_looks(mut self) -> Self {
        self.steps.retain(|step| !step.looks_again());
        self
    }

    /// Takes the steps.
    pub(super) async fn run(self, context: &Context, diagnosis: &ServiceDiagnosis) -> Result<(), Error> {
        let api: &Api<NodeProbe> = &Api::namespaced(context.client.clone(), diagnosis.namespace());
        let steps = futures::stream::iter(self.steps.into_iter().map(Ok));
        steps
            .try_for_each_concurrent(AT_ONCE, async |step| {
                take(api, diagnosis, step).await?;
                context.metrics.node_probe_written();
                Ok(())
            })
            .await
    }
}

/// The difference between the planned and the existing NodeProbes.
fn steps(diagnosis: &ServiceDiagnosis, present: &[NodeProbe], plan: Plan) -> Vec<Step> {
    let of = reference(diagnosis);
    let owner = owner(diagnosis);
    let mut steps = Vec::new();
    let mut wanted = BTreeSet::new();
    for (node, spec) in plan {
        let name = probe_name(&of, &node);
        let is_right = |p: &&NodeProbe| {
            p.name() == name
                && p.spec == spec
                && p.metadata.owner_references.iter().flatten().any(|o| *o == owner)
        };
        wanted.insert(name.clone());
        if !present.iter().any(|p| is_right(&p)) {
            let asked = present.iter().find(|p| p.name() == name);
            steps.push(Step::Apply {
                withdraws: asked.is_some_and(|asked| withdraws(&asked.spec, &spec)),
                looks_again: asked
                    .is_some_and(|asked| asked.spec != spec && is_same_question(&asked.spec, &spec)),
                spec: Box::new(spec),
                name,
            });
        }
    }
    let leftover = |p: &&NodeProbe| !wanted.contains(p.name()) && !p.is_terminating();
    steps.extend(present.iter().filter(leftover).map(|p| Step::Delete {
        name: p.name().to_owned(),
        uid: p.metadata.uid.clone(),
    }));
    steps
}

/// Whether the node, or all clients, lose their permission to dial.
fn withdraws(asked: &NodeProbeSpec, planned: &NodeProbeSpec) -> bool {
    asked.from_node && !planned.from_node || !asked.clients.is_empty() && planned.clients.is_empty()
}

async fn take(api: &Api<NodeProbe>, diagnosis: &ServiceDiagnosis, step: Step) -> Result<(), Error> {
    let (verb, name, call) = match step {
        Step::Apply { name, spec, .. } => {
            let params = PatchParams::apply(FIELD_MANAGER).force();
            let patch = manifest(diagnosis, &name, &spec);
            // Of the answer nothing is needed.
            let patch = Patch::Apply(patch);
            let call = async { api.patch_metadata(&name, &params, &patch).await.map(drop) };
            ("write", name.clone(), tokio::time::timeout(TIMEOUT, call).await)
        }
        Step::Delete { name, uid } => {
            // Another object may have its name by now.
            let params = DeleteParams {
                preconditions: Some(Preconditions {
                    uid,
                    resource_version: None,
                }),
                ..DeleteParams::default()
            };
            let call = async { api.delete(&name, &params).await.map(drop) };
            ("delete", name.clone(), tokio::time::timeout(TIMEOUT, call).await)
        }
    };
    let what = || format!("{verb} NodeProbe {}/{name}", diagnosis.namespace());
    match call {
        Ok(Ok(())) => Ok(()),
        // It, or its namespace, was deleted meanwhile.
        Ok(Err(kube::Error::Api(refusal))) if is_going(&refusal) => Ok(()),
        Ok(Err(kube::Error::Api(refusal))) if verb == "delete" && refusal.is_conflict() => Ok(()),
        Ok(Err(source)) => Err(Error::Api {
            what: what(),
            source: Box::new(source),
        }),
        Err(_) => Err(Error::Timeout { what: what() }),
    }
}

/// The diagnosis as the owner of what is written for it, which is deleted with it. Deleting a diagnosis need not wait for
/// that: blockOwnerDeletion is not set.
pub(super) fn owner(diagnosis: &ServiceDiagnosis) -> OwnerReference {
    OwnerReference {
        api_version: "svcdiag.dev/v1alpha1".to_owned(),
        kind: "ServiceDiagnosis".to_owned(),
        name: diagnosis.name().to_owned(),
        uid: diagnosis.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

fn manifest(diagnosis: &ServiceDiagnosis, name: &str, spec: &NodeProbeSpec) -> Value {
    json!({
        "apiVersion": "svcdiag.dev/v1alpha1", "kind": "NodeProbe",
        "metadata": {
            "name": name, "namespace": diagnosis.namespace(),
            "labels": { MANAGED_BY.0: MANAGED_BY.1 }, "ownerReferences": [owner(diagnosis)],
        },
        "spec": spec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnosis(uid: &str) -> ServiceDiagnosis {
        serde_json::from_value(json!({
            "apiVersion": "svcdiag.dev/v1alpha1", "kind": "ServiceDiagnosis",
            "metadata": { "namespace": "shop", "name": "cart", "uid": uid }, "spec": { "serviceName": "cart" },
        }))
        .unwrap()
    }

    fn spec(node: &str, revision: &str) -> NodeProbeSpec {
        serde_json::from_value(json!({
            "nodeName": node, "diagnosis": { "name": "cart", "uid": "u" }, "serviceName": "cart",
            "intervalSeconds": 60, "revision": revision,
        }))
        .unwrap()
    }

    fn plan(nodes: &[&str]) -> Plan {
        nodes.iter().map(|n| ((*n).to_owned(), spec(n, "1"))).collect()
    }

    /// The objects in the API server after a step.
    fn stored(diagnosis: &ServiceDiagnosis, step: &Step) -> NodeProbe {
        let Step::Apply { name, spec, .. } = step else {
            panic!("{step:?}")
        };
        serde_json::from_value(manifest(diagnosis, name, spec)).unwrap()
    }

    fn told(steps: &[Step]) -> Vec<String> {
        let tell = |step: &Step| match step {
            Step::Apply { spec, .. } => format!("apply {}", spec.node_name),
            Step::Delete { name, .. } => format!("delete {name}"),
        };
        steps.iter().map(tell).collect()
    }

    #[test]
    fn only_the_difference_is_written() {
        let diagnosis = diagnosis("u");
        let first = steps(&diagnosis, &[], plan(&["a", "b"]));
        assert_eq!(told(&first), ["apply a", "apply b"]);
        let present: Vec<_> = first.iter().map(|s| stored(&diagnosis, s)).collect();
        assert!(steps(&diagnosis, &present, plan(&["a", "b"])).is_empty());
        let mut changed = plan(&["a", "c"]);
        changed.insert("a".to_owned(), spec("a", "2"));
        let expected = ["apply a", "apply c", &format!("delete {}", present[1].name())];
        assert_eq!(told(&steps(&diagnosis, &present, changed)), expected);
        assert_eq!(
            steps(&diagnosis, &present, Plan::new()).len(),
            2,
            "nothing is planned any more"
        );
    }

    #[test]
    fn what_takes_a_leave_away_waits_for_nothing() {
        let diagnosis = diagnosis("u");
        let client = json!({ "name": "p", "namespace": "web", "uid": "u", "ips": [] });
        let asked = |from_node: bool, has_clients: bool, revision: &str| {
            let mut spec = spec("a", revision);
            spec.from_node = from_node;
            if has_clients {
                spec.clients = vec![serde_json::from_value(client.clone()).unwrap()];
            }
            spec
        };
        let waits = |before: NodeProbeSpec, after: NodeProbeSpec| {
            let plan = |spec| Plan::from([("a".to_owned(), spec)]);
            let first = steps(&diagnosis, &[], plan(before));
            let present = [stored(&diagnosis, &first[0])];
            let work = Work {
                steps: steps(&diagnosis, &present, plan(after)),
                ..Work::default()
            };
            assert_eq!(work.steps.len(), 1);
            work.without_questions().steps.is_empty()
        };
        assert!(!waits(asked(true, true, "1"), asked(false, true, "2")));
        assert!(!waits(asked(false, true, "1"), asked(false, false, "2")));
        assert!(
            waits(asked(true, true, "1"), asked(true, true, "2")),
            "another question"
        );
        assert!(waits(asked(false, true, "1"), asked(true, true, "2")), "leave");
        assert!(
            waits(asked(false, false, "1"), asked(false, false, "2")),
            "taken already"
        );
    }

    #[test]
    fn a_second_look_is_no_other_question() {
        let diagnosis = diagnosis("u");
        let first = steps(&diagnosis, &[], plan(&["a"]));
        let present = [stored(&diagnosis, &first[0])];
        let of = |change: fn(&mut NodeProbeSpec)| {
            let mut plan = plan(&["a"]);
            plan.values_mut().for_each(change);
            steps(&diagnosis, &present, plan)
        };
        let again = of(|spec| spec.repeat = "w1".to_owned());
        assert!(again.len() == 1 && again[0].looks_again());
        let work = Work {
            steps: again,
            ..Work::default()
        };
        assert!(work.without_second_looks().steps.is_empty());
        let another = of(|spec| {
            spec.repeat = "w1".to_owned();
            spec.revision = "2".to_owned();
        });
        assert!(another.len() == 1 && !another[0].looks_again());
        assert!(!first[0].looks_again(), "a new one");
    }

    #[test]
    fn names_are_those_of_diagnosis_and_node() {
        let names = |uid: &str| -> Vec<String> {
            let steps = steps(&diagnosis(uid), &[], plan(&["a", "b"]));
            let name = |s: &Step| match s {
                Step::Apply { name, .. } | Step::Delete { name, .. } => name.clone(),
            };
            steps.iter().map(name).collect()
        };
        assert_eq!(names("u"), names("u"));
        let all: BTreeSet<String> = names("u").into_iter().chain(names("v")).collect();
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn what_lost_its_owner_is_written_again_and_what_is_being_deleted_left_alone() {
        let diagnosis = diagnosis("u");
        let first = steps(&diagnosis, &[], plan(&["a"]));
        let mut probe = stored(&diagnosis, &first[0]);
        let owners = probe.metadata.owner_references.take().unwrap();
        assert_eq!((owners.len(), owners[0].block_owner_deletion), (1, None));
        assert_eq!(
            told(&steps(&diagnosis, &[probe.clone()], plan(&["a"]))),
            ["apply a"]
        );
        probe.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            "2026-01-01T00:00:00Z".parse().unwrap(),
        ));
        assert!(steps(&diagnosis, &[probe], Plan::new()).is_empty());
    }
}
