//! Which rule dropped the packets of a dial, as a round reports it from the real kernel; and which it must not name.

use std::{
    fmt::Write,
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use svcdiag::{
    api::{DropPlace, Dropper, DropperEvidence, FilterFamily, FilterHook, FilterTool, NodeFacts, PacketDrop},
    netns::Netns,
};

use super::{
    drops::{drop_at, of_direct_dial, round},
    namespace::{inside, nft, run},
    test_cluster::TestCluster,
};

/// The only one that is named of a drop.
#[track_caller]
fn named(drop: &PacketDrop) -> &Dropper {
    let [dropper] = &drop.droppers[..] else {
        panic!("{drop:#?}")
    };
    dropper
}

/// Packets to the first endpoint's port.
fn to_first(cluster: &TestCluster) -> String {
    format!("ip daddr {} tcp dport 9376", cluster.endpoints[0].ip())
}

/// A firewall that has much to say, and lets the Pods through.
fn lookalikes(cluster: &TestCluster) {
    nft(
        &cluster.node,
        "table inet firewalld {
           chain filter_PREROUTING { type filter hook prerouting priority 10; meta nfproto ipv6 fib saddr . mark . iif oif missing drop; }
           chain filter_FORWARD {
             type filter hook forward priority 10; policy accept;
             ct state { established, related } accept
             ct state invalid drop
             jump filter_FORWARD_ZONES
             reject with icmpx admin-prohibited
           }
           chain filter_FORWARD_ZONES { ip saddr 10.244.0.0/16 accept; ip daddr 10.244.0.0/16 accept; }
         }
         table inet hand_made {
           set blocked { type ipv4_addr; flags interval; elements = { 192.0.2.0/24, 198.51.100.7 }; }
           chain forward {
             type filter hook forward priority 20; policy drop;
             ip saddr @blocked drop
             ip daddr { 192.0.2.1, 192.0.2.128/25 } drop
             ip daddr . tcp dport vmap { 192.0.2.1 . 9376 : drop, 192.0.2.2 . 80 : accept }
             ct state vmap { established : accept, related : accept, invalid : drop }
             ip saddr 10.244.0.0/16 accept
           }
           chain output { type filter hook output priority 0; ip daddr 192.0.2.1 drop; }
           chain input { type filter hook input priority 0; tcp dport { 22, 23 } drop; }
         }",
    );
}

#[tokio::test]
async fn a_rule_with_a_counter_is_named_by_it() {
    let cluster = TestCluster::new();
    lookalikes(&cluster);
    let rule = format!("{} counter drop", to_first(&cluster));
    nft(
        &cluster.node,
        &format!("table ip guard {{ chain pods {{ type filter hook forward priority 5; {rule}; }}; }}"),
    );
    let Some(facts) = round(&cluster).await else {
        return;
    };
    let drop = of_direct_dial(&facts, &cluster);
    let dropper = named(drop);
    assert!(dropper.rose.is_some_and(|rose| rose >= drop.packets), "{drop:#?}");
    assert!(dropper.rule.is_some());
    let expected = Dropper {
        evidence: DropperEvidence::Counted,
        tool: FilterTool::Nftables,
        family: FilterFamily::Ip,
        table: "guard".to_owned(),
        chain: "pods".to_owned(),
        base_chain: "pods".to_owned(),
        hook: FilterHook::Forward,
        priority: 5,
        is_policy: false,
        rule: dropper.rule,
        text: Some(rule),
        rose: dropper.rose,
    };
    assert_eq!(*dropper, expected);
}

#[tokio::test]
async fn a_rule_without_a_counter_is_named_where_nothing_else_can_have_dropped() {
    let cluster = TestCluster::new();
    lookalikes(&cluster);
    drop_at(&cluster.node, "forward", &to_first(&cluster));
    let Some(facts) = round(&cluster).await else {
        return;
    };
    let dropper = named(of_direct_dial(&facts, &cluster));
    assert_eq!(dropper.evidence, DropperEvidence::Only);
    assert_eq!(
        (dropper.table.as_str(), dropper.chain.as_str()),
        ("filter", "drops")
    );
    assert_eq!(dropper.text, Some(format!("{} drop", to_first(&cluster))));
    // Through the Service the same rule drops, behind the translation.
    let through = |drop: &&PacketDrop| drop.target == "10.96.0.7:80" && drop.from.is_some();
    for drop in facts.drops.iter().filter(through) {
        assert_eq!(named(drop).table, "filter", "{drop:#?}");
    }
}

#[tokio::test]
async fn a_set_or_a_map_drops_what_is_in_it_alone() {
    for rule in [
        "ip daddr @guarded tcp dport 9376 drop",
        "ip daddr . tcp dport vmap { FIRST . 9376 : drop, 192.0.2.1 . 80 : accept }",
        "tcp dport vmap { 9000-10000 : goto guard, 80 : accept }",
    ] {
        let cluster = TestCluster::new();
        lookalikes(&cluster);
        let first = cluster.endpoints[0].ip();
        nft(
            &cluster.node,
            &format!(
                "table inet guards {{
                   set guarded {{ type ipv4_addr; flags interval; elements = {{ {first}/31 }}; }}
                   chain guard {{ ip daddr {first} drop; }}
                   chain forward {{ type filter hook forward priority 5; {}; }}
                 }}",
                rule.replace("FIRST", &first)
            ),
        );
        let Some(facts) = round(&cluster).await else {
            return;
        };
        let dropper = named(of_direct_dial(&facts, &cluster));
        assert_eq!(
            (dropper.evidence, dropper.table.as_str()),
            (DropperEvidence::Only, "guards"),
            "{rule}"
        );
    }
}

#[tokio::test]
async fn where_two_rules_may_have_dropped_both_are_but_possible() {
    let cluster = TestCluster::new();
    lookalikes(&cluster);
    nft(
        &cluster.node,
        "table inet one { chain forward { type filter hook forward priority 1; iifname \"veth*\" tcp dport 9376 drop; }; }
         table inet two { chain forward { type filter hook forward priority 2; meta mark 0 tcp dport 9376 drop; }; }",
    );
    let Some(facts) = round(&cluster).await else {
        return;
    };
    let drop = of_direct_dial(&facts, &cluster);
    let tables: Vec<&str> = drop.droppers.iter().map(|of| of.table.as_str()).collect();
    assert_eq!(tables, ["one", "two"], "{drop:#?}");
    let is_possible = |of: &Dropper| of.evidence == DropperEvidence::Candidate;
    assert!(drop.droppers.iter().all(is_possible), "{drop:#?}");
}

#[tokio::test]
async fn a_rule_of_iptables_is_told_from_the_policy_behind_it() {
    for (program, tool) in [
        ("iptables-nft", FilterTool::IptablesNft),
        ("iptables-legacy", FilterTool::IptablesLegacy),
    ] {
        let cluster = TestCluster::new();
        let ip = cluster.endpoints[0].ip();
        inside(&cluster.node, || {
            run(&format!(
                "{program} -w -N GUARD
                 {program} -w -A FORWARD -m conntrack --ctstate INVALID -j DROP
                 {program} -w -A FORWARD -j GUARD
                 {program} -w -A FORWARD -s 10.244.0.0/16 -j ACCEPT
                 {program} -w -P FORWARD DROP
                 {program} -w -A GUARD -d {ip} -p tcp -m tcp --dport 80 -j DROP
                 {program} -w -A GUARD -d {ip} -p tcp -m tcp --dport 9376 -j DROP"
            ));
        });
        let Some(facts) = round(&cluster).await else {
            return;
        };
        let drop = of_direct_dial(&facts, &cluster);
        let dropper = named(drop);
        assert_eq!(
            (dropper.evidence, dropper.tool, dropper.is_policy),
            (DropperEvidence::Counted, tool, false),
            "{drop:#?}"
        );
        assert_eq!(
            (dropper.chain.as_str(), dropper.base_chain.as_str()),
            ("GUARD", "FORWARD")
        );
        match tool {
            FilterTool::IptablesLegacy => assert_eq!(dropper.rule, Some(2)),
            _ => assert_eq!(
                dropper.text,
                Some(format!("ip daddr {ip} tcp dport 9376 counter drop"))
            ),
        }
    }
}

#[tokio::test]
async fn a_policy_of_iptables_is_named_in_either_backend() {
    for (program, tool) in [
        ("iptables-nft", FilterTool::IptablesNft),
        ("iptables-legacy", FilterTool::IptablesLegacy),
    ] {
        let cluster = TestCluster::new();
        inside(&cluster.node, || {
            // Its rules for other networks are not what drops.
            run(&format!(
                "{program} -w -A FORWARD -d 192.0.2.0/24 -j DROP
                 {program} -w -P FORWARD DROP"
            ));
        });
        let Some(facts) = round(&cluster).await else {
            return;
        };
        let drop = of_direct_dial(&facts, &cluster);
        let dropper = named(drop);
        assert_eq!(
            (dropper.evidence, dropper.tool, dropper.is_policy),
            (DropperEvidence::Counted, tool, true),
            "{drop:#?}"
        );
        assert_eq!(
            (dropper.table.as_str(), dropper.chain.as_str()),
            ("filter", "FORWARD")
        );
        let function = match tool {
            FilterTool::IptablesLegacy => "nf_hook_slow",
            _ => "nft_do_chain",
        };
        // Older kernels have one function for all.
        let is_known = |name: &str| name == function || name == "nf_hook_slow";
        assert!(drop.function.as_deref().is_none_or(is_known), "{drop:#?}");
    }
}

#[tokio::test]
async fn rules_in_a_pods_own_network_are_named_there_and_those_of_the_node_are_not() {
    let cluster = TestCluster::new();
    lookalikes(&cluster);
    let pod = Netns::of_process(cluster.endpoints[0].pid()).unwrap();
    nft(
        &pod,
        "table inet own {
           chain in { type filter hook input priority 0; policy drop; ct state established accept; tcp dport 80 accept; }
           chain out { type filter hook output priority 0; udp dport 53 drop; }
         }",
    );
    let client = Netns::of_process(cluster.clients[1].pid()).unwrap();
    let answers = format!("ip saddr {} tcp sport 9376", cluster.endpoints[1].ip());
    drop_at(&client, "input", &answers);
    let Some(facts) = round(&cluster).await else {
        return;
    };
    let drop = of_direct_dial(&facts, &cluster);
    assert_eq!(drop.place, DropPlace::Endpoint);
    let dropper = named(drop);
    assert_eq!(
        (dropper.evidence, dropper.is_policy),
        (DropperEvidence::Only, true)
    );
    assert_eq!((dropper.table.as_str(), dropper.chain.as_str()), ("own", "in"));
    let key = cluster.clients[1].key();
    let of_answer = |drop: &&PacketDrop| drop.from.as_ref() == Some(&key) && drop.answers;
    let found: Vec<&PacketDrop> = facts.drops.iter().filter(of_answer).collect();
    assert!(!found.is_empty(), "{facts:#?}");
    for drop in found {
        assert_eq!(named(drop).text, Some(format!("{answers} drop")), "{drop:#?}");
    }
}

#[tokio::test]
async fn what_the_node_sends_is_dropped_by_other_rules_than_what_it_forwards() {
    let cluster = TestCluster::new();
    let first = to_first(&cluster);
    nft(
        &cluster.node,
        &format!(
            "table inet both {{
               chain sent {{ type filter hook output priority 0; {first} drop; }}
               chain forwarded {{ type filter hook forward priority 0; {first} drop; }}
             }}"
        ),
    );
    let Some(facts) = round(&cluster).await else {
        return;
    };
    assert_eq!(named(of_direct_dial(&facts, &cluster)).chain, "forwarded");
    let target = format!("{}:9376", cluster.endpoints[0].ip());
    let of_node = |drop: &&PacketDrop| drop.from.is_none() && drop.target == target;
    let drop = facts.drops.iter().find(of_node).unwrap();
    assert_eq!(named(drop).chain, "sent");
}

/// Sends datagrams until it is told to stop.
fn noise(netns: &Netns, target: String) -> impl FnOnce() {
    let socket = netns.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let sender = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            let _ = socket.send_to(b"noise", &target);
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    move || {
        stop.store(true, Ordering::Relaxed);
        sender.join().unwrap();
    }
}

/// The round while the second client sends what a rule drops and counts.
async fn beside_noise(cluster: &TestCluster, of_noise: &str) -> Option<NodeFacts> {
    nft(
        &cluster.node,
        &format!(
            "table inet noisy {{ chain forward {{ type filter hook forward priority -1; {of_noise} counter drop; }}; }}"
        ),
    );
    let sender = Netns::of_process(cluster.clients[1].pid()).unwrap();
    let stop = noise(&sender, format!("{}:9", cluster.endpoints[0].ip()));
    let facts = round(cluster).await;
    stop();
    facts
}

#[tokio::test]
async fn a_counter_of_other_traffic_proves_nothing() {
    let cluster = TestCluster::new();
    drop_at(&cluster.node, "forward", &to_first(&cluster));
    let Some(facts) = beside_noise(&cluster, "udp dport 9").await else {
        return;
    };
    let dropper = named(of_direct_dial(&facts, &cluster));
    assert_eq!(
        (dropper.evidence, dropper.table.as_str()),
        (DropperEvidence::Only, "filter")
    );

    // It may be about these packets as well: what it counts and what the other one does is not told apart.
    let cluster = TestCluster::new();
    let rule = format!("{} counter", to_first(&cluster));
    drop_at(&cluster.node, "forward", &rule);
    let noisy = format!("iifname \"{}\"", cluster.clients[1].link());
    let Some(facts) = beside_noise(&cluster, &noisy).await else {
        return;
    };
    let drop = of_direct_dial(&facts, &cluster);
    let tables: Vec<&str> = drop.droppers.iter().map(|of| of.table.as_str()).collect();
    assert_eq!(tables, ["filter", "noisy"], "{drop:#?}");
    let is_possible = |of: &Dropper| of.evidence == DropperEvidence::Candidate;
    assert!(drop.droppers.iter().all(is_possible), "{drop:#?}");
}

#[tokio::test]
async fn of_more_rules_than_are_read_none_is_named_for_certain() {
    for (number, is_read) in [(10_000, true), (60_000, false)] {
        let cluster = TestCluster::new();
        let pod = Netns::of_process(cluster.endpoints[0].pid()).unwrap();
        let mut rules = String::from(
            "add table inet own\nadd chain inet own in { type filter hook input priority 0; policy drop; }\n",
        );
        for n in 0..number {
            let _ = writeln!(
                rules,
                "add rule inet own in ip saddr 10.{}.{}.1 counter drop",
                n / 250 % 240,
                n % 250
            );
        }
        nft(&pod, &rules);
        let Some(facts) = round(&cluster).await else {
            return;
        };
        let drop = of_direct_dial(&facts, &cluster);
        if is_read {
            let dropper = named(drop);
            assert_eq!(
                (dropper.evidence, dropper.is_policy),
                (DropperEvidence::Only, true)
            );
        } else {
            let is_possible = |of: &Dropper| of.evidence == DropperEvidence::Candidate;
            assert!(drop.droppers.iter().all(is_possible), "{drop:#?}");
        }
    }
}
