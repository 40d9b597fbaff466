//! What is odd about a definition but works, or cannot be judged from the objects alone.

mod addresses;
mod load_balancer;
mod ports;
mod workloads;

use jiff::Timestamp;

use crate::stages::definition_valid::subject::Subject;

/// Most hints of a kind that can be had for each port or Pod.
const MAX_OF_A_KIND: usize = 3;

/// All hints, and when the first of them may be over though nothing changes.
pub(super) fn of(subject: &Subject<'_>) -> (Vec<String>, Option<Timestamp>) {
    let mut hints = ports::of(subject);
    let awaited = subject.named_port_awaited();
    let until = awaited.as_ref().map(|(_, until)| *until);
    hints.extend(awaited.map(|(hint, _)| hint));
    hints.extend(load_balancer::of(subject));
    hints.extend(subject.family_without_pods());
    hints.extend(workloads::of(subject));
    hints.extend(addresses::of(subject));
    (hints, until)
}
