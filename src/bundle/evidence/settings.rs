//! Settings of a node's network: sysctls, what the kernel logged, and what the firewall forwards.

use super::text::{Parsed, Text};
use crate::{api::NodeSettings, bundle::Problem, formats::rules::forwarding::Forwarding};

/// Settings of a node.
#[derive(Default)]
pub(super) struct Settings {
    pub known: NodeSettings,
    /// Whether br_netfilter is not even loaded.
    pub lacks_bridge_netfilter: bool,
    /// What the kernel complained about.
    pub problems: Vec<Problem>,
}

impl Settings {
    pub(super) fn of(files: &[Parsed<'_>]) -> Self {
        let mut settings = Self::default();
        // The last file holds.
        for file in files {
            if let Text::Settings(sysctl) = &file.text {
                settings.lacks_bridge_netfilter = sysctl.lacks_bridge_netfilter();
                settings.known = sysctl.settings();
            }
        }
        for file in files {
            settings.add(file);
        }
        settings
    }

    fn add(&mut self, file: &Parsed<'_>) {
        match &file.text {
            Text::KernelLog(log) => {
                // What the settings say of the table is newer.
                let known = &mut self.known;
                known.conntrack_full = known.conntrack_full.or(log.table_full.map(|_| true));
                known.reverse_path_drops = known.reverse_path_drops.or(log.martian.map(|_| true));
                self.problems.extend(log.neighbours_full.map(|line| {
                    file.problem(format!(
                        "line {line}: the kernel's neighbour table overflowed, so packets to Pods and nodes are lost; check net.ipv4.neigh.default.gc_thresh3 on the node"
                    ))
                }));
            }
            Text::Rules(rules) => {
                if let Some(forwarding) = &rules.forwarding {
                    self.forward(forwarding);
                }
            }
            Text::Forwarding(forwarding) => self.forward(forwarding),
            _ => {}
        }
    }

    fn forward(&mut self, forwarding: &Forwarding) {
        // What one table drops no other can save.
        self.known.forward_drops = self.known.forward_drops.max(forwarding.drops);
        self.known.dead_ends.extend(forwarding.dead_ends.iter().cloned());
    }
}
