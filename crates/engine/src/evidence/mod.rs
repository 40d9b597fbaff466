//! What the engine judges by, worked out once for each diagnosis.
//!
//! [`Evidence`] begins with the Facts and the reports of the agents that count (`reports`). What they dialled is held
//! against the endpoints of today (`ends`, `targets`) and against the policies (`kept_away`): `collect` makes `dials` of
//! it, one set for each route. `passing` says what got through a node at the same time, `explaining` which setting of a
//! node explains a loss (`lossy_settings` in words), or who dropped the packets (`dropped`, `droppers`), `losses` what is
//! lost only at times and `loss_causes` why, `packet_sizes` what is lost for its size, `arrivals` what of it the
//! other node saw, `sender` who rejected a dial, `listening` what listens in
//! a Pod, and `proxies` what does kube-proxy's work.

pub(crate) mod arrivals;
mod collect;
pub(crate) mod dials;
pub(crate) mod dropped;
pub(crate) mod dropped_text;
pub(crate) mod droppers;
mod ends;
pub(crate) mod explaining;
mod kept_away;
pub(crate) mod listening;
mod loss_causes;
pub(crate) mod losses;
pub(crate) mod lossy_settings;
pub(crate) mod packet_sizes;
mod passage;
mod passing;
pub(crate) mod proxies;
pub(crate) mod reports;
pub(crate) mod sender;
pub(crate) mod targets;

use std::{collections::BTreeSet, net::SocketAddr};

pub(crate) use self::ends::WINDOW;
use self::{
    collect::Collector,
    dials::{Dials, Route},
    ends::Ends,
    passing::Passing,
    reports::Reports,
};
use crate::{Facts, clients::Clients, ports};
use svcdiag_api::{NodeSettings, PortProtocol};
use svcdiag_objects::{Service, ServicePort};

/// The Facts, with what follows from them for more than one stage.
pub(crate) struct Evidence<'a> {
    /// Everything that is known.
    pub facts: &'a Facts,
    /// The Service, if it exists.
    pub service: Option<&'a Service>,
    /// Its ports that clients use.
    pub ports: Vec<&'a ServicePort>,
    /// The Pods that stand for its clients.
    pub clients: Clients<'a>,
    /// What the agents have to say.
    pub reports: Reports<'a>,
    /// Who dials, and what is dialled.
    pub ends: Ends<'a>,
    /// Dials to the endpoints, past the Service.
    pub direct: Dials<'a>,
    /// Dials to the Service, from client Pods.
    pub from_clients: Dials<'a>,
    /// Dials to the Service, from the nodes themselves.
    pub from_nodes: Dials<'a>,
    /// What got through the nodes in the same round.
    pub passing: Passing<'a>,
}

impl<'a> Evidence<'a> {
    pub(crate) fn of(facts: &'a Facts) -> Self {
        let service = facts.service.as_deref();
        let ports = service.map(|s| ports::judged(facts, s)).unwrap_or_default();
        let clients = Clients::of(facts);
        let reports = Reports::of(facts);
        let ends = Ends::of(facts, &ports, &reports);
        let shut_out = kept_away::shut_out(facts, &clients, &reports, &ends);
        let collector = Collector {
            facts,
            reports: &reports,
            ends: &ends,
            shut_out: &shut_out,
        };
        let [direct, from_clients, from_nodes] =
            [Route::Direct, Route::FromClients, Route::FromNodes].map(|route| collector.dials(route));
        let passing = Passing::of(&reports, &ends, &direct, &from_clients, &from_nodes);
        Self {
            facts,
            service,
            ports,
            clients,
            reports,
            ends,
            direct,
            from_clients,
            from_nodes,
            passing,
        }
    }

    /// How a node is set up, as its agent saw it.
    pub(crate) fn settings(&self, node: &str) -> Option<&'a NodeSettings> {
        let mut reports = self.reports.current.iter();
        reports.find(|r| r.node == node).map(|r| &r.facts.settings)
    }

    /// Whether a client has lost what it sent and reached no endpoint at all.
    pub(crate) fn reaches_nobody(&self, key: &str) -> bool {
        kept_away::reaches_nobody(&self.reports, &self.ends, key)
    }

    /// Whether what is wrong on some nodes leaves nothing working: nobody gets through, and those who try
    /// are all on these nodes. Clients count for more than nodes.
    pub(crate) fn leaves_nothing(&self, nodes: &BTreeSet<&str>) -> bool {
        let dials = if self.from_clients.has_clients() {
            &self.from_clients
        } else {
            &self.from_nodes
        };
        if dials.made() == 0 {
            return self.reports.current.iter().all(|r| nodes.contains(r.node));
        }
        dials.succeeded() == 0 && dials.counts.iter().all(|c| c.made == 0 || nodes.contains(c.node))
    }

    /// Whether no one who dialled an endpoint directly has reached it.
    pub(crate) fn fails_from_everywhere(&self, endpoint: SocketAddr, port: PortProtocol) -> bool {
        let Some(target) = self.ends.targets.get(&endpoint) else {
            return false;
        };
        // In a window one cannot tell who dialled it.
        self.ends.is_in_a_window()
            || !self.direct.counts.iter().any(|count| {
                self.ends
                    .has_reached(&self.direct, count, endpoint, *target, port)
            })
    }

    /// Whether somebody on the endpoint's own node has reached it.
    pub(crate) fn is_reached_at_home(&self, endpoint: SocketAddr, port: PortProtocol) -> bool {
        let Some(target) = self.ends.targets.get(&endpoint) else {
            return false;
        };
        self.direct.counts.iter().any(|count| {
            target.node == Some(count.node)
                && self
                    .ends
                    .has_reached(&self.direct, count, endpoint, *target, port)
        })
    }
}
