//! What kube-proxy answers on its ports. Source: kube-proxy's pkg/proxy/healthcheck and metrics.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use axum::{Router, http::StatusCode, routing::get};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

/// What it answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answers {
    /// The mode.
    pub mode: String,
    /// When rules were last written, in seconds since 1970.
    pub applied: f64,
    /// When writing was last asked for.
    pub queued: f64,
    /// Requests to the API server that were answered.
    pub requests_answered: u64,
    /// Requests to the API server that failed.
    pub requests_failed: u64,
    /// Whether the node is being drained.
    pub draining: bool,
    /// Whether port 10249 is closed.
    pub metrics_closed: bool,
    /// Whether port 10256 is closed.
    pub health_closed: bool,
}

/// Serves until dropped. Ports are opened and closed as the file says.
pub(super) async fn run(answers: &Path) -> io::Result<()> {
    let metrics = serve(answers, 10249, |answers| answers.metrics_closed, metrics_routes);
    let health = serve(answers, 10256, |answers| answers.health_closed, health_routes);
    tokio::try_join!(metrics, health).map(|((), ())| ())
}

async fn serve(
    path: &Path,
    port: u16,
    is_closed: impl Fn(&Answers) -> bool,
    routes: fn(PathBuf) -> Router,
) -> io::Result<()> {
    const POLL_INTERVAL: std::time::Duration = std::time::Duration::from_millis(100);
    loop {
        while is_closed(&read(path)) {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
        let closing = async {
            while !is_closed(&read(path)) {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        tokio::select! {
            served = axum::serve(listener, routes(path.to_owned())).into_future() => served?,
            () = closing => {}
        }
    }
}

/// A file that is being written anew or is not there yet says nothing.
fn read(path: &Path) -> Answers {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

fn health_routes(path: PathBuf) -> Router {
    Router::new()
        .route("/livez", get(|| async { "{\"nodeEligible\": true}" }))
        .route(
            "/healthz",
            get(|| async move {
                if read(&path).draining {
                    (StatusCode::SERVICE_UNAVAILABLE, "{\"nodeEligible\": false}")
                } else {
                    (StatusCode::OK, "{\"nodeEligible\": true}")
                }
            }),
        )
}

fn metrics_routes(path: PathBuf) -> Router {
    let of_mode = path.clone();
    Router::new()
        .route("/proxyMode", get(|| async move { read(&of_mode).mode }))
        .route("/metrics", get(|| async move { metrics(&read(&path)) }))
}

fn metrics(answers: &Answers) -> String {
    let Answers {
        applied,
        queued,
        requests_answered,
        requests_failed,
        ..
    } = answers;
    let mut text = format!(
        "# TYPE kubeproxy_sync_proxy_rules_last_timestamp_seconds gauge\n\
         kubeproxy_sync_proxy_rules_last_timestamp_seconds{{ip_family=\"IPv4\"}} {applied:e}\n\
         # TYPE kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds gauge\n\
         kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{{ip_family=\"IPv4\"}} {queued:e}\n\
         # TYPE rest_client_requests_total counter\n\
         rest_client_requests_total{{code=\"200\",host=\"127.0.0.1:6443\",method=\"GET\"}} {requests_answered}\n"
    );
    if *requests_failed > 0 {
        text.push_str(&format!(
            "rest_client_requests_total{{code=\"<error>\",host=\"127.0.0.1:6443\",method=\"GET\"}} {requests_failed}\n"
        ));
    }
    text
}
