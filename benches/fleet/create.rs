//! Puts the objects of a cluster through the API of a server that checks them.

use std::collections::HashMap;

use futures::{StreamExt, stream};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::population;

/// Requests at the same time.
const AT_ONCE: usize = 24;

/// The UIDs that the API server has assigned, by kind, namespace and name.
type Uids = Mutex<HashMap<[String; 3], String>>;

/// Creates objects, each kind after the one before, with their status. What they refer to by a UID has to come before them.
pub(crate) async fn all(client: &Client, objects: impl Iterator<Item = Value>) {
    let uids = Uids::default();
    let mut objects = objects.peekable();
    while let Some(kind) = objects.peek().map(|object| object["kind"].clone()) {
        let of_kind = std::iter::from_fn(|| objects.next_if(|object| object["kind"] == kind));
        stream::iter(of_kind)
            .for_each_concurrent(AT_ONCE, |object| one(client, &uids, object))
            .await;
    }
}

async fn one(client: &Client, uids: &Uids, mut object: Value) {
    let resource = population::resource(&object);
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (text("namespace"), text("name"));
    let api: Api<DynamicObject> = if namespace.is_empty() {
        Api::all_with(client.clone(), &resource)
    } else {
        Api::namespaced_with(client.clone(), &namespace, &resource)
    };
    let what = format!("{} {namespace}/{name}", resource.kind);
    refer(uids, &namespace, &mut object);
    let fields = object.as_object_mut().unwrap();
    // The API server ignores the status of most kinds in a creation, and writes these fields of the metadata itself.
    let status = fields.remove("status");
    for field in ["uid", "generation", "creationTimestamp", "managedFields"] {
        fields["metadata"].as_object_mut().unwrap().remove(field);
    }
    let object = serde_json::from_value(object).unwrap();
    let created = api
        .create(&PostParams::default(), &object)
        .await
        .unwrap_or_else(|error| panic!("creating {what}: {error}"));
    uids.lock().insert(
        [resource.kind.clone(), namespace, name.clone()],
        created.metadata.uid.unwrap(),
    );
    let params = PatchParams::default();
    if let Some(status) = status {
        let patch = Patch::Merge(json!({ "status": status }));
        api.patch_status(&name, &params, &patch)
            .await
            .unwrap_or_else(|error| panic!("writing the status of {what}: {error}"));
    }
    if resource.kind == "Node" {
        // Admission taints every new Node until the controller of nodes has seen it, which does not run here.
        let patch = Patch::Merge(json!({ "spec": { "taints": null } }));
        api.patch(&name, &params, &patch).await.unwrap();
    }
}

/// Refers to owners and Pods by the UIDs that they have got.
fn refer(uids: &Uids, namespace: &str, object: &mut Value) {
    let uids = uids.lock();
    let refer = |reference: &mut Value| {
        let text = |field: &str| reference[field].as_str().unwrap_or_default().to_owned();
        let key = [text("kind"), namespace.to_owned(), text("name")];
        reference["uid"] = json!(uids[&key]);
    };
    if let Some(owners) = object["metadata"].get_mut("ownerReferences") {
        owners.as_array_mut().unwrap().iter_mut().for_each(refer);
    }
    if let Some(endpoints) = object.get_mut("endpoints") {
        let endpoints = endpoints.as_array_mut().unwrap().iter_mut();
        endpoints
            .map(|endpoint| &mut endpoint["targetRef"])
            .for_each(refer);
    }
}
