//! Which kinds of policies beyond NetworkPolicy the cluster serves: asked at the start and now and then.

use std::{sync::Arc, time::Duration};

use super::{
    Context, Queue,
    watch::{begin_if_complete, enqueue},
};
use crate::{client::policy_kinds, objects::POLICY_KINDS};

/// Longest wait for all answers.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Pause until the next look, and after a failure. A network plugin is installed once in the life of a cluster.
const INTERVAL: Duration = Duration::from_secs(600);
const RETRY: Duration = Duration::from_secs(15);

/// Runs for ever.
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
        // Whoever is denied by a policy that is not known would else be taken for broken.
        if std::mem::take(&mut first) {
            begin_if_complete(&context, &mut queue).await;
        }
        enqueue(&context, &mut queue, concerned).await;
        tokio::time::sleep(pause).await;
    }
}
