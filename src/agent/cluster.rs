//! What the agent writes to the API server: the facts, and the Lease that says it is alive. It reads nothing
//! but the NodeProbes of its node.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::apiserver::{Access, is_unreachable};
use crate::{
    api::{AGENT_LABEL, AGENT_LEASE_PREFIX, FIELD_MANAGER_AGENT, NodeFacts, NodeProbe},
    client::is_outage,
    objects::Object,
    served::is_not_served,
};

/// An API server that takes longer is as good as away.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the Lease is renewed, and how long it lasts: three renewals may fail.
pub const LEASE_RENEWAL: Duration = Duration::from_secs(10);

/// Pause after a renewal that did not reach the API server: whoever waits for the agent waits for this, too.
pub const LEASE_RETRY: Duration = Duration::from_secs(3);

const LEASE_SECONDS: i32 = 40;

/// Why the API server did not help.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It said no.
    #[error("{what}: {source}")]
    Api {
        /// What was tried.
        what: String,
        /// What it said.
        #[source]
        source: Box<kube::Error>,
    },
    /// It said nothing.
    #[error("{what}: the API server did not answer in {} seconds", PATIENCE.as_secs())]
    TimedOut {
        /// What was tried.
        what: String,
    },
}

impl Error {
    /// Whether the API server was away.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Self::Api { source, .. } => is_outage(source),
            Self::TimedOut { .. } => true,
        }
    }
}

/// The API server, as the agent of one node uses it.
#[derive(Clone)]
pub struct Cluster {
    access: Access,
    node: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// The API server that an access or a client leads to.
    #[must_use]
    pub fn new(access: impl Into<Access>, node: impl Into<String>) -> Self {
        Self {
            access: access.into(),
            node: node.into(),
        }
    }

    /// The way to the API server.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access.clone()
    }

    fn client(&self) -> Client {
        self.access.client()
    }

    /// Writes down what was seen, unless the NodeProbe has gone or asks something else meanwhile.
    ///
    /// # Errors
    /// When the API server does not answer or refuses.
    pub async fn report(&self, probe: &NodeProbe, facts: &NodeFacts, now: Timestamp) -> Result<(), Error> {
        let api: Api<NodeProbe> = Api::namespaced(self.client(), probe.namespace());
        match self.write(&api, probe, facts, now).await {
            Err(Error::Api { source, .. }) if is_conflict(&source) => {}
            written => return written.or_else(unless_gone),
        }
        // A label of it has changed, or our own last report; or it is another one, which has its own round.
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

    /// Applies the status. The version keeps the facts about one NodeProbe from falling to its successor: a UID in
    /// the patch of a status is ignored.
    async fn write(
        &self,
        api: &Api<NodeProbe>,
        probe: &NodeProbe,
        facts: &NodeFacts,
        now: Timestamp,
    ) -> Result<(), Error> {
        let (namespace, name) = (probe.namespace(), probe.name());
        let patch = json!({
            "apiVersion": "svcdiag.dev/v1alpha1",
            "kind": "NodeProbe",
            "metadata": { "name": name, "resourceVersion": probe.metadata.resource_version },
            "status": {
                "observedGeneration": probe.metadata.generation,
                "observedTime": Time(now),
                "agentVersion": env!("CARGO_PKG_VERSION"),
                "facts": facts,
            },
        });
        let params = PatchParams::apply(FIELD_MANAGER_AGENT).force();
        let patch = Patch::Apply(&patch);
        let what = format!("writing NodeProbe {namespace}/{name}");
        self.timed(what, api.patch_status(name, &params, &patch)).await?;
        Ok(())
    }

    /// Says that the agent is alive.
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

    /// The client tries again by itself and for long; a round has not so much time.
    async fn timed<T: DeserializeOwned>(
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

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict())
}

/// Nobody waits for the facts about a NodeProbe that has gone.
fn unless_gone(error: Error) -> Result<(), Error> {
    match &error {
        Error::Api { source, .. } if is_not_served(source) => Ok(()),
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
        // The watch has not brought that back yet, and somebody has put a label on it.
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
}
