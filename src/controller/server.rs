//! `/healthz`, `/readyz` and `/metrics`.

use std::{future::Future, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;

use super::{Context, Error};

/// Media type of the metrics.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Takes the address at once, so that a wrong one is told at the start; the future serves.
pub(super) async fn bind(
    address: SocketAddr,
    context: Arc<Context>,
) -> Result<impl Future<Output = ()>, Error> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen { address, source })?;
    // With port 0 the system has chosen one.
    let address = listener.local_addr().unwrap_or(address);
    tracing::info!(%address, "Serving /healthz, /readyz and /metrics.");
    let app = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(context);
    Ok(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "The HTTP server has ended.");
        }
    })
}

/// Ready once every kind has been listed, so that verdicts are made.
async fn ready(State(context): State<Arc<Context>>) -> Response {
    if context.readiness.is_complete() {
        "ok".into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the first lists are not complete",
        )
            .into_response()
    }
}

async fn metrics(State(context): State<Arc<Context>>) -> Response {
    match context.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
