//! Packets of full size on the real kernel: what becomes of single ones, and what rounds report of a path.

use std::{net::IpAddr, time::Duration};

use svcdiag::{
    agent::packet_size::{Fate, Packets, known_mtu, of_tcp, send},
    api::{LinkRole, PacketSize, ProbePath},
    netns::Netns,
};

use super::{
    namespace::{Cable, inside, must, nft, run, shell},
    rounds::Rounds,
    test_cluster::TestCluster,
};

const PATIENCE: Duration = Duration::from_millis(500);

async fn sent(from: &Netns, to: &str, size: u16) -> Fate {
    let packets = Packets {
        size,
        copies: 1,
        patience: PATIENCE,
    };
    must(send(from, to.parse().unwrap(), packets).await)
}

/// Sends packets until one arrives: over IPv6 a new link needs a moment, and the kernel sends six messages at once and then
/// one a second.
async fn arrives(from: &Netns, to: &str, size: u16) {
    for _ in 0..8 {
        if sent(from, to, size).await == Fate::Arrived {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
    panic!("{to} does not answer to {size} bytes");
}

#[tokio::test]
async fn whoever_gets_a_packet_says_so_over_both_families() {
    let cable = Cable::new();
    for to in ["10.1.0.2", "fd01::2"] {
        // What the link itself does not take the kernel sends in fragments; TCP never sends so much.
        for size in [80, 1300, 1500, 1501] {
            arrives(&cable.client, to, size).await;
        }
        let ip: IpAddr = to.parse().unwrap();
        assert_eq!(must(known_mtu(&cable.client, ip).await), 1500);
    }
    assert_eq!(of_tcp(1460, "10.1.0.2".parse().unwrap()), 1500);
    assert_eq!(of_tcp(1440, "fd01::2".parse().unwrap()), 1500);
}

#[tokio::test]
async fn silence_and_those_who_turn_packets_away_are_told_apart() {
    let cable = Cable::new();
    nft(
        &cable.server,
        "table inet filter { chain in { type filter hook input priority 0; meta length > 1400 drop; }; }",
    );
    for to in ["10.1.0.2", "fd01::2"] {
        arrives(&cable.client, to, 1400).await;
        assert_eq!(sent(&cable.client, to, 1401).await, Fate::Silent, "{to}");
    }
    // Somebody who is not there: the client hears it from itself.
    assert_ne!(sent(&cable.client, "10.1.0.77", 80).await, Fate::Arrived);
    // A node that has no route to there.
    assert_eq!(sent(&cable.client, "10.2.0.1", 80).await, Fate::TurnedAway);
}

/// Packets of full size are tried from the first client to the first endpoint, as if that were on another node.
fn new_rounds() -> Rounds {
    let cluster = TestCluster::new();
    let mut spec = cluster.spec();
    spec.full_size_paths = vec![ProbePath {
        from: cluster.clients[0].key(),
        to: cluster.endpoints[0].ip(),
        node: "n2".to_owned(),
    }];
    // How many packets are sent, and how large those are that are lost is seen on the node.
    nft(
        &cluster.node,
        "table inet count { chain forward { type filter hook forward priority -10; udp dport 33434 counter; }; }",
    );
    Rounds::of(cluster, spec)
}

impl Rounds {
    /// What the next round reports of packets of full size.
    async fn packet_sizes(&self) -> Vec<PacketSize> {
        let facts = self.next().await;
        assert_eq!(facts.probes_failed, 0, "{facts:#?}");
        facts.packet_sizes
    }

    /// Packets that were forwarded to the port by which sizes are tried.
    fn packets(&self) -> usize {
        let listed = inside(&self.cluster.node, || shell("nft list table inet count"));
        let (_, counted) = listed.split_once("packets ").unwrap();
        counted.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Loses packets of more than 1400 bytes on the node.
    fn lose_large(&self) {
        nft(
            &self.cluster.node,
            "table inet hole { chain forward { type filter hook forward priority 0; meta length > 1400 drop; }; }",
        );
    }
}

#[tokio::test]
async fn a_path_that_is_well_costs_two_packets_and_after_a_change_two_more() {
    let mut rounds = new_rounds();
    for _ in 0..3 {
        assert_eq!(rounds.packet_sizes().await, []);
        assert_eq!(rounds.packets(), 2);
    }
    rounds.spec.revision = "2".to_owned();
    assert_eq!(rounds.packet_sizes().await, []);
    assert_eq!(rounds.packets(), 4);
}

#[tokio::test]
async fn packets_that_are_lost_for_their_size_are_reported_until_that_is_fixed() {
    let rounds = new_rounds();
    rounds.lose_large();
    // One that is lost may be chance.
    assert_eq!(rounds.packet_sizes().await, []);
    let [lost] = &rounds.packet_sizes().await[..] else {
        panic!("nothing is reported")
    };
    assert_eq!(
        (&lost.from, &lost.to),
        (
            &rounds.cluster.clients[0].key(),
            &rounds.cluster.endpoints[0].ip()
        )
    );
    assert_eq!((lost.passes, lost.fails), (1400, 1500));
    // The node has no bridge, no tunnel, and its address on the loopback.
    let links: Vec<_> = lost
        .links
        .iter()
        .map(|l| (l.role, l.name.as_str(), l.mtu))
        .collect();
    assert_eq!(links, [(LinkRole::Pod, "eth0", 1500)]);
    let before = rounds.packets();
    assert_eq!(rounds.packet_sizes().await, std::slice::from_ref(lost));
    assert_eq!(rounds.packets(), before + 4);
    inside(&rounds.cluster.node, || run("nft delete table inet hole"));
    assert_eq!(rounds.packet_sizes().await, []);
}

#[tokio::test]
async fn a_node_that_says_that_packets_are_too_large_is_well() {
    let rounds = new_rounds();
    let link = rounds.cluster.endpoints[0].link();
    inside(&rounds.cluster.node, || {
        run(&format!("ip link set {link} mtu 1400"))
    });
    for _ in 0..3 {
        assert_eq!(rounds.packet_sizes().await, []);
    }
    // A small one, one of full size, and one of the size that the node names.
    assert!((2..=3).contains(&rounds.packets()), "{}", rounds.packets());
}

#[tokio::test]
async fn a_firewall_that_has_tcp_send_smaller_packets_makes_up_for_those_that_are_lost() {
    let rounds = new_rounds();
    rounds.lose_large();
    nft(
        &rounds.cluster.node,
        "table inet clamp { chain forward { type filter hook forward priority -150; tcp flags syn tcp option maxseg size set 1360; }; }",
    );
    for _ in 0..3 {
        assert_eq!(rounds.packet_sizes().await, []);
    }
    assert_eq!(rounds.packets(), 2);
}

#[tokio::test]
async fn a_client_whose_tcp_looks_for_the_size_itself_is_well() {
    let rounds = new_rounds();
    rounds.lose_large();
    let pid = rounds.cluster.clients[0].pid();
    shell(&format!(
        "nsenter -t {pid} -n sh -c 'echo 1 > /proc/sys/net/ipv4/tcp_mtu_probing'"
    ));
    for _ in 0..3 {
        assert_eq!(rounds.packet_sizes().await, []);
    }
    assert_eq!(rounds.packets(), 0);
}

#[tokio::test]
async fn a_filter_of_icmp_messages_by_their_size_loses_no_packets() {
    let rounds = new_rounds();
    nft(
        &rounds.cluster.node,
        "table inet answers { chain forward { type filter hook forward priority 0; ip protocol icmp meta length > 500 drop; }; }",
    );
    for _ in 0..3 {
        assert_eq!(rounds.packet_sizes().await, []);
    }
}

#[tokio::test]
async fn where_no_message_comes_back_nothing_is_known_and_the_node_is_left_alone() {
    let mut rounds = new_rounds();
    rounds.lose_large();
    nft(
        &rounds.cluster.node,
        "table inet quiet { chain forward { type filter hook forward priority -150; ip protocol icmp drop; }; }",
    );
    for _ in 0..3 {
        assert_eq!(rounds.packet_sizes().await, []);
    }
    let before = rounds.packets();
    assert_eq!(before, 6);
    rounds.spec.revision = "2".to_owned();
    assert_eq!(rounds.packet_sizes().await, []);
    assert_eq!(rounds.packets(), before);
}

#[tokio::test]
async fn packets_of_full_size_go_only_where_they_are_asked_for() {
    let mut rounds = new_rounds();
    let asked = rounds.spec.full_size_paths[0].clone();
    let of = |from: &str, to: &str| ProbePath {
        from: from.to_owned(),
        to: to.to_owned(),
        node: "n2".to_owned(),
    };
    for paths in [
        Vec::new(),
        // No client; an address that is no endpoint's, or of no Pod at all.
        vec![of("shop/pod-99", &asked.to)],
        vec![of(&asked.from, &rounds.cluster.clients[1].ip())],
        vec![
            of(&asked.from, "10.244.1.1"),
            of(&asked.from, "127.0.0.1"),
            of(&asked.from, "x"),
        ],
    ] {
        rounds.spec.full_size_paths = paths;
        assert_eq!(rounds.packet_sizes().await, []);
        assert_eq!(rounds.packets(), 0);
    }
    // From a Pod on the network of the node nothing is tried either.
    rounds.spec.full_size_paths = vec![asked];
    rounds.spec.clients[0].host_network = true;
    assert_eq!(rounds.next().await.packet_sizes, []);
    assert_eq!(rounds.packets(), 0);
}
