//! New objects.

use serde_json::{Value, json};

use super::{
    cause::Cause,
    delete,
    edit::{remove, seconds},
    metadata, schema,
    status::Failure,
    store::State,
    write::{How, Write, Written, metadata_of},
};

impl Write<'_> {
    /// Creates an object.
    pub(crate) fn create(&self, state: &mut State, mut object: Value) -> Result<Written, Failure> {
        self.check_type(&mut object)?;
        self.create_as(state, object, How::Whole)
    }

    pub(super) fn create_as(
        &self,
        state: &mut State,
        mut object: Value,
        how: How,
    ) -> Result<Written, Failure> {
        let resource = self.resource();
        let meta = metadata_of(&mut object)?;
        if meta["name"].as_str().is_none_or(str::is_empty) {
            let prefix = meta["generateName"].as_str().filter(|p| !p.is_empty());
            let name = prefix.map(generated).ok_or_else(|| self.nameless())?;
            meta["name"] = json!(name);
        }
        let name = meta["name"].as_str().unwrap_or_default().to_owned();
        let key = (self.target.namespace.clone().unwrap_or_default(), name.clone());
        if let Some(namespace) = &self.target.namespace {
            if meta["namespace"].as_str().is_some_and(|n| n != namespace) {
                return Err(Failure::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
            self.check_namespace(state, namespace, &name)?;
            meta["namespace"] = json!(namespace);
        }
        if let Some(cause) = metadata::name_error(resource, &name) {
            return Err(Failure::invalid(resource, &name, &[cause]));
        }
        if state.get(resource, &key).is_some() {
            return Err(Failure::already_exists(&self.target.asked, &name));
        }
        if meta["resourceVersion"].as_str().is_some_and(|v| !v.is_empty()) {
            return Err(Failure::internal(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        for gone in [
            "resourceVersion",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "selfLink",
            "generation",
        ] {
            remove(meta, gone);
        }
        if how != How::Apply {
            remove(meta, "managedFields");
        }
        meta["uid"] = json!(uuid::Uuid::new_v4().to_string());
        meta["creationTimestamp"] = json!(seconds(self.now));
        if resource.generation {
            meta["generation"] = json!(1);
        }
        if resource.status && resource.custom.is_some() {
            remove(&mut object, "status");
        }
        let (object, warnings) = self.commit(state, &key, None, object, how)?;
        delete::collect_if_ownerless(state, resource, &key, &object);
        Ok(Written {
            object,
            created: true,
            warnings,
        })
    }

    fn nameless(&self) -> Failure {
        let why = "Required value: name or generateName is required";
        let mut causes = vec![Cause::new("metadata.name", "FieldValueRequired", why)];
        if self.resource().custom.is_some() {
            causes.push(schema::rules_not_checked());
        }
        Failure::invalid(self.resource(), "", &causes)
    }

    /// New objects need a Namespace that is not on its way out.
    fn check_namespace(&self, state: &State, namespace: &str, name: &str) -> Result<(), Failure> {
        let Some(namespaces) = state.registry.get("", "v1", "namespaces") else {
            return Ok(());
        };
        let found = state.get(namespaces, &(String::new(), namespace.to_owned()));
        let found = found.ok_or_else(|| Failure::not_found(namespaces, namespace))?;
        if found["metadata"]["deletionTimestamp"].is_string() {
            return Err(Failure::terminating(&self.target.asked, name, namespace));
        }
        Ok(())
    }
}

fn generated(prefix: &str) -> String {
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{prefix}{}", &random[..5])
}
