//! Where packets of a dial come in and go out.

use std::collections::BTreeSet;

use svcdiag_drops::{Leg, MAX_DROPS, Seen, Sightings};

use crate::network::{
    Alone, CLIENT, CLIENT_V6, ENDPOINT, ENDPOINT_V6, Namespace, Network, dial, filters, kernel,
};

/// Which packets were seen in which namespace, by which interface: `<` comes in, `>` goes out.
fn seen(kernel: &Alone, network: &Network, client: &str, endpoint: &str) -> BTreeSet<String> {
    let watch = Sightings::start(kernel, &filters(client, None, endpoint)).unwrap();
    dial(&network.client, endpoint);
    let Seen { packets, are_all } = watch.stop().unwrap();
    assert!(are_all && packets.len() < MAX_DROPS);
    let is_of = |namespace: &Namespace, inode| inode == Some(namespace.inode());
    packets
        .iter()
        .map(|packet| {
            let place = match packet.namespace {
                of if is_of(&network.client, of) => "client",
                of if is_of(&network.node, of) => "node",
                of if is_of(&network.endpoint, of) => "endpoint",
                _ => "elsewhere",
            };
            let way = if packet.is_sent { '>' } else { '<' };
            let what = if packet.leg == Leg::Answer {
                "answer"
            } else {
                "dial"
            };
            let interface = packet.interface.as_ref().map_or("?", |interface| &interface.name);
            format!("{what} {place} {way} {interface}")
        })
        .collect()
}

const THERE: [&str; 4] = [
    "dial client > eth0",
    "dial node < vethc",
    "dial node > vethe",
    "dial endpoint < eth0",
];
const BACK: [&str; 4] = [
    "answer endpoint > eth0",
    "answer node < vethe",
    "answer node > vethc",
    "answer client < eth0",
];

fn set<'a>(all: impl IntoIterator<Item = &'a &'a str>) -> BTreeSet<String> {
    all.into_iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn packets_are_seen_by_every_interface_there_and_back() {
    let Some(kernel) = kernel() else { return };
    let network = Network::routed();
    for (client, endpoint) in [(CLIENT, ENDPOINT), (CLIENT_V6, ENDPOINT_V6)] {
        let _listener = network.endpoint.listen(endpoint);
        assert_eq!(
            seen(&kernel, &network, client, endpoint),
            set(THERE.iter().chain(&BACK)),
            "{endpoint}"
        );
    }
}

#[test]
fn packets_are_seen_until_they_are_dropped() {
    let Some(kernel) = kernel() else { return };
    let network = Network::routed();
    let _listener = network.endpoint.listen(ENDPOINT);
    let drop = |hook: &str, port: &str| {
        network.node.nft(&format!(
            "flush ruleset; table inet filter {{ chain drops {{ type filter hook {hook} priority 0; tcp {port} 8080 drop; }}; }}"
        ));
    };
    drop("forward", "dport");
    assert_eq!(seen(&kernel, &network, CLIENT, ENDPOINT), set(&THERE[..2]));
    drop("forward", "sport");
    assert_eq!(
        seen(&kernel, &network, CLIENT, ENDPOINT),
        set(THERE.iter().chain(&BACK[..2]))
    );
}
