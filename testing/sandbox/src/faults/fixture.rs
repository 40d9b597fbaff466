//! The walk-through in a namespace of its own: what faults and their lookalikes change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::journal::Entry;
use super::kinds::{Kind, Target};
use super::{Error, Verdict};
use crate::cluster::Cluster;
use crate::error::{Context, RequestError, optional, unless_exists};
use crate::kernel::Kernel;

const WALKTHROUGH: &str = include_str!("../../manifests/walkthrough.yaml");
/// Controllers need well under two seconds; what takes as long as this hangs.
const SETTLE_WITHIN: Duration = Duration::from_secs(240);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Annotations and labels that controllers write and nobody restores.
const FOREIGN_ANNOTATIONS: [&str; 2] = ["deployment.kubernetes.io/revision", REFRESH];
/// Asks svcdiag's agents to probe again at once, whenever its value changes.
const REFRESH: &str = "svcdiag.dev/refresh";
/// With agents, nobody wants to wait for a round longer than needed: the least that the API takes.
const INTERVAL_SECONDS: u64 = 10;

/// A namespace with the walk-through in it.
pub struct Fixture {
    client: Client,
    namespace: String,
    kernel: Option<Arc<Kernel>>,
    journal: Mutex<Vec<Entry>>,
}

impl Fixture {
    /// The name of the Service, of its Deployment and of the diagnosis.
    pub const NAME: &'static str = "hostnames";
    /// The name of the clients' Deployment, and the value of their label `app`.
    pub const CLIENT: &'static str = "client";
    /// How many Pods the Service has when healthy.
    pub const ENDPOINTS: usize = 3;

    /// A fixture in this namespace; nothing is created yet.
    pub fn new(client: Client, namespace: impl Into<String>) -> Self {
        Self {
            client,
            namespace: namespace.into(),
            kernel: None,
            journal: Mutex::default(),
        }
    }

    /// A fixture in a namespace of a cluster, with its nodes in the kernel if it has any.
    pub fn of(cluster: &Cluster, namespace: impl Into<String>) -> Self {
        Self {
            kernel: cluster.kernel().cloned(),
            ..Self::new(cluster.client(), namespace)
        }
    }

    /// The cluster's nodes in the kernel, if it has any.
    pub fn kernel(&self) -> Option<&Arc<Kernel>> {
        self.kernel.as_ref()
    }

    /// The client it acts with.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(super) fn journal(&self) -> &Mutex<Vec<Entry>> {
        &self.journal
    }

    /// The manifests of the walk-through, for `kubectl apply -f -`.
    pub fn manifests() -> &'static str {
        WALKTHROUGH
    }

    /// Creates the namespace and the walk-through in it, and waits until all Pods serve.
    pub async fn set_up(&self) -> Result<(), Error> {
        let manifest = |message: String| Error::Manifest {
            file: "walkthrough.yaml".to_owned(),
            message,
        };
        let namespace: DynamicObject = serde_json::from_value(
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": self.namespace } }),
        )
        .map_err(|error| manifest(error.to_string()))?;
        let mut objects: Vec<DynamicObject> =
            serde_saphyr::from_multiple(WALKTHROUGH).map_err(|error| manifest(error.to_string()))?;
        if self.kernel.is_some() {
            let is_diagnosis = |object: &&mut DynamicObject| kind_of(object) == "ServiceDiagnosis";
            for diagnosis in objects.iter_mut().filter(is_diagnosis) {
                json_patch::merge(
                    &mut diagnosis.data,
                    &json!({ "spec": { "intervalSeconds": INTERVAL_SECONDS } }),
                );
            }
        }
        for object in std::iter::once(&namespace).chain(&objects) {
            let target =
                Target::of(object, &self.namespace).ok_or_else(|| manifest("unknown kind".to_owned()))?;
            let created = target
                .api(&self.client)
                .create(&PostParams::default(), object)
                .await;
            unless_exists(created).during("create", || target.to_string())?;
        }
        self.wait_until_settled().await
    }

    /// Deletes the namespace with everything in it, without waiting for the end.
    pub async fn tear_down(&self) -> Result<(), Error> {
        let target = self.target("Namespace", &self.namespace, &self.namespace)?;
        let deleted = target
            .api(&self.client)
            .delete(&target.name, &DeleteParams::background())
            .await;
        optional(deleted).during("delete", || target.to_string())?;
        Ok(())
    }

    fn target(&self, kind: &str, name: &str, namespace: &str) -> Result<Target, Error> {
        Target::parse(&format!("{kind}/{name}"), namespace).ok_or_else(|| Error::Step {
            target: kind.to_owned(),
            message: "unknown kind".to_owned(),
        })
    }

    /// Asks svcdiag to have the nodes probed again at once.
    pub async fn refresh(&self) -> Result<(), Error> {
        let target = self.target("ServiceDiagnosis", Self::NAME, &self.namespace)?;
        let value = jiff::Timestamp::now().to_string();
        let patch = json!({ "metadata": { "annotations": { REFRESH: value } } });
        let patched = target
            .api(&self.client)
            .patch(&target.name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        optional(patched).during("refresh", || target.to_string())?;
        Ok(())
    }

    /// The same, where there are nodes to be probed.
    pub(super) async fn refresh_nodes(&self) -> Result<(), Error> {
        match &self.kernel {
            Some(_) => self.refresh().await,
            None => Ok(()),
        }
    }

    /// What the diagnosis says now.
    pub async fn verdict(&self) -> Result<Verdict, Error> {
        let target = self.target("ServiceDiagnosis", Self::NAME, &self.namespace)?;
        let found = target
            .api(&self.client)
            .get_opt(&target.name)
            .await
            .during("get", || target.to_string())?;
        Ok(found
            .and_then(|object| serde_json::to_value(object).ok())
            .map(|value| Verdict::read(&value))
            .unwrap_or_default())
    }

    /// Waits until the rollouts are complete, cluster DNS's among them, and the Service has its three ready
    /// endpoints.
    pub async fn wait_until_settled(&self) -> Result<(), Error> {
        for name in [Self::NAME, Self::CLIENT] {
            self.wait_for_rollout(&self.target("Deployment", name, &self.namespace)?)
                .await?;
        }
        // Nodes without a kernel have no cluster DNS that runs.
        if self.kernel.is_some() {
            self.wait_for_rollout(&self.target("Deployment", "coredns", "kube-system")?)
                .await?;
        }
        self.wait_for_endpoints(Self::ENDPOINTS).await
    }

    /// Replaces the Service's Pods one after the other, as `kubectl rollout restart` does, and waits until the last
    /// of the old ones has gone.
    pub async fn roll_out(&self) -> Result<(), Error> {
        let target = self.target("Deployment", Self::NAME, &self.namespace)?;
        let value = jiff::Timestamp::now().to_string();
        let patch = json!({ "spec": { "template": { "metadata": { "annotations": {
            "kubectl.kubernetes.io/restartedAt": value } } } } });
        target
            .api(&self.client)
            .patch(&target.name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .during("restart", || target.to_string())?;
        self.wait_for_rollout(&target).await
    }

    /// Waits until the rollout of a Deployment is complete.
    pub(super) async fn wait_for_rollout(&self, target: &Target) -> Result<(), Error> {
        self.wait(&format!("the rollout of {target}"), async || {
            let found = target
                .api(&self.client)
                .get_opt(&target.name)
                .await
                .during("get", || target.to_string())?;
            Ok(found.map_or_else(
                || Some("it does not exist".to_owned()),
                |found| unfinished(&found),
            ))
        })
        .await
    }

    /// Waits until the Service has exactly so many ready endpoints.
    pub async fn wait_for_endpoints(&self, count: usize) -> Result<(), Error> {
        self.wait(
            &format!("having {count} ready endpoints in {}", self.namespace),
            async || {
                let ready = self.ready_endpoints().await?;
                Ok((ready != count).then(|| format!("there are {ready}")))
            },
        )
        .await
    }

    /// How many ready endpoints the Service has, each counted once for all families.
    pub async fn ready_endpoints(&self) -> Result<usize, RequestError> {
        let Some(kind) = Kind::parse("EndpointSlice") else {
            return Ok(0);
        };
        let params = ListParams::default().labels(&format!("kubernetes.io/service-name={}", Self::NAME));
        let slices = kind
            .api(&self.client, &self.namespace)
            .list(&params)
            .await
            .during("list", || {
                format!("the EndpointSlices of {}/{}", self.namespace, Self::NAME)
            })?;
        let endpoints = slices
            .iter()
            .flat_map(|slice| slice.data["endpoints"].as_array().into_iter().flatten());
        let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != Value::Bool(false));
        let identity = |endpoint: &Value| match &endpoint["targetRef"]["uid"] {
            Value::String(uid) => uid.clone(),
            _ => endpoint["addresses"].to_string(),
        };
        Ok(ready.map(identity).collect::<BTreeSet<_>>().len())
    }

    /// Polls `state` until it finds nothing wrong.
    pub(super) async fn wait(
        &self,
        what: &str,
        state: impl AsyncFn() -> Result<Option<String>, RequestError>,
    ) -> Result<(), Error> {
        let start = Instant::now();
        loop {
            let Some(found) = state().await? else {
                return Ok(());
            };
            if start.elapsed() > SETTLE_WITHIN {
                return Err(Error::Timeout {
                    what: what.to_owned(),
                    within: SETTLE_WITHIN,
                    found,
                });
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Everything a user wrote into the namespace, without what servers and controllers add:
    /// equal before a fault and after its undoing.
    pub async fn snapshot(&self) -> Result<BTreeMap<String, Value>, Error> {
        let kinds = [
            "ConfigMap",
            "Deployment",
            "StatefulSet",
            "Service",
            "EndpointSlice",
            "NetworkPolicy",
            "ServiceDiagnosis",
            "Pod",
        ];
        let mut snapshot = BTreeMap::new();
        for kind in kinds.into_iter().filter_map(Kind::parse) {
            let what = || format!("the {} objects of {}", kind.kind, self.namespace);
            let list = kind
                .api(&self.client, &self.namespace)
                .list(&ListParams::default())
                .await
                .during("list", what)?;
            for object in list
                .items
                .iter()
                .filter(|object| object.owner_references().is_empty())
            {
                snapshot.insert(format!("{}/{}", kind.kind, object.name_any()), content(object));
            }
        }
        let namespace = self.target("Namespace", &self.namespace, &self.namespace)?;
        let found = namespace
            .api(&self.client)
            .get(&self.namespace)
            .await
            .during("get", || namespace.to_string())?;
        snapshot.insert(namespace.to_string(), content(&found));
        Ok(snapshot)
    }
}

fn kind_of(object: &DynamicObject) -> &str {
    object.types.as_ref().map_or("", |types| types.kind.as_str())
}

/// Why a Deployment is not there yet.
fn unfinished(deployment: &DynamicObject) -> Option<String> {
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    let (spec, status) = (&deployment.data["spec"], &deployment.data["status"]);
    let wanted = number(&spec["replicas"]);
    let current = status["observedGeneration"].as_i64() == deployment.metadata.generation;
    let counts = ["replicas", "updatedReplicas", "readyReplicas"].map(|key| number(&status[key]));
    let leaving = number(&status["terminatingReplicas"]);
    (!current || counts != [wanted; 3] || leaving != 0).then(|| format!("its status is {status}"))
}

fn content(object: &DynamicObject) -> Value {
    let mut annotations = object.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !FOREIGN_ANNOTATIONS.contains(&key.as_str()));
    let mut data = object.data.clone();
    if let Value::Object(data) = &mut data {
        data.remove("status");
    }
    json!({ "labels": object.metadata.labels.clone().unwrap_or_default(), "annotations": annotations, "data": data })
}
