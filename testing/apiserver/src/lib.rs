//! A stand-in for kube-apiserver: plain HTTP on loopback, objects in memory.
//!
//! It does what an unmodified kubectl and kube-runtime need, and no more. The way of a request:
//! `http` parses it (`request`, `options`, `body`), `read` gets objects out of the `store`, through
//! `table` or `watch`, `call` hands changes to `create`, `write`, `apply` and `delete`. There `defaults`, `typed`
//! and `validate` (built-in kinds) or `schema` (custom kinds) complete and check the object, and
//! `managers` records who owns which of its `fields`.
//!
//! What it answers is held against the recorded answers of a real kube-apiserver in tests/apiserver.

#![allow(clippy::disallowed_methods, reason = "a server lives by the machine's clock")]

mod apply;
mod body;
mod call;
mod cause;
mod create;
mod defaults;
mod delete;
mod discovery;
mod edit;
mod events;
mod fields;
mod garbage;
mod http;
mod managers;
mod merge;
mod metadata;
mod options;
mod paths;
mod read;
mod request;
mod resources;
mod scale;
mod schema;
mod selector;
mod server;
mod service;
mod status;
mod store;
mod strategic;
mod table;
mod typed;
mod validate;
mod watch;
mod write;

use std::{net::SocketAddr, sync::Arc};

use jiff::Timestamp;
use serde_json::json;
use tokio::{net::TcpListener, sync::watch as signal, task::JoinHandle};

pub use store::Store;

/// Why the server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is not to be had.
    #[error("could not listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}

/// A running server.
#[derive(Debug)]
pub struct ApiServer {
    store: Arc<Store>,
    address: SocketAddr,
    url: String,
    epoch: Arc<signal::Sender<u64>>,
    stop: Arc<signal::Sender<bool>>,
    task: JoinHandle<()>,
}

/// Namespaces that every cluster has.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

impl ApiServer {
    /// Starts a server with an empty cluster on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> Result<Self, Error> {
        Self::start_with(Arc::new(Store::default()), SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Starts a server with the objects of a store, for example those of one that was stopped.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn start_with(store: Arc<Store>, address: SocketAddr) -> Result<Self, Error> {
        let failed = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        create_namespaces(&store);
        let epoch = Arc::new(signal::Sender::new(0));
        let stop = Arc::new(signal::Sender::new(false));
        let shared = server::Server {
            store: store.clone(),
            epoch: epoch.subscribe(),
        };
        let app = axum::Router::new().fallback(http::handle).with_state(shared);
        let mut stopped = stop.subscribe();
        let task = tokio::spawn(async move {
            let end = async move {
                // An error means that the handle is gone, which ends the server, too.
                let _ = stopped.wait_for(|stop| *stop).await;
            };
            if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(end).await {
                tracing::warn!(%error, "The API server has ended.");
            }
        });
        Ok(Self {
            store,
            address,
            url: format!("http://{address}"),
            epoch,
            stop,
            task,
        })
    }

    /// Where it listens, as a URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its objects.
    #[must_use]
    pub fn store(&self) -> Arc<Store> {
        self.store.clone()
    }

    /// Cuts every watch that is open.
    pub fn drop_watches(&self) {
        self.epoch.send_modify(|epoch| *epoch += 1);
    }

    /// Forgets the history of changes and cuts every watch, so that each has to list again.
    pub fn compact(&self) {
        self.store.compact();
        self.drop_watches();
    }

    /// Ends watches and waits for requests under way; once it has ended, nothing.
    pub async fn stop(&mut self) {
        self.drop_watches();
        self.stop.send_replace(true);
        // Idle connections are kept open by clients; they need not be waited for.
        let patience = std::time::Duration::from_millis(500);
        if !self.task.is_finished() && tokio::time::timeout(patience, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn create_namespaces(store: &Store) {
    store.with(|state| {
        let Some(resource) = state.registry.get("", "v1", "namespaces").cloned() else {
            return;
        };
        let key = (String::new(), String::new());
        let target = request::Target {
            name: None,
            ..request::Target::of(&resource, key)
        };
        let query = request::Query::default();
        for name in NAMESPACES {
            let write = write::Write {
                target: &target,
                query: &query,
                manager: "apiserver".to_owned(),
                now: Timestamp::now(),
            };
            // With the store of an earlier server they exist already.
            let _ = write.create(state, json!({ "metadata": { "name": name } }));
        }
    });
}
