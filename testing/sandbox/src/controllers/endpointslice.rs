//! The endpointslice controller: Services with a selector get slices that name their Pods.
//!
//! Data flow: Service, Pods, Nodes and the present slices, all live -> the wanted layout (pure,
//! [`super::endpointslice_layout`]) -> the fewest writes that get there.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::runtime::Controller;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, ResourceExt};

use super::endpointslice_layout::{self as layout, MANAGED_BY, MANAGER, SERVICE_NAME};
use super::{Outcome, annotations, done, drain, everything, retry};
use crate::error::{Context, RequestError, optional};

/// Runs until dropped.
pub(super) async fn run(client: Client) {
    let controller = Controller::new(Api::<Service>::all(client.clone()), everything());
    let (of_pod, of_namespace) = (controller.store(), controller.store());
    let controller = controller
        .owns(Api::<EndpointSlice>::all(client.clone()), everything())
        // A Pod may have left a Service by losing its labels: all Services of its namespace are reconciled.
        .watches(Api::<Pod>::all(client.clone()), everything(), move |pod: Pod| {
            services_in(&of_pod, &pod.namespace().unwrap_or_default())
        })
        .watches(
            Api::<Namespace>::all(client.clone()),
            everything(),
            move |namespace: Namespace| services_in(&of_namespace, &namespace.name_any()),
        );
    drain(
        "endpointslice",
        controller.run(reconcile, retry, Arc::new(client)),
    )
    .await;
}

fn services_in(store: &kube::runtime::reflector::Store<Service>, namespace: &str) -> Vec<ObjectRef<Service>> {
    let services = store.state();
    let here = services
        .iter()
        .filter(|service| service.metadata.namespace.as_deref() == Some(namespace));
    here.map(|service| ObjectRef::from_obj(&**service)).collect()
}

async fn reconcile(service: Arc<Service>, client: Arc<Client>) -> Outcome {
    // Without a selector, the slices are somebody else's business, and what we made earlier stays.
    let Some(selector) = layout::selector(&service) else {
        return done();
    };
    let namespace = service.namespace().unwrap_or_default();
    let name = service.name_any();
    if service.metadata.deletion_timestamp.is_some() || is_paused(&client, &namespace).await? {
        return done();
    }
    let pods = Api::<Pod>::namespaced((*client).clone(), &namespace)
        .list(&ListParams::default().labels(&selector))
        .await
        .during("list", || format!("the Pods of Service {namespace}/{name}"))?;
    let nodes = Api::<Node>::all((*client).clone())
        .list(&ListParams::default())
        .await
        .during("list", || "the Nodes".to_owned())?;
    let slices = Api::<EndpointSlice>::namespaced((*client).clone(), &namespace);
    let present = slices
        .list(&ListParams::default().labels(&format!("{SERVICE_NAME}={name},{MANAGED_BY}={MANAGER}")))
        .await
        .during("list", || {
            format!("the EndpointSlices of Service {namespace}/{name}")
        })?
        .items
        .into_iter()
        // Those of a deleted namesake are collected soon.
        .filter(|slice| super::pods::is_controlled_by(slice, &*service))
        .collect();
    let wanted = layout::of(&service, &pods.items, &nodes.items);
    apply(&slices, layout::compare(&service, present, wanted)).await?;
    done()
}

async fn is_paused(client: &Client, namespace: &str) -> Result<bool, RequestError> {
    let found = Api::<Namespace>::all(client.clone())
        .get_opt(namespace)
        .await
        .during("get", || format!("Namespace {namespace}"))?;
    let paused = |found: &Namespace| {
        found
            .annotations()
            .get(annotations::PAUSE_ENDPOINTS)
            .is_some_and(|it| it == "true")
    };
    Ok(found.is_some_and(|found| paused(&found)))
}

async fn apply(api: &Api<EndpointSlice>, changes: layout::Changes) -> Result<(), RequestError> {
    let what = |slice: &EndpointSlice| format!("EndpointSlice {}", slice.name_any());
    for slice in &changes.create {
        api.create(&PostParams::default(), slice)
            .await
            .during("create", || what(slice))?;
    }
    for slice in &changes.update {
        api.replace(&slice.name_any(), &PostParams::default(), slice)
            .await
            .during("update", || what(slice))?;
    }
    for slice in &changes.delete {
        optional(api.delete(&slice.name_any(), &DeleteParams::default()).await)
            .during("delete", || what(slice))?;
    }
    Ok(())
}
