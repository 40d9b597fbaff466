//! Writes, from the request's object to the stored one: updates and patches; `create` and `apply` are
//! the others.
//!
//! Every write ends in [`Write::commit`]: system metadata and subresources are put right, defaults
//! filled in, the object is validated, field ownership recorded; what changes nothing is not stored.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    cause::Cause,
    defaults, delete,
    edit::{is_same, remove, seconds},
    events,
    fields::Fields,
    metadata,
    request::{Query, Target},
    resources::{self, Resource},
    service,
    status::Failure,
    store::{Key, State},
    typed, validate,
};

/// How an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// As a whole, be it new or not.
    Whole,
    /// By a patch of what is there.
    Patch,
    /// By server-side apply, which has recorded already who owns what.
    Apply,
}

/// A write on its way into the store.
pub(crate) struct Write<'a> {
    pub target: &'a Target,
    pub query: &'a Query,
    pub manager: String,
    pub now: Timestamp,
}

/// What became of a write.
pub(crate) struct Written {
    pub object: Arc<Value>,
    /// Whether it is new.
    pub created: bool,
    /// What the client should know, such as fields that were left out.
    pub warnings: Vec<String>,
}

const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

impl Write<'_> {
    pub(super) fn resource(&self) -> &Arc<Resource> {
        &self.target.resource
    }

    pub(super) fn of_status(&self) -> bool {
        self.target.subresource.as_deref() == Some("status")
    }

    /// Replaces an object.
    pub(crate) fn update(&self, state: &mut State, mut object: Value) -> Result<Written, Failure> {
        let resource = self.resource();
        let key = self.target.key();
        self.check_type(&mut object)?;
        self.check_name(&object)?;
        let Some(old) = state.get(resource, &key).cloned() else {
            return Err(Failure::not_found(&self.target.asked, &key.1));
        };
        let meta = metadata_of(&mut object)?;
        meta["name"] = json!(key.1);
        if resource.custom.is_some() && meta["resourceVersion"].as_str().is_none_or(str::is_empty) {
            let cause = Cause::invalid(
                "metadata.resourceVersion",
                &json!(0),
                "must be specified for an update",
            );
            return Err(Failure::invalid_kind(
                &resource.group,
                &resource.plural,
                &key.1,
                &[cause],
            ));
        }
        self.commit(state, &key, Some(&old), object, How::Whole)
            .map(changed)
    }

    /// Changes an object by a function of its present state.
    pub(crate) fn patch(
        &self,
        state: &mut State,
        change: impl FnOnce(&mut Value) -> Result<(), Failure>,
    ) -> Result<Written, Failure> {
        let key = self.target.key();
        let resource = self.resource();
        let Some(old) = state.get(resource, &key).cloned() else {
            return Err(Failure::not_found(&self.target.asked, &key.1));
        };
        let mut object = Value::clone(&old);
        change(&mut object)?;
        self.check_name(&object)?;
        self.commit(state, &key, Some(&old), object, How::Patch)
            .map(changed)
    }

    pub(super) fn check_name(&self, object: &Value) -> Result<(), Failure> {
        let (given, asked) = (object["metadata"]["name"].as_str(), self.target.name.as_deref());
        match (given, asked) {
            (Some(given), Some(asked)) if given != asked => Err(Failure::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({asked})"
            ))),
            _ => Ok(()),
        }
    }

    /// The kind in the body is that of the path, if it says so at all.
    pub(super) fn check_type(&self, object: &mut Value) -> Result<(), Failure> {
        let resource = self.resource();
        if !object.is_object() {
            return Err(Failure::bad_request("the object provided is not a JSON object"));
        }
        let given = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
        let (kind, version) = (given("kind"), given("apiVersion"));
        if !version.is_empty() && version != resource.api_version() {
            return Err(Failure::bad_request(format!(
                "the API version in the data ({version}) does not match the expected API version ({})",
                resource.api_version()
            )));
        }
        if !kind.is_empty() && kind != resource.kind {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let why = format!("must be {}", resource.kind);
            let cause = Cause::invalid("kind", &json!(kind), why);
            return Err(Failure::invalid_kind(&resource.group, &kind, name, &[cause]));
        }
        object["kind"] = json!(resource.kind);
        object["apiVersion"] = json!(resource.api_version());
        Ok(())
    }

    /// Removes fields that the kind does not have. Whether that is told or refused, the client says;
    /// kubectl wants it refused.
    fn prune(&self, object: &mut Value, how: How) -> Result<Vec<String>, Failure> {
        let resource = self.resource();
        let before = (how == How::Patch).then(|| object.to_string());
        let unfit = |why: String| {
            let kind = &resource.kind;
            Failure::bad_request(format!(
                "{kind} in version {:?} cannot be handled as a {kind}: {why}",
                resource.version
            ))
        };
        let unknown = unknown_fields(resource, object).map_err(unfit)?;
        let told: Vec<String> = unknown
            .iter()
            .map(|field| format!("unknown field {field:?}"))
            .collect();
        match self.query.get("fieldValidation") {
            Some("Ignore") => Ok(Vec::new()),
            Some("Strict") if !told.is_empty() => {
                let why = format!("strict decoding error: {}", told.join(", "));
                Err(match before {
                    Some(before) => {
                        let cause = Cause::invalid("patch", &json!(before), why);
                        Failure::invalid_kind("", "", "", &[cause])
                    }
                    None => unfit(why),
                })
            }
            _ => Ok(told),
        }
    }

    /// Puts an object right and stores it; returns it with what the client is to be warned of.
    pub(super) fn commit(
        &self,
        state: &mut State,
        key: &Key,
        old: Option<&Arc<Value>>,
        mut object: Value,
        how: How,
    ) -> Result<(Arc<Value>, Vec<String>), Failure> {
        let resource = self.resource();
        let name = &key.1;
        let before = old.map(AsRef::as_ref);
        let mut causes = Vec::new();
        if let Some(old) = old {
            let version = &object["metadata"]["resourceVersion"];
            if version.is_string() && version != "" && *version != old["metadata"]["resourceVersion"] {
                return Err(Failure::conflict(resource, name, MODIFIED));
            }
            causes.extend(self.check_uid(&object, old, how)?);
            self.keep_what_is_not_ours(&mut object, old);
        }
        let warnings = self.prune(&mut object, how)?;
        causes.extend(metadata::validate(resource, &object, before));
        match &resource.custom {
            Some(custom) => {
                custom.set_defaults(&mut object);
                causes = custom.validate(&object, before, causes);
            }
            None => defaults::set(resource, &mut object),
        }
        // What the server gives a Service later belongs to nobody.
        let written = (how != How::Apply).then(|| {
            let (old, new) = (
                self.own_part(before.unwrap_or(&Value::Null)),
                self.own_part(&object),
            );
            Fields::changed(resource, &old, &new)
        });
        if resource.custom.is_none() {
            if resource.kind == "Service" {
                causes.extend(service::allocate(state, resource, key, &mut object, before));
            }
            causes.extend(validate::validate(resource, &object, before));
            if events::is_new_form(&self.target.asked) {
                causes.extend(validate::new_event(&object));
            }
        }
        if !causes.is_empty() {
            return Err(Failure::invalid(resource, name, &causes));
        }
        if resource.kind == "CustomResourceDefinition" {
            establish(&mut object, self.now);
        }
        if let Some(old) = before.filter(|old| resource.generation && wants_other(old, &object)) {
            object["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
        }
        self.record_managers(&mut object, written.as_ref());
        if let Some(old) = old.filter(|old| is_same(old, &object)) {
            return Ok((old.clone(), warnings));
        }
        if self.query.is_dry_run() {
            return Ok((Arc::new(object), warnings));
        }
        if delete::is_finished(&object) {
            // The last finalizer has gone: the object goes without another version of it.
            delete::remove(state, resource, key);
            return Ok((Arc::new(object), warnings));
        }
        let stored = state.put(resource, key.clone(), object, &self.manager);
        if resource.kind == "CustomResourceDefinition"
            && let Some(custom) = resources::from_crd(&stored)
        {
            state.registry.add(custom);
        }
        Ok((stored, warnings))
    }

    /// An object that has come under the same name is not meant by who says a UID. Patches of the
    /// status do not look at it, surprisingly.
    fn check_uid(&self, object: &Value, old: &Value, how: How) -> Result<Vec<Cause>, Failure> {
        let (given, real) = (&object["metadata"]["uid"], &old["metadata"]["uid"]);
        let (Some(text), true) = (given.as_str().filter(|uid| !uid.is_empty()), given != real) else {
            return Ok(Vec::new());
        };
        if how != How::Whole {
            let cause = Cause::invalid("metadata.uid", given, "field is immutable");
            let cause = Some(cause).filter(|_| !self.of_status());
            return Ok(metadata::twice_if_custom(self.resource(), cause).collect());
        }
        let resource = self.resource();
        let group = if resource.custom.is_some() {
            format!("{}/", resource.group)
        } else {
            String::new()
        };
        let (namespace, name) = self.target.key();
        let path = format!("/registry/{group}{}/{namespace}/{name}", resource.plural);
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: {path}, ResourceVersion: 0, AdditionalErrorMsg: \
             Precondition failed: UID in precondition: {text}, UID in object meta: {}",
            real.as_str().unwrap_or_default()
        );
        Err(Failure::conflict(resource, &name, &why))
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
            "selfLink",
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
}

fn changed((object, warnings): (Arc<Value>, Vec<String>)) -> Written {
    Written {
        object,
        created: false,
        warnings,
    }
}

/// Removes the fields that a kind does not have; returns their paths.
pub(super) fn unknown_fields(resource: &Resource, object: &mut Value) -> Result<Vec<String>, String> {
    match &resource.custom {
        Some(custom) => {
            let mut unknown = typed::prune_metadata(object)?;
            unknown.extend(custom.prune(object));
            Ok(unknown)
        }
        None => typed::prune(resource, object),
    }
}

/// Whether two states differ in what is wanted: in more than metadata and status.
fn wants_other(old: &Value, new: &Value) -> bool {
    let wanted = |object: &Value| {
        let mut object = object.clone();
        remove(&mut object, "metadata");
        remove(&mut object, "status");
        object
    };
    wanted(old) != wanted(new)
}

/// A CRD is served as soon as it is stored.
fn establish(crd: &mut Value, now: Timestamp) {
    let condition = |type_: &str, reason: &str| json!({ "type": type_, "status": "True", "reason": reason, "message": "", "lastTransitionTime": seconds(now) });
    if crd["status"]["conditions"].is_null() {
        let names = crd["spec"]["names"].clone();
        let versions = crd["spec"]["versions"].as_array().into_iter().flatten();
        let stored: Vec<Value> = versions
            .filter(|v| v["storage"] == true)
            .map(|v| v["name"].clone())
            .collect();
        crd["status"] = json!({
            "acceptedNames": names, "storedVersions": stored,
            "conditions": [condition("NamesAccepted", "NoConflicts"), condition("Established", "InitialNamesAccepted")],
        });
    }
}

pub(super) fn metadata_of(object: &mut Value) -> Result<&mut Value, Failure> {
    if object["metadata"].is_null() {
        object["metadata"] = json!({});
    }
    match &mut object["metadata"] {
        meta @ Value::Object(_) => Ok(meta),
        _ => Err(Failure::bad_request("metadata must be an object")),
    }
}
