//! `/healthz` and `/readyz` for the kubelet, `/metrics` for Prometheus.

use std::{future::Future, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;

use super::{Context, Error, serving};

/// Media type of the metrics.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Binds the addresses at once, so that a wrong one is reported at the start; the future serves.
pub(super) async fn bind(context: Arc<Context>) -> Result<impl Future<Output = ()>, Error> {
    let probes = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .with_state(context.clone());
    let metrics = Router::new()
        .route("/metrics", get(metrics))
        .with_state(context.clone());
    let address = context.options.listen;
    // On separate ports, clients of /metrics cannot delay the kubelet, and a NetworkPolicy can distinguish them.
    let (of_probes, of_metrics) = match context.options.metrics_listen {
        None => {
            let all = listen(address, "/healthz, /readyz and /metrics").await?;
            ((all, probes.merge(metrics)), None)
        }
        Some(apart) => (
            (listen(address, "/healthz and /readyz").await?, probes),
            Some((listen(apart, "/metrics").await?, metrics)),
        ),
    };
    Ok(async move {
        let metrics = async {
            match of_metrics {
                Some((listener, app)) => serving::serve(listener, app).await,
                None => std::future::pending().await,
            }
        };
        tokio::join!(serving::serve(of_probes.0, of_probes.1), metrics);
    })
}

async fn listen(address: SocketAddr, what: &str) -> Result<TcpListener, Error> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen { address, source })?;
    // With port 0, the system has chosen one.
    let address = listener.local_addr().unwrap_or(address);
    tracing::info!(%address, "Serving {what}.");
    Ok(listener)
}

/// Ready once every kind has been listed and diagnoses are evaluated; a standby is ready to take over.
async fn ready(State(context): State<Arc<Context>>) -> Response {
    if context.readiness.is_complete() {
        "ok".into_response()
    } else if !context.claim.holds() {
        "standing by".into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the initial lists are not complete",
        )
            .into_response()
    }
}

async fn metrics(State(context): State<Arc<Context>>, headers: HeaderMap) -> Response {
    if context.options.metrics_auth
        && let Err(refusal) = context.readers.admit(&context.client, &headers).await
    {
        return refusal.into_response();
    }
    context.metrics.leads(context.claim.holds());
    let (reporting, silent) = context.inventory().agents_by_life(crate::clock::now());
    context.metrics.agents(reporting, silent);
    match context.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
