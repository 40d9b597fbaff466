//! Watches: a stream of lines, one event each.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::body::{Body, Bytes};
use futures::stream;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{
    options::Watching,
    request::Target,
    selector::Selection,
    status::Failure,
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
    pub options: Watching,
    /// Version after which it starts.
    pub from: u64,
    /// Objects that are shown first.
    pub initial: Vec<Arc<Value>>,
    /// Whether the columns of a Table have been told.
    pub columns_shown: bool,
    /// Changes when all connections are to be cut.
    pub epoch: watch::Receiver<u64>,
}

/// A bookmark tells a client the present version this often, and so long before the end.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);

/// Where the stream of a watch stands.
struct Progress {
    lines: VecDeque<Bytes>,
    end: Option<Instant>,
    bookmark: Option<Instant>,
    ended: bool,
}

impl Progress {
    /// When the next bookmark is due.
    fn next_bookmark(&mut self) {
        let now = Instant::now();
        let before_end = self
            .end
            .and_then(|end| end.checked_sub(BOOKMARK_BEFORE_END))
            .filter(|due| *due > now);
        self.bookmark = Some(
            before_end
                .unwrap_or(now + BOOKMARK_PERIOD)
                .min(now + BOOKMARK_PERIOD),
        );
    }

    fn all(&mut self) -> Bytes {
        self.lines.drain(..).flatten().collect::<Vec<u8>>().into()
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

impl Watch {
    /// The body of the answer.
    pub(crate) fn body(mut self) -> Body {
        let initial = std::mem::take(&mut self.initial);
        let mut progress = Progress {
            lines: initial.iter().map(|o| self.line("ADDED", o)).collect(),
            end: self.options.timeout.map(|t| Instant::now() + t),
            bookmark: None,
            ended: false,
        };
        if self.options.bookmarks {
            progress.next_bookmark();
            if self.options.initial {
                progress.lines.push_back(self.bookmark(true));
            }
        }
        let versions = self.store.versions();
        Body::from_stream(stream::unfold(
            (self, progress, versions),
            |(mut watch, mut progress, mut versions)| async move {
                loop {
                    if !progress.lines.is_empty() {
                        return Some((Ok::<_, Infallible>(progress.all()), (watch, progress, versions)));
                    }
                    if progress.ended {
                        return None;
                    }
                    versions.borrow_and_update();
                    match watch.news() {
                        Ok(news) => progress.lines = news,
                        Err(expired) => {
                            progress.lines.push_back(expired);
                            progress.ended = true;
                        }
                    }
                    if !progress.lines.is_empty() {
                        continue;
                    }
                    tokio::select! {
                        changed = versions.changed() => if changed.is_err() { return None },
                        _ = watch.epoch.changed() => return None,
                        () = at(progress.end) => return None,
                        () = at(progress.bookmark) => {
                            progress.next_bookmark();
                            progress.lines.push_back(watch.bookmark(false));
                        }
                    }
                }
            },
        ))
    }

    /// Events since the last look, or that some of them have been forgotten.
    fn news(&mut self) -> Result<VecDeque<Bytes>, Bytes> {
        let seen = self.store.with(|state| {
            let version = state.version;
            let table = state.table(&self.target.resource);
            let forgotten = table.forgotten();
            let changes = table.since(self.from).ok_or(forgotten)?;
            let namespace = self.target.namespace.as_deref();
            let seen = changes.filter_map(|c| seen_as(c, namespace, &self.selection));
            Ok((seen.collect::<Vec<_>>(), version))
        });
        let (events, version) =
            seen.map_err(|forgotten| event("ERROR", &Failure::too_old(self.from, forgotten).body()))?;
        self.from = version;
        Ok(events
            .into_iter()
            .map(|(type_, object)| self.line(type_, &object))
            .collect())
    }

    fn line(&mut self, type_: &str, object: &Value) -> Bytes {
        let shown = match &self.form {
            Form::Object => object.clone(),
            Form::Metadata => table::partial(object),
            Form::Table(include) => {
                let meta = json!({ "resourceVersion": object["metadata"]["resourceVersion"] });
                let mut shown = table::table(
                    &self.target.resource,
                    std::slice::from_ref(object),
                    &meta,
                    include,
                    Timestamp::now(),
                );
                // The columns come once.
                if self.columns_shown {
                    shown["columnDefinitions"] = Value::Null;
                }
                self.columns_shown = true;
                shown
            }
        };
        event(type_, &shown)
    }

    fn bookmark(&mut self, initial_end: bool) -> Bytes {
        let resource = &self.target.resource;
        let mut meta = json!({ "resourceVersion": self.from.to_string(), "creationTimestamp": null });
        if initial_end {
            meta["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let object = json!({ "kind": resource.kind, "apiVersion": resource.api_version(), "metadata": meta });
        self.line("BOOKMARK", &object)
    }
}

fn event(type_: &str, object: &Value) -> Bytes {
    let mut line = serde_json::to_vec(&json!({ "type": type_, "object": object })).unwrap_or_default();
    line.push(b'\n');
    line.into()
}
