//! Creating and deleting an object of the fixture.

use kube::api::{DeleteParams, DynamicObject, PostParams};
use serde_json::Value;

use super::{Error, Fixture, kinds::Target};
use crate::error::{Context, optional};

/// A copy that can be created: without what the server gave to the original.
pub(super) fn fresh(object: &DynamicObject) -> DynamicObject {
    let mut copy = object.clone();
    let metadata = &mut copy.metadata;
    metadata.uid = None;
    metadata.resource_version = None;
    metadata.creation_timestamp = None;
    metadata.generation = None;
    metadata.managed_fields = None;
    metadata.owner_references = None;
    if let Value::Object(data) = &mut copy.data {
        data.remove("status");
    }
    copy
}

pub(super) async fn create(fixture: &Fixture, target: &Target, object: &DynamicObject) -> Result<(), Error> {
    target
        .api(fixture.client())
        .create(&PostParams::default(), object)
        .await
        .during("create", || target.to_string())?;
    Ok(())
}

/// Deletes the object, if it is there, and waits until it is gone.
pub(super) async fn delete(fixture: &Fixture, target: &Target) -> Result<(), Error> {
    let api = target.api(fixture.client());
    optional(api.delete(&target.name, &DeleteParams::background()).await)
        .during("delete", || target.to_string())?;
    fixture
        .wait(&format!("the deletion of {target}"), async || {
            let found = api
                .get_opt(&target.name)
                .await
                .during("get", || target.to_string())?;
            Ok(found.map(|_| "it is still there".to_owned()))
        })
        .await
}
