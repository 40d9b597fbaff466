//! How many diagnoses are reconciled at once, and which of those that wait is next.

use tokio::sync::Semaphore;

/// Slots for reconciliations, given in the order in which they are asked for.
///
/// kube-runtime can limit reconciliations as well, but takes any of those that wait: while there are more than can be
/// done, as when the API server is slow, some would not be reconciled at all.
#[derive(Debug)]
pub(super) struct Slots(Semaphore);

impl Slots {
    pub(super) fn new(concurrency: u16) -> Self {
        Self(Semaphore::new(usize::from(concurrency)))
    }

    /// Does the work once there is a slot; `None` if the controller stops before.
    pub(super) async fn run<T>(&self, work: impl AsyncFnOnce() -> T) -> Option<T> {
        let _slot = self.0.acquire().await.ok()?;
        Some(work().await)
    }

    /// Waits until those that wait now have begun.
    pub(super) async fn wait_in_line(&self) {
        // Closed: the controller stops.
        drop(self.0.acquire().await);
    }

    /// Lets nothing begin any more; what has begun is finished.
    pub(super) fn close(&self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Arc, time::Duration};

    use futures::{StreamExt, channel::mpsc};
    use kube::runtime::{
        controller::{self, Action},
        reflector::{self, ObjectRef},
        watcher::Event,
    };
    use parking_lot::Mutex;

    use super::*;
    use crate::api::{ServiceDiagnosis, ServiceDiagnosisSpec};

    /// So many diagnoses wait at any time.
    const WAITING: usize = 24;

    fn name(number: usize) -> String {
        format!("web-{number}")
    }

    fn reference(number: usize) -> ObjectRef<ServiceDiagnosis> {
        ObjectRef::new(&name(number)).within("shop")
    }

    #[tokio::test(start_paused = true)]
    async fn no_diagnosis_waits_for_those_that_are_queued_after_it() {
        let (store, mut writer) = reflector::store::<ServiceDiagnosis>();
        writer.apply_watcher_event(&Event::Init);
        for number in 0..10 * WAITING {
            let mut diagnosis =
                ServiceDiagnosis::new(&name(number), ServiceDiagnosisSpec::for_service("web"));
            diagnosis.metadata.namespace = Some("shop".to_owned());
            writer.apply_watcher_event(&Event::InitApply(diagnosis));
        }
        writer.apply_watcher_event(&Event::InitDone);
        let (queue, requests) = mpsc::unbounded();
        for number in 0..WAITING {
            let _ = queue.unbounded_send(reference(number));
        }
        let slots = Arc::new(Slots::new(1));
        let order = Arc::new(Mutex::new(Vec::new()));
        let reconcile = |diagnosis: Arc<ServiceDiagnosis>, slots: Arc<Slots>| {
            let (queue, order) = (queue.clone(), order.clone());
            Box::pin(async move {
                let work = async || {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    let mut order = order.lock();
                    order.push(diagnosis.metadata.name.clone().unwrap_or_default());
                    let next = WAITING + order.len() - 1;
                    if next < 10 * WAITING {
                        let _ = queue.unbounded_send(reference(next));
                    } else {
                        queue.close_channel();
                    }
                };
                slots.run(work).await;
                Ok::<_, Infallible>(Action::await_change())
            })
        };
        controller::applier(
            reconcile,
            |_, _: &Infallible, _| Action::await_change(),
            slots,
            store,
            requests.map(Ok::<_, Infallible>),
            controller::Config::default(),
        )
        .for_each(|_| async {})
        .await;
        let order = order.lock();
        let late =
            (0..WAITING).filter(|number| !order.iter().take(WAITING).any(|done| *done == name(*number)));
        assert_eq!(late.collect::<Vec<_>>(), Vec::<usize>::new(), "{order:?}");
    }

    #[tokio::test]
    async fn nothing_begins_once_the_controller_stops() {
        let slots = Slots::new(1);
        let waiting = async {
            let work = async || slots.close();
            slots.run(work).await
        };
        let (done, refused) = tokio::join!(waiting, slots.run(async || ()));
        assert_eq!((done, refused), (Some(()), None));
    }
}
