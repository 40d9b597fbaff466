//! Both ends of a dial that is lost between nodes: which node is asked to watch, when, and what follows from what it saw.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use svcdiag_api::{
    Answer, Arrivals, Arrived, Carrier, ConditionType as C, DropCause, DropPlace, Left, NodeFacts,
    NodeProbeSpec, NodeSettings, PacketDrop, Protocol, Reason as R, Tunnel, TunnelKind, WatchState,
};
use svcdiag_engine::{Diagnosis, Facts, diagnose, plan};

use crate::{agents::*, fixtures::E2, report::*, walkthrough::*};

type Questions = BTreeMap<String, NodeProbeSpec>;

/// What is asked now, which the agents know from now on.
fn ask(facts: &mut Facts) -> Questions {
    let questions = plan(facts, &diagnosis_ref());
    facts.ask(&questions);
    let mut probes = facts.nodes.iter().filter_map(|node| node.probe.as_ref());
    assert!(probes.all(|probe| probe.is_current), "the answers stay");
    questions
}

/// What a node says of the watch that it is asked for.
fn say(facts: &mut Facts, node: &str, id: &str, state: WatchState) {
    let mut reports = facts.nodes.iter().filter(|report| *report.name == *node);
    let asked = reports
        .next()
        .and_then(|report| report.probe.clone())
        .unwrap()
        .asked;
    on(facts, node, |n| {
        n.arrivals = Some(Arrivals {
            token: asked.arrivals.unwrap().token,
            id: id.to_owned(),
            state,
            dials: Vec::new(),
        });
    });
}

/// The client on n1 does not reach the endpoint on n2.
fn lost() -> Facts {
    let mut facts = with_agents();
    fail_from_clients(&mut facts, &[1], Answer::TimedOut);
    facts
}

/// The same, watched until the end.
fn watched(see: impl FnOnce(&mut Arrived), tell: impl FnOnce(&mut NodeFacts)) -> Facts {
    let mut facts = lost();
    ask(&mut facts);
    say(&mut facts, "n2", "w1", WatchState::Watching);
    ask(&mut facts);
    on(&mut facts, "n1", |n| n.repeated = "w1".to_owned());
    ask(&mut facts);
    say(&mut facts, "n2", "w1", WatchState::Ended);
    let mut seen = Arrived {
        from: CLIENT.to_owned(),
        protocol: Protocol::Tcp,
        endpoint: E2.to_owned(),
        arrived: 0,
        interface: None,
        answered: 0,
        returned: 0,
        return_interface: None,
        direct: true,
        carrier: None,
        carried: 0,
    };
    see(&mut seen);
    on(&mut facts, "n2", |n| {
        n.arrivals.as_mut().unwrap().dials.push(seen);
        tell(n);
    });
    ask(&mut facts);
    facts
}

#[test]
fn the_endpoints_node_watches_while_the_clients_node_dials_again() {
    let mut facts = with_agents();
    let healthy = ask(&mut facts);
    assert!(
        healthy
            .values()
            .all(|q| q.arrivals.is_none() && q.repeat.is_empty())
    );
    let mut facts = lost();
    let begun = ask(&mut facts);
    let watch = begun["n2"].arrivals.clone().unwrap();
    assert_eq!((watch.dials.len(), watch.ended.as_str()), (1, ""));
    let dial = &watch.dials[0];
    let found = (
        dial.from.as_str(),
        dial.node.as_str(),
        dial.ip.as_str(),
        dial.endpoint.as_str(),
    );
    assert_eq!(found, (CLIENT, "n1", "10.244.1.9", E2));
    assert_eq!(begun["n1"].repeat, "", "nobody watches yet");
    assert!(begun["n1"].arrivals.is_none() && begun["n3"].arrivals.is_none());

    say(&mut facts, "n2", "w1", WatchState::Watching);
    let dialling = ask(&mut facts);
    assert_eq!(
        (dialling["n1"].repeat.as_str(), dialling["n3"].repeat.as_str()),
        ("w1", "")
    );
    assert_eq!(dialling["n2"].arrivals.as_ref(), Some(&watch));

    on(&mut facts, "n1", |n| n.repeated = "w1".to_owned());
    let over = ask(&mut facts);
    assert_eq!(over["n2"].arrivals.as_ref().unwrap().ended, "w1");

    // An agent that has begun anew has missed those dials.
    say(&mut facts, "n2", "w2", WatchState::Watching);
    let again = ask(&mut facts);
    assert_eq!(again["n2"].arrivals.as_ref(), Some(&watch));
    assert_eq!(again["n1"].repeat, "w2");

    // One that has given up has nobody dial.
    say(&mut facts, "n2", "w3", WatchState::Failed);
    let given_up = ask(&mut facts);
    assert_eq!(given_up["n2"].arrivals.as_ref(), Some(&watch));
    assert_eq!(given_up["n1"].repeat, "w2", "no reason to dial");

    on(&mut facts, "n1", |n| n.failures.clear());
    assert!(ask(&mut facts)["n2"].arrivals.is_none(), "it works again");
}

/// What the client's node saw when it dialled again.
fn left(facts: &mut Facts, from: &str, sent: u32, answers: u32) {
    on(facts, "n1", |n| {
        n.left.push(Left {
            from: from.to_owned(),
            protocol: Protocol::Tcp,
            endpoint: E2.to_owned(),
            sent,
            interface: Some("flannel.1".to_owned()),
            answers,
            answer_interface: (answers > 0).then(|| "eth0".to_owned()),
        });
    });
}

#[test]
fn what_left_the_clients_node_and_came_back_to_it_is_told() {
    let told = |facts: &Facts| report(&diagnose(facts));
    let mut facts = watched(|_| {}, |_| {});
    let before = told(&facts);
    assert!(!before.contains("left node"), "{before}");
    left(&mut facts, CLIENT, 3, 0);
    let after = told(&facts);
    let sentence = "When the dial was repeated, 3 packets left node n1 (interface flannel.1).";
    assert!(after.contains(sentence), "{after}");
    assert!(
        after.contains("the node of that Pod saw 3 packets leave (flannel.1)"),
        "{after}"
    );

    let mut facts = watched(
        |seen| (seen.arrived, seen.answered, seen.returned) = (3, 3, 3),
        |_| {},
    );
    left(&mut facts, CLIENT, 3, 2);
    let sentence = "On node n1, 2 packets of the answer came in (interface eth0).";
    assert!(told(&facts).contains(sentence), "{}", told(&facts));

    // Of others' dials nothing is said.
    let mut facts = watched(|_| {}, |_| {});
    left(&mut facts, "shop/other", 3, 0);
    assert_eq!(told(&facts), before);
}

fn left_by(facts: &mut Facts, tunnels: &[&str]) {
    let tunnels = tunnels.iter().map(|name| Tunnel {
        name: (*name).to_owned(),
        kind: TunnelKind::Vxlan,
        port: Some(8472),
    });
    let tunnels: Vec<Tunnel> = tunnels.collect();
    on(facts, "n1", |n| {
        if tunnels.is_empty() {
            n.left[0].interface = Some("eth0".to_owned());
        }
        n.tunnels = Some(tunnels);
    });
}

#[test]
fn what_left_one_node_and_did_not_arrive_at_the_other_is_lost_between_them() {
    let carrier = || Carrier {
        from: "192.168.0.1".to_owned(),
        to: "192.168.0.2".to_owned(),
        port: 8472,
    };
    // By a tunnel of which nothing arrives.
    let mut facts = watched(|seen| seen.carrier = Some(carrier()), |_| {});
    left(&mut facts, CLIENT, 3, 0);
    left_by(&mut facts, &["flannel.1"]);
    let d = judged("arrivals-lost-tunnel", &facts, R::LostBetweenNodes);
    says(
        &d,
        &[
            "3 packets went into tunnel flannel.1 on node n1",
            "Nor did any packet of the tunnel from node n1 arrive (UDP port 8472 from 192.168.0.1 to 192.168.0.2)",
            "tunnel flannel.1 (VXLAN, UDP port 8472)",
            "Let UDP port 8472 from 192.168.0.1 to 192.168.0.2 through",
            "`bridge fdb show dev flannel.1`",
        ],
    );
    // Without a tunnel.
    let mut facts = watched(|_| {}, |_| {});
    left(&mut facts, CLIENT, 3, 0);
    left_by(&mut facts, &[]);
    judged("arrivals-lost", &facts, R::LostBetweenNodes);
    // On the way back.
    let mut facts = watched(
        |seen| {
            (seen.arrived, seen.answered, seen.returned) = (3, 3, 3);
            seen.return_interface = Some("eth0".to_owned());
        },
        |_| {},
    );
    left(&mut facts, CLIENT, 3, 0);
    left_by(&mut facts, &[]);
    let d = judged("arrivals-lost-answers", &facts, R::LostBetweenNodes);
    says(&d, &["`ip route get 10.244.1.9` on node n2", "get to node n1"]);
}

#[test]
fn packets_that_may_be_lost_on_a_node_are_not_said_to_be_lost_between_them() {
    let lost = |see: fn(&mut Arrived), tunnels: &[&str], answers| {
        let mut facts = watched(see, |_| {});
        left(&mut facts, CLIENT, 3, answers);
        left_by(&mut facts, tunnels);
        diagnose(&facts).root_cause.unwrap().reason
    };
    let unclear = R::CrossNodeUnreachable.as_str();
    assert_eq!(lost(|_| {}, &[], 0), R::LostBetweenNodes.as_str());
    // They left by a tunnel that the other node does not know: it may well have arrived there.
    assert_eq!(lost(|_| {}, &["flannel.1"], 0), unclear);
    // The tunnel's packets arrive.
    let carried = |seen: &mut Arrived| {
        (seen.direct, seen.carried) = (false, 2);
        seen.carrier = Some(Carrier {
            from: "192.168.0.1".to_owned(),
            to: "192.168.0.2".to_owned(),
            port: 8472,
        });
    };
    assert_eq!(lost(carried, &["flannel.1"], 0), unclear);
    // They arrive and are answered, and the answers come in at the client's node, or may be in a tunnel there.
    let answered = |seen: &mut Arrived| (seen.arrived, seen.answered, seen.returned) = (3, 3, 3);
    assert_eq!(lost(answered, &[], 3), unclear);
    let by_tunnel = |seen: &mut Arrived| {
        (seen.arrived, seen.answered, seen.returned, seen.direct) = (3, 3, 3, false);
    };
    assert_eq!(lost(by_tunnel, &["flannel.1"], 0), unclear);
    assert_eq!(lost(|seen| seen.arrived = 3, &[], 0), unclear);
    // The answers may be in a tunnel that the endpoint's node has no route by.
    assert_eq!(lost(answered, &["flannel.1"], 0), unclear);
    // Of another endpoint it is not known where its packets are lost.
    let mut facts = watched(|_| {}, |_| {});
    left(&mut facts, CLIENT, 3, 0);
    left_by(&mut facts, &[]);
    fail_from_clients(&mut facts, &[2], Answer::TimedOut);
    let cause = diagnose(&facts).root_cause.unwrap();
    assert_eq!(cause.reason, unclear);
    for endpoint in ["10.244.2.6", "10.244.3.7", "saw none of the packets"] {
        assert!(cause.message.contains(endpoint), "{}", cause.message);
    }
    // Nobody knows whether they left.
    let facts = watched(|_| {}, |_| {});
    assert_eq!(diagnose(&facts).root_cause.unwrap().reason, unclear);
}

#[test]
fn after_a_while_packets_are_watched_again() {
    let mut facts = lost();
    let first = ask(&mut facts)["n2"].arrivals.clone();
    facts.now += SignedDuration::from_secs(600);
    for node in &mut facts.nodes {
        node.alive_until = Some(facts.now + SignedDuration::from_secs(40));
    }
    let later = ask(&mut facts)["n2"].arrivals.clone();
    assert_ne!(first.map(|w| w.token), later.map(|w| w.token));
}

#[test]
fn nobody_watches_for_what_is_lost_for_another_reason() {
    let watches = |break_it: &dyn Fn(&mut Facts)| {
        let mut facts = lost();
        break_it(&mut facts);
        let questions = plan(&facts, &diagnosis_ref());
        questions.values().any(|q| q.arrivals.is_some())
    };
    assert!(watches(&|_| {}));
    assert!(
        !watches(&|f| fail_direct(f, &[1], Answer::TimedOut)),
        "the endpoint fails at home"
    );
    assert!(
        !watches(&|f| f.nodes.retain(|n| *n.name != *"n2")),
        "nobody is there"
    );
    let refused = &|f: &mut Facts| {
        on(f, "n1", |n| {
            n.failures
                .iter_mut()
                .for_each(|fail| fail.answer = Answer::Refused)
        });
    };
    assert!(!watches(refused), "somebody has answered");
    let of_host = &|f: &mut Facts| {
        let mut pods = f
            .pods
            .iter_mut()
            .filter(|p| p.status.pod_ip.as_deref() == Some("10.244.2.6"));
        std::sync::Arc::make_mut(pods.next().unwrap()).spec.host_network = Some(true);
    };
    assert!(
        !watches(of_host),
        "a node gives what goes to others its own address"
    );
    let many = &|f: &mut Facts| {
        for i in 0..60 {
            f.pods.push(pod(
                &format!("hostnames-more-{i}"),
                "n3",
                &format!("10.244.9.{i}"),
                app(),
            ));
        }
        resync(f);
    };
    assert!(!watches(many), "a round may leave the dial out");
}

fn judged(id: &str, facts: &Facts, reason: R) -> Diagnosis {
    let d = diagnose(facts);
    assert_root_cause(&d, C::EndpointsReachable, reason);
    keep(id, &with_agents(), &d);
    d
}

#[track_caller]
fn says(d: &Diagnosis, words: &[&str]) {
    let cause = d.root_cause.as_ref().unwrap();
    let all = format!("{} {}", cause.message, cause.remediation);
    for word in words {
        assert!(all.contains(word), "{word:?} not in {all:?}");
    }
}

#[test]
fn packets_that_do_not_arrive_are_lost_between_the_nodes() {
    let facts = watched(|_| {}, |_| {});
    let d = judged("arrivals-none", &facts, R::CrossNodeUnreachable);
    says(
        &d,
        &["Node n2 saw none of the packets that Pod shop/client on node n1 sent to 10.244.2.6:9376"],
    );
    // A setting of the node where they do not arrive is not why.
    let facts = watched(
        |_| {},
        |n| {
            n.settings = NodeSettings {
                forward_drops: Some(true),
                ..n.settings.clone()
            }
        },
    );
    assert_root_cause(&diagnose(&facts), C::EndpointsReachable, R::CrossNodeUnreachable);
}

#[test]
fn packets_that_arrive_and_have_no_answer_are_lost_on_that_node() {
    let arrive = |seen: &mut Arrived| {
        seen.arrived = 3;
        seen.interface = Some("flannel.1".to_owned());
    };
    let d = judged(
        "arrivals-no-answer",
        &watched(arrive, |_| {}),
        R::CrossNodeUnreachable,
    );
    says(
        &d,
        &[
            "3 packets from Pod shop/client on node n1 to 10.244.2.6:9376 arrived on node n2 (interface flannel.1)",
            "no answer left that node",
            "`ip route get 10.244.1.9`",
        ],
    );
    let words = &d.root_cause.as_ref().unwrap().remediation;
    assert!(!words.contains("security group"), "{words}");
}

#[test]
fn answers_that_leave_are_lost_on_the_way_back() {
    let answer = |seen: &mut Arrived| {
        (seen.arrived, seen.answered, seen.returned) = (3, 5, 5);
        seen.return_interface = Some("flannel.1".to_owned());
    };
    let d = judged(
        "arrivals-returned",
        &watched(answer, |_| {}),
        R::CrossNodeUnreachable,
    );
    says(
        &d,
        &[
            "node n2 passed 5 packets for Pod shop/client on node n1 on to interface flannel.1",
            "security group",
        ],
    );
    let stays = |seen: &mut Arrived| (seen.arrived, seen.answered) = (3, 5);
    let d = judged(
        "arrivals-answered",
        &watched(stays, |_| {}),
        R::CrossNodeUnreachable,
    );
    says(
        &d,
        &["answered Pod shop/client on node n1, but no answer left node n2"],
    );
}

fn dropped_on_n2(cause: DropCause, reason: &str) -> PacketDrop {
    PacketDrop {
        from: Some(CLIENT.to_owned()),
        protocol: Protocol::Tcp,
        target: E2.to_owned(),
        endpoint: Some(E2.to_owned()),
        answers: false,
        cause,
        place: DropPlace::Node,
        interface: Some("flannel.1".to_owned()),
        reason: reason.to_owned(),
        function: Some("nft_do_chain".to_owned()),
        packets: 3,
        carrier: None,
        droppers: vec![crate::droppers::of_firewalld()],
    }
}

#[test]
fn what_the_endpoints_node_drops_is_named_with_that_node() {
    let arrive = |seen: &mut Arrived| seen.arrived = 3;
    let drop = dropped_on_n2(DropCause::Firewall, "NETFILTER_DROP");
    let facts = watched(arrive, |n| n.arrival_drops.push(drop.clone()));
    let d = judged("arrivals-firewall", &facts, R::FirewallDrops);
    says(&d, &["node n2", "firewalld", "filter_FORWARD"]);
    let words = &d.root_cause.as_ref().unwrap().message;
    assert!(!words.to_lowercase().contains("probably"), "{words}");
    let route = PacketDrop {
        droppers: Vec::new(),
        function: Some("ip_error".to_owned()),
        ..dropped_on_n2(DropCause::NoRoute, "IP_INNOROUTES")
    };
    let facts = watched(arrive, |n| n.arrival_drops.push(route));
    let d = judged("arrivals-no-route", &facts, R::CrossNodeUnreachable);
    says(&d, &["node n2 has no route"]);
}

#[test]
fn a_tunnel_whose_packets_are_dropped_or_do_not_arrive_is_named() {
    let carrier = || Carrier {
        from: "192.168.0.1".to_owned(),
        to: "192.168.0.2".to_owned(),
        port: 8472,
    };
    let drop = PacketDrop {
        carrier: Some(carrier()),
        ..dropped_on_n2(DropCause::Firewall, "NETFILTER_DROP")
    };
    let facts = watched(
        |seen| seen.carrier = Some(carrier()),
        |n| n.arrival_drops.push(drop),
    );
    let d = judged("arrivals-tunnel-dropped", &facts, R::FirewallDrops);
    says(
        &d,
        &[
            "A firewall on node n2 drops the tunnel's packets, UDP port 8472 from 192.168.0.1 to 192.168.0.2",
            "have it accept UDP port 8472 from 192.168.0.1 to 192.168.0.2",
        ],
    );
    let facts = watched(|seen| seen.carrier = Some(carrier()), |_| {});
    let d = judged("arrivals-no-tunnel", &facts, R::CrossNodeUnreachable);
    let words = "Nor did any packet of the tunnel from node n1 arrive (UDP port 8472 from 192.168.0.1 to 192.168.0.2).";
    says(&d, &[words]);
    // Others use the tunnel as well.
    let carried = |seen: &mut Arrived| (seen.carrier, seen.carried) = (Some(carrier()), 2);
    let d = diagnose(&watched(carried, |_| {}));
    assert!(!d.root_cause.unwrap().message.contains("tunnel arrive"));
}

#[test]
fn wrong_checksums_are_the_senders() {
    let arrive = |seen: &mut Arrived| seen.arrived = 3;
    let drop = |answers| PacketDrop {
        answers,
        place: DropPlace::Endpoint,
        interface: Some("eth0".to_owned()),
        function: Some("tcp_v4_rcv".to_owned()),
        droppers: Vec::new(),
        ..dropped_on_n2(DropCause::BadChecksum, "TCP_CSUM")
    };
    let facts = watched(arrive, |n| n.arrival_drops.push(drop(false)));
    let d = judged("arrivals-checksum", &facts, R::TimedOut);
    says(
        &d,
        &[
            "because their checksum is wrong (TCP_CSUM in tcp_v4_rcv, interface eth0)",
            "On node n1, see `ethtool -k`",
        ],
    );
    let facts = watched(arrive, |n| n.arrival_drops.push(drop(true)));
    says(&diagnose(&facts), &["On node n2, see `ethtool -k`"]);
}

#[test]
fn what_was_seen_stands_until_more_is_known() {
    let drop = || dropped_on_n2(DropCause::Firewall, "NETFILTER_DROP");
    let reason = |change: &dyn Fn(&mut Facts)| {
        let mut facts = watched(|_| {}, |n| n.arrival_drops.push(drop()));
        change(&mut facts);
        diagnose(&facts).root_cause.unwrap().reason
    };
    assert_eq!(reason(&|_| {}), R::FirewallDrops.as_str());
    // The next watch goes on, or could not begin.
    for state in WatchState::ALL {
        let change = |f: &mut Facts| {
            on(f, "n2", |n| {
                let said = n.arrivals.as_mut().unwrap();
                (said.token, said.id, said.state) = ("other".to_owned(), "w9".to_owned(), *state);
            });
        };
        assert_eq!(reason(&change), R::FirewallDrops.as_str(), "{state}");
    }
    // Another endpoint fails now, on a node that watched for nobody.
    let other = |f: &mut Facts| {
        on(f, "n1", |n| n.failures.clear());
        fail_from_clients(f, &[2], Answer::TimedOut);
    };
    assert_eq!(reason(&other), R::CrossNodeUnreachable.as_str());
}

/// A firewall of a node, or what is in its tunnels, says nothing of packets that came through.
#[test]
fn a_tunnel_has_the_packets_of_others_too() {
    let drop = |packets| PacketDrop {
        packets,
        carrier: Some(Carrier {
            from: "192.168.0.1".to_owned(),
            to: "192.168.0.2".to_owned(),
            port: 8472,
        }),
        ..dropped_on_n2(DropCause::Firewall, "NETFILTER_DROP")
    };
    let reason = |see: &dyn Fn(&mut Arrived), packets| {
        let by_tunnel = |seen: &mut Arrived| {
            (seen.carrier, seen.direct) = (drop(packets).carrier, false);
            see(seen);
        };
        let facts = watched(by_tunnel, |n| n.arrival_drops.push(drop(packets)));
        diagnose(&facts).root_cause.unwrap().reason
    };
    assert_eq!(reason(&|_| {}, 3), R::FirewallDrops.as_str());
    assert_eq!(reason(&|seen| seen.carried = 4, 3), R::FirewallDrops.as_str());
    for see in [
        (|seen| seen.arrived = 3) as fn(&mut Arrived),
        |seen| seen.returned = 3,
        |seen| seen.carried = 1000,
        // The way between the nodes is none of the tunnel whose packets are dropped.
        |seen| (seen.carrier, seen.direct) = (None, true),
        |seen| seen.carrier.as_mut().unwrap().port = 4789,
    ] {
        assert_eq!(reason(&see, 3), R::CrossNodeUnreachable.as_str());
    }
    // Where the way is not known, it may be that tunnel.
    assert_eq!(reason(&|seen| seen.carrier = None, 3), R::FirewallDrops.as_str());
}

/// What goes into the tunnel on the client's node counts only if the other node knows that nothing of it came.
#[test]
fn what_the_clients_node_drops_of_a_tunnel_is_its_own_only_if_the_tunnel_brings_nothing() {
    let carrier = || Carrier {
        from: "192.168.0.1".to_owned(),
        to: "192.168.0.2".to_owned(),
        port: 8472,
    };
    let lost = |see: &dyn Fn(&mut Arrived), cause, packets| {
        let drop = PacketDrop {
            packets,
            carrier: Some(carrier()),
            ..dropped_on_n2(cause, "as the kernel says")
        };
        let mut facts = watched(see, |_| {});
        on(&mut facts, "n1", |n| n.drops.push(drop));
        facts
    };
    let of = |see: &dyn Fn(&mut Arrived), cause| lost(see, cause, 3);
    let nothing = |seen: &mut Arrived| seen.carrier = Some(carrier());
    let d = judged(
        "arrivals-tunnel-dropped-by-client",
        &of(&nothing, DropCause::Firewall),
        R::FirewallDrops,
    );
    says(
        &d,
        &["A firewall on node n1 drops the tunnel's packets, UDP port 8472 from 192.168.0.1 to 192.168.0.2"],
    );
    let d = diagnose(&of(&nothing, DropCause::NeighbourFailed));
    says(&d, &["answers for the next hop on the way to 192.168.0.2"]);
    let other_way = |seen: &mut Arrived| {
        let to = "192.168.9.2".to_owned();
        seen.carrier = Some(Carrier { to, ..carrier() });
    };
    let others = |seen: &mut Arrived| (seen.carrier, seen.carried) = (Some(carrier()), 1000);
    let came = |seen: &mut Arrived| (seen.carrier, seen.arrived) = (Some(carrier()), 3);
    for see in [
        &(|_: &mut Arrived| {}) as &dyn Fn(&mut Arrived),
        &other_way,
        &others,
        &came,
    ] {
        let d = diagnose(&of(see, DropCause::Firewall));
        assert_root_cause(&d, C::EndpointsReachable, R::CrossNodeUnreachable);
    }
    let d = diagnose(&lost(&nothing, DropCause::Firewall, 1));
    assert_root_cause(&d, C::EndpointsReachable, R::CrossNodeUnreachable);
}

/// Answers are put into a tunnel and dropped before they leave.
#[test]
fn what_the_endpoints_node_drops_of_a_tunnel_back_is_the_answers_if_none_came() {
    let drop = |packets| PacketDrop {
        packets,
        answers: true,
        carrier: Some(Carrier {
            from: "192.168.0.2".to_owned(),
            to: "192.168.0.1".to_owned(),
            port: 8472,
        }),
        ..dropped_on_n2(DropCause::Firewall, "NETFILTER_DROP")
    };
    let by_tunnel = |returned, packets, came: Option<u32>, is_tunnel: bool| {
        let see = |seen: &mut Arrived| {
            (seen.arrived, seen.answered, seen.returned) = (3, 3, returned);
            seen.carrier = is_tunnel.then(|| Carrier {
                from: "192.168.0.1".to_owned(),
                to: "192.168.0.2".to_owned(),
                port: 8472,
            });
            seen.direct = !is_tunnel;
        };
        let mut facts = watched(see, |n| n.arrival_drops.push(drop(packets)));
        if let Some(came) = came {
            left(&mut facts, CLIENT, 3, came);
        }
        facts
    };
    let of = |returned, packets, came| by_tunnel(returned, packets, came, true);
    let d = judged(
        "arrivals-tunnel-drops-answers",
        &of(3, 3, Some(0)),
        R::FirewallDrops,
    );
    says(
        &d,
        &["A firewall on node n2 drops the tunnel's packets, UDP port 8472 from 192.168.0.2 to 192.168.0.1"],
    );
    for facts in [
        of(3, 2, Some(0)),
        of(3, 3, Some(3)),
        of(3, 3, None),
        of(0, 3, Some(0)),
        // Another tunnel between the nodes, which the answers do not take.
        by_tunnel(3, 3, Some(0), false),
    ] {
        assert_root_cause(&diagnose(&facts), C::EndpointsReachable, R::CrossNodeUnreachable);
    }
}

/// What a tunnel carries may be lost on the node before it comes out of it.
#[test]
fn a_setting_of_the_endpoints_node_is_ruled_out_only_where_no_tunnel_leads_there() {
    let reason = |direct| {
        let facts = watched(
            |seen| seen.direct = direct,
            |n| n.settings.reverse_path_drops = Some(true),
        );
        diagnose(&facts).root_cause.unwrap().reason
    };
    assert_eq!(reason(true), R::CrossNodeUnreachable.as_str());
    assert_eq!(reason(false), R::ReversePathFiltering.as_str());
}

#[test]
fn who_comes_later_waits_for_the_next_watch() {
    let mut facts = with_agents();
    let labels = serde_json::json!({ "app": "client" });
    facts.pods.push(pod("client-b", "n3", "10.244.3.99", labels));
    look(&mut facts);
    let fails = |f: &mut Facts, node: &str, from: &str| {
        let answer = Answer::TimedOut;
        let path = svcdiag_api::DialPath::Endpoint;
        fail(
            f,
            Fail {
                node,
                from: Some(from),
                path,
                endpoint: Some(E2),
                answer,
            },
        );
    };
    fails(&mut facts, "n1", CLIENT);
    fails(&mut facts, "n3", "shop/client-b");
    let watch = ask(&mut facts)["n2"].arrivals.clone().unwrap();
    assert_eq!(watch.dials.len(), 2);
    say(&mut facts, "n2", "w2", WatchState::Watching);
    ask(&mut facts);
    for node in ["n1", "n3"] {
        on(&mut facts, node, |n| n.repeated = "w2".to_owned());
    }
    let ended = ask(&mut facts)["n2"].arrivals.clone().unwrap();
    assert_eq!(ended.ended, "w2");
    on(&mut facts, "n3", |n| n.failures.clear());
    let fewer = ask(&mut facts)["n2"].arrivals.clone().unwrap();
    assert_eq!(fewer, ended, "what was seen of n1 stands");
}

/// Agents of an earlier version answer each change with a whole round.
#[test]
fn agents_that_do_not_know_their_questions_by_digest_are_not_asked() {
    for node in ["n1", "n2"] {
        let mut facts = lost();
        let mut reports = facts.nodes.iter_mut().filter(|n| *n.name == *node);
        reports.next().unwrap().probe.as_mut().unwrap().question.clear();
        let questions = ask(&mut facts);
        assert!(questions.values().all(|q| q.arrivals.is_none()), "{node}");
    }
}
