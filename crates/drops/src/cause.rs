use std::net::SocketAddr;

use svcdiag_api::DropCause;

use crate::{Drop, Leg};

/// What a drop means for a dial of an address. Nothing where the kernel's reason may mean this and that, or that the
/// port is closed, which the answer itself says.
#[must_use]
pub fn explain(drop: &Drop, dialled: SocketAddr) -> Option<DropCause> {
    let to_itself = drop.tuple.source.ip() == drop.tuple.destination.ip();
    let on = |prefix: &str| {
        drop.location
            .as_ref()
            .is_some_and(|function| function.starts_with(prefix))
    };
    Some(match drop.reason.as_str() {
        // Conntrack drops for this as well.
        "NETFILTER_DROP" => DropCause::Firewall,
        "IP_INADDRERRORS" => DropCause::ForwardingDisabled,
        "IP_INNOROUTES" | "IP_OUTNOROUTES" => DropCause::NoRoute,
        "IP_RPFILTER" => DropCause::ReversePathFilter,
        "NOT_SPECIFIED" if to_itself && on("br_") => DropCause::HairpinPortOff,
        "IP_LOCAL_SOURCE" if to_itself => DropCause::HairpinNotMasqueraded,
        // From what was dialled it means that the client has given up, and that this answers still.
        "NO_SOCKET" if drop.leg == Leg::Answer && drop.tuple.source != dialled => {
            DropCause::AnswerNotTranslated
        }
        "TCP_LISTEN_OVERFLOW" => DropCause::AcceptQueueFull,
        "IP_CSUM" | "TCP_CSUM" | "UDP_CSUM" | "SKB_CSUM" => DropCause::BadChecksum,
        "PKT_TOO_BIG" => DropCause::TooBig,
        "TC_INGRESS" | "TC_EGRESS" | "XDP" | "BPF_CGROUP_EGRESS" => DropCause::TrafficControl,
        "NEIGH_FAILED" | "NEIGH_CREATEFAIL" | "NEIGH_DEAD" => DropCause::NeighbourFailed,
        // Packets that wait for a neighbour still have an interface; those in a socket's queue have none. What a
        // client has not read when it closes a connection is an answer.
        "QUEUE_PURGE" if drop.interface.is_some() && drop.leg != Leg::Answer => DropCause::NeighbourFailed,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Interface, Tuple};
    use svcdiag_kube_proxy::Protocol;

    const SERVICE: &str = "10.96.0.1:80";

    /// What it means for a dial of the Service.
    fn explained(drop: &Drop) -> Option<DropCause> {
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
            ("NETFILTER_DROP", DropCause::Firewall),
            ("IP_INADDRERRORS", DropCause::ForwardingDisabled),
            ("IP_INNOROUTES", DropCause::NoRoute),
            ("IP_RPFILTER", DropCause::ReversePathFilter),
            ("TCP_LISTEN_OVERFLOW", DropCause::AcceptQueueFull),
            ("TCP_CSUM", DropCause::BadChecksum),
            ("UDP_CSUM", DropCause::BadChecksum),
            ("PKT_TOO_BIG", DropCause::TooBig),
            ("TC_INGRESS", DropCause::TrafficControl),
            ("TC_EGRESS", DropCause::TrafficControl),
            ("NEIGH_FAILED", DropCause::NeighbourFailed),
        ];
        for (reason, cause) in rows {
            assert_eq!(explained(&drop(reason)), Some(cause), "{reason}");
        }
    }

    #[test]
    fn reasons_with_no_or_many_meanings_are_none() {
        for reason in [
            "NOT_SPECIFIED",
            "QUEUE_PURGE",
            "IP_LOCAL_SOURCE",
            "NO_SOCKET",
            "OPENVSWITCH 3",
        ] {
            assert_eq!(explained(&drop(reason)), None);
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
            Some(DropCause::HairpinPortOff)
        );
        assert_eq!(explained(&on_bridge(drop("NOT_SPECIFIED"))), None);
        assert_eq!(explained(&to_itself("NOT_SPECIFIED")), None);
    }

    #[test]
    fn a_sender_with_the_receivers_address_was_not_masqueraded() {
        assert_eq!(
            explained(&to_itself("IP_LOCAL_SOURCE")),
            Some(DropCause::HairpinNotMasqueraded)
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
        assert_eq!(
            explained(&answer("NO_SOCKET")),
            Some(DropCause::AnswerNotTranslated)
        );
    }

    #[test]
    fn an_answer_from_the_address_that_was_dialled_came_late() {
        let answer = answer("NO_SOCKET");
        assert_eq!(explain(&answer, answer.tuple.source), None);
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
        assert_eq!(
            explained(&waiting(drop("QUEUE_PURGE"))),
            Some(DropCause::NeighbourFailed)
        );
        assert_eq!(explained(&waiting(answer("QUEUE_PURGE"))), None);
    }
}
