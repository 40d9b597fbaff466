//! Errors as the API answers them: `Status` objects with the wording of the real server, which
//! kubectl prints as it stands.

use std::collections::BTreeMap;

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{cause::Cause, resources::Resource};

/// A failed request.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    code: StatusCode,
    /// Empty where the real server gives none.
    reason: &'static str,
    message: String,
    details: Value,
    metadata: Value,
    form: Form,
}

/// How a failure is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Status,
    /// In plain text, by the Go server below the API: no handler has this path.
    Text,
    /// Without a word.
    Nothing,
}

impl Failure {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>, details: Value) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details,
            metadata: json!({}),
            form: Form::Status,
        }
    }

    fn about(resource: &Resource, name: &str) -> Value {
        json!({ "name": name, "group": resource.group, "kind": resource.plural })
    }

    /// No handler has this path: the group, version or kind is not served.
    pub(crate) fn page_not_found() -> Self {
        let mut failure = Self::new(StatusCode::NOT_FOUND, "", "404 page not found\n", json!({}));
        failure.form = Form::Text;
        failure
    }

    /// An OpenAPI document that is not there.
    pub(crate) fn no_document() -> Self {
        let mut failure = Self::new(StatusCode::NOT_FOUND, "", "", json!({}));
        failure.form = Form::Nothing;
        failure
    }

    pub(crate) fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} not found", resource.qualified());
        Self::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            message,
            Self::about(resource, name),
        )
    }

    /// Refuses a request for which the right is missing; the sandbox knows one user only.
    pub(crate) fn forbidden(
        resource: &Resource,
        namespace: Option<&str>,
        name: Option<&str>,
        verb: &str,
    ) -> Self {
        let (name, quoted) = match name {
            Some(name) => (name, format!(" {name:?}")),
            None => ("", String::new()),
        };
        let scope = match namespace {
            Some(namespace) => format!("in the namespace {namespace:?}"),
            None => "at the cluster scope".to_owned(),
        };
        let message = format!(
            "{}{quoted} is forbidden: User \"sandbox\" cannot {verb} resource {:?} in API group {:?} {scope}",
            resource.qualified(),
            resource.plural,
            resource.group
        );
        Self::new(
            StatusCode::FORBIDDEN,
            "Forbidden",
            message,
            Self::about(resource, name),
        )
    }

    /// Nothing new is taken into a Namespace on its way out.
    pub(crate) fn terminating(resource: &Resource, name: &str, namespace: &str) -> Self {
        let message = format!(
            "{} {name:?} is forbidden: unable to create new content in namespace {namespace} because it is being terminated",
            resource.qualified()
        );
        let mut details = Self::about(resource, name);
        details["causes"] = json!([{
            "reason": "NamespaceTerminating", "message": format!("namespace {namespace} is being terminated"),
            "field": "metadata.namespace",
        }]);
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message, details)
    }

    pub(crate) fn no_such_path() -> Self {
        let message = "the server could not find the requested resource".to_owned();
        Self::new(StatusCode::NOT_FOUND, "NotFound", message, json!({}))
    }

    pub(crate) fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", resource.qualified());
        Self::new(
            StatusCode::CONFLICT,
            "AlreadyExists",
            message,
            Self::about(resource, name),
        )
    }

    pub(crate) fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {name:?}: {why}",
            resource.qualified()
        );
        Self::new(
            StatusCode::CONFLICT,
            "Conflict",
            message,
            Self::about(resource, name),
        )
    }

    /// A deletion is bound to a state of the object that is not the present one.
    pub(crate) fn precondition(resource: &Resource, name: &str, why: &str) -> Self {
        let kind = resource.qualified_kind();
        let message = format!("Operation cannot be fulfilled on {kind} {name:?}: {why}");
        let details = json!({ "name": name, "group": resource.group, "kind": resource.kind });
        Self::new(StatusCode::CONFLICT, "Conflict", message, details)
    }

    /// Fields that other managers own, as pairs of manager and field.
    pub(crate) fn apply_conflict(conflicts: &[(String, String)]) -> Self {
        let causes: Vec<Value> = conflicts
            .iter()
            .map(|(manager, field)| {
                json!({ "reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": field })
            })
            .collect();
        let message = match conflicts {
            [(manager, field)] => format!("Apply failed with 1 conflict: conflict with {manager}: {field}"),
            several => {
                let mut managers: BTreeMap<&str, Vec<String>> = BTreeMap::new();
                for (manager, field) in several {
                    managers.entry(manager).or_default().push(format!("\n- {field}"));
                }
                let told: Vec<String> = managers
                    .iter()
                    .map(|(m, fields)| format!("conflicts with {m}:{}", fields.concat()))
                    .collect();
                format!(
                    "Apply failed with {} conflicts: {}",
                    several.len(),
                    told.join("\n")
                )
            }
        };
        Self::new(
            StatusCode::CONFLICT,
            "Conflict",
            message,
            json!({ "causes": causes }),
        )
    }

    /// An error that the real server has no reason for.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "", message, json!({}))
    }

    /// A patch that does not apply.
    pub(crate) fn rejected() -> Self {
        let message = "the server rejected our request due to an error in our request";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message, json!({}))
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            message,
            json!({}),
        )
    }

    /// A version that this server has not reached.
    pub(crate) fn version_too_large(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let cause = json!({ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" });
        let details = json!({ "causes": [cause], "retryAfterSeconds": 1 });
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message, details)
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message.into(), json!({}))
    }

    pub(crate) fn unsupported_media_type(what: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {what}"
        );
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            message,
            json!({}),
        )
    }

    /// The same for patches of built-in kinds.
    pub(crate) fn unsupported_patch() -> Self {
        let message = "415: Unsupported Media Type";
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            message,
            json!({}),
        )
    }

    pub(crate) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource".to_owned();
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            message,
            json!({}),
        )
    }

    pub(crate) fn not_acceptable() -> Self {
        let message = "only the following media types are accepted: application/json, application/yaml, \
                       application/vnd.kubernetes.protobuf";
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message, json!({}))
    }

    /// A watch asks for changes that have been forgotten.
    pub(crate) fn too_old(asked: u64, forgotten: u64) -> Self {
        let message = format!("too old resource version: {asked} ({forgotten})");
        Self::new(StatusCode::GONE, "Expired", message, json!({}))
    }

    /// A list at a version whose history has been forgotten.
    pub(crate) fn version_forgotten() -> Self {
        let message = "The resourceVersion for the provided list is too old.";
        Self::new(StatusCode::GONE, "Expired", message, json!({}))
    }

    /// The next page of a list whose history has been forgotten; a token leads on with what is now.
    pub(crate) fn page_forgotten(token: &str) -> Self {
        let message = "The provided continue parameter is too old to display a consistent list result. \
            You can start a new list without the continue parameter, or use the continue token in this response to \
            retrieve the remainder of the results. Continuing with the provided token results in an inconsistent \
            list - objects that were created, modified, or deleted between the time the first chunk was returned \
            and now may show up in the list.";
        let mut failure = Self::new(StatusCode::GONE, "Expired", message, json!({}));
        failure.metadata = json!({ "continue": token });
        failure
    }

    /// An object that breaks rules.
    pub(crate) fn invalid(resource: &Resource, name: &str, causes: &[Cause]) -> Self {
        Self::invalid_kind(&resource.group, &resource.kind, name, causes)
    }

    /// Options of a request that break rules.
    pub(crate) fn invalid_options(kind: &str, causes: &[Cause]) -> Self {
        Self::invalid_kind("meta.k8s.io", kind, "", causes)
    }

    pub(crate) fn invalid_kind(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Self {
        let mut told: Vec<String> = Vec::new();
        for cause in causes {
            let line = format!("{}: {}", cause.field, cause.message);
            // The same cause may be found twice; the message tells it once.
            if !told.contains(&line) {
                told.push(line);
            }
        }
        let told = match told.as_slice() {
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        let qualified = if group.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}.{group}")
        };
        let listed: Vec<Value> = causes
            .iter()
            .map(|c| json!({ "reason": c.reason, "message": c.message, "field": c.field }))
            .collect();
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Invalid",
            format!("{qualified} {name:?} is invalid: {told}"),
            json!({ "name": name, "group": group, "kind": kind, "causes": listed }),
        )
    }

    /// The Status object.
    pub(crate) fn body(&self) -> Value {
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": self.metadata, "status": "Failure",
            "message": self.message, "details": self.details, "code": self.code.as_u16(),
        });
        if !self.reason.is_empty() {
            body["reason"] = json!(self.reason);
        }
        body
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self.form {
            Form::Text => (self.code, self.message).into_response(),
            Form::Nothing => self.code.into_response(),
            Form::Status => {
                let mut response = (self.code, Json(self.body())).into_response();
                if let Some(seconds) = self.details["retryAfterSeconds"].as_u64() {
                    response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
                }
                response
            }
        }
    }
}
