//! Warning Events about Pods, which say why a Pod does not start, and about workloads that cannot create any.
//!
//! There may be many, so they are never all in memory: only one page of a list, and what [`PodEvents`] keeps of it.

use std::{collections::BTreeSet, sync::Arc};

use futures::StreamExt;

use super::{
    Context, Queue,
    changes::{Change, Source, changes},
    presence::Presence,
    queue::enqueue,
};
use crate::inventory::PodEvents;
pub(super) use crate::objects::Event as PodEvent;

/// Keeps the Events of the inventory up to date.
pub(super) async fn watch(context: Arc<Context>, mut queue: Queue, source: Source<PodEvent>) {
    let mut listed = PodEvents::default();
    let mut presence = Presence::default();
    let mut changes = std::pin::pin!(changes(&context, source));
    while let Some(change) = changes.next().await {
        let concerned = match change {
            Change::Begin => {
                listed = PodEvents::default();
                BTreeSet::new()
            }
            Change::Listed(event) => {
                listed.note(event);
                BTreeSet::new()
            }
            Change::End => {
                let concerned = context
                    .inventory_mut()
                    .replace_events(std::mem::take(&mut listed));
                presence.listed::<PodEvent>(&context, &mut queue).await;
                concerned
            }
            Change::Unavailable(why) => {
                presence.missing::<PodEvent>(&context, &mut queue, why).await;
                continue;
            }
            Change::Applied(event) => context.inventory_mut().note_event(event),
            Change::Gone { namespace, name, .. } => {
                context.inventory_mut().forget_event(&namespace, &name);
                BTreeSet::new()
            }
            // It has been logged and counted, and no conclusion depends on it.
            Change::Unparsable { .. } => BTreeSet::new(),
        };
        enqueue(&context, &mut queue, concerned).await;
    }
}
