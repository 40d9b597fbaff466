//! Writes: create, update, patch and apply, from the request's object to the stored one.
//!
//! Every write ends in [`commit`]: system metadata and subresources are put right, defaults filled
//! in, the object is validated, field ownership recorded; what changes nothing is not stored.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    defaults::{self, Taken},
    delete,
    fields::{self, Fields},
    request::{Query, Target},
    resources::{self, Resource},
    status::{Cause, Failure},
    store::{Key, State},
};

/// How an object was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Update,
    Apply,
}

/// A write on its way into the store.
pub(crate) struct Write<'a> {
    pub target: &'a Target,
    pub query: &'a Query,
    pub manager: String,
    pub now: Timestamp,
}

impl Write<'_> {
    fn resource(&self) -> &Arc<Resource> {
        &self.target.resource
    }

    fn of_status(&self) -> bool {
        self.target.subresource.as_deref() == Some("status")
    }

    /// Creates an object.
    pub(crate) fn create(&self, state: &mut State, object: Value) -> Result<Arc<Value>, Failure> {
        self.create_as(state, object, How::Update)
    }

    fn create_as(&self, state: &mut State, mut object: Value, how: How) -> Result<Arc<Value>, Failure> {
        let resource = self.resource();
        self.check_type(&mut object)?;
        let meta = metadata(&mut object)?;
        if meta["name"].as_str().is_none_or(str::is_empty) {
            let prefix = meta["generateName"].as_str().filter(|p| !p.is_empty());
            let Some(prefix) = prefix else {
                return Err(Failure::invalid(
                    resource,
                    "",
                    &[Cause::required("metadata.name")],
                ));
            };
            let suffix: String = uuid::Uuid::new_v4()
                .simple()
                .to_string()
                .chars()
                .take(5)
                .collect();
            meta["name"] = json!(format!("{prefix}{suffix}"));
        }
        let name = meta["name"].as_str().unwrap_or_default().to_owned();
        let dns_subdomain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        let loose = resource.group == "rbac.authorization.k8s.io";
        if !loose
            && (!name.chars().all(dns_subdomain)
                || name.starts_with(['-', '.'])
                || name.ends_with(['-', '.'])
                || name.len() > 253)
        {
            let why = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
            return Err(Failure::invalid(
                resource,
                &name,
                &[Cause::invalid("metadata.name", &json!(name), why)],
            ));
        }
        let key = (self.target.namespace.clone().unwrap_or_default(), name.clone());
        if let Some(namespace) = &self.target.namespace {
            if meta["namespace"].as_str().is_some_and(|n| n != namespace) {
                return Err(Failure::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
            let namespaces = state.registry.get("", "v1", "namespaces").cloned();
            if let Some(namespaces) =
                namespaces.filter(|n| state.get(n, &(String::new(), namespace.clone())).is_none())
            {
                return Err(Failure::not_found(&namespaces, namespace));
            }
            meta["namespace"] = json!(namespace);
        }
        if state.get(resource, &key).is_some() {
            return Err(Failure::already_exists(resource, &name));
        }
        let meta = metadata(&mut object)?;
        meta["uid"] = json!(uuid::Uuid::new_v4().to_string());
        meta["creationTimestamp"] = json!(seconds(self.now));
        meta["generation"] = json!(1);
        for gone in [
            "resourceVersion",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "managedFields",
        ] {
            remove(meta, gone);
        }
        if resource.status && resource.custom.is_some() {
            remove(&mut object, "status");
        }
        let created = self.commit(state, &key, None, object, how)?;
        delete::collect_if_ownerless(state, resource, &key, &created);
        Ok(created)
    }

    /// Replaces an object.
    pub(crate) fn update(&self, state: &mut State, mut object: Value) -> Result<Arc<Value>, Failure> {
        let resource = self.resource();
        let key = self.target.key();
        self.check_type(&mut object)?;
        let meta = metadata(&mut object)?;
        if meta["name"].as_str().is_some_and(|n| n != key.1) {
            return Err(Failure::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                meta["name"].as_str().unwrap_or_default(),
                key.1
            )));
        }
        meta["name"] = json!(key.1);
        let Some(old) = state.get(resource, &key).cloned() else {
            return Err(Failure::not_found(resource, &key.1));
        };
        self.commit(state, &key, Some(&old), object, How::Update)
    }

    /// Changes an object by a function of its present state.
    pub(crate) fn patch(
        &self,
        state: &mut State,
        change: impl FnOnce(&mut Value) -> Result<(), Failure>,
    ) -> Result<Arc<Value>, Failure> {
        let key = self.target.key();
        let resource = self.resource();
        let Some(old) = state.get(resource, &key).cloned() else {
            return Err(Failure::not_found(resource, &key.1));
        };
        let mut object = Value::clone(&old);
        let version = object["metadata"]["resourceVersion"].take();
        change(&mut object)?;
        if object["metadata"]["resourceVersion"].is_null() {
            object["metadata"]["resourceVersion"] = version;
        }
        self.commit(state, &key, Some(&old), object, How::Update)
    }

    /// Server-side apply; returns whether the object was created.
    pub(crate) fn apply(&self, state: &mut State, mut applied: Value) -> Result<(Arc<Value>, bool), Failure> {
        let resource = self.resource();
        let key = self.target.key();
        self.check_type(&mut applied)?;
        let meta = metadata(&mut applied)?;
        if meta["managedFields"].as_array().is_some_and(|m| !m.is_empty()) {
            return Err(Failure::bad_request("metadata.managedFields must be nil"));
        }
        meta["name"] = json!(key.1);
        let Some(old) = state.get(resource, &key).cloned() else {
            if self.target.subresource.is_some() {
                return Err(Failure::not_found(resource, &key.1));
            }
            return self
                .create_as(state, applied, How::Apply)
                .map(|object| (object, true));
        };
        let wanted = meta_version(&applied);
        if let Some(custom) = &resource.custom {
            let unknown = custom.prune(&mut applied);
            self.strict(&unknown)?;
        }
        let mine = Fields::of(resource, &self.only_own_part(&applied));
        let mut object = Value::clone(&old);
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
        let mut entries: Vec<Value> = Vec::new();
        let mut before = Fields::default();
        for entry in managers {
            if is_me(&entry) {
                before = Fields::from_v1(&entry["fieldsV1"]);
                entries.push(entry);
                continue;
            }
            let mut theirs = Fields::from_v1(&entry["fieldsV1"]);
            let clash = fields::conflicts(&mine, &theirs, &old, &applied);
            if !clash.is_empty() {
                let manager = entry["manager"].as_str().unwrap_or_default();
                conflicts.extend(clash.names().into_iter().map(|f| (manager.to_owned(), f)));
                theirs.remove(&clash);
            }
            others.add(&theirs);
            let mut entry = entry;
            if theirs.is_empty() {
                continue;
            }
            entry["fieldsV1"] = theirs.to_v1();
            entries.push(entry);
        }
        if !conflicts.is_empty() && !self.query.flag("force") {
            return Err(Failure::apply_conflict(&conflicts));
        }
        fields::merge(resource, &mut object, &self.only_own_part(&applied));
        let mut gone = before.clone();
        gone.remove(&mine);
        gone.remove(&others);
        let mut kept = mine.clone();
        kept.add(&others);
        fields::remove_fields(&mut object, &gone, &kept);
        if !entries.iter().any(&is_me) {
            entries.push(self.entry("Apply", &mine));
        }
        for entry in entries.iter_mut().filter(|m| is_me(m)) {
            if before != mine {
                *entry = self.entry("Apply", &mine);
            }
        }
        object["metadata"]["managedFields"] = Value::Array(entries);
        object["metadata"]["resourceVersion"] =
            wanted.unwrap_or_else(|| old["metadata"]["resourceVersion"].clone());
        self.commit(state, &key, Some(&old), object, How::Apply)
            .map(|object| (object, false))
    }

    /// The part of an applied object that a write of this subresource is about.
    fn only_own_part(&self, applied: &Value) -> Value {
        let mut part = applied.clone();
        if self.of_status() {
            let status = part["status"].take();
            return json!({ "status": status });
        }
        if self.resource().status && self.resource().custom.is_some() {
            remove(&mut part, "status");
        }
        part
    }

    fn entry(&self, operation: &str, fields: &Fields) -> Value {
        let mut entry = json!({
            "manager": self.manager, "operation": operation, "apiVersion": self.resource().api_version(),
            "time": seconds(self.now), "fieldsType": "FieldsV1", "fieldsV1": fields.to_v1(),
        });
        if let Some(subresource) = &self.target.subresource {
            entry["subresource"] = json!(subresource);
        }
        entry
    }

    fn check_type(&self, object: &mut Value) -> Result<(), Failure> {
        let resource = self.resource();
        if !object.is_object() {
            return Err(Failure::bad_request("the object provided is not a JSON object"));
        }
        for (field, wanted) in [
            ("kind", resource.kind.clone()),
            ("apiVersion", resource.api_version()),
        ] {
            match object[field].as_str() {
                None | Some("") => object[field] = json!(wanted),
                Some(given) if given == wanted => {}
                Some(given) => {
                    let message = format!(
                        "the object provided is unrecognized (must be of type {}): {field} is {given:?}",
                        resource.kind
                    );
                    return Err(Failure::bad_request(message));
                }
            }
        }
        Ok(())
    }

    /// Unknown fields are an error where the client wants it so (kubectl does).
    fn strict(&self, unknown: &[String]) -> Result<(), Failure> {
        if unknown.is_empty() || self.query.get("fieldValidation") != Some("Strict") {
            return Ok(());
        }
        let resource = self.resource();
        let told: Vec<String> = unknown.iter().map(|f| format!("unknown field {f:?}")).collect();
        Err(Failure::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: strict decoding error: {told}",
            kind = resource.kind,
            version = resource.version,
            told = told.join(", ")
        )))
    }

    fn commit(
        &self,
        state: &mut State,
        key: &Key,
        old: Option<&Arc<Value>>,
        mut object: Value,
        how: How,
    ) -> Result<Arc<Value>, Failure> {
        let resource = self.resource();
        let name = &key.1;
        if let Some(old) = old {
            let version = &object["metadata"]["resourceVersion"];
            if version.is_string() && version != "" && *version != old["metadata"]["resourceVersion"] {
                let why = "the object has been modified; please apply your changes to the latest version and try again";
                return Err(Failure::conflict(resource, name, why));
            }
            let uid = &object["metadata"]["uid"];
            if uid.is_string() && *uid != old["metadata"]["uid"] {
                let why = format!(
                    "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                    old["metadata"]["uid"]
                );
                return Err(Failure::conflict(resource, name, &why));
            }
            self.keep_what_is_not_ours(&mut object, old);
        }
        match &resource.custom {
            Some(custom) => {
                let unknown = custom.prune(&mut object);
                self.strict(&unknown)?;
                custom.set_defaults(&mut object);
                let causes = custom.validate(&object, old.map(AsRef::as_ref));
                if !causes.is_empty() {
                    return Err(Failure::invalid(resource, name, &causes));
                }
            }
            None => {
                let unknown = defaults::unknown_fields(resource, &object).map_err(|e| {
                    let kind = &resource.kind;
                    Failure::bad_request(format!(
                        "{kind} in version {:?} cannot be handled as a {kind}: {e}",
                        resource.version
                    ))
                })?;
                self.strict(&unknown)?;
                defaults::set(resource, &mut object, old.map(AsRef::as_ref), || {
                    taken(state, resource, key)
                });
                let causes = defaults::validate(resource, &object, old.map(AsRef::as_ref));
                if !causes.is_empty() {
                    return Err(Failure::invalid(resource, name, &causes));
                }
                if resource.kind == "CustomResourceDefinition" {
                    establish(&mut object, self.now);
                }
            }
        }
        if let Some(old) = old {
            if is_same(old, &object) {
                return Ok(old.clone());
            }
            if object["spec"] != old["spec"] {
                object["metadata"]["generation"] =
                    json!(old["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
            }
        }
        self.record_managers(&mut object, old.map(AsRef::as_ref), how);
        if self.query.is_dry_run() {
            return Ok(Arc::new(object));
        }
        let finished = object["metadata"]["deletionTimestamp"].is_string()
            && object["metadata"]["finalizers"]
                .as_array()
                .is_none_or(Vec::is_empty)
            && object["metadata"]["deletionGracePeriodSeconds"]
                .as_i64()
                .unwrap_or(0)
                == 0;
        let stored = state.put(resource, key.clone(), object, &self.manager);
        if finished {
            super::delete::remove(state, resource, key);
        }
        if resource.kind == "CustomResourceDefinition"
            && let Some(custom) = resources::from_crd(&stored)
        {
            state.registry.add(custom);
        }
        Ok(stored)
    }

    /// System metadata, and of spec and status that which the request is not about.
    fn keep_what_is_not_ours(&self, object: &mut Value, old: &Value) {
        for name in [
            "uid",
            "creationTimestamp",
            "generation",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "namespace",
            "name",
        ] {
            match &old["metadata"][name] {
                Value::Null => remove(&mut object["metadata"], name),
                kept => object["metadata"][name] = kept.clone(),
            }
        }
        if object["metadata"]["managedFields"].is_null() {
            object["metadata"]["managedFields"] = old["metadata"]["managedFields"].clone();
        }
        object["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        if self.of_status() {
            let status = object["status"].take();
            let meta = object["metadata"].clone();
            *object = old.clone();
            object["metadata"]["managedFields"] = meta["managedFields"].clone();
            if status.is_null() {
                remove(object, "status")
            } else {
                object["status"] = status
            }
        } else if self.resource().status {
            match &old["status"] {
                Value::Null => remove(object, "status"),
                kept => object["status"] = kept.clone(),
            }
        }
    }

    /// Gives the fields that changed to the manager of an update; apply has done so already.
    fn record_managers(&self, object: &mut Value, old: Option<&Value>, how: How) {
        let resource = self.resource();
        let all = Fields::of(resource, object);
        let mut entries = object["metadata"]["managedFields"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        if how == How::Apply && old.is_none() {
            entries = vec![self.entry("Apply", &all)];
        }
        if how == How::Update {
            let changed = Fields::changed(resource, old.unwrap_or(&Value::Null), object);
            let subresource = self.target.subresource.as_deref();
            let is_me = |m: &Value| {
                m["manager"] == self.manager
                    && m["operation"] == "Update"
                    && m["subresource"].as_str() == subresource
            };
            let mut mine = changed.clone();
            for entry in &mut entries {
                let mut theirs = Fields::from_v1(&entry["fieldsV1"]);
                if is_me(entry) {
                    mine.add(&theirs);
                } else {
                    theirs.remove(&changed);
                    entry["fieldsV1"] = theirs.to_v1();
                }
            }
            entries.retain(|m| !is_me(m));
            mine.retain_in(&all);
            entries.push(self.entry("Update", &mine));
        }
        entries.retain_mut(|entry| {
            let mut owned = Fields::from_v1(&entry["fieldsV1"]);
            owned.retain_in(&all);
            entry["fieldsV1"] = owned.to_v1();
            !owned.is_empty()
        });
        object["metadata"]["managedFields"] = Value::Array(entries);
    }
}

/// Whether two states differ in nothing but what the server writes itself.
fn is_same(old: &Value, new: &Value) -> bool {
    let bare = |object: &Value| {
        let mut object = object.clone();
        for name in ["managedFields", "resourceVersion", "generation"] {
            remove(&mut object["metadata"], name);
        }
        object
    };
    let owners = |object: &Value| -> Vec<Value> {
        let entries = object["metadata"]["managedFields"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        entries
            .into_iter()
            .map(|mut e| {
                remove(&mut e, "time");
                e
            })
            .collect()
    };
    bare(old) == bare(new) && owners(old) == owners(new)
}

fn taken(state: &mut State, resource: &Resource, own: &Key) -> Taken {
    let mut taken = Taken::default();
    for (key, service) in &state.table(resource).objects {
        if key != own {
            let ips = service["spec"]["clusterIPs"].as_array().into_iter().flatten();
            taken
                .addresses
                .extend(ips.filter_map(|ip| ip.as_str().map(str::to_owned)));
            let ports = service["spec"]["ports"].as_array().into_iter().flatten();
            taken
                .node_ports
                .extend(ports.filter_map(|p| p["nodePort"].as_i64()));
        }
    }
    taken
}

/// A CRD is served as soon as it is stored.
fn establish(crd: &mut Value, now: Timestamp) {
    let condition = |type_: &str, reason: &str| json!({ "type": type_, "status": "True", "reason": reason, "message": "", "lastTransitionTime": seconds(now) });
    if crd["status"]["conditions"].is_null() {
        let names = crd["spec"]["names"].clone();
        crd["status"] = json!({
            "acceptedNames": names, "storedVersions": ["v1"],
            "conditions": [condition("NamesAccepted", "NoConflicts"), condition("Established", "InitialNamesAccepted")],
        });
    }
}

fn metadata(object: &mut Value) -> Result<&mut Value, Failure> {
    if object["metadata"].is_null() {
        object["metadata"] = json!({});
    }
    match &mut object["metadata"] {
        meta @ Value::Object(_) => Ok(meta),
        _ => Err(Failure::bad_request("metadata must be an object")),
    }
}

fn meta_version(object: &Value) -> Option<Value> {
    Some(object["metadata"]["resourceVersion"].clone()).filter(|v| v.as_str().is_some_and(|v| !v.is_empty()))
}

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
