//! Watches: a stream of lines, one event each.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::body::{Body, Bytes};
use futures::stream;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{
    request::Target,
    selector::Selection,
    store::{Store, seen_as},
    table,
};

/// How objects are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As they are.
    Object,
    /// As a Table; what comes with each row.
    Table(String),
    /// Their metadata only.
    Metadata,
}

/// What a watch shows, and from where.
pub(crate) struct Watch {
    pub store: Arc<Store>,
    pub target: Target,
    pub selection: Selection,
    pub form: Form,
    /// Version after which it starts.
    pub from: u64,
    /// Objects that are shown first.
    pub initial: Vec<Arc<Value>>,
    /// Whether a bookmark says where the initial objects end.
    pub mark_initial_end: bool,
    pub timeout: Option<Duration>,
    /// Changes when all connections are to be cut.
    pub epoch: watch::Receiver<u64>,
}

/// A bookmark tells an idle client the present version this often.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(30);

impl Watch {
    /// The body of the answer.
    pub(crate) fn body(self) -> Body {
        let mut lines: VecDeque<Bytes> = self.initial.iter().map(|o| self.line("ADDED", o)).collect();
        if self.mark_initial_end {
            lines.push_back(self.bookmark(true));
        }
        let deadline = self.timeout.map(|t| Instant::now() + t);
        let versions = self.store.versions();
        let state = (self, lines, deadline, versions, false);
        Body::from_stream(stream::unfold(
            state,
            |(mut watch, mut lines, deadline, mut versions, ended)| async move {
                loop {
                    if !lines.is_empty() {
                        let chunk: Vec<u8> = lines.drain(..).flatten().collect();
                        return Some((
                            Ok::<_, Infallible>(Bytes::from(chunk)),
                            (watch, lines, deadline, versions, ended),
                        ));
                    }
                    if ended {
                        return None;
                    }
                    versions.borrow_and_update();
                    let (news, expired) = watch.news();
                    lines = news;
                    if expired {
                        lines.push_back(watch.expired());
                        return Some((
                            Ok(lines.drain(..).flatten().collect::<Vec<u8>>().into()),
                            (watch, lines, deadline, versions, true),
                        ));
                    }
                    if !lines.is_empty() {
                        continue;
                    }
                    let end = async {
                        match deadline {
                            Some(deadline) => tokio::time::sleep_until(deadline).await,
                            None => std::future::pending().await,
                        }
                    };
                    tokio::select! {
                        changed = versions.changed() => if changed.is_err() { return None },
                        _ = watch.epoch.changed() => return None,
                        () = end => return None,
                        () = tokio::time::sleep(BOOKMARK_PERIOD) => lines.push_back(watch.bookmark(false)),
                    }
                }
            },
        ))
    }

    /// Events since the last look; whether some have been forgotten.
    fn news(&mut self) -> (VecDeque<Bytes>, bool) {
        let (events, version) = self
            .store
            .with(|state| {
                let version = state.version;
                let changes = state.table(&self.target.resource).since(self.from)?;
                let namespace = self.target.namespace.as_deref();
                let seen =
                    changes.filter_map(|c| Some((seen_as(c, namespace, &self.selection)?, c.object.clone())));
                Some((seen.collect::<Vec<_>>(), version))
            })
            .unwrap_or((Vec::new(), 0));
        if version == 0 {
            return (VecDeque::new(), true);
        }
        self.from = version;
        (
            events
                .into_iter()
                .map(|(type_, object)| self.line(type_, &object))
                .collect(),
            false,
        )
    }

    fn line(&self, type_: &str, object: &Value) -> Bytes {
        let shown = match &self.form {
            Form::Object => object.clone(),
            Form::Metadata => table::partial(object),
            Form::Table(include) => {
                let meta = json!({ "resourceVersion": object["metadata"]["resourceVersion"] });
                table::table(
                    &self.target.resource,
                    std::slice::from_ref(object),
                    &meta,
                    include,
                    Timestamp::now(),
                )
            }
        };
        event(type_, &shown)
    }

    fn bookmark(&self, initial_end: bool) -> Bytes {
        let resource = &self.target.resource;
        let mut meta = json!({ "resourceVersion": self.from.to_string(), "creationTimestamp": null });
        if initial_end {
            meta["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let object = json!({ "kind": resource.kind, "apiVersion": resource.api_version(), "metadata": meta });
        self.line("BOOKMARK", &object)
    }

    fn expired(&self) -> Bytes {
        event("ERROR", &super::status::Failure::expired().body())
    }
}

fn event(type_: &str, object: &Value) -> Bytes {
    let mut line = serde_json::to_vec(&json!({ "type": type_, "object": object })).unwrap_or_default();
    line.push(b'\n');
    line.into()
}
