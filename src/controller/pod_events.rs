//! Warning Events about Pods, which say why a Pod does not start, and about workloads that cannot create any.
//!
//! There may be many, so they are never all in memory: only one page of a list, and what [`PodEvents`] keeps of it.

use std::{collections::BTreeSet, sync::Arc};

use futures::StreamExt;

use super::{
    Context, Queue,
    news::{News, Source, news},
    presence::Presence,
    queue::enqueue,
};
use crate::inventory::PodEvents;
pub(super) use crate::objects::Event as PodEvent;

/// Keeps the Events of the inventory up to date.
pub(super) async fn watch(context: Arc<Context>, mut queue: Queue, source: Source<PodEvent>) {
    let mut listed = PodEvents::default();
    let mut presence = Presence::default();
    let mut news = std::pin::pin!(news(&context, source));
    while let Some(news) = news.next().await {
        let concerned = match news {
            News::Begin => {
                listed = PodEvents::default();
                BTreeSet::new()
            }
            News::Listed(event) => {
                listed.note(event);
                BTreeSet::new()
            }
            News::End => {
                let concerned = context
                    .inventory_mut()
                    .replace_events(std::mem::take(&mut listed));
                presence.listed::<PodEvent>(&context, &mut queue).await;
                concerned
            }
            News::Unavailable(why) => {
                presence.missing::<PodEvent>(&context, &mut queue, why).await;
                continue;
            }
            News::Changed(event) => context.inventory_mut().note_event(event),
            News::Gone { namespace, name, .. } => {
                context.inventory_mut().forget_event(&namespace, &name);
                BTreeSet::new()
            }
            // It has been logged and counted, and no conclusion depends on it.
            News::Unparsable { .. } => BTreeSet::new(),
        };
        enqueue(&context, &mut queue, concerned).await;
    }
}
