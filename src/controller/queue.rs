//! The queue of diagnoses to evaluate, which nothing enters before every kind has been listed.
//!
//! What concerns many diagnoses (a start, a new node, cluster DNS) must not keep a Service waiting that has just changed. So
//! many do not enter the queue together: they form a crowd, of which a few enter whenever there is nobody before them. Nor must
//! what the controller itself has written, or one of several answers that are waited for and has no fault to tell: while others
//! are evaluated, more of these come, and one evaluation does for all.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures::SinkExt;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Context, Queue, reference};
use crate::inventory::DiagnosisKey;

/// Number of kinds that are watched, plus one for the kinds of policies that the cluster serves.
const KINDS: u32 = 14;

/// More diagnoses than these are a crowd.
const FEW: usize = 50;

/// Of a crowd, so many enter the queue at a time, and have so long to reach the line for a slot.
const AT_A_TIME: usize = 8;
const ON_THE_WAY: Duration = Duration::from_millis(5);

/// Number of kinds that have been listed once.
#[derive(Debug, Default)]
pub(super) struct Readiness(AtomicU32);

impl Readiness {
    /// Whether all kinds have been listed, so that diagnoses can be evaluated.
    pub(super) fn is_complete(&self) -> bool {
        self.0.load(Ordering::Acquire) >= KINDS
    }

    /// Records that a kind has been listed for the first time; returns whether it was the last.
    fn complete(&self) -> bool {
        self.0.fetch_add(1, Ordering::AcqRel) + 1 == KINDS
    }
}

/// Diagnoses that wait until there is nobody before them.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    waiting: Mutex<BTreeSet<DiagnosisKey>>,
    grown: Notify,
}

impl Crowd {
    fn join(&self, concerned: BTreeSet<DiagnosisKey>) {
        self.waiting.lock().extend(concerned);
        self.grown.notify_one();
    }

    /// All that wait now. Those that join later come after them.
    fn take(&self) -> BTreeSet<DiagnosisKey> {
        std::mem::take(&mut *self.waiting.lock())
    }
}

/// Lets the crowd into the queue.
pub(super) async fn admit_crowd(context: Arc<Context>, mut queue: Queue) {
    loop {
        context.crowd.grown.notified().await;
        let waiting: Vec<DiagnosisKey> = context.crowd.take().into_iter().collect();
        for some in waiting.chunks(AT_A_TIME) {
            context.slots.wait_in_line().await;
            for key in some {
                // The receiver is gone when the controller is shutting down.
                let _ = queue.send(reference(key)).await;
            }
            tokio::time::sleep(ON_THE_WAY).await;
        }
    }
}

/// Records that a kind has been listed for the first time, or may not be; after the last, everything is evaluated.
pub(super) async fn begin_if_complete(context: &Context, queue: &mut Queue) {
    if context.readiness.complete() {
        tracing::info!("Every kind has been listed. Diagnoses are evaluated from now on.");
        let all = context.inventory().all();
        enqueue(context, queue, all).await;
    }
}

/// Has diagnoses evaluated once there is nobody before them: what has happened is unlikely to change a verdict, and more is
/// about to happen.
pub(super) fn enqueue_behind(context: &Context, concerned: BTreeSet<DiagnosisKey>) {
    if context.readiness.is_complete() && !concerned.is_empty() {
        context.crowd.join(concerned);
    }
}

/// Has diagnoses evaluated: few as soon as possible, many one after the other.
pub(super) async fn enqueue(context: &Context, queue: &mut Queue, concerned: BTreeSet<DiagnosisKey>) {
    if !context.readiness.is_complete() {
        return;
    }
    if concerned.len() > FEW {
        context.crowd.join(concerned);
        return;
    }
    for key in concerned {
        let _ = queue.send(reference(&key)).await;
    }
}
