//! Strategic merge patch, for the keyed lists of built-in kinds.

use serde_json::{Map, Value};

use super::{fields, resources::Resource, schema::ListKind};

/// Applies a strategic merge patch.
pub(crate) fn apply(resource: &Resource, object: &mut Value, patch: &Value) {
    merge(resource, object, patch, &mut Vec::new());
}

/// Keys by which items are told apart in a patch: the patchMergeKey, which for ports is the number alone.
fn patch_key(resource: &Resource, path: &[&str]) -> Option<String> {
    match fields::list_kind(resource, path) {
        ListKind::Map(keys) => keys.into_iter().next(),
        ListKind::Set | ListKind::Atomic => None,
    }
}

fn merge<'a>(resource: &Resource, target: &mut Value, patch: &'a Value, path: &mut Vec<&'a str>) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if patch.get("$patch").is_some_and(|d| d == "replace") {
        *target = Value::Object(without_directives(patch));
        return;
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(fields) = target.as_object_mut() else {
        return;
    };
    if let Some(kept) = patch.get("$retainKeys").and_then(Value::as_array) {
        fields.retain(|name, _| kept.iter().any(|k| k == name));
    }
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().cloned().unwrap_or_default();
            if let Some(items) = fields.get_mut(list).and_then(Value::as_array_mut) {
                items.retain(|item| !gone.contains(item));
            }
        } else if name.starts_with('$') {
            // $setElementOrder only asks for an order.
        } else if value.is_null() || value.get("$patch").is_some_and(|d| d == "delete") {
            fields.remove(name);
        } else {
            path.push(name);
            let target = fields.entry(name).or_insert(Value::Null);
            match value {
                Value::Array(items) => merge_list(resource, target, items, path),
                other => merge(resource, target, other, path),
            }
            path.pop();
        }
    }
}

fn without_directives(patch: &Map<String, Value>) -> Map<String, Value> {
    patch
        .iter()
        .filter(|(name, _)| !name.starts_with('$'))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

fn merge_list<'a>(resource: &Resource, target: &mut Value, patch: &'a [Value], path: &mut Vec<&'a str>) {
    let replaced = patch.iter().any(|item| item["$patch"] == "replace");
    let key = patch_key(resource, path);
    let (Some(key), false, true) = (key, replaced, target.is_array()) else {
        let is_set = fields::list_kind(resource, path) == ListKind::Set;
        match target.as_array_mut().filter(|_| is_set) {
            Some(items) => items.extend(
                patch
                    .iter()
                    .filter(|i| !items.contains(i))
                    .cloned()
                    .collect::<Vec<_>>(),
            ),
            None => {
                *target = patch
                    .iter()
                    .filter(|i| i.get("$patch").is_none())
                    .cloned()
                    .collect()
            }
        }
        return;
    };
    let Some(items) = target.as_array_mut() else {
        return;
    };
    for item in patch {
        let found = items.iter().position(|i| i[&key] == item[&key]);
        match (found, item["$patch"] == "delete") {
            (Some(i), true) => {
                items.remove(i);
            }
            (Some(i), false) => merge(resource, &mut items[i], item, path),
            (None, false) => items.push(item.clone()),
            (None, true) => {}
        }
    }
}
