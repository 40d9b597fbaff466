//! The queue of diagnoses to evaluate, which nothing enters before every kind has been listed.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU32, Ordering},
};

use futures::SinkExt;

use super::{Context, Queue, reference};
use crate::inventory::DiagnosisKey;

/// Number of kinds that are watched, plus one for the kinds of policies that the cluster serves.
const KINDS: u32 = 14;

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

/// Records that a kind has been listed for the first time, or may not be; after the last, everything is evaluated.
pub(super) async fn begin_if_complete(context: &Context, queue: &mut Queue) {
    if context.readiness.complete() {
        tracing::info!("Every kind has been listed. Diagnoses are evaluated from now on.");
        let all = context.inventory().all();
        enqueue(context, queue, all).await;
    }
}

/// Has diagnoses evaluated.
pub(super) async fn enqueue(context: &Context, queue: &mut Queue, concerned: BTreeSet<DiagnosisKey>) {
    if !context.readiness.is_complete() {
        return;
    }
    for key in concerned {
        // The receiver is gone when the controller is shutting down.
        let _ = queue.send(reference(&key)).await;
    }
}
