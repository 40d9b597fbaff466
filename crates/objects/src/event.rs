//! Event, in its old form (`v1`) and its new one (`events.k8s.io/v1`), which names some fields otherwise.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1 as core,
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time},
};
use kube::Resource;
use serde::{Deserialize, Deserializer, Serialize};

use super::null_is_default;

/// Most bytes that are kept of a message, as many as the API server takes in the new form: whoever may write
/// Events may write long ones.
const MESSAGE_MAX: usize = 1024;

/// Kinds of Kubernetes whose controllers create Pods.
const CREATORS: [&str; 5] = [
    "ReplicaSet",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "ReplicationController",
];

/// An Event: what a component said about an object.
#[derive(Resource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[resource(inherit = "core::Event")]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// The object that the Event is about.
    #[serde(default, alias = "regarding", deserialize_with = "null_is_default")]
    pub involved_object: InvolvedObject,
    /// Normal or Warning.
    #[serde(default, rename = "type", deserialize_with = "null_is_default")]
    pub type_: String,
    /// Why, for programs: FailedMount, FailedCreatePodSandBox, ...
    #[serde(default, deserialize_with = "null_is_default")]
    pub reason: String,
    /// Why, for people; the beginning of it.
    #[serde(default, alias = "note", deserialize_with = "beginning")]
    pub message: String,
    /// How often it was said.
    #[serde(default, alias = "deprecatedCount", skip_serializing_if = "Option::is_none")]
    pub count: Option<i32>,
    /// When it was last said.
    #[serde(
        default,
        alias = "deprecatedLastTimestamp",
        skip_serializing_if = "Option::is_none"
    )]
    pub last_timestamp: Option<Time>,
    /// When it was first said, by those who do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_time: Option<MicroTime>,
    /// The series that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<EventSeries>,
}

/// What an Event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InvolvedObject {
    /// Kind of the object.
    pub kind: String,
    /// Name of the object.
    pub name: String,
    /// UID of the object.
    pub uid: String,
}

/// How often and until when an Event was said again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EventSeries {
    /// How often.
    pub count: Option<i32>,
    /// When last.
    pub last_observed_time: Option<MicroTime>,
}

/// Reads a message up to a bound, whole characters of it.
fn beginning<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let mut message: String = null_is_default(deserializer)?;
    let mut end = message.len().min(MESSAGE_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.truncate(end);
    // What is kept should not hold the room of what is not.
    message.shrink_to_fit();
    Ok(message)
}

impl Event {
    /// By which the API server leaves out most Events that are of no use here. It knows no "or" for kinds.
    pub const WARNINGS: &'static str = "type=Warning";

    /// Whether something went wrong.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        self.type_ == "Warning"
    }

    /// Whether something went wrong with a Pod.
    #[must_use]
    pub fn is_warning_about_pod(&self) -> bool {
        self.is_warning() && self.involved_object.kind == "Pod"
    }

    /// Whether a workload could not have a Pod created: a quota or an admission plugin was against it.
    #[must_use]
    pub fn is_failed_create(&self) -> bool {
        self.is_warning()
            && self.reason == "FailedCreate"
            && CREATORS.contains(&self.involved_object.kind.as_str())
    }

    /// When it was last said.
    #[must_use]
    pub fn last_seen(&self) -> Option<Timestamp> {
        let series = self.series.as_ref().and_then(|s| s.last_observed_time.as_ref());
        let times = [series, self.event_time.as_ref()]
            .into_iter()
            .flatten()
            .map(|t| t.0);
        times.chain(self.last_timestamp.as_ref().map(|t| t.0)).max()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_forms_are_read_and_long_messages_cut() {
        let long = "é".repeat(MESSAGE_MAX);
        let old = json!({ "metadata": {}, "involvedObject": { "kind": "Pod", "name": "a", "uid": "u" }, "type": "Warning",
            "reason": "FailedMount", "message": long, "lastTimestamp": "2026-05-01T12:00:00Z", "count": 3 });
        let new = json!({ "metadata": {}, "regarding": { "kind": "Pod", "name": "a", "uid": "u" }, "type": "Warning",
            "reason": "FailedMount", "note": long, "deprecatedLastTimestamp": "2026-05-01T12:00:00Z", "deprecatedCount": 3 });
        let [old, new]: [Event; 2] = [old, new].map(|event| serde_json::from_value(event).unwrap());
        assert_eq!(old, new);
        assert!(old.is_warning_about_pod() && old.last_seen().is_some());
        assert_eq!(old.message.len(), MESSAGE_MAX);
        let odd: Event =
            serde_json::from_value(json!({ "metadata": {}, "message": format!("x{long}") })).unwrap();
        assert_eq!(odd.message.len(), MESSAGE_MAX - 1, "no half of a character");
    }
}
