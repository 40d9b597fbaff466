//! Optional kinds: if the permission to watch them is missing, or the API server does not serve them, the rest is still
//! checked.

use std::time::Duration;

use kube::{Resource, runtime::watcher};

use super::{
    Context, Queue,
    queue::{begin_if_complete, enqueue},
};
use crate::client::is_not_served;

/// Kinds without which the other API objects can still be checked.
const DISPENSABLE: [&str; 3] = ["Node", "Lease", "Event"];

/// Kinds that exist only if our CRDs are installed, and without which the API objects can be checked.
const OPTIONAL: [&str; 1] = ["NodeProbe"];

/// Pause before another attempt to watch a kind that is forbidden or not served. A person must change that.
const UNTIL_GRANTED: Duration = Duration::from_secs(10);

/// Why an optional kind cannot be watched, if so.
pub(super) fn why_unavailable<K: Resource<DynamicType = ()>>(error: &watcher::Error) -> Option<String> {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    let (InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error)) = error else {
        return None;
    };
    let (kind, resource) = (K::kind(&()), K::plural(&()));
    let is_denied = matches!(error, kube::Error::Api(status) if status.is_forbidden());
    if DISPENSABLE.contains(&kind.as_ref()) && is_denied {
        return Some(format!(
            "the controller is not allowed to list and watch {resource}"
        ));
    }
    let is_missing = OPTIONAL.contains(&kind.as_ref()) && is_not_served(error);
    is_missing.then(|| format!("the API server does not serve {resource}; install the CRDs"))
}

/// State of a kind: whether it has been listed once or cannot be, and whether it is missing now. Diagnoses and the log
/// say so.
#[derive(Default)]
pub(super) struct Presence {
    is_known: bool,
    is_missing: bool,
}

impl Presence {
    /// It has been listed.
    pub(super) async fn listed<K: Resource<DynamicType = ()>>(
        &mut self,
        context: &Context,
        queue: &mut Queue,
    ) {
        if std::mem::take(&mut self.is_missing) {
            let kind = K::kind(&());
            context.metrics.watch_denied(&kind, false);
            tracing::info!(%kind, "Objects of this kind can be listed and watched now.");
            let concerned = context.inventory_mut().note_unreadable(&K::plural(&()), None);
            enqueue(context, queue, concerned).await;
        }
        self.known(context, queue).await;
    }

    /// It cannot be listed; returns when it is worth another attempt.
    pub(super) async fn missing<K: Resource<DynamicType = ()>>(
        &mut self,
        context: &Context,
        queue: &mut Queue,
        why: String,
    ) {
        if !std::mem::replace(&mut self.is_missing, true) {
            let kind = K::kind(&());
            context.metrics.watch_denied(&kind, true);
            tracing::warn!(%kind, "Continuing without objects of this kind: {why}.");
            let concerned = context
                .inventory_mut()
                .note_unreadable(&K::plural(&()), Some(why));
            enqueue(context, queue, concerned).await;
        }
        self.known(context, queue).await;
        tokio::time::sleep(UNTIL_GRANTED).await;
    }

    async fn known(&mut self, context: &Context, queue: &mut Queue) {
        if !std::mem::replace(&mut self.is_known, true) {
            begin_if_complete(context, queue).await;
        }
    }
}
