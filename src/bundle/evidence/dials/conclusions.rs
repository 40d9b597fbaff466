//! What all requests of a node and its client Pods say together.

use std::collections::BTreeSet;

use super::{
    Dialled,
    attempt::{end, is_a_share, is_lost},
    key::{Key, Path},
    service::ready,
};
use crate::{
    api::{Answer, Hairpin, ListeningSocket, PodListeners},
    engine::{Facts, Origin},
    kube_proxy::Protocol,
};

impl Dialled {
    /// Pods that answer at a loopback address, and refuse at their own. Where endpoints have several ports, nothing would
    /// be known of the others.
    pub(in super::super) fn listeners(&self, facts: &Facts) -> Vec<PodListeners> {
        let ports: BTreeSet<Option<i32>> = facts
            .slices
            .iter()
            .flat_map(|s| &s.ports)
            .map(|p| p.port)
            .collect();
        if ports.len() != 1 {
            return Vec::new();
        }
        let each = self.own.iter().filter_map(|((pod, port), own)| {
            let address = own.by_loopback.filter(|_| own.is_refused && !own.is_answered)?;
            Some(PodListeners {
                pod: pod.clone(),
                ips: own.ips.clone(),
                sockets: vec![ListeningSocket {
                    protocol: Protocol::Tcp.into(),
                    address: address.to_string(),
                    port: *port,
                }],
            })
        });
        each.collect()
    }

    /// From where requests to the Service were made that printed nothing, and whether one to an endpoint did.
    pub(in super::super) fn silent(&self) -> (BTreeSet<Origin>, bool) {
        (self.silent.clone(), self.silent_endpoint)
    }

    /// How requests of the node to a port of its own ended, if there were any.
    pub(in super::super) fn on_loopback(&self, port: u16) -> Option<(u16, Answer)> {
        let answer = match end(self.loopback.get(&port)?) {
            // Whoever listens there took it.
            Answer::Reset | Answer::NoAnswer => Answer::Accepted,
            answer => answer,
        };
        Some((port, answer))
    }

    /// Service ports of UDP at which clients want TCP: the Service never answers it, and the endpoints do.
    pub(in super::super) fn wanted_over_tcp(&self) -> Vec<u16> {
        let answers = |all: &[Answer]| all.contains(&Answer::Accepted);
        let is_wanted = |(service, endpoints): &(Vec<Answer>, Vec<Answer>)| {
            !service.is_empty() && !answers(service) && answers(endpoints)
        };
        let wanted = self.of_udp.iter().filter(|(_, ends)| is_wanted(ends));
        wanted.map(|(port, _)| *port).collect()
    }

    /// Ports of a headless Service at which everybody who asked for it by name was refused.
    pub(in super::super) fn untranslated(&self) -> Vec<u16> {
        let are_refused = |all: &[Answer]| all.iter().all(|answer| *answer == Answer::Refused);
        let refused = self.untranslated.iter().filter(|(_, ends)| are_refused(ends));
        refused.map(|(port, _)| *port).collect()
    }

    /// How Pods that have nobody else to meet reached themselves, on a node whose bridge ports send packets back
    /// or do not, and whose rules masquerade them or do not.
    pub(in super::super) fn hairpins(
        &self,
        hairpin_mode: Option<bool>,
        masqueraded: Option<bool>,
    ) -> Vec<Hairpin> {
        let each = self.itself.iter().map(|((pod, target), answers)| Hairpin {
            pod: pod.clone(),
            target: target.to_string(),
            answer: Some(end(answers)),
            bridge_port: None,
            hairpin_mode,
            masqueraded,
        });
        each.collect()
    }

    /// Ports that were dialled in vain and that the Service does not list; nothing where a listed one was dialled, too.
    pub(in super::super) fn unlisted(&self) -> Vec<String> {
        let is_of_service = |key: &Key| key.path == Path::Service;
        if self.ends.keys().any(is_of_service) || !self.itself.is_empty() || !self.perhaps_itself.is_empty() {
            return Vec::new();
        }
        let mut unlisted = self.unlisted.clone();
        unlisted.sort();
        unlisted.dedup();
        unlisted
    }

    /// Names of the Service that Pods did not find when they wanted to connect.
    pub(in super::super) fn not_resolved(&self) -> Vec<String> {
        self.not_resolved.iter().cloned().collect()
    }

    /// Pods that are one of several endpoints, and of whose requests to the Service so many are lost as would come
    /// back to them.
    pub(in super::super) fn perhaps_itself(&self, facts: &Facts) -> Vec<String> {
        let each = self.perhaps_itself.iter().filter_map(|((pod, target), answers)| {
            let lost = answers.iter().filter(|a| is_lost(**a)).count();
            let count = ready(facts).count();
            is_a_share(lost, answers.len(), count).then(|| {
                format!(
                    "{lost} of {} requests of Pod {pod} to {target} are lost, and it is itself one of the {count} endpoints",
                    answers.len()
                )
            })
        });
        each.collect()
    }

    /// The endpoints that somebody dialled.
    pub(in super::super) fn endpoints(&self) -> Vec<String> {
        let direct = self.ends.keys().filter(|key| key.path == Path::Endpoint);
        direct.map(|key| key.target.to_string()).collect()
    }
}
