//! Paths that are not about objects.

use axum::{
    Json,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    body, discovery,
    server::{Server, text},
    status::Failure,
};

/// Where a client asks what it may do.
pub(crate) const ACCESS_REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// The one user of the sandbox may do everything.
pub(crate) fn review_access(bytes: &[u8]) -> Result<Response, Failure> {
    let mut review = body::options(bytes)?;
    review["status"] = json!({ "allowed": true });
    Ok((StatusCode::CREATED, Json(review)).into_response())
}

/// In which form discovery is to be answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Discovery {
    Plain,
    /// Everything at once.
    Aggregated,
    /// A form that is not served any more.
    Gone,
}

fn asked_form(headers: &HeaderMap) -> Discovery {
    let accept = text(headers, header::ACCEPT);
    if accept.contains("as=APIGroupDiscoveryList") && accept.contains("v=v2;") {
        Discovery::Aggregated
    } else if accept.is_empty()
        || accept
            .split(',')
            .any(|item| !item.contains("as=APIGroupDiscoveryList"))
    {
        Discovery::Plain
    } else {
        Discovery::Gone
    }
}

/// The answer to a GET, if the path is one of these.
pub(crate) fn answer(server: &Server, path: &str, headers: &HeaderMap) -> Option<Result<Response, Failure>> {
    let ok = |value: Value| Some(Ok(Json(value).into_response()));
    let typed = |kind: &'static str, value: Value| {
        Some(Ok(
            ([(header::CONTENT_TYPE, kind)], value.to_string()).into_response()
        ))
    };
    let aggregated = |value: Value| {
        typed(
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            value,
        )
    };
    let document = |value: Option<Value>| {
        Some(
            value
                .map(|v| Json(v).into_response())
                .ok_or_else(Failure::no_document),
        )
    };
    let form = asked_form(headers);
    let steps: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    server.store.with(|state| {
        let registry = &state.registry;
        let listed = |group: &str, value: Option<Value>| {
            let missing = || {
                if registry.is_built_in(group) {
                    Failure::no_such_path()
                } else {
                    Failure::page_not_found()
                }
            };
            Some(value.map(|v| Json(v).into_response()).ok_or_else(missing))
        };
        match steps.as_slice() {
            [] => ok(discovery::paths(registry)),
            ["version"] => ok(discovery::version()),
            ["healthz" | "livez" | "readyz", ..] => Some(Ok("ok".into_response())),
            ["api" | "apis"] if form == Discovery::Gone => Some(Err(Failure::not_acceptable())),
            ["api"] if form == Discovery::Aggregated => aggregated(discovery::aggregated(registry, true)),
            ["apis"] if form == Discovery::Aggregated => aggregated(discovery::aggregated(registry, false)),
            ["api"] => {
                ok(json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] }))
            }
            ["apis"] => ok(discovery::group_list(registry)),
            ["api", version] => listed("", discovery::resource_list(registry, "", version)),
            ["apis", group] => listed(group, discovery::group(registry, group)),
            ["apis", group, version] => listed(group, discovery::resource_list(registry, group, version)),
            ["openapi", "v3"] => typed("text/plain; charset=utf-8", discovery::openapi_index(registry)),
            ["openapi", "v3", "apis", group, version] => {
                document(discovery::openapi(registry, group, version))
            }
            ["openapi", "v3", "api", version] => document(discovery::openapi(registry, "", version)),
            ["openapi", ..] => Some(Err(Failure::no_document())),
            _ => None,
        }
    })
}
