//! What the agent writes to the API server: the facts, and its heartbeat Lease. It reads nothing but the
//! NodeProbes of its node.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::apiserver::{Access, is_unreachable};
use svcdiag_api::{
    AGENT_LABEL, AGENT_LEASE_PREFIX, FIELD_MANAGER_AGENT, NodeFacts, NodeProbe, Schema, bounded, own_schemas,
};
use svcdiag_client::is_outage;
use svcdiag_client::{is_going, is_of_schema, schemas};
use svcdiag_objects::Object;

/// An API server that takes longer counts as unreachable.
const PATIENCE: Duration = Duration::from_secs(10);

/// Interval and duration of the Lease: three renewals may fail.
pub const LEASE_RENEWAL: Duration = Duration::from_secs(10);

/// Pause after a renewal that did not reach the API server; it delays everything that waits for the agent.
pub const LEASE_RETRY: Duration = Duration::from_secs(3);

const LEASE_SECONDS: i32 = 40;

/// How long the schema of the installed CRD is cached after it has rejected something.
const SCHEMA_LASTS: Duration = Duration::from_secs(300);

/// Why a request to the API server failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server rejected it.
    #[error("{what}: {source}")]
    Api {
        /// What was tried.
        what: String,
        /// The answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer.
    #[error("{what}: the API server did not answer within {} seconds", PATIENCE.as_secs())]
    TimedOut {
        /// What was tried.
        what: String,
    },
}

impl Error {
    /// Whether the API server was unreachable.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Self::Api { source, .. } => is_outage(source),
            Self::TimedOut { .. } => true,
        }
    }
}

impl Error {
    /// Whether the API server rejected what was to be written, so that a retry will not help.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Api { source, .. } => {
                matches!(source.as_ref(), kube::Error::Api(status) if matches!(status.code, 400 | 403 | 413 | 415 | 422))
            }
            Self::TimedOut { .. } => false,
        }
    }
}

/// The API server, as the agent of one node uses it.
#[derive(Clone)]
pub struct Cluster {
    access: Access,
    node: String,
    /// Schema of the status in the installed CRD, and when it was read; read after the CRD has rejected a status.
    schema: Arc<Mutex<Option<(Instant, Schema)>>>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// The API server behind an access or a client.
    #[must_use]
    pub fn new(access: impl Into<Access>, node: impl Into<String>) -> Self {
        Self {
            access: access.into(),
            node: node.into(),
            schema: Arc::default(),
        }
    }

    /// The route to the API server.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access.clone()
    }

    fn client(&self) -> Client {
        self.access.client()
    }

    /// Writes a report, unless the NodeProbe is gone or has changed meanwhile.
    ///
    /// # Errors
    /// When the API server does not answer or refuses.
    pub async fn report(&self, probe: &NodeProbe, facts: &NodeFacts, now: Timestamp) -> Result<(), Error> {
        let api: Api<NodeProbe> = Api::namespaced(self.client(), probe.namespace());
        let facts = &bounded(facts);
        match self.write(&api, probe, facts, now).await {
            Err(Error::Api { source, .. }) if is_conflict(&source) => {}
            written => return written.or_else(unless_gone),
        }
        // A label or our own last report has changed it; or it is another object, which has its own round.
        let what = format!("reading NodeProbe {}/{}", probe.namespace(), probe.name());
        let present = self.timed(what, api.get_opt(probe.name())).await?;
        let is_same = |p: &NodeProbe| {
            (&p.metadata.uid, p.metadata.generation) == (&probe.metadata.uid, probe.metadata.generation)
        };
        match present.filter(is_same) {
            Some(present) => self.write(&api, &present, facts, now).await.or_else(unless_gone),
            None => Ok(()),
        }
    }

    /// Applies the status. The resourceVersion keeps the facts of one NodeProbe from being written to its successor: a
    /// UID in the patch of a status is ignored.
    async fn write(
        &self,
        api: &Api<NodeProbe>,
        probe: &NodeProbe,
        facts: &NodeFacts,
        now: Timestamp,
    ) -> Result<(), Error> {
        let status = json!({
            "observedGeneration": probe.metadata.generation,
            "observedTime": Time(now),
            "agentVersion": env!("CARGO_PKG_VERSION"),
            "facts": facts,
        });
        let known = self.known_schema();
        let first = known
            .as_ref()
            .map_or_else(|| status.clone(), |schema| fitted(schema, &status));
        match self.apply(api, probe, &first).await {
            Err(Error::Api { source, what }) if known.is_none() && is_of_schema(&source) => {
                let Some(schema) = self.learn_schema().await else {
                    return Err(Error::Api { source, what });
                };
                self.apply(api, probe, &fitted(&schema, &status)).await
            }
            written => written,
        }
    }

    async fn apply(&self, api: &Api<NodeProbe>, probe: &NodeProbe, status: &Value) -> Result<(), Error> {
        let (namespace, name) = (probe.namespace(), probe.name());
        let patch = json!({
            "apiVersion": "svcdiag.dev/v1alpha1",
            "kind": "NodeProbe",
            "metadata": { "name": name, "resourceVersion": probe.metadata.resource_version },
            "status": status,
        });
        let params = PatchParams::apply(FIELD_MANAGER_AGENT).force();
        let patch = Patch::Apply(&patch);
        let what = format!("writing NodeProbe {namespace}/{name}");
        self.timed(what, api.patch_status(name, &params, &patch)).await?;
        Ok(())
    }

    /// The schema of the installed CRD, if it has rejected anything lately. It may have been updated since.
    fn known_schema(&self) -> Option<Schema> {
        let mut known = self.schema.lock();
        known.take_if(|(at, _)| at.elapsed() > SCHEMA_LASTS);
        known.as_ref().map(|(_, schema)| schema.clone())
    }

    /// Reads it. The agent logs what it has to omit; for users the controller says so.
    async fn learn_schema(&self) -> Option<Schema> {
        let what = "reading the schemas of the installed CRDs".to_owned();
        let mut schemas = self.timed(what, schemas(&self.client())).await.ok()?;
        let schema = schemas.remove("NodeProbe")?.field("status")?.clone();
        let mut lacking = BTreeSet::new();
        if let Some(own) = own_schemas().get("NodeProbe").and_then(|own| own.field("status")) {
            schema.lacks(own, "status", &mut lacking);
        }
        tracing::warn!(fields = ?lacking, "The installed NodeProbe CRD is older than this agent. These fields are omitted until the CRD is updated.");
        *self.schema.lock() = Some((Instant::now(), schema.clone()));
        Some(schema)
    }

    /// Renews the heartbeat Lease.
    ///
    /// # Errors
    /// When the API server does not answer or refuses.
    pub async fn renew_lease(&self, namespace: &str, now: Timestamp) -> Result<(), Error> {
        let name = lease_name(&self.node);
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some([(AGENT_LABEL.0.to_owned(), AGENT_LABEL.1.to_owned())].into()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.node.clone()),
                lease_duration_seconds: Some(LEASE_SECONDS),
                renew_time: Some(MicroTime(now)),
                ..LeaseSpec::default()
            }),
        };
        let api: Api<Lease> = Api::namespaced(self.client(), namespace);
        let params = PatchParams::apply(FIELD_MANAGER_AGENT).force();
        let patch = Patch::Apply(&lease);
        let what = format!("renewing Lease {namespace}/{name}");
        self.timed(what, api.patch(&name, &params, &patch)).await?;
        Ok(())
    }

    /// The client's own retries take long; a round has less time.
    async fn timed<T>(
        &self,
        what: String,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(PATIENCE, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => {
                if is_unreachable(&source) {
                    self.access.is_in_trouble();
                }
                Err(Error::Api {
                    what,
                    source: Box::new(source),
                })
            }
            Err(_) => {
                self.access.is_in_trouble();
                Err(Error::TimedOut { what })
            }
        }
    }
}

/// A status reduced to what the installed CRD accepts.
fn fitted(schema: &Schema, status: &Value) -> Value {
    let mut status = status.clone();
    schema.fit(&mut status);
    status
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict())
}

/// The facts of a NodeProbe that is gone, or that is being deleted with its Namespace, are not needed.
fn unless_gone(error: Error) -> Result<(), Error> {
    match &error {
        Error::Api { source, .. } if matches!(source.as_ref(), kube::Error::Api(refusal) if is_going(refusal)) => {
            Ok(())
        }
        _ => Err(error),
    }
}

/// Name of the Lease of the agent on a node.
#[must_use]
pub fn lease_name(node: &str) -> String {
    format!("{AGENT_LEASE_PREFIX}{node}")
}

#[cfg(test)]
mod tests {
    use kube::api::{DeleteParams, PostParams};
    use svcdiag_sandbox::cluster::{Cluster as Pocket, ClusterConfig};

    use super::*;

    #[test]
    fn what_the_api_server_could_not_do_just_now_it_has_not_refused() {
        let answer = |code: u16| Error::Api {
            what: "report".to_owned(),
            source: Box::new(kube::Error::Api(Box::new(
                serde_json::from_value(json!({ "code": code })).unwrap(),
            ))),
        };
        assert!(
            [400, 403, 413, 422]
                .into_iter()
                .all(|code| answer(code).is_refusal())
        );
        // "etcdserver: leader changed" comes as 500.
        assert!(
            ![404, 409, 429, 500, 503, 504]
                .into_iter()
                .any(|code| answer(code).is_refusal())
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn facts_never_fall_to_a_successor_nor_to_another_question() {
        let config = ClusterConfig {
            controllers: false,
            assets: None,
            ..ClusterConfig::default()
        };
        let pocket = Pocket::start(config).await.unwrap();
        let api: Api<NodeProbe> = Api::namespaced(pocket.client(), "default");
        let cluster = Cluster::new(pocket.client(), "n1");
        let probe = serde_json::from_value(json!({ "apiVersion": "svcdiag.dev/v1alpha1", "kind": "NodeProbe",
            "metadata": { "name": "p" },
            "spec": { "nodeName": "n1", "diagnosis": { "name": "d", "uid": "u" }, "serviceName": "s", "intervalSeconds": 60 } }))
        .unwrap();
        let facts = NodeFacts::default();
        let report = async |probe: &NodeProbe| {
            cluster
                .report(probe, &facts, Timestamp::UNIX_EPOCH)
                .await
                .unwrap()
        };
        let present = async || api.get("p").await.unwrap();

        let first = api.create(&PostParams::default(), &probe).await.unwrap();
        report(&first).await;
        assert_eq!(present().await.status.unwrap().observed_generation, Some(1));
        // The watch has not delivered that yet, and a label was added.
        let label = Patch::Merge(json!({ "metadata": { "labels": { "a": "b" } } }));
        api.patch("p", &PatchParams::default(), &label).await.unwrap();
        let later = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(60);
        cluster.report(&first, &facts, later).await.unwrap();
        assert_eq!(present().await.status.unwrap().observed_time, Some(Time(later)));

        let question = Patch::Merge(json!({ "spec": { "revision": "2" } }));
        api.patch("p", &PatchParams::default(), &question).await.unwrap();
        let before = present().await;
        report(&first).await;
        assert_eq!(present().await, before, "an answer to an earlier question");

        api.delete("p", &DeleteParams::default()).await.unwrap();
        report(&first).await;
        api.create(&PostParams::default(), &probe).await.unwrap();
        report(&first).await;
        assert!(present().await.status.is_none(), "it is another one");
        pocket.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_namespace_that_is_being_deleted_takes_no_facts_and_that_is_no_error() {
        use k8s_openapi::api::core::v1::{ConfigMap, Namespace};

        let config = ClusterConfig {
            controllers: false,
            assets: None,
            ..ClusterConfig::default()
        };
        let pocket = Pocket::start(config).await.unwrap();
        let (client, params) = (pocket.client(), PostParams::default());
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace = serde_json::from_value(json!({ "metadata": { "name": "going" } })).unwrap();
        namespaces.create(&params, &namespace).await.unwrap();
        let probes: Api<NodeProbe> = Api::namespaced(client.clone(), "going");
        let probe: NodeProbe = serde_json::from_value(json!({ "apiVersion": "svcdiag.dev/v1alpha1", "kind": "NodeProbe",
            "metadata": { "name": "p" },
            "spec": { "nodeName": "n1", "diagnosis": { "name": "d", "uid": "u" }, "serviceName": "s", "intervalSeconds": 60 } }))
        .unwrap();
        let asked = probes.create(&params, &probe).await.unwrap();
        // It is terminating for as long as something in it is.
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "going");
        let map = json!({ "metadata": { "name": "stays", "finalizers": ["example.com/stays"] } });
        maps.create(&params, &serde_json::from_value(map).unwrap())
            .await
            .unwrap();
        namespaces
            .delete("going", &DeleteParams::default())
            .await
            .unwrap();
        assert!(probes.get_opt("p").await.unwrap().is_none(), "it goes first");

        let cluster = Cluster::new(client.clone(), "n1");
        let facts = NodeFacts::default();
        cluster
            .report(&asked, &facts, Timestamp::UNIX_EPOCH)
            .await
            .unwrap();
        // Admission may reject the request before the object is looked up, as it does for a create.
        let refusal = probes.create(&params, &probe).await.unwrap_err();
        assert!(
            matches!(&refusal, kube::Error::Api(status) if status.code == 403),
            "{refusal}"
        );
        let api_error = |source| Error::Api {
            what: "writing".to_owned(),
            source: Box::new(source),
        };
        unless_gone(api_error(refusal)).unwrap();
        // Other rejections stay as they are.
        let forbidden = kube::core::Status::failure("no such right", "Forbidden").with_code(403);
        unless_gone(api_error(kube::Error::Api(forbidden.boxed()))).unwrap_err();
        pocket.stop().await;
    }

    /// A minimal API server with an older CRD: it rejects what that lacks, as the real one does.
    async fn older(
        accepted: Arc<Mutex<Vec<Value>>>,
        request: axum::extract::Request,
    ) -> axum::response::Response {
        use axum::{Json, http::StatusCode, response::IntoResponse};
        if request.uri().path().starts_with("/openapi/v3/") {
            let mut crd = svcdiag_api::crds().remove(1);
            let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            let status = schema.pointer_mut("/properties/status/properties").unwrap();
            status.as_object_mut().unwrap().remove("agentVersion");
            schema["x-kubernetes-group-version-kind"] =
                json!([{ "group": svcdiag_api::GROUP, "version": "v1alpha1", "kind": "NodeProbe" }]);
            return Json(json!({ "components": { "schemas": { "x": schema } } })).into_response();
        }
        let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
        let mut patch: Value = serde_json::from_slice(&body).unwrap();
        if patch["status"].get("agentVersion").is_some() {
            let refusal = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 500,
                "message": "failed to create typed patch object (/p; svcdiag.dev/v1alpha1, Kind=NodeProbe): .status.agentVersion: field not declared in schema" });
            return (StatusCode::INTERNAL_SERVER_ERROR, Json(refusal)).into_response();
        }
        accepted.lock().push(patch["status"].clone());
        patch["spec"] = json!({ "nodeName": "n1", "diagnosis": { "name": "d", "uid": "u" }, "serviceName": "s", "intervalSeconds": 60 });
        Json(patch).into_response()
    }

    #[tokio::test]
    async fn what_an_older_crd_lacks_is_left_out() {
        let accepted: Arc<Mutex<Vec<Value>>> = Arc::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = accepted.clone();
        let app = axum::Router::new().fallback(move |request| older(seen.clone(), request));
        let server = tokio::spawn(async { axum::serve(listener, app).await });
        let client = Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
        let cluster = Cluster::new(client, "n1");
        let probe = serde_json::from_value(json!({ "apiVersion": "svcdiag.dev/v1alpha1", "kind": "NodeProbe",
            "metadata": { "name": "p", "namespace": "default", "generation": 3 },
            "spec": { "nodeName": "n1", "diagnosis": { "name": "d", "uid": "u" }, "serviceName": "s", "intervalSeconds": 60 } }))
        .unwrap();
        for _ in 0..2 {
            cluster
                .report(&probe, &NodeFacts::default(), Timestamp::UNIX_EPOCH)
                .await
                .unwrap();
        }
        let accepted = accepted.lock().clone();
        assert_eq!(accepted.len(), 2);
        assert!(
            accepted
                .iter()
                .all(|status| status["observedGeneration"] == 3 && status["facts"].is_object())
        );
        server.abort();
    }
}
