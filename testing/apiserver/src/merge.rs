//! The merge of server-side apply: what is applied is laid over the live object, and what its manager
//! no longer applies goes.

use serde_json::{Map, Value};

use super::{
    fields::{Fields, Path, Step, is_atomic_map, key_of, list_kind},
    resources::Resource,
    schema::ListKind,
};

fn matches_key(item: &Value, key: &str) -> bool {
    let Ok(Value::Object(key)) = serde_json::from_str::<Value>(key) else {
        return false;
    };
    let keys: Vec<String> = key.keys().cloned().collect();
    key_of(&keys, item) == Value::Object(key)
}

fn is_item(item: &Value, text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|value| value == *item)
}

fn value_at<'a>(object: &'a Value, path: &[Step]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, step| match step {
        Step::Field(name) => value.get(name),
        Step::Key(key) => value.as_array()?.iter().find(|item| matches_key(item, key)),
        Step::Item(text) => value.as_array()?.iter().find(|item| is_item(item, text)),
    })
}

/// Removes a field, and the maps that become empty by it.
fn remove_at(object: &mut Value, path: &[Step]) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    match (first, object) {
        (Step::Field(name), Value::Object(fields)) => {
            if rest.is_empty() {
                fields.remove(name);
            } else if let Some(child) = fields.get_mut(name) {
                remove_at(child, rest);
                if child.as_object().is_some_and(Map::is_empty) || child.as_array().is_some_and(Vec::is_empty)
                {
                    fields.remove(name);
                }
            }
        }
        (Step::Key(key), Value::Array(items)) => {
            if rest.is_empty() {
                items.retain(|item| !matches_key(item, key));
            } else if let Some(item) = items.iter_mut().find(|item| matches_key(item, key)) {
                remove_at(item, rest);
            }
        }
        (Step::Item(text), Value::Array(items)) => items.retain(|item| !is_item(item, text)),
        _ => {}
    }
}

/// Lays an applied configuration over the live object.
pub(crate) fn merge(resource: &Resource, live: &mut Value, applied: &Value) {
    merge_at(resource, live, applied, &mut Vec::new());
}

fn merge_at<'a>(resource: &Resource, live: &mut Value, applied: &'a Value, names: &mut Vec<&'a str>) {
    match (live, applied) {
        (Value::Object(live), Value::Object(applied)) if !is_atomic_map(resource, names) => {
            for (name, value) in applied {
                names.push(name);
                merge_at(resource, live.entry(name).or_insert(Value::Null), value, names);
                names.pop();
            }
        }
        (Value::Array(live), Value::Array(applied)) => match list_kind(resource, names) {
            ListKind::Atomic => live.clone_from(applied),
            ListKind::Set => live.extend(
                applied
                    .iter()
                    .filter(|item| !live.contains(item))
                    .cloned()
                    .collect::<Vec<_>>(),
            ),
            ListKind::Map(keys) => {
                for item in applied {
                    let key = key_of(&keys, item);
                    match live.iter_mut().find(|l| key_of(&keys, l) == key) {
                        Some(existing) => merge_at(resource, existing, item, names),
                        None => live.push(item.clone()),
                    }
                }
            }
        },
        (live, applied) => *live = applied.clone(),
    }
}

/// Removes the fields of `gone` from an object. An item of a keyed list goes with its own entry,
/// unless somebody else still owns a part of it.
pub(crate) fn remove_fields(object: &mut Value, gone: &Fields, kept_by_others: &Fields) {
    let needed = |path: &Path| kept_by_others.0.iter().any(|other| other.starts_with(path));
    // In the set's order an item comes before its own fields, while its key can still be read.
    for path in &gone.0 {
        if !needed(path) && !is_key_field(path) {
            remove_at(object, path);
        }
    }
}

/// Whether a path leads to a field by which an item of a keyed list is told apart: such a field
/// stays as long as the item does.
fn is_key_field(path: &Path) -> bool {
    let [.., Step::Key(key), Step::Field(name)] = path.as_slice() else {
        return false;
    };
    serde_json::from_str::<Map<String, Value>>(key).is_ok_and(|key| key.contains_key(name))
}

/// The fields of `mine` that `theirs` owns with another value.
pub(crate) fn conflicts(mine: &Fields, theirs: &Fields, live: &Value, applied: &Value) -> Fields {
    let differs = |path: &&Path| {
        !matches!(path.last(), Some(Step::Key(_) | Step::Item(_)))
            && value_at(live, path) != value_at(applied, path)
    };
    Fields(
        mine.0
            .iter()
            .filter(|p| theirs.0.contains(*p))
            .filter(differs)
            .cloned()
            .collect(),
    )
}
