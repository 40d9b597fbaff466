//! The rules of the namespaces in which packets of a watch may be dropped, before and after.
//!
//! They are read only while a dial is repeated. Of the first reading only the counters are kept; the second one is made
//! where a firewall did drop packets.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
};

use futures::future::join_all;
use svcdiag_api::{DropPlace, Dropper, FilterHook};
use svcdiag_netns::{
    Netns,
    netfilter::droppers::{Backends, Counters, Listing, Source, Whose},
};

use super::blame::{Question, droppers};
use crate::{
    blocking::{Pool, blocking},
    round::Round,
};

/// Namespaces of Pods that are read for one watch; in others no rule is named.
const MAX_PODS: usize = 16;

/// Drops of one namespace for which rules are looked for.
const MAX_QUESTIONS: usize = 32;

/// A namespace, and its counters before packets were dropped.
#[derive(Debug)]
pub(super) struct Namespace {
    netns: Netns,
    whose: Whose,
    before: Counters,
}

/// By the inode of the namespace.
pub(super) type Before = BTreeMap<u64, Namespace>;

impl Round<'_> {
    /// The rules before dials are repeated: of the node, of the Pods that dial, and of those that are dialled. What cannot be
    /// read is left out, so that no rule of it is named.
    pub(super) async fn rules_before(&self, clients: Vec<&Netns>, dialled: &BTreeSet<IpAddr>) -> Before {
        let node = self.node.netns.inode();
        let endpoints = self.endpoints.iter().filter(|pod| {
            let mut ips = pod.pod.ips.iter().filter_map(|ip| ip.parse().ok());
            ips.any(|ip| dialled.contains(&ip))
        });
        let pods = clients.into_iter().chain(endpoints.map(|pod| &pod.netns));
        let pods: BTreeMap<u64, &Netns> = pods.map(|netns| (netns.inode(), netns)).collect();
        let pods = pods
            .into_iter()
            .filter(|(inode, _)| *inode != node)
            .take(MAX_PODS);
        let pods = pods.map(|(_, netns)| (netns, Whose::Pod));
        let all = [(&self.node.netns, Whose::Node)].into_iter().chain(pods);
        let read = join_all(all.map(async |(netns, whose)| {
            let before = self
                .with_rules(netns, whose, |listing| listing.counters())
                .await?;
            let netns = netns.clone();
            Some((netns.inode(), Namespace { netns, whose, before }))
        }));
        read.await.into_iter().flatten().collect()
    }

    /// Who dropped packets in a namespace, or may have, for each question.
    pub(super) async fn droppers(&self, of: Namespace, mut questions: Vec<Question>) -> Vec<Vec<Dropper>> {
        let Namespace { netns, whose, before } = of;
        questions.truncate(MAX_QUESTIONS);
        let total = questions.iter().map(|question| question.packets).sum();
        let answer = move |listing: &Listing| {
            let answers = questions
                .iter()
                .map(|question| droppers(listing, &before, question, total));
            answers.collect()
        };
        self.with_rules(&netns, whose, answer).await.unwrap_or_default()
    }

    /// Reads the rules of a namespace for somebody. One after the other, as they may be many megabytes on a large node.
    async fn with_rules<T: Send + 'static>(
        &self,
        netns: &Netns,
        whose: Whose,
        look: impl FnOnce(&Listing) -> T + Send + 'static,
    ) -> Option<T> {
        let (pool, turns) = match whose {
            Whose::Node => (Pool::Node, &self.node.watches.rules_of_nodes),
            Whose::Pod => (Pool::Pod, &self.node.watches.rules_of_pods),
        };
        // First: opening reads some of them already.
        let _turn = turns.acquire().await.ok()?;
        let source = netns.visit(move || Ok(Source::open(whose))).await.ok()?;
        blocking(pool, move || look(&source.read())).await.ok()
    }
}

/// The hooks by which packets come in a namespace: those that are sent from there go out, those for it come in, and all
/// others pass through. Behind the network of an endpoint's Pod there may be another one, as for virtual machines.
pub(super) fn hooks(place: DropPlace, is_sent: bool, is_received: bool) -> Vec<FilterHook> {
    use FilterHook::{Egress, Forward, Ingress, Input, Output, Postrouting, Prerouting};
    let mut hooks = Vec::new();
    if is_sent {
        hooks.extend([Output, Postrouting, Egress]);
    }
    if is_received {
        hooks.extend([Ingress, Prerouting, Input]);
    }
    if place == DropPlace::Endpoint || !is_sent && !is_received {
        hooks.extend([Ingress, Prerouting, Forward, Postrouting, Egress]);
    }
    hooks
}

/// The backends that drop packets in a function of the kernel. Since Linux 6.7 nf_tables does so in one of its own.
pub(super) fn backends(function: Option<&str>, kernel: Option<(u32, u32)>) -> Backends {
    const OWN_FUNCTION_SINCE: (u32, u32) = (6, 7);
    let is_new = kernel.is_some_and(|version| version >= OWN_FUNCTION_SINCE);
    match function {
        Some(function) if function.starts_with("nft_") => Backends {
            nf_tables: true,
            legacy: false,
        },
        Some("nf_hook_slow") if is_new => Backends {
            nf_tables: false,
            legacy: true,
        },
        _ => Backends {
            nf_tables: true,
            legacy: true,
        },
    }
}

/// The version of the kernel: 6.18.44-generic is 6 and 18.
pub(super) fn kernel_version() -> Option<(u32, u32)> {
    version_of(&fs::read_to_string("/proc/sys/kernel/osrelease").ok()?)
}

fn version_of(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_of_nf_tables_is_told_from_that_of_all_others() {
        let (nf_tables, legacy) = (true, true);
        for (function, version, expected) in [
            (Some("nft_do_chain"), (6, 1), (nf_tables, false)),
            (Some("nf_hook_slow"), (6, 7), (false, legacy)),
            (Some("nf_hook_slow"), (6, 6), (nf_tables, legacy)),
            (None, (6, 18), (nf_tables, legacy)),
        ] {
            let found = backends(function, Some(version));
            assert_eq!(
                (found.nf_tables, found.legacy),
                expected,
                "{function:?} {version:?}"
            );
        }
        assert!(backends(Some("nf_hook_slow"), None).nf_tables);
    }

    #[test]
    fn versions_of_kernels_are_read_from_what_distributions_call_them() {
        for (release, version) in [
            ("6.18.44-fc-v669\n", Some((6, 18))),
            ("5.14.0-427.el9.x86_64", Some((5, 14))),
            ("7.0-rc1", Some((7, 0))),
            ("unknown", None),
        ] {
            assert_eq!(version_of(release), version);
        }
    }

    #[test]
    fn packets_come_by_the_hooks_of_their_direction() {
        use FilterHook::{Forward, Input, Output};
        let has = |place, sent, received, hook| hooks(place, sent, received).contains(&hook);
        assert!(has(DropPlace::Node, false, false, Forward));
        assert!(!has(DropPlace::Node, false, false, Input));
        assert!(has(DropPlace::Node, true, false, Output));
        assert!(!has(DropPlace::Node, true, false, Forward));
        assert!(has(DropPlace::Endpoint, false, true, Input));
        assert!(!has(DropPlace::Endpoint, false, true, Output));
        assert!(has(DropPlace::Endpoint, true, false, Forward));
        assert!(!has(DropPlace::Client, true, false, Input));
        assert!(has(DropPlace::Client, true, true, Input));
    }
}
