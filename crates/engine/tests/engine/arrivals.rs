//! Both ends of a dial that is lost between nodes: which node is asked to watch, when, and what follows from what it saw.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use svcdiag_api::{
    Answer, Arrivals, Arrived, Carrier, ConditionType as C, DropCause, DropPlace, NodeFacts, NodeProbeSpec,
    NodeSettings, PacketDrop, Protocol, Reason as R, WatchState,
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
    let mut reports = facts.nodes.iter().filter(|report| report.name == node);
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
        !watches(&|f| f.nodes.retain(|n| n.name != "n2")),
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
        &["Node n2 received none of the packets that Pod shop/client on node n1 sent to 10.244.2.6:9376"],
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
            "node n2 sent 5 packets back to Pod shop/client on node n1 (interface flannel.1)",
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
    let facts = watched(|_| {}, |n| n.arrival_drops.push(drop));
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
    let words = "Nor did any packet of its tunnel arrive (UDP port 8472 from 192.168.0.1 to 192.168.0.2).";
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

/// Old news, and news of others, prove nothing.
#[test]
fn only_what_was_seen_of_this_watch_counts() {
    let plain = diagnose(&lost()).root_cause.unwrap().message;
    let message = |change: &dyn Fn(&mut Facts)| {
        let drop = dropped_on_n2(DropCause::Firewall, "NETFILTER_DROP");
        let mut facts = watched(|_| {}, |n| n.arrival_drops.push(drop));
        change(&mut facts);
        diagnose(&facts).root_cause.unwrap().message
    };
    assert_ne!(message(&|_| {}), plain);
    let of_n2 = |change: fn(&mut Arrivals)| {
        move |f: &mut Facts| on(f, "n2", |n| change(n.arrivals.as_mut().unwrap()))
    };
    assert_eq!(message(&of_n2(|said| said.id = "w0".to_owned())), plain);
    assert_eq!(message(&of_n2(|said| said.token = "other".to_owned())), plain);
    assert_eq!(message(&of_n2(|said| said.state = WatchState::Watching)), plain);
    assert_eq!(message(&of_n2(|said| said.state = WatchState::Failed)), plain);
    // Another endpoint fails now, on a node that watched for nobody.
    let other = message(&|f| {
        on(f, "n1", |n| n.failures.clear());
        fail_from_clients(f, &[2], Answer::TimedOut);
    });
    assert!(!other.contains("n2"), "{other}");
}
