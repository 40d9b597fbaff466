//! Kubernetes Events for a Service that stops working or works again: on its diagnosis, and on the Service itself, where
//! `kubectl describe service` shows them.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use super::Context;
use crate::{
    api::{ConditionType, FIELD_MANAGER, ServiceDiagnosis, ServiceDiagnosisStatus},
    client::is_going,
    objects::Object,
};

/// An Event repeats what the status says; it is not worth a long wait.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest note that the API takes, in bytes.
const NOTE_MAX: usize = 1024;

/// Publishes Events; repetitions are counted in one object.
pub(super) struct Events(Recorder);

impl Events {
    pub(super) fn new(client: Client) -> Self {
        let reporter = Reporter {
            controller: FIELD_MANAGER.to_owned(),
            instance: std::env::var("POD_NAME").ok(),
        };
        Self(Recorder::new(client, reporter))
    }
}

/// Status, reason and message of Ready.
fn ready(status: Option<&ServiceDiagnosisStatus>) -> Option<(&str, &str, &str)> {
    let ready = status?.condition(ConditionType::Ready)?;
    Some((&ready.status, &ready.reason, &ready.message))
}

/// Publishes an Event if Ready has become True or False.
pub(super) async fn ready_flipped(
    context: &Context,
    diagnosis: &ServiceDiagnosis,
    previous: Option<&ServiceDiagnosisStatus>,
    status: &ServiceDiagnosisStatus,
) {
    let before = ready(previous).map(|(status, ..)| status);
    let Some((now, reason, message)) = ready(Some(status)).filter(|(now, ..)| Some(*now) != before) else {
        return;
    };
    let type_ = match (before, now) {
        (_, "False") => EventType::Warning,
        (_, "True") | (Some("False"), _) => EventType::Normal,
        // Unknown before and now.
        _ => return,
    };
    let mut note = message.to_owned();
    while note.len() > NOTE_MAX {
        note.pop();
    }
    let own = diagnosis.object_ref(&());
    let service = service(context, diagnosis);
    let event = |secondary: Option<&ObjectReference>| Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note.clone()),
        action: "Diagnose".to_owned(),
        secondary: secondary.cloned(),
    };
    publish(context, diagnosis, &event(service.as_ref()), &own).await;
    if let Some(service) = &service {
        publish(context, diagnosis, &event(Some(&own)), service).await;
    }
}

/// The Service of a diagnosis, if it exists.
fn service(context: &Context, diagnosis: &ServiceDiagnosis) -> Option<ObjectReference> {
    let inventory = context.inventory();
    let mut services = inventory.services_of(diagnosis.namespace());
    let service = services.find(|service| service.name() == diagnosis.spec.service_name)?;
    Some(service.object_ref(&()))
}

async fn publish(
    context: &Context,
    diagnosis: &ServiceDiagnosis,
    event: &Event,
    reference: &ObjectReference,
) {
    match tokio::time::timeout(TIMEOUT, context.events.0.publish(event, reference)).await {
        Ok(Ok(())) => {}
        Ok(Err(kube::Error::Api(refusal))) if is_going(&refusal) => {}
        Ok(Err(error)) => {
            tracing::warn!(
                namespace = diagnosis.namespace(),
                name = diagnosis.name(),
                "Could not publish an Event: {error}."
            );
        }
        Err(_) => tracing::warn!(
            namespace = diagnosis.namespace(),
            name = diagnosis.name(),
            "Could not publish an Event: timed out."
        ),
    }
}
