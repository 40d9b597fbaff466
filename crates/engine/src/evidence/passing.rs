//! What got through the nodes in the same round as the failures that are to be explained.
//!
//! A setting or a rule of a node that lets the like through is not what a dial was lost for.

use std::collections::{BTreeMap, BTreeSet};

use crate::evidence::{
    dials::{Count, Dials},
    ends::Ends,
    passage::{Passage, links},
    reports::Reports,
};
use svcdiag_api::IpFamily;

/// How packets of an IP family passed a node.
type Passed<'a> = BTreeSet<(&'a str, IpFamily)>;

/// What got through.
#[derive(Default)]
pub(crate) struct Passing<'a> {
    /// From one link of the node to another.
    forwarded: Passed<'a>,
    /// From one port of a bridge of the node to another.
    bridged: Passed<'a>,
    /// To or from the network of the node itself.
    local: Passed<'a>,
    /// From the first node to endpoints on the second.
    between: BTreeSet<(&'a str, &'a str, IpFamily)>,
    /// How many dials of a node itself, or of its Pods, were answered and were not.
    tally: BTreeMap<(&'a str, bool), (u32, u32)>,
}

impl<'a> Passing<'a> {
    pub(super) fn of(
        reports: &Reports<'_>,
        ends: &Ends<'a>,
        direct: &Dials<'a>,
        from_clients: &Dials<'a>,
        from_nodes: &Dials<'a>,
    ) -> Self {
        let mut passing = Self::default();
        for count in [direct, from_nodes, from_clients]
            .into_iter()
            .flat_map(|d| &d.counts)
        {
            let key = (count.node, ends.is_of_host(count));
            let (answered, lost) = passing.tally.entry(key).or_default();
            *answered = answered.saturating_add(count.succeeded);
            *lost = lost.saturating_add(count.made.saturating_sub(count.succeeded));
        }
        for count in direct.counts.iter().filter(|c| c.succeeded > 0) {
            match count.same_node {
                Some(true) => passing.note_on_node(reports, ends, direct, count),
                Some(false) => passing.note_between(ends, direct, count),
                // Endpoints on no node that the cluster knows may be anywhere.
                None => {}
            }
        }
        for count in from_nodes.counts.iter().filter(|c| c.succeeded > 0) {
            passing.local.insert((count.node, count.family));
        }
        for count in from_clients.counts.iter().filter(|c| c.succeeded > 0) {
            // What is sent to the Service gets another destination, and is routed: unless it may have ended
            // on the node, it was forwarded.
            let may_end_here = ends
                .targets
                .values()
                .any(|t| t.is_host_network() && t.node == Some(count.node));
            if ends.is_of_host(count) {
                passing.local.insert((count.node, count.family));
            } else if !may_end_here {
                passing.forwarded.insert((count.node, count.family));
            }
        }
        passing
    }

    /// A dial that stayed on the node.
    fn note_on_node(
        &mut self,
        reports: &Reports<'_>,
        ends: &Ends<'a>,
        direct: &Dials<'a>,
        count: &Count<'a>,
    ) {
        let at = (count.node, count.family);
        if ends.is_of_host(count) {
            self.local.insert(at);
            return;
        }
        for (endpoint, target) in &ends.targets {
            if target.node != Some(count.node)
                || ends.is_in_a_window()
                || !ends.has_reached(direct, count, *endpoint, *target, count.port)
            {
                continue;
            }
            let passed = match links(reports, count.node, Some(*target)) {
                _ if target.is_host_network() => &mut self.local,
                Passage::Forwarded => &mut self.forwarded,
                Passage::Bridged => &mut self.bridged,
                Passage::Local | Passage::Unknown => continue,
            };
            passed.insert(at);
        }
    }

    /// A dial that went to another node.
    fn note_between(&mut self, ends: &Ends<'a>, direct: &Dials<'a>, count: &Count<'a>) {
        let at = (count.node, count.family);
        let own = if ends.is_of_host(count) {
            &mut self.local
        } else {
            &mut self.forwarded
        };
        own.insert(at);
        if ends.is_in_a_window() {
            return;
        }
        for (endpoint, target) in &ends.targets {
            let Some(node) = target.node else { continue };
            if !ends.has_reached(direct, count, *endpoint, *target, count.port) {
                continue;
            }
            self.between.insert((count.node, node, count.family));
            let passed = if target.is_host_network() {
                &mut self.local
            } else {
                &mut self.forwarded
            };
            passed.insert((node, count.family));
        }
    }

    /// Whether anything of an IP family has passed a node in a way.
    pub(crate) fn passed(&self, node: &str, passage: Passage, family: IpFamily) -> bool {
        let of = match passage {
            Passage::Forwarded => &self.forwarded,
            Passage::Bridged => &self.bridged,
            Passage::Local => &self.local,
            Passage::Unknown => {
                return [Passage::Forwarded, Passage::Bridged]
                    .into_iter()
                    .all(|p| self.passed(node, p, family));
            }
        };
        of.contains(&(node, family))
    }

    /// Whether most dials that a node made itself, or its Pods made, were answered: something that costs packets
    /// now and then lets some through.
    pub(crate) fn mostly_passed(&self, node: &str, by_host: bool) -> bool {
        let (answered, lost) = self.tally.get(&(node, by_host)).copied().unwrap_or_default();
        answered > lost
    }

    /// Whether anything of an IP family got from one node to endpoints on another, and back.
    pub(crate) fn passed_between(&self, from: &str, to: &str, family: IpFamily) -> bool {
        self.between.contains(&(from, to, family))
    }
}
