//! Faults between two networks lead to their reason, place, interface and namespace.

use std::{
    io::Write,
    net::{TcpStream, UdpSocket},
    process::Command,
    time::{Duration, Instant},
};

use nix::sys::socket::{Backlog, listen};
use svcdiag_api::DropCause;
use svcdiag_drops::{Drop, Filter, Leg, MAX_DROPS, Tuple, Watch, explain};
use svcdiag_kube_proxy::Protocol;

use crate::{
    classifier::Classifier,
    expected::{Expected, check},
    network::{CLIENT, CLIENT_V6, ENDPOINT, ENDPOINT_V6, Network, dial, filters, kernel, skip, watched},
};

/// A dial of the endpoint through the routing node, which has to fail.
#[track_caller]
fn fails_between_networks(fault: impl FnOnce(&Network), expected: impl FnOnce(&Network) -> Expected<'_>) {
    let Some(kernel) = kernel() else { return };
    let network = Network::routed();
    let _listener = network.endpoint.listen(ENDPOINT);
    let _other = network.endpoint.listen(OTHER_PORT);
    assert!(dial(&network.client, OTHER_PORT), "a healthy network");
    fault(&network);
    let drops = watched(&kernel, &filters(CLIENT, None, ENDPOINT), || {
        assert!(!dial(&network.client, ENDPOINT), "the fault does not show");
    });
    check(&drops, &expected(&network));
}

/// Of the endpoint, so that no late packet of a healthy dial is among those that are watched.
const OTHER_PORT: &str = "10.2.0.2:8090";
const OTHER_PORT_V6: &str = "[fd02::2]:8090";

const DROP_8080: &str =
    "table inet filter { chain drops { type filter hook HOOK priority 0; tcp dport 8080 drop; }; }";

#[test]
fn a_rule_of_nftables_on_the_node() {
    fails_between_networks(
        |network| network.node.nft(&DROP_8080.replace("HOOK", "forward")),
        |network| Expected {
            leg: Leg::ToEndpoint,
            cause: Some(DropCause::Firewall),
            reason: "NETFILTER_DROP",
            location: "nft_do_chain",
            interface: Some("vethc"),
            namespace: &network.node,
            dialled: ENDPOINT,
        },
    );
}

#[test]
fn a_rule_of_nftables_on_the_node_that_drops_the_answer() {
    fails_between_networks(
        |network| {
            network
                .node
                .nft(&DROP_8080.replace("HOOK", "forward").replace("dport", "sport"))
        },
        |network| Expected {
            leg: Leg::Answer,
            cause: Some(DropCause::Firewall),
            reason: "NETFILTER_DROP",
            location: "nft_do_chain",
            interface: Some("vethe"),
            namespace: &network.node,
            dialled: ENDPOINT,
        },
    );
}

#[test]
fn the_policy_of_iptables_legacy_on_the_node() {
    if Command::new("iptables-legacy").arg("--version").output().is_err() {
        return skip("iptables-legacy is missing");
    }
    fails_between_networks(
        |network| network.node.run("iptables-legacy -P FORWARD DROP"),
        |network| Expected {
            leg: Leg::ToEndpoint,
            cause: Some(DropCause::Firewall),
            reason: "NETFILTER_DROP",
            location: "nf_hook_slow",
            interface: Some("vethc"),
            namespace: &network.node,
            dialled: ENDPOINT,
        },
    );
}

#[test]
fn a_rule_in_the_pod_itself() {
    fails_between_networks(
        |network| network.endpoint.nft(&DROP_8080.replace("HOOK", "input")),
        |network| Expected {
            leg: Leg::ToEndpoint,
            cause: Some(DropCause::Firewall),
            reason: "NETFILTER_DROP",
            location: "nft_do_chain",
            interface: Some("eth0"),
            namespace: &network.endpoint,
            dialled: ENDPOINT,
        },
    );
}

#[test]
fn forwarding_is_off() {
    fails_between_networks(
        |network| network.node.run("sysctl -qw net.ipv4.ip_forward=0"),
        |network| Expected {
            leg: Leg::ToEndpoint,
            cause: Some(DropCause::ForwardingDisabled),
            reason: "IP_INADDRERRORS",
            location: "ip_error",
            interface: Some("vethc"),
            namespace: &network.node,
            dialled: ENDPOINT,
        },
    );
}

#[test]
fn the_node_has_no_route() {
    fails_between_networks(
        |network| network.node.run("ip route del 10.2.0.0/24"),
        |network| Expected {
            leg: Leg::ToEndpoint,
            cause: Some(DropCause::NoRoute),
            reason: "IP_INNOROUTES",
            location: "ip_error",
            interface: Some("vethc"),
            namespace: &network.node,
            dialled: ENDPOINT,
        },
    );
}

#[test]
fn a_wrong_checksum() {
    fails_between_networks(
        |network| {
            // What the link was to finish is begun wrongly, and the link no longer finishes it.
            network.client.run("ethtool -K eth0 tx off >&2");
            network.client.nft(
                "table inet mangle { chain out { type filter hook output priority 0; tcp dport 8080 tcp checksum set 0x1234; }; }",
            );
        },
        |network| Expected {
            leg: Leg::ToEndpoint,
            cause: Some(DropCause::BadChecksum),
            reason: "TCP_CSUM",
            location: "tcp_v4_rcv",
            interface: Some("eth0"),
            namespace: &network.endpoint,
            dialled: ENDPOINT,
        },
    );
}

#[test]
fn the_reverse_path_filter() {
    fails_between_networks(
        |network| {
            network.node.run(
                "sysctl -qw net.ipv4.conf.vethc.rp_filter=1
                 ip route add 10.1.0.2/32 dev vethe",
            );
        },
        |network| Expected {
            leg: Leg::ToEndpoint,
            cause: Some(DropCause::ReversePathFilter),
            reason: "IP_RPFILTER",
            location: "ip_rcv_finish_core",
            interface: Some("vethc"),
            namespace: &network.node,
            dialled: ENDPOINT,
        },
    );
}

#[test]
fn tc_drops_what_comes_in() {
    let mut program = None;
    fails_between_networks(
        |network| program = Some(Classifier::attach(&network.node, "vethc", Classifier::INGRESS)),
        |network| Expected {
            leg: Leg::ToEndpoint,
            cause: Some(DropCause::TrafficControl),
            reason: "TC_INGRESS",
            location: "__netif_receive_skb_core.constprop.0",
            interface: Some("vethc"),
            namespace: &network.node,
            dialled: ENDPOINT,
        },
    );
}

#[test]
fn tc_drops_what_goes_out() {
    let mut program = None;
    fails_between_networks(
        |network| program = Some(Classifier::attach(&network.node, "vethe", Classifier::EGRESS)),
        |network| Expected {
            leg: Leg::ToEndpoint,
            cause: Some(DropCause::TrafficControl),
            reason: "TC_EGRESS",
            location: "__dev_queue_xmit",
            interface: Some("vethe"),
            namespace: &network.node,
            dialled: ENDPOINT,
        },
    );
}

#[test]
fn nothing_listens() {
    let Some(kernel) = kernel() else { return };
    let network = Network::routed();
    let drops = watched(&kernel, &filters(CLIENT, None, ENDPOINT), || {
        assert!(!dial(&network.client, ENDPOINT));
    });
    let expected = Expected {
        leg: Leg::ToEndpoint,
        cause: None,
        reason: "NO_SOCKET",
        location: "tcp_v4_rcv",
        interface: Some("eth0"),
        namespace: &network.endpoint,
        dialled: ENDPOINT,
    };
    check(&drops, &expected);
}

#[test]
fn over_ipv6_a_rule_and_a_port_where_nothing_listens() {
    let Some(kernel) = kernel() else { return };
    let network = Network::routed();
    // Links get the addresses by which they find neighbours a little later.
    let _other = network.endpoint.listen(OTHER_PORT_V6);
    assert!(
        (0..10).any(|_| dial(&network.client, OTHER_PORT_V6)),
        "a healthy network"
    );
    let dialled = || {
        watched(&kernel, &filters(CLIENT_V6, None, ENDPOINT_V6), || {
            assert!(!dial(&network.client, ENDPOINT_V6));
        })
    };
    let closed = Expected {
        leg: Leg::ToEndpoint,
        cause: None,
        reason: "NO_SOCKET",
        location: "tcp_v6_rcv",
        interface: Some("eth0"),
        namespace: &network.endpoint,
        dialled: ENDPOINT_V6,
    };
    check(&dialled(), &closed);
    network.node.nft(&DROP_8080.replace("HOOK", "forward"));
    let dropped = Expected {
        leg: Leg::ToEndpoint,
        cause: Some(DropCause::Firewall),
        reason: "NETFILTER_DROP",
        location: "nft_do_chain",
        interface: Some("vethc"),
        namespace: &network.node,
        dialled: ENDPOINT_V6,
    };
    check(&dialled(), &dropped);
}

#[test]
fn nobody_has_the_endpoints_address() {
    const NOBODY: &str = "10.2.0.9:8080";
    let Some(kernel) = kernel() else { return };
    let network = Network::routed();
    // One question instead of three, each of which takes a second.
    network
        .node
        .run("sysctl -qw net.ipv4.neigh.vethe.mcast_solicit=1");
    let drops = watched(&kernel, &filters(CLIENT, None, NOBODY), || {
        assert!(!dial(&network.client, NOBODY));
        std::thread::sleep(Duration::from_secs(2));
    });
    let expected = Expected {
        leg: Leg::ToEndpoint,
        cause: Some(DropCause::NeighbourFailed),
        reason: "NEIGH_FAILED",
        location: "neigh_invalidate",
        interface: Some("vethe"),
        namespace: &network.node,
        dialled: NOBODY,
    };
    check(&drops, &expected);
}

/// The ACK of the first of four connections is late, and the others leave no room for it.
#[test]
fn the_accept_queue_is_full_when_a_handshake_ends() {
    let Some(kernel) = kernel() else { return };
    let network = Network::routed();
    let listener = network.endpoint.listen(ENDPOINT);
    // Room for one more than it says.
    listen(&listener, Backlog::new(2).unwrap()).unwrap();
    let connect = || network.client.inside(|| TcpStream::connect(ENDPOINT).unwrap());
    let drops = watched(&kernel, &filters(CLIENT, None, ENDPOINT), || {
        network.node.nft(
            "table inet late { chain acks { type filter hook prerouting priority 0;
               tcp dport 8080 tcp flags & (syn | ack) == ack drop; }; }",
        );
        let _late = connect();
        network.node.run("nft delete table inet late");
        let _others = [connect(), connect(), connect()];
        // The endpoint asks for the ACK again after a second.
        std::thread::sleep(Duration::from_millis(1500));
    });
    let late = |drop: &Drop| drop.namespace == Some(network.node.inode());
    let drops: Vec<Drop> = drops.into_iter().filter(|drop| !late(drop)).collect();
    let expected = Expected {
        leg: Leg::ToEndpoint,
        cause: Some(DropCause::AcceptQueueFull),
        reason: "TCP_LISTEN_OVERFLOW",
        location: "tcp_v4_rcv",
        interface: Some("eth0"),
        namespace: &network.endpoint,
        dialled: ENDPOINT,
    };
    check(&drops, &expected);
}

/// The kernel frees a SYN for which there is no room as one that was used.
#[test]
fn the_accept_queue_is_full_when_handshakes_begin_which_the_kernel_calls_no_drop() {
    let Some(kernel) = kernel() else { return };
    let network = Network::routed();
    let listener = network.endpoint.listen(ENDPOINT);
    listen(&listener, Backlog::new(1).unwrap()).unwrap();
    let target = ENDPOINT.parse().unwrap();
    let connect = || TcpStream::connect_timeout(&target, Duration::from_millis(500));
    let drops = watched(&kernel, &filters(CLIENT, None, ENDPOINT), || {
        network.client.inside(|| {
            let waiting: Vec<_> = (0..4).map(|_| connect()).collect();
            assert!(waiting.iter().any(Result::is_err), "the queue is not full");
        });
    });
    let is_full = |drop: &Drop| explain(drop, target) == Some(DropCause::AcceptQueueFull);
    assert!(drops.iter().all(is_full), "{drops:?}");
}

#[test]
fn a_packet_is_too_big_for_the_next_link() {
    const TARGET: &str = "10.2.0.2:5353";
    let Some(kernel) = kernel() else { return };
    let network = Network::routed();
    network.node.run("ip link set vethe mtu 1300");
    let filter = Filter {
        leg: Leg::ToEndpoint,
        tuple: Tuple {
            protocol: Protocol::Udp,
            source: format!("{CLIENT}:40053").parse().unwrap(),
            destination: TARGET.parse().unwrap(),
        },
    };
    let drops = watched(&kernel, &[filter], || {
        network.client.inside(|| {
            let send = |from: &str, length: usize| {
                // Linux forbids to divide datagrams that fit the sender's own link.
                let socket = UdpSocket::bind(from).unwrap();
                socket.send_to(&vec![0; length], TARGET).unwrap();
            };
            // The other is dropped as well, and is not what is watched. After the first that is refused the
            // sender knows better and divides.
            send("0.0.0.0:40054", 1400);
            network.client.run("ip route flush cache");
            send("0.0.0.0:40053", 1400);
        });
        std::thread::sleep(Duration::from_millis(100));
    });
    let [drop] = &drops[..] else { panic!("{drops:?}") };
    assert_eq!((drop.tuple, drop.count), (filter.tuple, 1));
    let expected = Expected {
        leg: Leg::ToEndpoint,
        cause: Some(DropCause::TooBig),
        reason: "PKT_TOO_BIG",
        location: "ip_forward",
        interface: Some("vethc"),
        namespace: &network.node,
        dialled: TARGET,
    };
    check(&drops, &expected);
}

/// Where datagrams go that the node drops.
const DNS: &str = "10.2.0.2:5353";

/// A node that drops them, and what to watch for.
fn questions_dropped() -> (Network, Filter) {
    let network = Network::routed();
    network.node.nft(
        &DROP_8080
            .replace("HOOK", "forward")
            .replace("tcp dport 8080", "udp dport 5353"),
    );
    let mut filter = filters(CLIENT, None, DNS)[0];
    filter.tuple.protocol = Protocol::Udp;
    (network, filter)
}

#[test]
fn packets_that_are_dropped_alike_are_counted_together() {
    let Some(kernel) = kernel() else { return };
    let (network, filter) = questions_dropped();
    let drops = watched(&kernel, &[filter], || {
        network.client.inside(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for _ in 0..5 {
                socket.send_to(b"question", DNS).unwrap();
            }
        });
        std::thread::sleep(Duration::from_millis(100));
    });
    let counts: Vec<u64> = drops.iter().map(|drop| drop.count).collect();
    assert_eq!(counts, [5]);
}

#[test]
fn of_more_different_drops_than_there_is_room_for_the_first_are_counted() {
    let Some(kernel) = kernel() else { return };
    let (network, filter) = questions_dropped();
    let watch = Watch::start(&kernel, &[filter]).unwrap();
    network.client.inside(|| {
        // Each has a port of its own.
        for port in (10_000..).take(MAX_DROPS + 100) {
            let socket = UdpSocket::bind(("0.0.0.0", port)).unwrap();
            socket.send_to(b"question", DNS).unwrap();
        }
    });
    std::thread::sleep(Duration::from_millis(100));
    let begin = Instant::now();
    let drops = watch.stop().unwrap();
    let _ = writeln!(
        std::io::stderr(),
        "{MAX_DROPS} drops take {:?} to read",
        begin.elapsed()
    );
    assert_eq!(drops.len(), MAX_DROPS);
}
