//! Server-side apply.

use serde_json::{Map, Value, json};

use super::{
    fields::{self, Fields},
    merge,
    resources::Resource,
    schema::ListKind,
    status::Failure,
    store::State,
    write::{How, Write, Written, metadata_of, unknown_fields},
};

impl Write<'_> {
    /// Lays a configuration over an object, or makes the object that it describes.
    pub(crate) fn apply(&self, state: &mut State, mut applied: Value) -> Result<Written, Failure> {
        let resource = self.resource();
        let key = self.target.key();
        if applied["kind"].as_str().is_none_or(str::is_empty) {
            return Err(Failure::bad_request("invalid object type: /, Kind="));
        }
        self.check_type(&mut applied)?;
        self.check_name(&applied)?;
        let meta = metadata_of(&mut applied)?;
        if meta["managedFields"].as_array().is_some_and(|m| !m.is_empty()) {
            return Err(Failure::bad_request("metadata.managedFields must be nil"));
        }
        let uid = meta["uid"]
            .as_str()
            .filter(|uid| !uid.is_empty())
            .map(str::to_owned);
        check_typed(resource, &applied)?;
        metadata_of(&mut applied)?["name"] = json!(key.1);
        let mine = Fields::of(resource, &self.own_part(&applied));
        let Some(old) = state.get(resource, &key).cloned() else {
            if self.target.subresource.is_some() {
                return Err(Failure::not_found(resource, &key.1));
            }
            if let Some(uid) = uid {
                let why = format!(
                    "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                );
                return Err(Failure::conflict(resource, &key.1, &why));
            }
            applied["metadata"]["managedFields"] = json!([self.entry("Apply", &mine)]);
            return self.create_as(state, applied, How::Apply);
        };
        let subresource = self.target.subresource.as_deref();
        let managers = old["metadata"]["managedFields"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let is_me = |m: &Value| {
            m["manager"] == self.manager
                && m["operation"] == "Apply"
                && m["subresource"].as_str() == subresource
        };
        let mut conflicts = Vec::new();
        let mut others = Fields::default();
        let mut before = Fields::default();
        let mut entries: Vec<Value> = Vec::new();
        for mut entry in managers {
            if is_me(&entry) {
                before = Fields::from_v1(&entry["fieldsV1"]);
                entries.push(entry);
                continue;
            }
            let mut theirs = Fields::from_v1(&entry["fieldsV1"]);
            let clash = merge::conflicts(&mine, &theirs, &old, &applied);
            conflicts.extend(clash.names().into_iter().map(|field| (described(&entry), field)));
            theirs.remove(&clash);
            others.add(&theirs);
            if !theirs.is_empty() {
                entry["fieldsV1"] = theirs.to_v1();
                entries.push(entry);
            }
        }
        if !conflicts.is_empty() && !self.query.flag("force") {
            return Err(Failure::apply_conflict(&conflicts));
        }
        let mut object = Value::clone(&old);
        merge::merge(resource, &mut object, &self.own_part(&applied));
        let mut gone = before.clone();
        gone.remove(&mine);
        gone.remove(&others);
        let mut kept = mine.clone();
        kept.add(&others);
        merge::remove_fields(&mut object, &gone, &kept);
        if before != mine {
            entries.retain(|m| !is_me(m));
            entries.push(self.entry("Apply", &mine));
        }
        object["metadata"]["managedFields"] = Value::Array(entries);
        // Not merged, but checked.
        for name in ["resourceVersion", "uid"] {
            if applied["metadata"][name]
                .as_str()
                .is_some_and(|given| !given.is_empty())
            {
                object["metadata"][name] = applied["metadata"][name].clone();
            }
        }
        let (object, warnings) = self.commit(state, &key, Some(&old), object, How::Apply)?;
        Ok(Written {
            object,
            created: false,
            warnings,
        })
    }
}

/// A manager as conflicts name it.
fn described(entry: &Value) -> String {
    let text = |field: &str| entry[field].as_str().unwrap_or_default();
    let mut told = format!("{:?}", text("manager"));
    if !text("subresource").is_empty() {
        told += &format!(" with subresource {:?}", text("subresource"));
    }
    if text("operation") == "Update" {
        told += &format!(" using {}", text("apiVersion"));
    }
    told
}

/// What is applied has to fit the schema in all of its fields: other than a create or an update,
/// which leave out what they do not know, an apply by a client that is newer than the CRD fails.
fn check_typed(resource: &Resource, applied: &Value) -> Result<(), Failure> {
    // A value of the wrong type is found by the checks that follow.
    let unknown = unknown_fields(resource, &mut applied.clone()).unwrap_or_default();
    let mut errors: Vec<String> = unknown
        .iter()
        .map(|field| format!(".{field}: field not declared in schema"))
        .collect();
    duplicates(resource, applied, &mut Vec::new(), "", &mut errors);
    let why = match errors.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        several => format!("errors:\n  {}", several.join("\n  ")),
    };
    let text = |field: &str| applied["metadata"][field].as_str().unwrap_or_default();
    Err(Failure::internal(format!(
        "failed to create typed patch object ({}/{}; {}, Kind={}): {why}",
        text("namespace"),
        text("name"),
        resource.api_version(),
        resource.kind
    )))
}

/// Items of a list that have the same key.
fn duplicates<'a>(
    resource: &Resource,
    value: &'a Value,
    names: &mut Vec<&'a str>,
    path: &str,
    errors: &mut Vec<String>,
) {
    match value {
        Value::Object(fields) => {
            for (name, child) in fields {
                names.push(name);
                duplicates(resource, child, names, &format!("{path}.{name}"), errors);
                names.pop();
            }
        }
        Value::Array(items) => {
            let ListKind::Map(keys) = fields::list_kind(resource, names) else {
                return;
            };
            for (i, item) in items.iter().enumerate() {
                let key = fields::key_of(&keys, item);
                if items[..i]
                    .iter()
                    .any(|earlier| fields::key_of(&keys, earlier) == key)
                {
                    let pairs: Vec<String> = key
                        .as_object()
                        .into_iter()
                        .flat_map(Map::iter)
                        .map(|(k, v)| format!("{k}={v}"))
                        .collect();
                    errors.push(format!("{path}: duplicate entries for key [{}]", pairs.join(",")));
                }
                duplicates(resource, item, names, &format!("{path}[{i}]"), errors);
            }
        }
        _ => {}
    }
}
