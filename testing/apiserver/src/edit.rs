//! Small edits of objects as JSON, and their comparison.

use jiff::Timestamp;
use serde_json::Value;

/// Sets a field that is not set.
pub(crate) fn default(object: &mut Value, name: &str, value: Value) {
    if object[name].is_null() {
        object[name] = value;
    }
}

/// The items of a list, if there is one.
pub(crate) fn items<'a>(object: &'a mut Value, name: &str) -> impl Iterator<Item = &'a mut Value> {
    // Not by index: that would leave a null where nothing is.
    object
        .get_mut(name)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

/// Removes a field.
pub(crate) fn remove(object: &mut Value, field: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(field);
    }
}

/// A time as metadata has it, in whole seconds.
pub(crate) fn seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second())
        .unwrap_or(time)
        .to_string()
}

/// Whether two states differ in nothing but what the server writes itself.
pub(crate) fn is_same(old: &Value, new: &Value) -> bool {
    let bare = |object: &Value| {
        let mut object = object.clone();
        for name in ["managedFields", "resourceVersion", "generation"] {
            remove(&mut object["metadata"], name);
        }
        object
    };
    let owners = |object: &Value| -> Vec<String> {
        let mut entries = object["metadata"]["managedFields"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        entries.iter_mut().for_each(|entry| remove(entry, "time"));
        let mut owners: Vec<String> = entries.iter().map(Value::to_string).collect();
        owners.sort();
        owners
    };
    bare(old) == bare(new) && owners(old) == owners(new)
}
