//! Watches: one for each kind, into the inventory.
//!
//! An object that cannot be parsed is logged and counted, and the others are processed. After an interruption the kind is
//! listed again and replaced at once, so half a list is never visible. Nothing is diagnosed before every kind has been
//! listed: half a cluster looks like a broken one. A controller for a single namespace may not be allowed to read Nodes,
//! the agents' Leases and Events: the rest is checked without them.

use std::{collections::BTreeSet, fmt::Debug, sync::Arc, time::Duration};

use futures::StreamExt;
use kube::{
    Api, Resource,
    core::NamespaceResourceScope,
    runtime::{
        reflector::{ObjectRef, store::Writer},
        watcher::{self, Event},
    },
};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use super::{
    Context, Queue,
    changes::{Change, Source, changes},
    pod_events,
    presence::Presence,
    queue::{begin_if_complete, enqueue, enqueue_behind},
};
use crate::{
    api::{AGENT_LABEL, NodeProbe, ServiceDiagnosis, ServiceDiagnosisSpec},
    inventory::{DiagnosisKey, Tracked, as_held},
    objects::{
        Deployment, EndpointSlice, Lease, Namespace, NetworkPolicy, Node, Object, Pod, ReplicaSet, Service,
        StatefulSet,
    },
};

/// Kinds that show which agents exist.
const OF_AGENTS: [&str; 2] = ["Node", "Lease"];

/// Changes of agents that concern all diagnoses are batched for this long: a rollout replaces one agent after the other. The
/// pause grows with the number of diagnoses, so that a cluster with few need not wait, and one in which nodes come and go all
/// the time is not busy with nothing else.
const SETTLE: Duration = Duration::from_millis(200);
const PAUSE_FOR_EACH: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Starts all watches.
pub(super) fn spawn(
    tasks: &mut JoinSet<()>,
    context: &Arc<Context>,
    queue: &Queue,
    writer: Writer<ServiceDiagnosis>,
) {
    let (c, q) = (context, queue);
    tasks.spawn(watch_diagnoses(c.clone(), q.clone(), scoped(c), writer));
    tasks.spawn(watch::<Service>(c.clone(), q.clone(), scoped(c)));
    tasks.spawn(watch::<EndpointSlice>(c.clone(), q.clone(), scoped(c)));
    tasks.spawn(watch::<Pod>(c.clone(), q.clone(), scoped(c)));
    tasks.spawn(watch::<Deployment>(c.clone(), q.clone(), scoped(c)));
    tasks.spawn(watch::<ReplicaSet>(c.clone(), q.clone(), scoped(c)));
    tasks.spawn(watch::<StatefulSet>(c.clone(), q.clone(), scoped(c)));
    tasks.spawn(watch::<NetworkPolicy>(c.clone(), q.clone(), scoped(c)));
    tasks.spawn(watch::<NodeProbe>(c.clone(), q.clone(), scoped(c)));
    let everywhere = (Api::all(c.client.clone()), watcher::Config::default());
    tasks.spawn(watch::<Node>(c.clone(), q.clone(), everywhere));
    let of_agents = watcher::Config::default().labels(&format!("{}={}", AGENT_LABEL.0, AGENT_LABEL.1));
    let leases = Api::namespaced(c.client.clone(), &c.options.agent_namespace);
    tasks.spawn(watch::<Lease>(c.clone(), q.clone(), (leases, of_agents)));
    let (api, config) = scoped::<pod_events::PodEvent>(c);
    let config = config.fields(pod_events::PodEvent::WARNINGS);
    tasks.spawn(pod_events::watch(c.clone(), q.clone(), (api, config)));
    tasks.spawn(judge_all_when_agents_change(c.clone(), q.clone()));
    let only = context
        .options
        .namespace
        .as_ref()
        .map(|n| format!("metadata.name={n}"));
    let config = watcher::Config {
        field_selector: only,
        ..watcher::Config::default()
    };
    tasks.spawn(watch::<Namespace>(
        c.clone(),
        q.clone(),
        (Api::all(context.client.clone()), config),
    ));
}

/// A namespaced kind: in the namespace of --namespace, or in all.
fn scoped<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(context: &Context) -> Source<K> {
    let client = context.client.clone();
    let api = match &context.options.namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    (api, watcher::Config::default())
}

/// Keeps a kind of the inventory up to date.
async fn watch<K>(context: Arc<Context>, mut queue: Queue, source: Source<K>)
where
    K: Tracked + Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let mut listed: Vec<Arc<K::Held>> = Vec::new();
    let mut unparsable: Vec<(String, String, String)> = Vec::new();
    let kind = K::kind(&());
    let mut presence = Presence::default();
    let mut changes = std::pin::pin!(changes(&context, source));
    while let Some(change) = changes.next().await {
        let concerned = match change {
            Change::Begin => {
                listed.clear();
                unparsable.clear();
                BTreeSet::new()
            }
            Change::Listed(object) => {
                listed.push(as_held(object));
                BTreeSet::new()
            }
            Change::End => {
                let concerned = relist::<K>(&context, std::mem::take(&mut listed), &mut unparsable);
                presence.listed::<K>(&context, &mut queue).await;
                concerned
            }
            Change::Unavailable(why) => {
                presence.missing::<K>(&context, &mut queue, why).await;
                continue;
            }
            Change::Applied(object) if object.tells_no_fault() => {
                let concerned = context.inventory_mut().apply(object);
                let inventory = context.inventory();
                let (waiting, concerned) = concerned
                    .into_iter()
                    .partition(|key| inventory.awaits_answers(key));
                enqueue_behind(&context, waiting);
                concerned
            }
            Change::Applied(object) => context.inventory_mut().apply(object),
            Change::Gone { namespace, name, .. } => context.inventory_mut().delete::<K>(&namespace, &name),
            Change::Unparsable { namespace, name, why } => {
                let concerned = context
                    .inventory_mut()
                    .note_unparsable::<K>(&namespace, &name, why.clone());
                unparsable.push((namespace, name, why));
                concerned
            }
        };
        if matches!(kind.as_ref(), "Service" | "Namespace") {
            context.auto.notify_one();
        }
        // A node that is not ready any more concerns few diagnoses, which must not wait for all others.
        let concerns_all = || concerned.len() == context.inventory().diagnoses();
        if OF_AGENTS.contains(&kind.as_ref()) && concerns_all() {
            context.agents.notify_one();
        } else {
            enqueue(&context, &mut queue, concerned).await;
        }
    }
}

/// Applies a whole list at once.
fn relist<K: Tracked>(
    context: &Context,
    listed: Vec<Arc<K::Held>>,
    unparsable: &mut Vec<(String, String, String)>,
) -> BTreeSet<DiagnosisKey> {
    let mut inventory = context.inventory_mut();
    let mut concerned = inventory.replace_held::<K>(listed);
    for (namespace, name, why) in unparsable.drain(..) {
        concerned.extend(inventory.note_unparsable::<K>(&namespace, &name, why));
    }
    concerned
}

/// Evaluates everything again when agents have appeared or disappeared, but not once for each of them.
async fn judge_all_when_agents_change(context: Arc<Context>, mut queue: Queue) {
    loop {
        context.agents.notified().await;
        tokio::time::sleep(SETTLE).await;
        let all = context.inventory().all();
        let pause = pause_after(all.len());
        enqueue(&context, &mut queue, all).await;
        tokio::time::sleep(pause).await;
    }
}

/// Pause before this many diagnoses are evaluated again for changes of agents.
fn pause_after(diagnoses: usize) -> Duration {
    let diagnoses = u32::try_from(diagnoses).unwrap_or(u32::MAX);
    PAUSE_FOR_EACH.saturating_mul(diagnoses).min(LONGEST_PAUSE)
}

/// Keeps the diagnoses up to date: the store from which reconciliations read them, and the inventory.
async fn watch_diagnoses(
    context: Arc<Context>,
    mut queue: Queue,
    source: Source<ServiceDiagnosis>,
    mut writer: Writer<ServiceDiagnosis>,
) {
    let mut listed: BTreeSet<DiagnosisKey> = BTreeSet::new();
    let mut uids: BTreeSet<String> = BTreeSet::new();
    let mut first = true;
    let mut changes = std::pin::pin!(changes(&context, source));
    while let Some(change) = changes.next().await {
        let key = |d: &ServiceDiagnosis| (d.namespace().to_owned(), d.name().to_owned());
        let mut concerned = BTreeSet::new();
        match change {
            Change::Begin => {
                listed.clear();
                uids.clear();
                writer.apply_watcher_event(&Event::Init);
            }
            Change::Listed(diagnosis) => {
                listed.insert(key(&diagnosis));
                uids.extend(diagnosis.metadata.uid.clone());
                context.inventory_mut().set_interest(&diagnosis);
                writer.apply_watcher_event(&Event::InitApply(diagnosis));
            }
            Change::End => {
                writer.apply_watcher_event(&Event::InitDone);
                let known = context.inventory().all();
                for (namespace, name) in known.difference(&listed) {
                    forget(&context, namespace, name);
                }
                context.written.retain(&uids);
                context.reports.retain(&uids);
                context.failures.retain(&uids);
                context.questions.retain(&uids);
                context.second_looks.retain(&uids);
                context.unanswered.retain(&uids);
                context.allowance.retain(&uids);
                concerned.clone_from(&listed);
                if std::mem::take(&mut first) {
                    begin_if_complete(&context, &mut queue).await;
                }
            }
            Change::Applied(diagnosis) => {
                let known = context.diagnoses.get(&ObjectRef::from_obj(&diagnosis));
                let is_news = known.is_none_or(|known| !is_status_alone(&known, &diagnosis));
                let key = [key(&diagnosis)].into();
                context.inventory_mut().set_interest(&diagnosis);
                writer.apply_watcher_event(&Event::Apply(diagnosis));
                match is_news {
                    true => concerned = key,
                    false => enqueue_behind(&context, key),
                }
            }
            Change::Gone { namespace, name, uid } => {
                context.written.forget(&uid);
                context.reports.forget(&uid);
                context.failures.reset(&uid);
                context.questions.forget(&uid);
                context.second_looks.forget(&uid);
                context.unanswered.note(&uid, false, crate::clock::now());
                context.allowance.release(&namespace, &uid);
                forget(&context, &namespace, &name);
                if context.options.max_diagnoses_per_namespace > 0 {
                    // It has made room for another diagnosis.
                    concerned = context.inventory().diagnoses_in(&namespace);
                }
                // The store uses only namespace and name.
                let mut gone = ServiceDiagnosis::new(&name, ServiceDiagnosisSpec::for_service(""));
                gone.metadata.namespace = Some(namespace);
                writer.apply_watcher_event(&Event::Delete(gone));
            }
            // It keeps its last status; there is nothing to evaluate it with.
            Change::Unparsable { .. } => {}
            // Nothing works without diagnoses; that is an error.
            Change::Unavailable(_) => {}
        }
        context.metrics.diagnoses(context.inventory().diagnoses());
        context.auto.notify_one();
        enqueue(&context, &mut queue, concerned).await;
    }
}

/// Whether nothing has changed of a diagnosis by which it is judged but its status: nearly always that is what the controller
/// itself has just written.
fn is_status_alone(before: &ServiceDiagnosis, now: &ServiceDiagnosis) -> bool {
    let asked = |diagnosis: &ServiceDiagnosis| {
        let meta = diagnosis.metadata.clone();
        (
            meta.uid,
            meta.generation,
            meta.deletion_timestamp,
            meta.labels,
            meta.annotations,
        )
    };
    asked(before) == asked(now)
}

fn forget(context: &Context, namespace: &str, name: &str) {
    context.inventory_mut().remove_interest(namespace, name);
    context.metrics.forget(namespace, name);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_alone_is_no_wish_of_a_user() {
        let mut diagnosis = ServiceDiagnosis::new("cart", ServiceDiagnosisSpec::for_service("cart"));
        diagnosis.metadata.generation = Some(1);
        let changed = |change: fn(&mut ServiceDiagnosis)| {
            let mut changed = diagnosis.clone();
            change(&mut changed);
            is_status_alone(&diagnosis, &changed)
        };
        assert!(changed(|d| {
            d.status = Some(Default::default());
            d.metadata.resource_version = Some("2".to_owned());
            d.metadata.managed_fields = Some(Vec::new());
        }));
        assert!(!changed(|d| d.metadata.generation = Some(2)));
        assert!(!changed(|d| d.metadata.uid = Some("successor".to_owned())));
        assert!(!changed(
            |d| d.metadata.annotations = Some([("svcdiag.dev/refresh".to_owned(), "1".to_owned())].into())
        ));
        assert!(!changed(
            |d| d.metadata.labels = Some([("team".to_owned(), "a".to_owned())].into())
        ));
        assert!(!changed(|d| {
            let now = jiff::Timestamp::UNIX_EPOCH;
            d.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
        }));
    }

    #[test]
    fn few_diagnoses_are_judged_again_soon_and_many_not_all_the_time() {
        assert_eq!(pause_after(1), Duration::from_millis(10));
        assert_eq!(pause_after(100), Duration::from_secs(1));
        assert_eq!(pause_after(50_000), LONGEST_PAUSE);
        assert_eq!(pause_after(usize::MAX), LONGEST_PAUSE);
    }
}
