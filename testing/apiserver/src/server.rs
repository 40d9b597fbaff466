//! What every request needs, and what is read from and added to the headers of any.

use std::sync::Arc;

use axum::{
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use tokio::sync::watch;

use super::store::Store;

/// What every request needs.
#[derive(Clone)]
pub(crate) struct Server {
    pub store: Arc<Store>,
    pub epoch: watch::Receiver<u64>,
}

/// Adds a warning, which kubectl prints.
pub(super) fn warn(response: &mut Response, text: &str) {
    if let Ok(value) = HeaderValue::from_str(&format!("299 - {text:?}")) {
        response.headers_mut().append(header::WARNING, value);
    }
}

pub(super) fn text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers
        .get(name)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
}
