//! How packets pass a node.

use crate::evidence::{
    reports::Reports,
    targets::{Target, key},
};

/// What packets do at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    /// They begin or end there, in the network of the node itself.
    Local,
    /// They go from one port of a bridge to another.
    Bridged,
    /// They go from one link to another.
    Forwarded,
    /// Bridged or forwarded: how the Pods of the node are linked is not known.
    Unknown,
}

/// How a Pod is linked to others of its node, as its hairpin tells.
pub(crate) fn links(reports: &Reports<'_>, node: &str, target: Option<Target<'_>>) -> Passage {
    let Some(pod) = target.and_then(|t| t.pod).map(key) else {
        return Passage::Unknown;
    };
    let hairpins = reports.current.iter().filter(|r| r.node == node);
    let mut own = hairpins.flat_map(|r| &r.facts.hairpins).filter(|h| h.pod == pod);
    match own.next() {
        Some(hairpin) if hairpin.hairpin_mode.is_none() => Passage::Forwarded,
        Some(_) => Passage::Bridged,
        None => Passage::Unknown,
    }
}
