use std::net::SocketAddr;

use crate::{Drop, Leg};

/// What a drop means for the dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A rule or a policy of nftables or iptables, or conntrack.
    Netfilter,
    /// `net.ipv4.ip_forward` is 0.
    ForwardingDisabled,
    /// No route leads to the receiver.
    NoRoute,
    /// The sender's address is not where the route back to it leads.
    ReversePathFilter,
    /// The bridge does not send a packet back by the port that it came from: its hairpin mode is off.
    HairpinPortOff,
    /// A Pod was sent a packet with its own address as the sender's.
    HairpinNotMasqueraded,
    /// The client got the answer from the endpoint's address, which it had not dialled.
    AnswerNotTranslated,
    /// Nothing listens on the port.
    NoSocket,
    /// The process accepts connections more slowly than they come.
    AcceptQueueFull,
    /// The packet does not fit the next link, and may not be divided.
    TooBig,
    /// An eBPF program or a classifier at tc, XDP or a cgroup, such as those of Cilium.
    TrafficControl,
    /// Nobody has the receiver's address on its link.
    NeighbourFailed,
    /// Anything else, by the kernel's name.
    Unknown(String),
}

/// What a drop means for a dial of an address, as far as its reason is known to have one meaning only.
#[must_use]
pub fn explain(drop: &Drop, dialled: SocketAddr) -> Cause {
    let to_itself = drop.tuple.source.ip() == drop.tuple.destination.ip();
    let on = |prefix: &str| {
        drop.location
            .as_ref()
            .is_some_and(|function| function.starts_with(prefix))
    };
    match drop.reason.as_str() {
        "NETFILTER_DROP" => Cause::Netfilter,
        "IP_INADDRERRORS" => Cause::ForwardingDisabled,
        "IP_INNOROUTES" | "IP_OUTNOROUTES" => Cause::NoRoute,
        "IP_RPFILTER" => Cause::ReversePathFilter,
        "NOT_SPECIFIED" if to_itself && on("br_") => Cause::HairpinPortOff,
        "IP_LOCAL_SOURCE" if to_itself => Cause::HairpinNotMasqueraded,
        "NO_SOCKET" if drop.leg == Leg::Answer && drop.tuple.source != dialled => Cause::AnswerNotTranslated,
        // The client has given up, and what it dialled answers still.
        "NO_SOCKET" if drop.leg == Leg::Answer => Cause::Unknown(drop.reason.clone()),
        // A SYN cookie that has come back, to a full queue.
        "NO_SOCKET" if on("cookie_") => Cause::Unknown(drop.reason.clone()),
        "NO_SOCKET" => Cause::NoSocket,
        "TCP_LISTEN_OVERFLOW" => Cause::AcceptQueueFull,
        "PKT_TOO_BIG" => Cause::TooBig,
        "TC_INGRESS" | "TC_EGRESS" | "XDP" | "BPF_CGROUP_EGRESS" => Cause::TrafficControl,
        "NEIGH_FAILED" | "NEIGH_CREATEFAIL" | "NEIGH_DEAD" => Cause::NeighbourFailed,
        // Packets that wait for a neighbour still have an interface; those in a socket's queue have none. What a
        // client has not read when it closes a connection is an answer.
        "QUEUE_PURGE" if drop.interface.is_some() && drop.leg != Leg::Answer => Cause::NeighbourFailed,
        other => Cause::Unknown(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Interface, Tuple};
    use svcdiag_kube_proxy::Protocol;

    const SERVICE: &str = "10.96.0.1:80";

    /// What it means for a dial of the Service.
    fn explained(drop: &Drop) -> Cause {
        explain(drop, SERVICE.parse().unwrap())
    }

    fn drop(reason: &str) -> Drop {
        Drop {
            leg: Leg::ToEndpoint,
            tuple: Tuple {
                protocol: Protocol::Tcp,
                source: "10.1.0.2:40000".parse().unwrap(),
                destination: "10.1.0.3:8080".parse().unwrap(),
            },
            reason: reason.to_owned(),
            location: None,
            interface: None,
            namespace: None,
            received_by: None,
            count: 1,
        }
    }

    fn to_itself(reason: &str) -> Drop {
        let mut drop = drop(reason);
        drop.tuple.source.set_ip(drop.tuple.destination.ip());
        drop
    }

    #[test]
    fn a_reason_with_one_meaning_is_that_cause() {
        let rows = [
            ("NETFILTER_DROP", Cause::Netfilter),
            ("IP_INADDRERRORS", Cause::ForwardingDisabled),
            ("IP_INNOROUTES", Cause::NoRoute),
            ("IP_RPFILTER", Cause::ReversePathFilter),
            ("NO_SOCKET", Cause::NoSocket),
            ("TCP_LISTEN_OVERFLOW", Cause::AcceptQueueFull),
            ("PKT_TOO_BIG", Cause::TooBig),
            ("TC_INGRESS", Cause::TrafficControl),
            ("TC_EGRESS", Cause::TrafficControl),
            ("NEIGH_FAILED", Cause::NeighbourFailed),
        ];
        for (reason, cause) in rows {
            assert_eq!(explained(&drop(reason)), cause, "{reason}");
        }
    }

    #[test]
    fn reasons_that_nobody_knows_keep_their_name() {
        for reason in ["NOT_SPECIFIED", "QUEUE_PURGE", "IP_LOCAL_SOURCE", "OPENVSWITCH 3"] {
            assert_eq!(explained(&drop(reason)), Cause::Unknown(reason.to_owned()));
        }
    }

    #[test]
    fn a_bridge_that_drops_without_a_reason_means_hairpin_only_for_a_packet_to_its_sender() {
        let on_bridge = |drop| Drop {
            location: Some("br_handle_frame_finish".to_owned()),
            ..drop
        };
        assert_eq!(
            explained(&on_bridge(to_itself("NOT_SPECIFIED"))),
            Cause::HairpinPortOff
        );
        let unknown = Cause::Unknown("NOT_SPECIFIED".to_owned());
        assert_eq!(explained(&on_bridge(drop("NOT_SPECIFIED"))), unknown);
        assert_eq!(explained(&to_itself("NOT_SPECIFIED")), unknown);
    }

    #[test]
    fn a_sender_with_the_receivers_address_was_not_masqueraded() {
        assert_eq!(
            explained(&to_itself("IP_LOCAL_SOURCE")),
            Cause::HairpinNotMasqueraded
        );
    }

    fn answer(reason: &str) -> Drop {
        let mut answer = drop(reason);
        std::mem::swap(&mut answer.tuple.source, &mut answer.tuple.destination);
        answer.leg = Leg::Answer;
        answer
    }

    #[test]
    fn an_answer_from_an_address_that_was_not_dialled_was_not_translated() {
        assert_eq!(explained(&answer("NO_SOCKET")), Cause::AnswerNotTranslated);
    }

    #[test]
    fn an_answer_from_the_address_that_was_dialled_came_late() {
        let answer = answer("NO_SOCKET");
        let unknown = Cause::Unknown("NO_SOCKET".to_owned());
        assert_eq!(explain(&answer, answer.tuple.source), unknown);
    }

    #[test]
    fn a_cookie_that_finds_no_room_is_no_closed_port() {
        let cookie = Drop {
            location: Some("cookie_v4_check".to_owned()),
            ..drop("NO_SOCKET")
        };
        assert_eq!(explained(&cookie), Cause::Unknown("NO_SOCKET".to_owned()));
    }

    #[test]
    fn a_queue_is_a_neighbours_only_while_its_packets_have_an_interface() {
        let waiting = |drop| Drop {
            interface: Some(Interface {
                index: 2,
                name: "eth0".to_owned(),
            }),
            ..drop
        };
        assert_eq!(explained(&waiting(drop("QUEUE_PURGE"))), Cause::NeighbourFailed);
        let unread = Cause::Unknown("QUEUE_PURGE".to_owned());
        assert_eq!(explained(&waiting(answer("QUEUE_PURGE"))), unread);
    }
}
