//! Dials of which some are explained: these do not speak for the others, and rules of one Pod are that Pod's.

use svcdiag_api::{Answer, ConditionType as C, DropCause, DropPlace, PacketDrop, Reason as R, RootCause};
use svcdiag_engine::{Diagnosis, Facts, diagnose};

use crate::{agents::*, dropped::dropped, report::*};

fn root_cause(facts: &Facts) -> RootCause {
    diagnose(facts).root_cause.unwrap()
}

/// Both texts of the root cause.
#[track_caller]
fn says(diagnosis: &Diagnosis, words: &[&str]) {
    let cause = diagnosis.root_cause.as_ref().unwrap();
    let said = format!("{}\n{}", cause.message, cause.remediation);
    for words in words {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
}

#[track_caller]
fn does_not_say(diagnosis: &Diagnosis, words: &[&str]) {
    let said = report(diagnosis);
    for words in words {
        assert!(!said.contains(words), "{words:?} is in {said}");
    }
}

fn drop_of(facts: &mut Facts, node: &str, drop: PacketDrop) {
    on(facts, node, |n| n.drops.push(drop));
}

#[test]
fn a_route_that_one_of_three_dials_lacks_is_not_what_all_lack() {
    let d = fault("partly-no-route", C::EndpointsReachable, R::NoRouteToHost, |f| {
        fail_from_clients(f, &[0, 1, 2], Answer::Unreachable);
        let drop = dropped(f, 1, DropCause::NoRoute);
        drop_of(f, "n1", drop);
    });
    says(
        &d,
        &[
            "Node n1 has no route to 10.244.2.6 (",
            "This explains 1 of the 3 failed dials",
            "For the other dials: on node n1, check that there is a route to 10.244.1.5",
        ],
    );
    does_not_say(&d, &["This is why"]);
}

#[test]
fn what_a_setting_may_explain_is_told_from_what_was_seen() {
    let d = fault("partly-seen", C::EndpointsReachable, R::FirewallDrops, |f| {
        on(f, "n1", |n| n.settings.forward_drops = Some(true));
        fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
        fail_from_clients(f, &[0, 1, 2], Answer::TimedOut);
        let drop = dropped(f, 1, DropCause::Firewall);
        drop_of(f, "n1", drop);
    });
    says(
        &d,
        &[
            "A firewall on node n1 drops the packets (",
            "This explains 1 of the 3 failed dials",
            "the policy of the FORWARD chain is to drop what no rule accepts. This probably explains 2 of the 3 failed dials",
        ],
    );
}

#[test]
fn one_of_two_endpoints_whose_packets_are_dropped_leaves_the_other_open() {
    let d = fault(
        "partly-of-endpoints",
        C::EndpointsReachable,
        R::SomeEndpointsFailing,
        |f| {
            fail_direct(f, &[0, 1], Answer::TimedOut);
            let mut drop = dropped(f, 0, DropCause::Firewall);
            drop.place = DropPlace::Endpoint;
            drop_of(f, "n1", drop.clone());
            drop.from = None;
            drop_of(f, "n1", drop);
        },
    );
    says(
        &d,
        &[
            "A firewall rule in the network namespace of Pod shop/hostnames-",
            "This explains 2 of the 4 failed dials",
            "For the other dials: find out how Pod hostnames-",
        ],
    );
}

#[test]
fn a_missing_route_to_one_node_says_nothing_of_the_way_to_another() {
    let d = fault(
        "partly-between-nodes",
        C::EndpointsReachable,
        R::CrossNodeUnreachable,
        |f| {
            fail_from_clients(f, &[1, 2], Answer::TimedOut);
            let drop = dropped(f, 1, DropCause::NoRoute);
            drop_of(f, "n1", drop);
        },
    );
    says(
        &d,
        &[
            "Node n1 has no route to 10.244.2.6 (",
            "This explains 1 of the 2 failed dials",
            "For the other dials: check the path between nodes",
        ],
    );
    does_not_say(&d, &["probably why"]);
}

/// An endpoint that answers nobody, and what the messages about its dials say.
fn rejecting_endpoint(facts: &mut Facts, answer: Answer, detail: &str) {
    fail_direct(facts, &[1], answer);
    everywhere(facts, |n| {
        n.failures
            .iter_mut()
            .for_each(|f| f.detail = Some(detail.to_owned()));
    });
}

#[test]
fn a_rule_that_rejects_in_a_pod_is_that_pods_like_one_that_drops() {
    for (id, answer, detail) in [
        ("rejected-in-pod", Answer::Unreachable, "prohibited by 10.244.2.6"),
        ("refused-in-pod", Answer::Rejected, "by 10.244.2.6"),
    ] {
        let d = fault(id, C::EndpointsReachable, R::SomeEndpointsFailing, |f| {
            rejecting_endpoint(f, answer, detail);
        });
        says(
            &d,
            &[
                "1 of 3 endpoints fails",
                "Endpoint 10.244.2.6:9376 itself rejects the packets",
                "in the network namespace of its Pod",
                "Rules there are written by one of the Pod's containers",
            ],
        );
        does_not_say(&d, &["nft list ruleset", "differs from the others"]);
    }
}

#[test]
fn a_client_that_rejects_its_own_packets_is_not_its_node() {
    let d = fault(
        "refused-in-client",
        C::EndpointsReachable,
        R::ConnectionRefused,
        |f| {
            fail_from_clients(f, &[0, 1, 2], Answer::Rejected);
            on(f, "n1", |n| {
                n.failures
                    .iter_mut()
                    .for_each(|f| f.detail = Some("by 10.244.1.9".to_owned()));
            });
        },
    );
    says(
        &d,
        &[
            "The packets of Pod shop/client are rejected (ICMP) in its own network namespace",
            "Rules there are written by one of the Pod's containers",
        ],
    );
    does_not_say(&d, &["nft list ruleset"]);
}

#[test]
fn a_node_that_says_that_it_rejects_is_the_one_to_look_at() {
    let mut f = with_agents();
    crate::blame::nodes(&mut f, &["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
    fail_from_clients(&mut f, &[0, 1, 2], Answer::Rejected);
    on(&mut f, "n1", |n| {
        n.failures
            .iter_mut()
            .for_each(|f| f.detail = Some("by 192.0.2.2".to_owned()));
    });
    let remediation = root_cause(&f).remediation;
    assert!(
        remediation.contains("Look for a rule on node n2 that"),
        "{remediation}"
    );
}

/// Through the Service the message seems to come from its address, but the kernel saw where the packets were dropped.
#[test]
fn a_rule_in_a_pod_behind_the_service_is_known_by_what_it_drops() {
    for (place, words) in [
        (DropPlace::Client, "The packets of Pod shop/client are rejected"),
        (DropPlace::Endpoint, "Endpoint 10.244.2.6:9376 itself rejects"),
        (
            DropPlace::Node,
            "Node n1, on which the client runs, rejects the packets",
        ),
    ] {
        let mut f = with_agents();
        fail_service(&mut f, "n1", Some(CLIENT), Answer::Unreachable);
        let mut drop = dropped(&f, 1, DropCause::Firewall);
        drop.target = VIP.to_owned();
        drop.place = place;
        on(&mut f, "n1", |n| {
            n.failures[0].detail = Some("prohibited by 10.96.1.175".to_owned());
            n.drops.push(drop);
        });
        let d = diagnose(&f);
        assert_root_cause(&d, C::ServiceReachable, R::FirewallRejects);
        says(&d, &[words]);
        does_not_say(&d, &["Address translation hides where"]);
        let is_of_pod = place != DropPlace::Node;
        let remediation = d.root_cause.unwrap().remediation;
        assert_eq!(
            remediation.contains("one of the Pod's containers"),
            is_of_pod,
            "{remediation}"
        );
        assert_eq!(
            remediation.contains("nft list ruleset"),
            !is_of_pod,
            "{remediation}"
        );
    }
}

#[test]
fn a_rule_in_a_pod_that_rejects_drops_also_what_it_says_nothing_of() {
    let partly = |place: DropPlace| {
        let mut f = with_agents();
        fail_from_clients(&mut f, &[0, 1, 2], Answer::TimedOut);
        let drops = [1, 2].map(|endpoint| PacketDrop {
            place,
            ..dropped(&f, endpoint, DropCause::Firewall)
        });
        on(&mut f, "n1", |n| {
            n.failures[0].answer = Answer::Unreachable;
            n.failures[0].detail = Some("prohibited by 10.244.1.9".to_owned());
            n.drops = drops.to_vec();
        });
        root_cause(&f).reason
    };
    assert_eq!(partly(DropPlace::Client), "FirewallRejects");
    // What the node drops is another rule.
    assert_eq!(partly(DropPlace::Node), "FirewallDrops");
}

/// What one sender does about its packets says nothing of another's.
#[test]
fn each_of_those_who_reject_is_looked_at() {
    let mut f = with_agents();
    fail_from_clients(&mut f, &[0, 1, 2], Answer::Unreachable);
    on(&mut f, "n1", |n| {
        for (failure, by) in
            n.failures
                .iter_mut()
                .zip(["the node's address 10.244.1.1", "10.244.2.6", "198.51.100.1"])
        {
            failure.detail = Some(format!("prohibited by {by}"));
        }
    });
    let remediation = root_cause(&f).remediation;
    for words in [
        "On node n1, find the rule",
        "one of the Pod's containers",
        "which machine has the address 198.51.100.1",
    ] {
        assert!(remediation.contains(words), "{words:?} is not in {remediation}");
    }
}

#[test]
fn a_neighbour_is_no_next_hop_where_the_drop_names_an_endpoint_of_the_node() {
    let mut f = with_agents();
    fail_service(&mut f, "n1", Some(CLIENT), Answer::TimedOut);
    let mut drop = dropped(&f, 0, DropCause::NeighbourFailed);
    drop.target = VIP.to_owned();
    drop_of(&mut f, "n1", drop);
    let message = root_cause(&f).message;
    assert!(message.contains("answers for 10.244.1.5"), "{message}");
}

/// The table is full, and the kernel saw packets dropped where conntrack drops them.
#[test]
fn a_full_table_is_named_where_a_pod_does_not_reach_itself() {
    let facts = |drop: Option<(DropCause, &str)>| {
        let mut f = with_agents();
        let drop = drop.map(|(cause, function)| PacketDrop {
            function: Some(function.to_owned()),
            ..dropped(&f, 1, cause)
        });
        on(&mut f, "n2", |n| {
            n.settings.conntrack_full = Some(true);
            let hairpin = &mut n.hairpins[0];
            hairpin.answer = Some(Answer::TimedOut);
            hairpin.hairpin_mode = Some(false);
            n.drops.extend(drop.map(|drop| PacketDrop {
                from: Some(hairpin.pod.clone()),
                target: hairpin.target.clone(),
                ..drop
            }));
        });
        f
    };
    let full = "The conntrack table of node n2 is at least 99% full";
    let seen = root_cause(&facts(Some((DropCause::Firewall, "nf_hook_slow"))));
    assert_eq!(seen.reason, "HairpinTimedOut");
    assert!(seen.message.contains(full), "{}", seen.message);
    assert!(
        seen.remediation.contains("nf_conntrack_max"),
        "{}",
        seen.remediation
    );
    // Where nobody saw what dropped them it may be either.
    let unseen = root_cause(&facts(None));
    assert_eq!(unseen.reason, "HairpinModeDisabled");
    assert!(unseen.message.contains(full), "{}", unseen.message);
    // What something else was seen to drop the table did not.
    for (cause, function) in [
        (DropCause::Firewall, "nft_do_chain"),
        (DropCause::HairpinPortOff, "br_handle_frame_finish"),
    ] {
        let other = root_cause(&facts(Some((cause, function))));
        assert!(!other.message.contains("conntrack"), "{}", other.message);
    }
}

#[test]
fn a_pod_that_rejects_its_own_packets_to_itself_is_not_its_node() {
    let mut f = with_agents();
    let drop = dropped(&f, 1, DropCause::Firewall);
    on(&mut f, "n2", |n| {
        let hairpin = &mut n.hairpins[0];
        hairpin.answer = Some(Answer::Rejected);
        n.drops.push(PacketDrop {
            from: Some(hairpin.pod.clone()),
            target: hairpin.target.clone(),
            place: DropPlace::Client,
            ..drop
        });
    });
    let cause = root_cause(&f);
    assert_eq!(cause.reason, "HairpinRefused");
    assert!(
        cause.remediation.contains("one of the Pod's containers"),
        "{}",
        cause.remediation
    );
}

/// A command is made of what is known of one packet.
#[test]
fn the_route_that_is_looked_up_is_that_of_one_dial() {
    let mut f = with_agents();
    fail_from_clients(&mut f, &[0, 1, 2], Answer::TimedOut);
    let answers = PacketDrop {
        answers: true,
        interface: None,
        ..dropped(&f, 0, DropCause::NoRoute)
    };
    drop_of(&mut f, "n1", answers);
    let asks = dropped(&f, 1, DropCause::NoRoute);
    drop_of(&mut f, "n1", asks);
    let remediation = root_cause(&f).remediation;
    let command = "`ip route get 10.244.2.6 from 10.244.1.9 iif veth3a`";
    assert!(remediation.contains(command), "{remediation}");
}
