//! Every version of the diagnoses of a fixture, as a watch brings them: what was written, and what Ready was then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;
use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::runtime::watcher::{Config, Event, watcher};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::kinds::Kind;
use super::{Error, Fixture};

/// The statuses of each diagnosis by version, and each in the order in which they came.
type Versions = BTreeMap<String, Vec<(String, Value)>>;

/// Notes the versions from its start until it is dropped. One that was there at the start is the first.
pub struct Recorder {
    versions: Arc<Mutex<Versions>>,
    task: JoinHandle<()>,
}

impl Recorder {
    /// Starts to watch the diagnoses of a fixture; returns when those that are there have been seen.
    pub async fn start(fixture: &Fixture) -> Result<Self, Error> {
        let versions: Arc<Mutex<Versions>> = Arc::default();
        let noted = versions.clone();
        let kind = Kind::parse("ServiceDiagnosis").ok_or_else(|| Error::Step {
            target: "ServiceDiagnosis".to_owned(),
            message: "unknown kind".to_owned(),
        })?;
        let api = kind.api(fixture.client(), fixture.namespace());
        let (sender, mut is_listed) = tokio::sync::watch::channel(false);
        let task = tokio::spawn(async move {
            let mut events = std::pin::pin!(watcher(api, Config::default()));
            while let Some(event) = events.next().await {
                match event {
                    Ok(Event::Apply(diagnosis) | Event::InitApply(diagnosis)) => note(&noted, &diagnosis),
                    Ok(Event::InitDone) => {
                        sender.send_replace(true);
                    }
                    // It begins anew by itself.
                    Ok(Event::Init | Event::Delete(_)) | Err(_) => {}
                }
            }
        });
        let recorder = Self { versions, task };
        // The other end goes with the task, which does not end.
        let _ = is_listed.wait_for(|listed| *listed).await;
        Ok(recorder)
    }

    /// How many versions of each diagnosis were seen.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let versions = self.versions.lock();
        versions
            .iter()
            .map(|(name, of)| (name.clone(), of.len()))
            .collect()
    }

    /// Every version in which Ready was something else than these, in words.
    pub fn ready_other_than(&self, statuses: &[&str]) -> BTreeSet<String> {
        let versions = self.versions.lock();
        let all = versions
            .iter()
            .flat_map(|(name, of)| of.iter().map(move |(version, status)| (name, version, status)));
        all.map(|(name, version, status)| (name, version, condition(status, "Ready")))
            .filter(|(.., ready)| !statuses.iter().any(|status| ready["status"] == *status))
            .map(|(name, version, ready)| format!("{name} at version {version}: {ready}"))
            .collect()
    }

    /// Every version whose root cause was in a stage that is none of these, in words.
    pub fn blamed_other_than(&self, stages: &[&str]) -> BTreeSet<String> {
        let versions = self.versions.lock();
        let all = versions
            .iter()
            .flat_map(|(name, of)| of.iter().map(move |(version, status)| (name, version, status)));
        all.map(|(name, version, status)| (name, version, &status["rootCause"]))
            .filter(|(.., cause)| {
                cause["condition"]
                    .as_str()
                    .is_some_and(|stage| !stages.contains(&stage))
            })
            .map(|(name, version, cause)| format!("{name} at version {version}: {cause}"))
            .collect()
    }

    /// What each version of a diagnosis said otherwise than the one before, for whoever wonders why it was written.
    pub fn changes(&self, name: &str) -> String {
        let versions = self.versions.lock();
        let of = versions.get(name).map(Vec::as_slice).unwrap_or_default();
        let mut told = String::new();
        for pair in of.windows(2) {
            let [(_, before), (version, after)] = pair else {
                continue;
            };
            told.push_str(&format!("version {version}\n"));
            let parts = lines(before);
            for line in lines(after).iter().filter(|line| !parts.contains(line)) {
                told.push_str(&format!("    {line}\n"));
            }
        }
        told
    }
}

/// A status in parts.
fn lines(status: &Value) -> Vec<String> {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let others = ["rootCause", "summary", "proxyMode"].map(|key| format!("{key}: {}", status[key]));
    let observations = status["observations"].as_array().into_iter().flatten();
    conditions
        .map(|c| format!("{} {} {}: {}", c["type"], c["status"], c["reason"], c["message"]))
        .chain(others)
        .chain(observations.map(Value::to_string))
        .collect()
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.find(|c| c["type"] == kind).unwrap_or(&Value::Null)
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn note(noted: &Mutex<Versions>, diagnosis: &DynamicObject) {
    let version = diagnosis.resource_version().unwrap_or_default();
    let mut noted = noted.lock();
    let versions = noted.entry(diagnosis.name_any()).or_default();
    if versions.iter().all(|(known, _)| *known != version) {
        versions.push((version, diagnosis.data["status"].clone()));
    }
}
