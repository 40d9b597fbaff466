//! What kube-controller-manager cleans up on a real API server: objects whose owner is gone,
//! and the contents of namespaces on their way out. The embedded server does both itself.
//!
//! Small on purpose: a deleted owner is noticed by its watch event and its dependents of the
//! kinds below are deleted; a missed event is not made good.

use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::discovery::{Discovery, Scope, verbs};
use kube::runtime::controller::Action;
use kube::runtime::watcher::{Event, watcher};
use kube::runtime::{Controller, WatchStreamExt};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::{Outcome, done, drain, everything, retry};
use crate::error::{Context, RequestError, chain, optional};

/// When a Namespace that still holds objects is checked again.
const RECHECK: std::time::Duration = std::time::Duration::from_millis(200);

/// Runs until dropped.
pub(super) async fn run(client: Client) {
    let core = |kind| ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind));
    let pods = core("Pod");
    let sets = ApiResource::erase::<ReplicaSet>(&());
    let slices = ApiResource::erase::<EndpointSlice>(&());
    let svcdiag = |kind, plural| {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("svcdiag.dev", "v1alpha1", kind), plural)
    };
    let diagnoses = svcdiag("ServiceDiagnosis", "servicediagnoses");
    let probes = svcdiag("NodeProbe", "nodeprobes");
    tokio::join!(
        orphans::<Deployment>(&client, (), vec![sets]),
        orphans::<ReplicaSet>(&client, (), vec![pods.clone()]),
        orphans::<StatefulSet>(&client, (), vec![pods]),
        orphans::<Service>(&client, (), vec![slices, diagnoses.clone()]),
        orphans::<DynamicObject>(&client, diagnoses, vec![probes]),
        namespaces(client.clone()),
    );
}

/// Deletes what a deleted object owned.
async fn orphans<K>(client: &Client, kind: K::DynamicType, dependents: Vec<ApiResource>)
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    K::DynamicType: Clone,
{
    let events = watcher(Api::<K>::all_with(client.clone(), &kind), everything()).default_backoff();
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        let Ok(Event::Delete(owner)) = event else { continue };
        for dependent in &dependents {
            if let Err(error) = collect(client, &owner, dependent).await {
                tracing::warn!(error = %chain(&error), "objects of a deleted owner are left behind");
            }
        }
    }
}

async fn collect(client: &Client, owner: &impl ResourceExt, kind: &ApiResource) -> Result<(), RequestError> {
    let namespace = owner.namespace().unwrap_or_default();
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), &namespace, kind);
    let what = |name: String| format!("{} {namespace}/{name}", kind.kind);
    let Some(list) =
        optional(api.list(&ListParams::default()).await).during("list", || what("*".to_owned()))?
    else {
        return Ok(());
    };
    let uid = owner.uid().unwrap_or_default();
    for object in list {
        if object
            .owner_references()
            .iter()
            .any(|reference| reference.uid == uid)
        {
            let name = object.name_any();
            optional(api.delete(&name, &DeleteParams::background()).await)
                .during("delete", || what(name.clone()))?;
        }
    }
    Ok(())
}

/// Empties namespaces that are being deleted, then lets them go.
async fn namespaces(client: Client) {
    let controller = Controller::new(Api::<Namespace>::all(client.clone()), everything());
    drain(
        "namespace",
        controller.run(empty_namespace, retry, Arc::new(client)),
    )
    .await;
}

async fn empty_namespace(namespace: Arc<Namespace>, client: Arc<Client>) -> Outcome {
    if namespace.metadata.deletion_timestamp.is_none() {
        return done();
    }
    let name = namespace.name_any();
    let what = || format!("the contents of Namespace {name}");
    let discovery = Discovery::new((*client).clone())
        .run()
        .await
        .during("discover", what)?;
    let mut left = 0;
    for (kind, capabilities) in discovery
        .groups()
        .flat_map(kube::discovery::ApiGroup::recommended_resources)
    {
        let usable =
            capabilities.supports_operation(verbs::LIST) && capabilities.supports_operation(verbs::DELETE);
        if capabilities.scope != Scope::Namespaced || !usable {
            continue;
        }
        let api = Api::<DynamicObject>::namespaced_with((*client).clone(), &name, &kind);
        for object in api.list(&ListParams::default()).await.during("list", what)? {
            left += 1;
            if object.metadata.deletion_timestamp.is_none() {
                optional(api.delete(&object.name_any(), &DeleteParams::background()).await)
                    .during("delete", what)?;
            }
        }
    }
    if left > 0 {
        return Ok(Action::requeue(RECHECK));
    }
    finalize(&client, &namespace).await?;
    done()
}

async fn finalize(client: &Client, namespace: &Namespace) -> Result<(), RequestError> {
    let name = namespace.name_any();
    let mut empty = namespace.clone();
    empty.spec.get_or_insert_default().finalizers = Some(Vec::new());
    let api = Api::<Namespace>::all(client.clone());
    let replaced = api
        .replace_subresource("finalize", &name, &PostParams::default(), &empty)
        .await;
    optional(replaced).during("finalize", || format!("Namespace {name}"))?;
    Ok(())
}
