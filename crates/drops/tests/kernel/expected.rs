//! What a fault has to lead to.

use svcdiag_api::DropCause;
use svcdiag_drops::{Drop, Leg, explain};

use crate::network::Namespace;

/// What is expected of a dial's drops.
pub(crate) struct Expected<'a> {
    pub leg: Leg,
    /// None where the reason alone is what is expected.
    pub cause: Option<DropCause>,
    pub reason: &'a str,
    pub location: &'a str,
    pub interface: Option<&'a str>,
    pub namespace: &'a Namespace,
    /// What was dialled.
    pub dialled: &'a str,
}

/// One drop at least has the cause, and none another. What the fault leads to later (packets that are sent again, or
/// refused) is dropped for reasons that mean nothing.
#[track_caller]
pub(crate) fn check(drops: &[Drop], expected: &Expected<'_>) {
    // Shown when the test fails, or with --nocapture.
    eprintln!("{drops:#?}");
    let dialled = expected.dialled.parse().unwrap();
    let matters = |drop: &&Drop| {
        let has_reason = expected.cause.is_none() && drop.reason == expected.reason;
        has_reason || explain(drop, dialled).is_some()
    };
    let drops: Vec<&Drop> = drops.iter().filter(matters).collect();
    assert!(!drops.is_empty(), "nothing was dropped for a known cause");
    for drop in drops {
        assert_eq!(explain(drop, dialled), expected.cause, "{drop:?}");
        assert_eq!(drop.leg, expected.leg, "{drop:?}");
        assert_eq!(drop.reason, expected.reason, "{drop:?}");
        assert_eq!(drop.location.as_deref(), Some(expected.location), "{drop:?}");
        let interface = drop.interface.as_ref().map(|interface| interface.name.as_str());
        assert_eq!(interface, expected.interface, "{drop:?}");
        assert_eq!(drop.namespace, Some(expected.namespace.inode()), "{drop:?}");
        assert!(drop.count >= 1);
    }
}
