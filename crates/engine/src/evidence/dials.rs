//! Dials that took one route, as far as they prove anything: who made them, how many succeeded, which failed.

use std::{collections::BTreeSet, net::SocketAddr};

use crate::evidence::{
    sender::{Rejected, Sender},
    targets::Target,
};
use svcdiag_api::{Answer, DialFailure, DialPath, IpFamily, PortProtocol};

/// How the words of a failure begin where small answers came and large ones did not.
pub const LARGE_ANSWERS_STOP: &str = "large answers stop";

/// How the words of a failure begin where a proxy answered in the place of the endpoint.
pub const BY_PROXY: &str = "a proxy (Envoy) says:";

/// How the words of a failure begin where the answer came, and late.
pub const LATE: &str = "an answer came only after";

/// The words of a failure of which only is known that no HTTP status came.
pub const WITHOUT_STATUS: &str = "no HTTP status came, and curl -s hides why";

/// Whom a dial was made to, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// To the endpoints, past the Service.
    Direct,
    /// To the Service's addresses, from client Pods.
    FromClients,
    /// To the Service's addresses and node ports, from the nodes themselves.
    FromNodes,
}

/// A failure that counts.
#[derive(Clone, Copy)]
pub(crate) struct Failed<'a> {
    /// The node it was seen on.
    pub node: &'a str,
    /// What failed.
    pub dial: &'a DialFailure,
    /// How it ended.
    pub answer: Answer,
    /// The endpoint, as far as it is known.
    pub endpoint: Option<SocketAddr>,
    /// What is known of it.
    pub target: Option<Target<'a>>,
    /// Whether the one who dialled uses the network of the node.
    pub from_host: bool,
    /// Who rejected it, if a message said so.
    pub rejected: Option<Rejected<'a>>,
}

impl<'a> Failed<'a> {
    /// Who rejected it, if a message said so.
    pub(crate) fn sender(&self) -> Option<Sender<'a>> {
        self.rejected.map(|rejected| rejected.by)
    }

    /// Whether a message said that the packets are administratively prohibited, as firewalls do.
    pub(crate) fn is_prohibited(&self) -> bool {
        self.is_lost() && self.rejected.is_some_and(|rejected| rejected.is_prohibited)
    }

    /// Whether something in the network namespace of one Pod rejected it. Of a neighbour that does not answer a Pod
    /// hears from itself, too.
    pub(crate) fn is_rejected_in_a_pod(&self) -> bool {
        match self.sender() {
            Some(Sender::Endpoint(_)) => self.is_lost(),
            Some(Sender::Client(_)) => self.answer == Answer::Rejected || self.is_prohibited(),
            _ => false,
        }
    }

    /// Whether a rule is known to have rejected it, or a route that prohibits.
    pub(crate) fn is_rejected_by_a_rule(&self) -> bool {
        self.is_prohibited() || self.is_rejected_in_a_pod()
    }

    /// Whether the endpoint itself has refused a datagram. A rule on the way refuses those who come that way, and
    /// through the Service the two look alike.
    pub(crate) fn is_closed_to_datagrams(&self) -> bool {
        self.dial.port.is_udp() && self.dial.path == DialPath::Endpoint && self.answer == Answer::Refused
    }

    /// Whether small answers came, and large ones did not.
    pub(crate) fn is_of_large_answers(&self) -> bool {
        self.begins_with(LARGE_ANSWERS_STOP)
    }

    /// Whether a proxy answered in the place of the endpoint.
    pub(crate) fn is_by_proxy(&self) -> bool {
        self.begins_with(BY_PROXY)
    }

    /// Whether an answer came, and so late that packets were lost before.
    pub(crate) fn is_late(&self) -> bool {
        self.begins_with(LATE)
    }

    /// Whether nothing is known but that no status came.
    pub(crate) fn is_without_status(&self) -> bool {
        self.begins_with(WITHOUT_STATUS)
    }

    /// Whether it is of some of several requests to the Service, which went to one endpoint or another.
    pub(crate) fn is_of_some_requests(&self) -> bool {
        let detail = self.dial.detail.as_deref();
        self.endpoint.is_none() && detail.is_some_and(|detail| detail.ends_with(" requests"))
    }

    fn begins_with(&self, words: &str) -> bool {
        let detail = self.dial.detail.as_deref();
        detail.is_some_and(|detail| detail.starts_with(words))
    }

    /// The IP family that it was made over; IPv6 where nobody can tell, as most settings of nodes are about IPv4.
    pub(crate) fn family(&self) -> IpFamily {
        let target = self.dial.target.parse::<SocketAddr>();
        target.map_or(IpFamily::V6, |target| IpFamily::of(target.ip()))
    }

    /// Whether the packets were lost or turned away on their way: nobody took the connection.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(
            self.answer,
            Answer::TimedOut | Answer::Unreachable | Answer::Rejected
        )
    }
}

/// The dials of one origin to one Service port.
#[derive(Clone, Copy)]
pub(crate) struct Count<'a> {
    pub node: &'a str,
    pub from: Option<&'a str>,
    pub port: PortProtocol,
    pub family: IpFamily,
    pub same_node: Option<bool>,
    pub made: u32,
    pub succeeded: u32,
}

/// All dials that took one route.
#[derive(Default)]
pub(crate) struct Dials<'a> {
    /// Dials that prove something.
    pub counts: Vec<Count<'a>>,
    /// Failures that count.
    pub failures: Vec<Failed<'a>>,
    /// Whether a failure did not count because its object has changed since.
    pub is_stale: bool,
    /// Whether a sidecar spoke for a client.
    pub is_intercepted: bool,
    /// Whether a client failed that a policy may keep away.
    pub is_shut_out: bool,
    /// Whether a node failed that a policy may keep away.
    pub is_node_shut_out: bool,
    /// The first Pod whose sidecar has reset a connection of a Pod that may well not belong to its mesh.
    pub reset_by_mesh: Option<&'a str>,
    /// Every failure reported, whether or not it counts.
    pub reported: BTreeSet<(&'a str, Option<&'a str>, Option<SocketAddr>)>,
}

impl Dials<'_> {
    /// Whether anybody who counts tried.
    pub(crate) fn made(&self) -> u32 {
        self.counts.iter().map(|c| c.made).fold(0, u32::saturating_add)
    }

    pub(crate) fn succeeded(&self) -> u32 {
        self.counts
            .iter()
            .map(|c| c.succeeded)
            .fold(0, u32::saturating_add)
    }

    /// Whether clients tried; what they reach counts for more than what nodes reach.
    pub(crate) fn has_clients(&self) -> bool {
        self.counts.iter().any(|c| c.from.is_some() && c.made > 0)
    }

    /// Whether a client got through.
    pub(crate) fn reaches_clients(&self) -> bool {
        self.counts.iter().any(|c| c.from.is_some() && c.succeeded > 0)
    }

    /// Whether nothing reached a port in an IP family, by those whose word counts most.
    pub(crate) fn is_dead(&self, port: PortProtocol, family: IpFamily) -> bool {
        let of_port = || {
            self.counts
                .iter()
                .filter(|c| c.port == port && c.family == family && c.made > 0)
        };
        let clients_tried = of_port().any(|c| c.from.is_some());
        of_port()
            .filter(|c| !clients_tried || c.from.is_some())
            .all(|c| c.succeeded == 0)
    }

    /// Whether nothing reached the port of a failure, in its IP family.
    pub(crate) fn is_dead_for(&self, failed: &Failed<'_>) -> bool {
        self.is_dead(failed.dial.port, failed.family())
    }

    /// Whether only dials over one IP family failed, and those over the other were answered.
    pub(crate) fn fails_in_one_family(&self) -> Option<IpFamily> {
        let family = self.failures.first()?.family();
        let is_of_one = self.failures.iter().all(|f| f.family() == family);
        let other_works = self.counts.iter().any(|c| c.family != family && c.succeeded > 0);
        (is_of_one && other_works).then_some(family)
    }

    /// What those do who were reached, as far as it was heard: over UDP silence is all there is.
    pub(crate) fn answer(&self) -> &'static str {
        let made = || self.counts.iter().filter(|c| c.made > 0);
        match (made().any(|c| c.port.is_udp()), made().all(|c| c.port.is_udp())) {
            (false, _) => "answer",
            (true, false) => "answer, and do not refuse datagrams",
            (true, true) => "do not refuse datagrams",
        }
    }

    /// Whether nothing reached any port.
    pub(crate) fn is_all_dead(&self) -> bool {
        self.counts.iter().all(|c| self.is_dead(c.port, c.family))
    }
}

/// Whether a policy may have lost a dial: it lets packets vanish or has them rejected, and a Pod that refuses or
/// answers was reached. Through the Service all that is refused over UDP seems to come from its address, whoever
/// says so.
pub(crate) fn may_be_policy(dial: &DialFailure, answer: Answer) -> bool {
    match answer {
        Answer::TimedOut | Answer::Rejected | Answer::Unreachable => true,
        Answer::Refused => dial.port.is_udp() && dial.path != DialPath::Endpoint,
        Answer::Accepted | Answer::Reset | Answer::NoAnswer | Answer::Unexpected => false,
    }
}
