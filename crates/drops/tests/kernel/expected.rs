//! What a fault has to lead to.

use svcdiag_drops::{Cause, Drop, Leg, explain};

use crate::network::Namespace;

/// What is expected of a dial's drops.
pub(crate) struct Expected<'a> {
    pub leg: Leg,
    pub cause: Cause,
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
    let known = |drop: &&Drop| !matches!(explain(drop, dialled), Cause::Unknown(_));
    let drops: Vec<&Drop> = drops.iter().filter(known).collect();
    assert!(!drops.is_empty(), "nothing was dropped for a known cause");
    for drop in drops {
        assert_eq!(explain(drop, dialled), expected.cause, "{drop:?}");
        assert_eq!(drop.leg, expected.leg, "{drop:?}");
        assert_eq!(drop.reason, expected.reason, "{drop:?}");
        match &drop.location {
            Some(location) => assert_eq!(location, expected.location, "{drop:?}"),
            None => assert!(hides_addresses(), "{drop:?}"),
        }
        let interface = drop.interface.as_ref().map(|interface| interface.name.as_str());
        assert_eq!(interface, expected.interface, "{drop:?}");
        assert_eq!(drop.namespace, Some(expected.namespace.inode()), "{drop:?}");
        assert!(drop.count >= 1);
    }
}

fn hides_addresses() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/kptr_restrict").is_ok_and(|value| value.trim() == "2")
}
