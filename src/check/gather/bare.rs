//! A minimal cluster without svcdiag: what it does not serve is answered in plain text, as by a real API server.

use axum::{
    Json, Router,
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use kube::{Client, Config};
use serde_json::{Value, json};

use super::*;
use crate::objects::Object;

fn list(kind: &str, api: &str, items: Value) -> Response {
    Json(json!({ "kind": kind, "apiVersion": api, "metadata": { "resourceVersion": "7" }, "items": items }))
        .into_response()
}

async fn answer(uri: Uri) -> Response {
    let service =
        json!({ "metadata": { "name": "cart", "namespace": "shop" }, "spec": { "ports": [{ "port": 80 }] } });
    match uri.path() {
        "/apis" => Json(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": [] })).into_response(),
        "/api/v1/namespaces/shop/services" => list("ServiceList", "v1", json!([service])),
        "/api/v1/namespaces/shop/pods" => list("PodList", "v1", json!([])),
        "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices" => {
            list("EndpointSliceList", "discovery.k8s.io/v1", json!([]))
        }
        "/api/v1/namespaces/shop/events" => list("EventList", "v1", json!([])),
        "/api/v1/nodes" => list("NodeList", "v1", json!([])),
        // For its own groups the API server answers with a Status.
        path if path.starts_with("/api/v1/namespaces/") && !path.starts_with("/api/v1/namespaces/web/") => {
            let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "not found", "reason": "NotFound", "details": {}, "code": 404 });
            (StatusCode::NOT_FOUND, Json(status)).into_response()
        }
        _ => {
            let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
            (StatusCode::NOT_FOUND, plain, "404 page not found\n").into_response()
        }
    }
}

#[tokio::test]
async fn kinds_that_are_not_served_are_neither_an_error_nor_a_gap() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async { axum::serve(listener, Router::new().fallback(answer)).await });
    let client = Client::try_from(Config::new(format!("http://{address}").parse().unwrap())).unwrap();

    let spec = ServiceDiagnosisSpec::for_service("cart");
    let gathered = gather(&client, "shop", spec, "agents").await.unwrap();
    let facts = gathered.facts(Timestamp::UNIX_EPOCH);
    assert_eq!(facts.service.as_ref().unwrap().name(), "cart");
    assert_eq!(facts.unreadable, []);
    assert!(gathered.diagnosis.is_none() && facts.nodes.is_empty() && facts.policies.is_empty());
    for resource in ["deployments", "networkpolicies"] {
        assert!(
            gathered.listed.has(resource, "shop"),
            "{resource}: that there are none is known"
        );
    }

    let spec = ServiceDiagnosisSpec::for_service("cart");
    let error = gather(&client, "web", spec, "agents")
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "could not list services in namespace web: the API server does not serve this kind"
    );
    server.abort();
}
