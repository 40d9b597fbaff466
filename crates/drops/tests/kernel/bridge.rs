//! Faults of a node with a bridge: hairpin, and answers that netfilter does not see.

use svcdiag_api::DropCause;
use svcdiag_drops::Leg;

use crate::{
    expected::{Expected, check},
    network::{BRIDGED_ENDPOINT, CLIENT, Network, SERVICE, dial, filters, kernel, skip, watched},
};

#[test]
fn the_bridges_port_does_not_send_back() {
    let Some((kernel, network)) = kernel().zip(bridge_with_rules(true)) else {
        return;
    };
    let drops = watched(
        &kernel,
        &filters("10.1.0.3", Some(SERVICE), BRIDGED_ENDPOINT),
        || {
            assert!(!dial(&network.endpoint, SERVICE));
        },
    );
    let expected = Expected {
        leg: Leg::ToEndpoint,
        cause: Some(DropCause::HairpinPortOff),
        reason: "NOT_SPECIFIED",
        location: "br_handle_frame_finish",
        interface: Some("vethe"),
        namespace: &network.node,
        dialled: SERVICE,
    };
    check(&drops, &expected);
}

#[test]
fn a_pod_is_sent_its_own_packet_without_masquerade() {
    let Some((kernel, network)) = kernel().zip(bridge_with_rules(true)) else {
        return;
    };
    network.node.run("ip link set vethe type bridge_slave hairpin on");
    let drops = watched(
        &kernel,
        &filters("10.1.0.3", Some(SERVICE), BRIDGED_ENDPOINT),
        || {
            assert!(!dial(&network.endpoint, SERVICE));
        },
    );
    let expected = Expected {
        leg: Leg::ToEndpoint,
        cause: Some(DropCause::HairpinNotMasqueraded),
        reason: "IP_LOCAL_SOURCE",
        location: "ip_rcv_finish_core",
        interface: Some("eth0"),
        namespace: &network.endpoint,
        dialled: SERVICE,
    };
    check(&drops, &expected);
}

#[test]
fn the_bridge_does_not_translate_the_answer() {
    let Some((kernel, network)) = kernel().zip(bridge_with_rules(false)) else {
        return;
    };
    let _listener = network.endpoint.listen(BRIDGED_ENDPOINT);
    let drops = watched(&kernel, &filters(CLIENT, Some(SERVICE), BRIDGED_ENDPOINT), || {
        assert!(!dial(&network.client, SERVICE));
    });
    // The client refuses the answer, and the endpoint has a socket for the refusal.
    let expected = Expected {
        leg: Leg::Answer,
        cause: Some(DropCause::AnswerNotTranslated),
        reason: "NO_SOCKET",
        location: "tcp_v4_rcv",
        interface: Some("eth0"),
        namespace: &network.client,
        dialled: SERVICE,
    };
    check(&drops, &expected);
}

/// A node with a bridge whose packets netfilter sees, or does not.
fn bridge_with_rules(seen: bool) -> Option<Network> {
    if !std::path::Path::new("/proc/sys/net/bridge").exists() {
        skip("br_netfilter is not loaded");
        return None;
    }
    let network = Network::bridged();
    let value = u8::from(seen);
    network
        .node
        .run(&format!("sysctl -qw net.bridge.bridge-nf-call-iptables={value}"));
    Some(network)
}
