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

use svcdiag_api::{
    AGENT_LABEL, AGENT_LEASE_PREFIX, FIELD_MANAGER_AGENT, NodeFacts, NodeProbe, Schema, bounded, own_schemas,
};
use svcdiag_client::{
    is_going, is_of_schema, is_outage,
    routes::{Access, is_unreachable},
    schemas,
};
use svcdiag_engine::question_digest;
use svcdiag_objects::Object;

/// An API server that takes longer counts as unreachable.
const PATIENCE: Duration = Duration::from_secs(10);

/// Interval of renewals of the Lease: 1,000 nodes send 40 of them a second.
pub const LEASE_RENEWAL: Duration = Duration::from_secs(25);

/// Pause after a renewal that did not reach the API server; it delays everything that waits for the agent.
pub const LEASE_RETRY: Duration = Duration::from_secs(3);

/// Pause after a renewal that the API server has answered with an error.
pub const LEASE_RETRY_REFUSED: Duration = Duration::from_secs(10);

/// Duration of the Lease, in seconds: an API server that is away for half a minute silences no agent.
const LEASE_SECONDS: i32 = 60;

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
            "observedQuestion": question_digest(&probe.spec),
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
mod tests;
