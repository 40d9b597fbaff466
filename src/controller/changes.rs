//! The endless stream of changes of one kind.

use std::{fmt::Debug, sync::Arc};

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Resource,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;

use super::{Context, presence::why_unavailable};
use crate::{client::Pauses, objects::trim_metadata};

/// Page size of a list. Every page is parsed as a whole, so this limits the memory of a relist.
const PAGE: u32 = 250;

/// A kind, and which of its objects are watched.
pub(super) type Source<K> = (Api<DeserializeGuard<K>>, watcher::Config);

/// What a watch delivers, with unparsable objects separate.
pub(super) enum Change<K> {
    Begin,
    Listed(K),
    End,
    /// The kind cannot be watched and is optional; the reason.
    Unavailable(String),
    Applied(K),
    Gone {
        namespace: String,
        name: String,
        uid: String,
    },
    Unparsable {
        namespace: String,
        name: String,
        why: String,
    },
}

/// The endless stream of a kind's events. Errors are logged and counted; the watch resumes by itself.
pub(super) fn changes<K>(
    context: &Arc<Context>,
    (api, config): Source<K>,
) -> impl futures::Stream<Item = Change<K>> + Send + use<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let kind = K::kind(&()).into_owned();
    let context = context.clone();
    context.metrics.watches(&kind);
    let guard = move |object: DeserializeGuard<K>, wrap: fn(K) -> Change<K>| match object.0 {
        Ok(mut object) => {
            trim_metadata(object.meta_mut());
            // A list that was parsed has room for four items at least, its copy for those that there are.
            wrap(object.clone())
        }
        Err(invalid) => Change::Unparsable {
            namespace: invalid.metadata.namespace.unwrap_or_default(),
            name: invalid.metadata.name.unwrap_or_default(),
            why: invalid.error,
        },
    };
    // A deleted object need not be parsable.
    let gone = |metadata: ObjectMeta| Change::Gone {
        namespace: metadata.namespace.unwrap_or_default(),
        name: metadata.name.unwrap_or_default(),
        uid: metadata.uid.unwrap_or_default(),
    };
    let mut is_interrupted = false;
    watcher(api, config.page_size(PAGE))
        .backoff(Pauses::default())
        .filter_map(move |event| {
            let change = match event {
                Ok(Event::Init) => Some(Change::Begin),
                Ok(Event::InitApply(object)) => Some(guard(object, Change::Listed)),
                Ok(Event::InitDone) => Some(Change::End),
                Ok(Event::Apply(object)) => Some(guard(object, Change::Applied)),
                Ok(Event::Delete(object)) => Some(gone(object.meta().clone())),
                Err(error) => {
                    let why = why_unavailable::<K>(&error);
                    if why.is_none() {
                        context.metrics.watch_error(&kind);
                        // Only the first error of an interruption is logged.
                        if !std::mem::replace(&mut is_interrupted, true) {
                            tracing::warn!(kind, "A watch was interrupted and will be resumed: {error}.");
                        }
                    }
                    why.map(Change::Unavailable)
                }
            };
            // A watch reports that it starts before it has reached the server.
            is_interrupted &= matches!(change, None | Some(Change::Begin));
            if let Some(Change::Unparsable { namespace, name, why }) = &change {
                context.metrics.unparsable(&kind);
                tracing::warn!(kind, namespace, name, "An object could not be parsed: {why}.");
            }
            futures::future::ready(change)
        })
}
