//! Namespaces labelled `svcdiag.dev/auto=true`: each of their Services gets a ServiceDiagnosis.
//!
//! The wanted diagnoses are compared with the existing ones, and the difference is applied. A diagnosis that a user
//! wrote is never touched: ours have a label, and are owned by the Service, so they are deleted with it.

use std::{sync::Arc, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

use super::Context;
use crate::{
    api::{AUTO, FIELD_MANAGER, ServiceDiagnosis},
    client::is_going,
    inventory::{DiagnosisKey, Inventory, MANAGED_BY},
    objects::{Object, Service},
};

/// Changes are batched for this long.
const SETTLE: Duration = Duration::from_millis(200);

/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(10);

/// Timeout of a request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A step to take.
#[derive(Debug, PartialEq)]
enum Step {
    Create { service: Arc<Service> },
    Delete(DiagnosisKey),
}

/// Runs until the controller stops.
pub(super) async fn run(context: Arc<Context>) {
    loop {
        context.auto.notified().await;
        tokio::time::sleep(SETTLE).await;
        if !context.readiness.is_complete() {
            // The last kind to be listed wakes us only if it is one of ours.
            context.auto.notify_one();
            continue;
        }
        let steps = steps(&context.inventory());
        for step in steps {
            if let Err(error) = take(&context, &step).await {
                tracing::warn!(
                    "Could not update the diagnoses of a labelled Namespace, will retry: {error}."
                );
                tokio::time::sleep(RETRY).await;
                context.auto.notify_one();
                break;
            }
        }
    }
}

/// The difference between the wanted and the existing diagnoses.
fn steps(inventory: &Inventory) -> Vec<Step> {
    let mut steps = Vec::new();
    for namespace in inventory.namespaces().filter(|n| !n.is_terminating()) {
        let labelled = namespace.labels().get(AUTO).is_some_and(|v| v == "true");
        let name = namespace.name();
        let wants =
            |s: &&Arc<Service>| labelled && !s.is_terminating() && s.annotation(AUTO) != Some("false");
        let wanted: Vec<&Arc<Service>> = inventory.services_of(name).filter(wants).collect();
        for service in &wanted {
            if !inventory
                .interests_of(name)
                .any(|(diagnosis, _)| diagnosis == service.name())
            {
                steps.push(Step::Create {
                    service: Arc::clone(service),
                });
            }
        }
        for (diagnosis, interest) in inventory.interests_of(name).filter(|(_, i)| i.automatic) {
            if !wanted.iter().any(|s| s.name() == interest.service) {
                steps.push(Step::Delete((name.to_owned(), diagnosis.clone())));
            }
        }
    }
    steps
}

async fn take(context: &Context, step: &Step) -> Result<(), String> {
    let api = |namespace: &str| Api::<ServiceDiagnosis>::namespaced(context.client.clone(), namespace);
    let (what, result) = match step {
        Step::Create { service } => {
            let (namespace, name) = (service.namespace(), service.name());
            let params = PatchParams::apply(FIELD_MANAGER).force();
            let patch = Patch::Apply(manifest(service));
            let call = api(namespace);
            let result = tokio::time::timeout(TIMEOUT, call.patch(name, &params, &patch)).await;
            (
                format!("create ServiceDiagnosis {namespace}/{name}"),
                result.map(|r| r.map(drop)),
            )
        }
        Step::Delete((namespace, name)) => {
            let call = api(namespace);
            let result = tokio::time::timeout(TIMEOUT, call.delete(name, &DeleteParams::default())).await;
            (
                format!("delete ServiceDiagnosis {namespace}/{name}"),
                result.map(|r| r.map(drop)),
            )
        }
    };
    match result {
        Ok(Ok(())) => Ok(()),
        // It, or its Namespace, was deleted meanwhile.
        Ok(Err(kube::Error::Api(refusal))) if is_going(&refusal) => Ok(()),
        Ok(Err(error)) => Err(format!("{what}: {error}")),
        Err(_) => Err(format!("{what}: no answer within {} seconds", TIMEOUT.as_secs())),
    }
}

/// The diagnosis of a Service.
fn manifest(service: &Service) -> serde_json::Value {
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Service".to_owned(),
        name: service.name().to_owned(),
        uid: service.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        // Deleting the Service need not wait for its diagnosis.
        block_owner_deletion: None,
    };
    json!({
        "apiVersion": "svcdiag.dev/v1alpha1", "kind": "ServiceDiagnosis",
        "metadata": {
            "name": service.name(), "namespace": service.namespace(),
            "labels": { MANAGED_BY.0: MANAGED_BY.1 }, "ownerReferences": [owner],
        },
        "spec": { "serviceName": service.name() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(label: &str) -> Inventory {
        let mut inventory = Inventory::default();
        let object = |v: serde_json::Value| serde_json::from_value(v).unwrap();
        inventory.apply::<crate::objects::Namespace>(
            serde_json::from_value(json!({ "metadata": { "name": "shop", "labels": { AUTO: label } } }))
                .unwrap(),
        );
        inventory.apply::<Service>(object(
            json!({ "metadata": { "namespace": "shop", "name": "cart" } }),
        ));
        let out =
            json!({ "metadata": { "namespace": "shop", "name": "out", "annotations": { AUTO: "false" } } });
        inventory.apply::<Service>(object(out));
        inventory
    }

    fn diagnosis(name: &str, ours: bool) -> ServiceDiagnosis {
        let (labels, owners) = if ours {
            let owner = json!({ "apiVersion": "v1", "kind": "Service", "name": name, "uid": "u", "controller": true });
            (json!({ MANAGED_BY.0: MANAGED_BY.1 }), json!([owner]))
        } else {
            (json!({}), json!([]))
        };
        serde_json::from_value(json!({
            "apiVersion": "svcdiag.dev/v1alpha1", "kind": "ServiceDiagnosis",
            "metadata": { "namespace": "shop", "name": name, "labels": labels, "ownerReferences": owners },
            "spec": { "serviceName": name },
        }))
        .unwrap()
    }

    fn told(inventory: &Inventory) -> Vec<String> {
        let tell = |step| match step {
            Step::Create { service } => format!("create {}", service.name()),
            Step::Delete((_, name)) => format!("delete {name}"),
        };
        steps(inventory).into_iter().map(tell).collect()
    }

    #[test]
    fn each_service_of_a_labelled_namespace_gets_a_diagnosis_unless_it_opts_out() {
        assert_eq!(told(&inventory("true")), ["create cart"]);
        assert!(told(&inventory("false")).is_empty());
    }

    #[test]
    fn ours_go_with_the_label_or_the_opting_out_and_those_of_users_stay() {
        let mut labelled = inventory("true");
        labelled.set_interest(&diagnosis("cart", true));
        labelled.set_interest(&diagnosis("out", true));
        assert_eq!(told(&labelled), ["delete out"]);
        let mut unlabelled = inventory("");
        unlabelled.set_interest(&diagnosis("cart", true));
        unlabelled.set_interest(&diagnosis("out", false));
        assert_eq!(told(&unlabelled), ["delete cart"]);
    }
}
