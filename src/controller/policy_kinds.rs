//! Which kinds of policies other than NetworkPolicy the cluster serves: read at the start and from time to time.

use std::{sync::Arc, time::Duration};

use super::{
    Context, Queue,
    queue::{begin_if_complete, enqueue},
};
use crate::{client::policy_kinds, objects::POLICY_KINDS};

/// Timeout for all requests.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Pause until the next check, and after a failure. A network plugin is installed once in the life of a cluster.
const INTERVAL: Duration = Duration::from_secs(600);
const RETRY: Duration = Duration::from_secs(15);

/// Runs until the controller stops.
pub(super) async fn run(context: Arc<Context>, mut queue: Queue) {
    let mut first = true;
    loop {
        let asked = tokio::time::timeout(TIMEOUT, policy_kinds(&context.client)).await;
        let asked = asked.map_err(|_| "no answer".to_owned());
        let asked = asked.and_then(|answer| answer.map_err(|error| error.to_string()));
        let (concerned, pause) = match asked {
            Ok(kinds) => {
                let mut inventory = context.inventory_mut();
                let concerned = inventory.note_unreadable(POLICY_KINDS, None);
                (&concerned | &inventory.note_policy_kinds(kinds), INTERVAL)
            }
            Err(why) => {
                tracing::warn!("Could not find out which kinds of policies the cluster serves: {why}.");
                let why = "the API server does not say which kinds of policies it serves".to_owned();
                (
                    context.inventory_mut().note_unreadable(POLICY_KINDS, Some(why)),
                    RETRY,
                )
            }
        };
        // Otherwise traffic denied by an unknown policy would look like a fault.
        if std::mem::take(&mut first) {
            begin_if_complete(&context, &mut queue).await;
        }
        enqueue(&context, &mut queue, concerned).await;
        tokio::time::sleep(pause).await;
    }
}
