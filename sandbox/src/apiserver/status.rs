//! Errors as the API answers them: `Status` objects with the wording of the real server, which
//! kubectl prints as it stands.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{request::Target, resources::Resource};

/// A failed request.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    code: StatusCode,
    reason: &'static str,
    message: String,
    details: Value,
}

/// One thing that is wrong with an object.
#[derive(Clone, Debug)]
pub(crate) struct Cause {
    /// Path of the field.
    pub field: String,
    /// Kind of the error, for example FieldValueInvalid.
    pub reason: &'static str,
    /// What is wrong, without the path.
    pub message: String,
}

impl Cause {
    /// `Invalid value: V: why`.
    pub(crate) fn invalid(field: impl Into<String>, value: &Value, why: impl std::fmt::Display) -> Self {
        Self {
            field: field.into(),
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {}: {why}", brief(value)),
        }
    }

    /// `Required value`.
    pub(crate) fn required(field: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: "FieldValueRequired",
            message: "Required value".to_owned(),
        }
    }
}

/// A value as the server quotes it.
fn brief(value: &Value) -> String {
    match value {
        Value::Object(_) => "\"object\"".to_owned(),
        Value::Array(_) => "\"array\"".to_owned(),
        other => other.to_string(),
    }
}

impl Failure {
    fn new(code: StatusCode, reason: &'static str, message: String, details: Value) -> Self {
        Self {
            code,
            reason,
            message,
            details,
        }
    }

    fn about(resource: &Resource, name: &str) -> Value {
        json!({ "name": name, "group": resource.group, "kind": resource.plural })
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
    pub(crate) fn forbidden(target: &Target, method: &str) -> Self {
        let (resource, name) = (&target.resource, target.name.as_deref().unwrap_or_default());
        let verb = match (method, &target.name) {
            ("GET", None) => "list",
            ("GET", Some(_)) => "get",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            _ => "delete",
        };
        let scope = match &target.namespace {
            Some(namespace) => format!("in the namespace {namespace:?}"),
            None => "at the cluster scope".to_owned(),
        };
        let message = format!(
            "{} {name:?} is forbidden: User \"sandbox\" cannot {verb} resource {:?} in API group {:?} {scope}",
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

    /// Fields that other managers own, as pairs of manager and field.
    pub(crate) fn apply_conflict(conflicts: &[(String, String)]) -> Self {
        let causes: Vec<Value> = conflicts
            .iter()
            .map(|(manager, field)| {
                json!({ "reason": "FieldManagerConflict", "message": format!("conflict with {manager:?}"), "field": field })
            })
            .collect();
        let listed: Vec<String> = conflicts
            .iter()
            .map(|(m, f)| format!("conflict with {m:?}: {f}"))
            .collect();
        let message = match listed.len() {
            1 => format!("Apply failed with 1 conflict: {}", listed[0]),
            n => format!("Apply failed with {n} conflicts: {}", listed.join("\n- ")),
        };
        Self::new(
            StatusCode::CONFLICT,
            "Conflict",
            message,
            json!({ "causes": causes }),
        )
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
        let message = "only the following media types are accepted: application/json".to_owned();
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message, json!({}))
    }

    pub(crate) fn expired() -> Self {
        let message = "The resourceVersion for the provided watch is too old.".to_owned();
        Self::new(StatusCode::GONE, "Expired", message, json!({}))
    }

    pub(crate) fn invalid(resource: &Resource, name: &str, causes: &[Cause]) -> Self {
        let told: Vec<String> = causes
            .iter()
            .map(|c| format!("{}: {}", c.field, c.message))
            .collect();
        let told = if told.len() == 1 {
            told.concat()
        } else {
            format!("[{}]", told.join(", "))
        };
        let kind = match resource.group.as_str() {
            "" => resource.kind.clone(),
            group => format!("{}.{group}", resource.kind),
        };
        let listed: Vec<Value> = causes
            .iter()
            .map(|c| json!({ "reason": c.reason, "message": c.message, "field": c.field }))
            .collect();
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Invalid",
            format!("{kind} {name:?} is invalid: {told}"),
            json!({ "name": name, "group": resource.group, "kind": resource.kind, "causes": listed }),
        )
    }

    /// The Status object.
    pub(crate) fn body(&self) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "details": self.details, "code": self.code.as_u16(),
        })
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.code, Json(self.body())).into_response()
    }
}
