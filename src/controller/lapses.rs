//! Agents that fall silent. Nothing is written when a Lease lapses, so somebody has to look at the time.
//!
//! One look at all Leases a second costs less than a timer for each diagnosis: the first Lease of its agents that would lapse
//! without a renewal had every diagnosis judged again and again.

use std::{sync::Arc, time::Duration};

use super::{Context, Queue, queue::enqueue};
use crate::clock;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// Has diagnoses evaluated whose agents have fallen silent.
pub(super) async fn run(context: Arc<Context>, mut queue: Queue) {
    let mut before = clock::now();
    loop {
        tokio::time::sleep(EVERY).await;
        let now = clock::now();
        let concerned = context.inventory().fallen_silent(before, now);
        enqueue(&context, &mut queue, concerned).await;
        before = now;
    }
}
