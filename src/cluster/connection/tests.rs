//! The ways in which a connection fails, each tried for real against a socket of this machine.

use axum::{Router, http::StatusCode, response::IntoResponse};
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client, Config,
    api::ListParams,
    config::{AuthInfo, ExecConfig},
};
use tokio::net::TcpListener;

use super::*;

fn server(url: &str) -> Server {
    Server {
        url: url.to_owned(),
        context: Some("kind".to_owned()),
    }
}

/// What is said when Services are listed with a configuration.
async fn said(config: Config) -> String {
    let server = server(&config.cluster_url.to_string());
    let error = match Client::try_from(config) {
        Ok(client) => {
            let api: Api<Service> = Api::namespaced(client, "shop");
            api.list(&ListParams::default()).await.unwrap_err()
        }
        Err(error) => error,
    };
    explained(&error, &server).unwrap_or_else(|| format!("nothing about {error:?}"))
}

fn config(url: &str) -> Config {
    Config::new(url.parse().unwrap())
}

/// A server that answers every request so.
async fn answering(answer: impl IntoResponse + Clone + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().fallback(move || std::future::ready(answer.clone()));
    tokio::spawn(async { axum::serve(listener, app).await });
    url
}

#[tokio::test]
async fn a_closed_port() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    assert_eq!(
        said(config(&url)).await,
        format!(
            "the connection to the server {url} (context kind) was refused: check that the cluster runs, and the host and port in the kubeconfig or --server"
        )
    );
}

#[tokio::test]
async fn a_name_that_does_not_resolve() {
    // No label is so long, so that no name server has to be asked.
    let url = format!("http://{}.invalid:6443", "x".repeat(64));
    let said = said(config(&url)).await;
    let beginning = format!("the server {url} (context kind) was not found by its name (");
    assert!(said.starts_with(&beginning), "{said}");
}

#[tokio::test]
async fn credentials_that_are_not_accepted() {
    let url = answering((
        StatusCode::UNAUTHORIZED,
        r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401}"#,
    ))
    .await;
    let said = said(config(&url)).await;
    assert!(
        said.contains("does not accept your credentials (401 Unauthorized)"),
        "{said}"
    );
}

#[tokio::test]
async fn something_that_is_no_api_server() {
    let url = answering("<html>It works!</html>").await;
    let client = Client::try_from(config(&url)).unwrap();
    let spec = crate::api::ServiceDiagnosisSpec::for_service("cart");
    let error = crate::check::gather(&client, "shop", spec, "agents")
        .await
        .unwrap_err();
    let error = crate::cluster::Error::of(error, &server(&url));
    assert_eq!(error.to_string(), no_api_server(&server(&url)));
}

#[tokio::test]
async fn something_that_speaks_no_tls() {
    let url = answering("plain").await.replace("http:", "https:");
    let said = said(config(&url)).await;
    assert!(
        said.starts_with(&format!("the server {url} (context kind) could not be reached: ")),
        "{said}"
    );
}

#[tokio::test]
async fn a_credential_plugin_that_fails_or_is_missing() {
    let exec = |command: &str, arguments: &[&str]| {
        let mut config = config("http://127.0.0.1:1");
        config.auth_info = AuthInfo {
            exec: Some(
                serde_json::from_value::<ExecConfig>(serde_json::json!({
                    "apiVersion": "client.authentication.k8s.io/v1", "command": command, "args": arguments,
                    "interactiveMode": "Never",
                }))
                .unwrap(),
            ),
            ..AuthInfo::default()
        };
        config
    };
    let fails = said(exec(
        "sh",
        &["-c", "echo 'your session has \u{1b}[31mexpired' >&2; exit 3"],
    ))
    .await;
    assert!(
        fails.starts_with(
            "no credentials for the server http://127.0.0.1:1 (context kind): the credential plugin of the kubeconfig failed (exit status: 3): your"
        ),
        "{fails}"
    );
    assert!(fails.contains("your session has \\u{1b}[31mexpired"), "{fails}");
    let missing = said(exec("/nowhere/plugin", &[])).await;
    assert!(
        missing.contains("could not be started: No such file or directory"),
        "{missing}"
    );
}

#[test]
fn an_answer_of_an_api_server_is_none_of_these() {
    let forbidden = kube::core::Status::failure("no", "Forbidden").with_code(403);
    assert_eq!(
        explained(&kube::Error::Api(forbidden.boxed()), &server("http://x")),
        None
    );
}
