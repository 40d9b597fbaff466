//! Event.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1 as core,
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time},
};
use kube::Resource;
use serde::{Deserialize, Serialize};

use super::null_is_default;

/// An Event: what a component said about an object.
#[derive(Resource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[resource(inherit = "core::Event")]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// The object that the Event is about.
    #[serde(default, deserialize_with = "null_is_default")]
    pub involved_object: InvolvedObject,
    /// Normal or Warning.
    #[serde(default, rename = "type", deserialize_with = "null_is_default")]
    pub type_: String,
    /// Why, for programs: FailedMount, FailedCreatePodSandBox, ...
    #[serde(default, deserialize_with = "null_is_default")]
    pub reason: String,
    /// Why, for people.
    #[serde(default, deserialize_with = "null_is_default")]
    pub message: String,
    /// How often it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<i32>,
    /// When it was last said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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

impl Event {
    /// Whether something went wrong.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        self.type_ == "Warning"
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
