//! Event of events.k8s.io/v1 and Event of v1 are one stored object in two forms, as in Kubernetes
//! (pkg/apis/events/v1/conversion.go): clients write the new form, `kubectl describe` reads the old.

use serde_json::{Value, json};

use super::resources::Resource;

/// Fields of the new form and what the stored, old form calls them.
const FIELDS: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// Whether a kind is the new form.
pub(crate) fn is_new_form(resource: &Resource) -> bool {
    resource.group == "events.k8s.io" && resource.kind == "Event"
}

/// An object, or a merge patch of one, as it is stored.
pub(crate) fn stored(mut new: Value) -> Value {
    if new.get("apiVersion").is_some() {
        new["apiVersion"] = json!("v1");
    }
    rename(&mut new, FIELDS)
}

/// A stored object in the new form.
pub(crate) fn shown(mut old: Value) -> Value {
    old["apiVersion"] = json!("events.k8s.io/v1");
    rename(&mut old, FIELDS.map(|(new, old)| (old, new)))
}

fn rename(object: &mut Value, names: [(&str, &str); FIELDS.len()]) -> Value {
    if let Value::Object(fields) = object {
        for (from, to) in names {
            if let Some(value) = fields.remove(from) {
                fields.insert(to.to_owned(), value);
            }
        }
    }
    object.take()
}
