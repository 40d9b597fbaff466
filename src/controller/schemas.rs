//! Which fields of our kinds the installed CRDs have. What they lack is omitted and reported.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use parking_lot::RwLock;
use tokio::sync::Notify;

use super::{Context, Queue, queue::enqueue};
use crate::{
    api::{NodeProbeSpec, Schemas, ServiceDiagnosisStatus, own_schemas},
    client::{is_not_served, is_of_schema, schemas},
};

/// Fields of our kinds that controller or agents write.
const WRITTEN: [(&str, &str); 3] = [
    ("ServiceDiagnosis", "status"),
    ("NodeProbe", "spec"),
    ("NodeProbe", "status"),
];

/// Timeout for reading the schemas.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Pause until the next check while fields are missing, and after a rejected write: rejections come in bursts.
const RECHECK: Duration = Duration::from_secs(60);
const SETTLE: Duration = Duration::from_secs(5);

/// Maximum fields named in a message.
const NAMED: usize = 3;

/// State of the installed CRDs.
#[derive(Default)]
pub(super) struct Installed {
    state: RwLock<Arc<State>>,
    refused: Notify,
}

#[derive(Default, PartialEq)]
struct State {
    schemas: Schemas,
    /// Paths of missing fields and values.
    lacking: BTreeSet<String>,
}

impl State {
    fn of(schemas: Schemas, own: &Schemas) -> Self {
        let mut lacking = BTreeSet::new();
        for (kind, field) in WRITTEN {
            let of = |schemas: &Schemas| schemas.get(kind)?.field(field).cloned();
            if let (Some(served), Some(own)) = (of(&schemas), of(own)) {
                served.lacks(&own, &format!("{kind}.{field}"), &mut lacking);
            }
        }
        Self { schemas, lacking }
    }

    /// The remark for the message of Ready.
    fn message(&self) -> String {
        let named: Vec<&str> = self.lacking.iter().take(NAMED).map(String::as_str).collect();
        let more = self.lacking.len().saturating_sub(NAMED);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        format!(
            " The installed CRDs are older than this controller and lack {}{more}, which is omitted. Update them with `svcdiag crd | kubectl apply --server-side -f -`.",
            named.join(", ")
        )
    }
}

impl Installed {
    fn state(&self) -> Arc<State> {
        self.state.read().clone()
    }

    /// A write was rejected, perhaps because the CRDs have changed.
    pub(super) fn doubt(&self, error: &kube::Error) {
        if is_of_schema(error) {
            self.refused.notify_one();
        }
    }

    /// A status reduced to the installed CRD; Ready says that something is omitted.
    pub(super) fn status(&self, mut status: ServiceDiagnosisStatus) -> ServiceDiagnosisStatus {
        let state = self.state();
        if state.lacking.is_empty() {
            return status;
        }
        if let Some(ready) = status.conditions.iter_mut().find(|c| c.type_ == "Ready") {
            ready.message.push_str(&state.message());
        }
        let schema = state
            .schemas
            .get("ServiceDiagnosis")
            .and_then(|s| s.field("status"));
        schema.and_then(|s| s.fitted(&status)).unwrap_or(status)
    }

    /// A NodeProbe reduced to the installed CRD.
    pub(super) fn question(&self, spec: NodeProbeSpec) -> NodeProbeSpec {
        let state = self.state();
        if state.lacking.is_empty() {
            return spec;
        }
        let schema = state.schemas.get("NodeProbe").and_then(|s| s.field("spec"));
        schema.and_then(|s| s.fitted(&spec)).unwrap_or(spec)
    }
}

/// Runs until the controller stops.
pub(super) async fn run(context: Arc<Context>, mut queue: Queue) {
    let own = own_schemas();
    loop {
        let asked = tokio::time::timeout(TIMEOUT, schemas(&context.client)).await;
        let found = match asked {
            Ok(Ok(schemas)) => Some(schemas),
            Ok(Err(error)) if is_not_served(&error) => Some(Schemas::new()),
            Ok(Err(error)) => {
                tracing::debug!("Could not read the schemas of the installed CRDs: {error}.");
                None
            }
            Err(_) => None,
        };
        let is_read = found.is_some();
        if let Some(state) = found.map(|schemas| State::of(schemas, &own)) {
            context.metrics.fields_missing(state.lacking.len());
            let is_other = state.lacking != context.installed.state().lacking;
            if is_other && !state.lacking.is_empty() {
                tracing::warn!(fields = ?state.lacking, "The installed CRDs are older than this controller. These fields are omitted until the CRDs are updated.");
            }
            *context.installed.state.write() = Arc::new(state);
            if is_other {
                let all = context.inventory().all();
                enqueue(&context, &mut queue, all).await;
            }
        }
        let is_complete = is_read && context.installed.state().lacking.is_empty();
        tokio::select! {
            () = context.installed.refused.notified() => tokio::time::sleep(SETTLE).await,
            () = tokio::time::sleep(RECHECK), if !is_complete => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::Schema;

    fn status() -> ServiceDiagnosisStatus {
        serde_json::from_value(json!({ "observedGeneration": 1, "proxyMode": "nftables", "conditions": [
            { "type": "Ready", "status": "True", "reason": "ServiceWorks", "message": "It works.", "lastTransitionTime": "2026-05-01T12:00:00Z" },
            { "type": "HairpinOK", "status": "True", "reason": "HairpinWorks", "message": "", "lastTransitionTime": "2026-05-01T12:00:00Z" },
        ] }))
        .unwrap()
    }

    fn installed(change: impl FnOnce(&mut serde_json::Value)) -> Installed {
        let mut crds = crate::api::crds();
        let status =
            crds[0].pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/status/properties");
        change(status.unwrap());
        let schema = Schema::read(&crds[0]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]);
        let schemas = Schemas::from([("ServiceDiagnosis".to_owned(), schema)]);
        let installed = Installed::default();
        *installed.state.write() = Arc::new(State::of(schemas, &own_schemas()));
        installed
    }

    #[test]
    fn with_the_present_crds_nothing_is_left_out() {
        assert_eq!(installed(|_| {}).status(status()), status());
    }

    #[test]
    fn an_older_crd_keeps_no_question_back() {
        let mut crds = crate::api::crds();
        let service = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/service/properties";
        let service = crds[1].pointer_mut(service).and_then(|p| p.as_object_mut());
        service.unwrap().remove("externalName").unwrap();
        let schema = Schema::read(&crds[1]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]);
        let older = Installed::default();
        let schemas = Schemas::from([("NodeProbe".to_owned(), schema)]);
        *older.state.write() = Arc::new(State::of(schemas, &own_schemas()));
        let mut planned: NodeProbeSpec = serde_json::from_value(json!({
            "nodeName": "n1", "diagnosis": { "name": "web", "uid": "u" }, "serviceName": "web", "intervalSeconds": 60,
            "service": { "externalName": "db.example", "withoutRules": true },
        }))
        .unwrap();
        let asked = older.question(planned.clone());
        assert_eq!(asked.service.external_name, None);
        planned.service.external_name = None;
        assert_eq!(asked, planned, "what it knows stays");
    }

    #[test]
    fn what_an_older_crd_lacks_is_left_out_and_said_in_ready() {
        let older = installed(|status| {
            status.as_object_mut().unwrap().remove("proxyMode");
            let types = status
                .pointer_mut("/conditions/items/properties/type/enum")
                .unwrap();
            types.as_array_mut().unwrap().retain(|type_| type_ != "HairpinOK");
        });
        let found = older.status(status());
        assert_eq!(found.proxy_mode, None);
        assert_eq!(found.observed_generation, Some(1), "what it knows stays");
        let types: Vec<&str> = found.conditions.iter().map(|c| c.type_.as_str()).collect();
        assert_eq!(types, ["Ready"], "a condition is no condition without its type");
        let message = &found.conditions[0].message;
        assert!(
            message.starts_with("It works. The installed CRDs are older")
                && message.contains(
                    "ServiceDiagnosis.status.conditions.type=HairpinOK, ServiceDiagnosis.status.proxyMode,"
                ),
            "{message}"
        );
        assert_eq!(
            older.status(status()),
            found,
            "the same each time, or it would be written again and again"
        );
    }
}
