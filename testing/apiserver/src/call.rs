//! Requests that change objects; `read` has those that do not.

use axum::{
    Json,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    body,
    delete::{self, Deleted},
    events, options,
    request::{Query, Target},
    resources::Resource,
    scale::{self, scale},
    selector::Selection,
    server::{Server, text, warn},
    status::Failure,
    store::{Key, State},
    strategic, table,
    watch::Form,
    write::{Write, Written},
};

/// A request about objects.
pub(crate) struct Call<'a> {
    pub server: &'a Server,
    pub target: Target,
    pub query: Query,
    pub form: Form,
    /// Whether the client speaks of Events in the form of events.k8s.io.
    pub new_events: bool,
    pub headers: &'a HeaderMap,
}

/// What a patch does to an object.
type Edit<'a> = Box<dyn FnOnce(&mut Value) -> Result<(), Failure> + 'a>;

const PATCHES: &str =
    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

impl Call<'_> {
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        self.server.store.with(work)
    }

    fn content_type(&self) -> &str {
        let kind = text(self.headers, header::CONTENT_TYPE);
        kind.split(';').next().unwrap_or_default().trim()
    }

    /// An object in the form that is stored.
    fn stored(&self, object: Value) -> Value {
        if self.new_events {
            events::stored(object)
        } else {
            object
        }
    }

    fn object(&self, bytes: &[u8]) -> Result<Value, Failure> {
        Ok(self.stored(body::object(&self.target.resource, self.content_type(), bytes)?))
    }

    fn write_to<'b>(&'b self, target: &'b Target) -> Write<'b> {
        let agent = text(self.headers, header::USER_AGENT);
        let agent = agent
            .split(['/', ' '])
            .next()
            .filter(|a| !a.is_empty())
            .unwrap_or("unknown");
        let manager = self.query.get("fieldManager").unwrap_or(agent).to_owned();
        Write {
            target,
            query: &self.query,
            manager,
            now: Timestamp::now(),
        }
    }

    fn write(&self) -> Write<'_> {
        self.write_to(&self.target)
    }

    pub(super) fn show(&self, code: StatusCode, object: &Value) -> Response {
        let shown = match &self.form {
            Form::Object if self.new_events => events::shown(object.clone()),
            Form::Object => object.clone(),
            Form::Metadata => table::partial(object),
            Form::Table(_) => self.table(
                std::slice::from_ref(object),
                &json!({ "resourceVersion": object["metadata"]["resourceVersion"] }),
            ),
        };
        (code, Json(shown)).into_response()
    }

    fn written(&self, written: &Written) -> Response {
        let code = if written.created {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        let mut response = self.show(code, &written.object);
        written.warnings.iter().for_each(|text| warn(&mut response, text));
        response
    }

    pub(super) fn selection(&self) -> Result<Selection, Failure> {
        Selection::parse(
            &self.target.resource,
            self.query.get("labelSelector"),
            self.query.get("fieldSelector"),
        )
    }

    pub(super) fn create(&self, bytes: &[u8]) -> Result<Response, Failure> {
        if self.target.resource.namespaced && self.target.namespace.is_none() {
            return Err(Failure::method_not_allowed());
        }
        let object = self.object(bytes)?;
        options::check_write(&self.query, "CreateOptions")?;
        let written = self.with(|s| self.write().create(s, object))?;
        Ok(self.written(&written))
    }

    pub(super) fn update(&self, bytes: &[u8]) -> Result<Response, Failure> {
        options::check_write(&self.query, "UpdateOptions")?;
        if self.target.subresource.as_deref() == Some("scale") {
            let wanted = body::patch(bytes, false)?;
            return self.rescale(|scale| {
                *scale = wanted;
                Ok(())
            });
        }
        let object = self.object(bytes)?;
        let written = self.with(|s| self.write().update(s, object))?;
        Ok(self.written(&written))
    }

    pub(super) fn patch(&self, bytes: &[u8]) -> Result<Response, Failure> {
        let kind = self.content_type();
        let resource = &self.target.resource;
        let is_apply = matches!(
            kind,
            "application/apply-patch+yaml" | "application/apply-patch+json"
        );
        let is_known = match kind {
            "application/strategic-merge-patch+json" => resource.custom.is_none(),
            "application/json-patch+json" | "application/merge-patch+json" => true,
            _ => is_apply,
        };
        if !is_known {
            return Err(match resource.custom {
                Some(_) => Failure::unsupported_media_type(PATCHES),
                None => Failure::unsupported_patch(),
            });
        }
        options::check_patch(&self.query, is_apply)?;
        let patch = self.stored(body::patch(bytes, is_apply)?);
        if is_apply {
            let written = self.with(|s| self.write().apply(s, patch))?;
            return Ok(self.written(&written));
        }
        let change: Edit<'_> = match kind {
            "application/json-patch+json" => json_patch(patch)?,
            "application/merge-patch+json" => Box::new(move |object| {
                json_patch::merge(object, &patch);
                Ok(())
            }),
            _ => Box::new(move |object| {
                strategic::apply(resource, object, &patch);
                Ok(())
            }),
        };
        if self.target.subresource.as_deref() == Some("scale") {
            return self.rescale(change);
        }
        let written = self.with(|s| self.write().patch(s, change))?;
        Ok(self.written(&written))
    }

    /// Changes the scale, which is a view of spec.replicas.
    fn rescale(&self, change: impl FnOnce(&mut Value) -> Result<(), Failure>) -> Result<Response, Failure> {
        let target = self.target.without_subresource();
        let write = self.write_to(&target);
        let written = self.with(|s| write.patch(s, |object| scale::change(object, change)))?;
        Ok(Json(scale(&written.object)).into_response())
    }

    /// Puts a Pod on a node.
    pub(super) fn bind(&self, bytes: &[u8]) -> Result<Response, Failure> {
        let node = body::patch(bytes, false)?["target"]["name"].clone();
        let target = self.target.without_subresource();
        let write = self.write_to(&target);
        self.with(|s| {
            write.patch(s, |pod| {
                if pod["spec"]["nodeName"].is_string() {
                    let name = target.name.as_deref().unwrap_or_default();
                    let why = "the pod is already assigned to a node";
                    return Err(Failure::conflict(&target.resource, name, why));
                }
                pod["spec"]["nodeName"] = node;
                Ok(())
            })
        })?;
        let done =
            json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
        Ok((StatusCode::CREATED, Json(done)).into_response())
    }

    pub(super) fn delete(&self, bytes: &[u8]) -> Result<Response, Failure> {
        options::check_write(&self.query, "DeleteOptions")?;
        let options = body::options(bytes)?;
        let deleted =
            self.with(|s| delete::delete(s, &self.target, &self.query, &options, Timestamp::now()))?;
        let resource = &self.target.asked;
        if !deleted.gone || is_shown_when_gone(resource) {
            return Ok(self.show(StatusCode::OK, &deleted.object));
        }
        let meta = &deleted.object["metadata"];
        let details = json!({ "name": meta["name"], "group": resource.group, "kind": resource.plural, "uid": meta["uid"] });
        Ok(Json(json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details }))
            .into_response())
    }

    pub(super) fn delete_all(&self, bytes: &[u8]) -> Result<Response, Failure> {
        options::check_write(&self.query, "DeleteOptions")?;
        let selection = self.selection()?;
        let options = body::options(bytes)?;
        let resource = &self.target.resource;
        let (deleted, version) = self.with(|s| {
            let listed = s.table(resource).list(self.target.namespace.as_deref());
            let keys: Vec<Key> = listed
                .filter(|(_, o)| selection.matches(o))
                .map(|(k, _)| k.clone())
                .collect();
            let mut deleted = Vec::new();
            for key in keys {
                // One that has gone with another is no failure.
                let done = delete::delete(
                    s,
                    &Target::of(resource, key),
                    &self.query,
                    &options,
                    Timestamp::now(),
                );
                deleted.extend(done.map(|Deleted { object, .. }| object));
            }
            (deleted, s.version)
        });
        let items: Vec<Value> = deleted.iter().map(|o| self.item(o)).collect();
        Ok(Json(self.list_of(items, json!({ "resourceVersion": version.to_string() }))).into_response())
    }
}

fn json_patch<'a>(patch: Value) -> Result<Edit<'a>, Failure> {
    let Value::Array(_) = patch else {
        let why = "json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp";
        return Err(Failure::bad_request(format!("error decoding patch: {why}")));
    };
    let patch: json_patch::Patch = serde_json::from_value(patch)
        .map_err(|e| Failure::bad_request(format!("error decoding patch: {e}")))?;
    Ok(Box::new(move |object| {
        json_patch::patch(object, &patch).map_err(|_| Failure::rejected())
    }))
}

/// Kinds of which the deletion answers the object, not a Status.
fn is_shown_when_gone(resource: &Resource) -> bool {
    resource.group.is_empty() && matches!(resource.plural.as_str(), "pods" | "services" | "serviceaccounts")
}
