use kube::api::{DeleteParams, PostParams};
use svcdiag_sandbox::cluster::{Cluster as Pocket, ClusterConfig};

use super::*;

#[test]
fn what_the_api_server_could_not_do_just_now_it_has_not_refused() {
    let answer = |code: u16| Error::Api {
        what: "report".to_owned(),
        source: Box::new(kube::Error::Api(Box::new(
            serde_json::from_value(json!({ "code": code })).unwrap(),
        ))),
    };
    assert!(
        [400, 403, 413, 422]
            .into_iter()
            .all(|code| answer(code).is_refusal())
    );
    // "etcdserver: leader changed" comes as 500.
    assert!(
        ![404, 409, 429, 500, 503, 504]
            .into_iter()
            .any(|code| answer(code).is_refusal())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_never_fall_to_a_successor_nor_to_another_question() {
    let config = ClusterConfig {
        controllers: false,
        assets: None,
        ..ClusterConfig::default()
    };
    let pocket = Pocket::start(config).await.unwrap();
    let api: Api<NodeProbe> = Api::namespaced(pocket.client(), "default");
    let cluster = Cluster::new(pocket.client(), "n1");
    let probe = serde_json::from_value(json!({ "apiVersion": "svcdiag.dev/v1alpha1", "kind": "NodeProbe",
        "metadata": { "name": "p" },
        "spec": { "nodeName": "n1", "diagnosis": { "name": "d", "uid": "u" }, "serviceName": "s", "intervalSeconds": 60 } }))
    .unwrap();
    let facts = NodeFacts::default();
    let report = async |probe: &NodeProbe| {
        cluster
            .report(probe, &facts, Timestamp::UNIX_EPOCH)
            .await
            .unwrap()
    };
    let present = async || api.get("p").await.unwrap();

    let first = api.create(&PostParams::default(), &probe).await.unwrap();
    report(&first).await;
    assert_eq!(present().await.status.unwrap().observed_generation, Some(1));
    // The watch has not delivered that yet, and a label was added.
    let label = Patch::Merge(json!({ "metadata": { "labels": { "a": "b" } } }));
    api.patch("p", &PatchParams::default(), &label).await.unwrap();
    let later = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(60);
    cluster.report(&first, &facts, later).await.unwrap();
    assert_eq!(present().await.status.unwrap().observed_time, Some(Time(later)));

    let question = Patch::Merge(json!({ "spec": { "revision": "2" } }));
    api.patch("p", &PatchParams::default(), &question).await.unwrap();
    let before = present().await;
    report(&first).await;
    assert_eq!(present().await, before, "an answer to an earlier question");

    api.delete("p", &DeleteParams::default()).await.unwrap();
    report(&first).await;
    api.create(&PostParams::default(), &probe).await.unwrap();
    report(&first).await;
    assert!(present().await.status.is_none(), "it is another one");
    pocket.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_being_deleted_takes_no_facts_and_that_is_no_error() {
    use k8s_openapi::api::core::v1::{ConfigMap, Namespace};

    let config = ClusterConfig {
        controllers: false,
        assets: None,
        ..ClusterConfig::default()
    };
    let pocket = Pocket::start(config).await.unwrap();
    let (client, params) = (pocket.client(), PostParams::default());
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(json!({ "metadata": { "name": "going" } })).unwrap();
    namespaces.create(&params, &namespace).await.unwrap();
    let probes: Api<NodeProbe> = Api::namespaced(client.clone(), "going");
    let probe: NodeProbe = serde_json::from_value(json!({ "apiVersion": "svcdiag.dev/v1alpha1", "kind": "NodeProbe",
        "metadata": { "name": "p" },
        "spec": { "nodeName": "n1", "diagnosis": { "name": "d", "uid": "u" }, "serviceName": "s", "intervalSeconds": 60 } }))
    .unwrap();
    let asked = probes.create(&params, &probe).await.unwrap();
    // It is terminating for as long as something in it is.
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "going");
    let map = json!({ "metadata": { "name": "stays", "finalizers": ["example.com/stays"] } });
    maps.create(&params, &serde_json::from_value(map).unwrap())
        .await
        .unwrap();
    namespaces
        .delete("going", &DeleteParams::default())
        .await
        .unwrap();
    assert!(probes.get_opt("p").await.unwrap().is_none(), "it goes first");

    let cluster = Cluster::new(client.clone(), "n1");
    let facts = NodeFacts::default();
    cluster
        .report(&asked, &facts, Timestamp::UNIX_EPOCH)
        .await
        .unwrap();
    // Admission may reject the request before the object is looked up, as it does for a create.
    let refusal = probes.create(&params, &probe).await.unwrap_err();
    assert!(
        matches!(&refusal, kube::Error::Api(status) if status.code == 403),
        "{refusal}"
    );
    let api_error = |source| Error::Api {
        what: "writing".to_owned(),
        source: Box::new(source),
    };
    unless_gone(api_error(refusal)).unwrap();
    // Other rejections stay as they are.
    let forbidden = kube::core::Status::failure("no such right", "Forbidden").with_code(403);
    unless_gone(api_error(kube::Error::Api(forbidden.boxed()))).unwrap_err();
    pocket.stop().await;
}

/// A minimal API server with an older CRD: it rejects what that lacks, as the real one does.
async fn older(
    accepted: Arc<Mutex<Vec<Value>>>,
    request: axum::extract::Request,
) -> axum::response::Response {
    use axum::{Json, http::StatusCode, response::IntoResponse};
    if request.uri().path().starts_with("/openapi/v3/") {
        let mut crd = svcdiag_api::crds().remove(1);
        let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let status = schema.pointer_mut("/properties/status/properties").unwrap();
        status.as_object_mut().unwrap().remove("agentVersion");
        schema["x-kubernetes-group-version-kind"] =
            json!([{ "group": svcdiag_api::GROUP, "version": "v1alpha1", "kind": "NodeProbe" }]);
        return Json(json!({ "components": { "schemas": { "x": schema } } })).into_response();
    }
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let mut patch: Value = serde_json::from_slice(&body).unwrap();
    if patch["status"].get("agentVersion").is_some() {
        let refusal = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 500,
            "message": "failed to create typed patch object (/p; svcdiag.dev/v1alpha1, Kind=NodeProbe): .status.agentVersion: field not declared in schema" });
        return (StatusCode::INTERNAL_SERVER_ERROR, Json(refusal)).into_response();
    }
    accepted.lock().push(patch["status"].clone());
    patch["spec"] = json!({ "nodeName": "n1", "diagnosis": { "name": "d", "uid": "u" }, "serviceName": "s", "intervalSeconds": 60 });
    Json(patch).into_response()
}

#[tokio::test]
async fn what_an_older_crd_lacks_is_left_out() {
    let accepted: Arc<Mutex<Vec<Value>>> = Arc::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = accepted.clone();
    let app = axum::Router::new().fallback(move |request| older(seen.clone(), request));
    let server = tokio::spawn(async { axum::serve(listener, app).await });
    let client = Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
    let cluster = Cluster::new(client, "n1");
    let probe = serde_json::from_value(json!({ "apiVersion": "svcdiag.dev/v1alpha1", "kind": "NodeProbe",
        "metadata": { "name": "p", "namespace": "default", "generation": 3 },
        "spec": { "nodeName": "n1", "diagnosis": { "name": "d", "uid": "u" }, "serviceName": "s", "intervalSeconds": 60 } }))
    .unwrap();
    for _ in 0..2 {
        cluster
            .report(&probe, &NodeFacts::default(), Timestamp::UNIX_EPOCH)
            .await
            .unwrap();
    }
    let accepted = accepted.lock().clone();
    assert_eq!(accepted.len(), 2);
    assert!(
        accepted
            .iter()
            .all(|status| status["observedGeneration"] == 3 && status["facts"].is_object())
    );
    server.abort();
}
