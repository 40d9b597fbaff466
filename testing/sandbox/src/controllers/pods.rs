//! What the workload controllers share: a Pod's condition, its owner, and making it from a template.

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use kube::api::{Api, DeleteParams, ListParams, Preconditions};
use kube::core::Selector;
use kube::{Client, Resource, ResourceExt};

use super::naming;
use crate::error::{Context, RequestError, optional};

/// Whether the condition is there and True.
pub(super) fn has_condition(pod: &Pod, kind: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == kind && one.status == "True"))
}

/// Whether the Pod's Ready condition is True.
pub(super) fn is_ready(pod: &Pod) -> bool {
    has_condition(pod, "Ready")
}

/// Whether the Pod is being deleted.
pub(super) fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether the Pod has ended for good.
pub(super) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether `owner` controls the object.
pub(super) fn is_controlled_by(object: &impl ResourceExt, owner: &impl ResourceExt) -> bool {
    let uid = owner.uid();
    object
        .owner_references()
        .iter()
        .any(|reference| reference.controller == Some(true) && Some(&reference.uid) == uid.as_ref())
}

/// The selector in the form that a request takes; one that cannot be parsed selects nothing.
pub(super) fn selector_text(selector: &LabelSelector) -> Option<String> {
    Selector::try_from(selector.clone())
        .ok()
        .filter(|parsed| !parsed.selects_all())
        .map(|parsed| parsed.to_string())
}

/// The owner's own Pods, live from the server.
pub(super) async fn list_controlled<O>(
    client: &Client,
    owner: &O,
    selector: &LabelSelector,
) -> Result<Vec<Pod>, RequestError>
where
    O: ResourceExt,
{
    let namespace = owner.namespace().unwrap_or_default();
    let Some(text) = selector_text(selector) else {
        return Ok(Vec::new());
    };
    let list = Api::<Pod>::namespaced(client.clone(), &namespace)
        .list(&ListParams::default().labels(&text))
        .await
        .during("list", || format!("the Pods of {namespace}/{}", owner.name_any()))?;
    Ok(list
        .items
        .into_iter()
        .filter(|pod| is_controlled_by(pod, owner) && !has_ended(pod))
        .collect())
}

/// A Pod made from a template for its controller.
pub(super) fn from_template<O>(template: &PodTemplateSpec, owner: &O, name: String) -> Pod
where
    O: Resource<DynamicType = ()>,
{
    let mut pod = Pod {
        metadata: template.metadata.clone().unwrap_or_default(),
        spec: template.spec.clone(),
        status: None,
    };
    pod.metadata.name = Some(name);
    pod.metadata.namespace = owner.meta().namespace.clone();
    pod.metadata.owner_references = owner_reference(owner);
    pod
}

/// The reference of a controller to what it makes.
pub(super) fn owner_reference<O>(owner: &O) -> Option<Vec<OwnerReference>>
where
    O: Resource<DynamicType = ()>,
{
    let mut reference = owner.controller_owner_ref(&())?;
    reference.block_owner_deletion = Some(true);
    Some(vec![reference])
}

/// A name for one more Pod of `owner`.
pub(super) fn generated_name(owner: &str) -> String {
    format!("{owner}-{}", naming::random_suffix())
}

/// Asks for the deletion of just this Pod, not of a namesake.
pub(super) async fn delete(client: &Client, pod: &Pod) -> Result<(), RequestError> {
    let namespace = pod.namespace().unwrap_or_default();
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: pod.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    optional(
        Api::<Pod>::namespaced(client.clone(), &namespace)
            .delete(&pod.name_any(), &params)
            .await,
    )
    .during("delete", || format!("Pod {namespace}/{}", pod.name_any()))?;
    Ok(())
}
