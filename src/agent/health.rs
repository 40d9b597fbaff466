//! `/healthz` for the kubelet: whether the agent still does its rounds.
//!
//! That the API server cannot be reached is no reason to be restarted; that nothing moves any more is.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::net::TcpListener;

/// The heart beats with every attempt to renew the Lease, and such an attempt takes 20 seconds at most.
const STILL_AFTER: Duration = Duration::from_secs(60);

/// When the agent last did something.
#[derive(Clone, Debug)]
pub(super) struct Heart(Arc<Mutex<Instant>>);

impl Heart {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    pub(super) fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn is_beating(&self, now: Instant) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        now.saturating_duration_since(last) < STILL_AFTER
    }
}

/// Serves for ever. An address that is taken does not keep the agent from its work; the kubelet will ask
/// in vain and say so.
pub(super) async fn serve(address: SocketAddr, heart: Heart) {
    let served = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        tracing::info!(%address, "Serving /healthz.");
        let app = Router::new().route("/healthz", get(health)).with_state(heart);
        axum::serve(listener, app).await
    };
    let result: std::io::Result<()> = served.await;
    if let Err(error) = result {
        tracing::error!(
            "Could not serve /healthz on {address}: {error}; choose another address with --listen."
        );
    }
    std::future::pending().await
}

async fn health(State(heart): State<Heart>) -> (StatusCode, &'static str) {
    match heart.is_beating(Instant::now()) {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "nothing has moved for a minute"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_heart_that_stands_still_is_told() {
        let heart = Heart::new();
        assert_eq!(health(State(heart.clone())).await.0, StatusCode::OK);
        assert!(!heart.is_beating(Instant::now() + STILL_AFTER * 2));
        heart.beat();
        assert!(heart.is_beating(Instant::now()));
    }
}
