//! Packets that the kernel dropped: they explain dials that failed, outrank settings, and make no fault of what works.

use svcdiag_api::{Answer, ConditionType as C, DropCause, DropPlace, PacketDrop, Protocol, Reason as R};
use svcdiag_engine::{Diagnosis, Facts, diagnose};

use crate::{agents::*, report::*};

/// Packets of the client's dial of an endpoint, dropped on its node.
pub(crate) fn dropped(facts: &Facts, endpoint: usize, cause: DropCause) -> PacketDrop {
    let (address, _, _) = endpoints(facts)[endpoint].clone();
    let (reason, function) = match cause {
        DropCause::Firewall => ("NETFILTER_DROP", "nft_do_chain"),
        DropCause::ForwardingDisabled => ("IP_INADDRERRORS", "ip_error"),
        DropCause::ReversePathFilter => ("IP_RPFILTER", "ip_rcv_finish_core"),
        DropCause::NoRoute => ("IP_INNOROUTES", "ip_error"),
        DropCause::TrafficControl => ("TC_EGRESS", "__dev_queue_xmit"),
        _ => ("NOT_SPECIFIED", "br_handle_frame_finish"),
    };
    PacketDrop {
        from: Some(CLIENT.to_owned()),
        protocol: Protocol::Tcp,
        target: address.clone(),
        endpoint: Some(address),
        answers: false,
        cause,
        place: DropPlace::Node,
        interface: Some("veth3a".to_owned()),
        reason: reason.to_owned(),
        function: Some(function.to_owned()),
        packets: 3,
        carrier: None,
        droppers: Vec::new(),
    }
}

/// The client's dials of all endpoints time out, and their packets are dropped.
pub(crate) fn lost(facts: &mut Facts, cause: DropCause, change: impl Fn(&mut PacketDrop)) {
    fail_from_clients(facts, &[0, 1, 2], Answer::TimedOut);
    for endpoint in 0..3 {
        let mut drop = dropped(facts, endpoint, cause);
        change(&mut drop);
        on(facts, "n1", |n| n.drops.push(drop));
    }
}

#[track_caller]
fn said(diagnosis: &Diagnosis, words: &str) {
    let message = &diagnosis.root_cause.as_ref().unwrap().message;
    assert!(message.contains(words), "{message}");
    assert!(!message.contains("probably"), "{message}");
}

#[test]
fn a_firewall_that_drops_is_named_with_its_node_and_interface() {
    let d = fault("dropped-firewall", C::EndpointsReachable, R::FirewallDrops, |f| {
        lost(f, DropCause::Firewall, |_| {});
    });
    said(
        &d,
        "A firewall on node n1 drops the packets (NETFILTER_DROP in nft_do_chain, interface veth3a). This is why",
    );
    let detail = d.observations[0].detail.as_deref().unwrap();
    assert_eq!(
        detail,
        "3 packets dropped by a firewall (NETFILTER_DROP in nft_do_chain, interface veth3a) on node n1"
    );
}

/// Programs of iptables-legacy show rules that nftables does not have, and none of those that it has.
#[test]
fn rules_of_iptables_legacy_are_looked_for_only_where_they_may_have_dropped() {
    for (function, may_be_legacy) in [
        (Some("nft_do_chain"), false),
        (Some("nf_hook_slow"), true),
        (None, true),
    ] {
        let mut f = with_agents();
        lost(&mut f, DropCause::Firewall, |drop| {
            drop.function = function.map(str::to_owned)
        });
        let remediation = svcdiag_engine::diagnose(&f).root_cause.unwrap().remediation;
        assert_eq!(
            remediation.contains("iptables-legacy-save"),
            may_be_legacy,
            "{remediation}"
        );
    }
}

#[test]
fn a_rule_in_a_pods_own_network_is_that_pods() {
    let in_endpoint = |drop: &mut PacketDrop| {
        drop.place = DropPlace::Endpoint;
        drop.interface = Some("eth0".to_owned());
    };
    let d = fault("dropped-in-pod", C::EndpointsReachable, R::FirewallDrops, |f| {
        lost(f, DropCause::Firewall, in_endpoint);
    });
    said(&d, "in the network namespace of Pods shop/hostnames-");
    let d = fault(
        "dropped-in-client",
        C::EndpointsReachable,
        R::FirewallDrops,
        |f| lost(f, DropCause::Firewall, |drop| drop.place = DropPlace::Client),
    );
    said(&d, "in the network namespace of Pod shop/client drops");
}

#[test]
fn an_answer_that_is_dropped_is_told_from_the_packet_that_asks_for_it() {
    let d = fault("dropped-answer", C::EndpointsReachable, R::FirewallDrops, |f| {
        lost(f, DropCause::Firewall, |drop| drop.answers = true);
    });
    said(&d, "A firewall on node n1 drops the answers");
}

#[test]
fn what_the_kernel_says_outranks_settings() {
    let d = fault(
        "dropped-forwarding",
        C::EndpointsReachable,
        R::IPForwardingDisabled,
        |f| {
            on(f, "n1", |n| {
                n.settings.forward_drops = Some(true);
                n.settings.ipv4_forwarding = Some(false);
            });
            lost(f, DropCause::ForwardingDisabled, |_| {});
        },
    );
    said(&d, "IP forwarding is off on node n1");
    let d = fault(
        "dropped-beside-full-table",
        C::EndpointsReachable,
        R::FirewallDrops,
        |f| {
            on(f, "n1", |n| n.settings.conntrack_full = Some(true));
            lost(f, DropCause::Firewall, |_| {});
        },
    );
    said(&d, "A firewall on node n1");
    let d = fault(
        "dropped-reverse-path",
        C::EndpointsReachable,
        R::ReversePathFiltering,
        |f| {
            on(f, "n1", |n| n.settings.ipv4_forwarding = Some(false));
            lost(f, DropCause::ReversePathFilter, |_| {});
        },
    );
    said(&d, "rp_filter");
}

#[test]
fn conntrack_drops_where_policies_do_and_its_table_is_full() {
    let by_hook = |drop: &mut PacketDrop| drop.function = Some("nf_hook_slow".to_owned());
    let d = fault(
        "dropped-by-conntrack",
        C::EndpointsReachable,
        R::ConntrackTableFull,
        |f| {
            on(f, "n1", |n| n.settings.conntrack_full = Some(true));
            lost(f, DropCause::Firewall, by_hook);
        },
    );
    // A rule of iptables-legacy drops in the same function.
    let message = d.root_cause.unwrap().message;
    assert!(
        message.contains(
            "The conntrack table of node n1 is at least 99% full. This is probably why connections fail."
        ),
        "{message}"
    );
}

/// Most get through, so it may be a rule: neither is blamed.
#[test]
fn a_full_table_that_lets_most_through_does_not_explain_a_drop_that_a_rule_may_have_made() {
    let mut f = with_agents();
    fail_direct(&mut f, &[1], Answer::TimedOut);
    let mut drop = dropped(&f, 1, DropCause::Firewall);
    drop.function = Some("nf_hook_slow".to_owned());
    on(&mut f, "n1", |n| {
        n.settings.conntrack_full = Some(true);
        n.drops.push(drop);
    });
    let cause = svcdiag_engine::diagnose(&f).root_cause.unwrap();
    assert_eq!(cause.reason, R::SomeEndpointsFailing.as_str());
    assert!(!cause.message.contains("firewall"), "{}", cause.message);
}

#[test]
fn one_interface_that_does_not_forward_is_told_from_a_node_that_does_not() {
    let d = fault(
        "dropped-by-interface",
        C::EndpointsReachable,
        R::IPForwardingDisabled,
        |f| lost(f, DropCause::ForwardingDisabled, |_| {}),
    );
    said(&d, "net.ipv4.conf.veth3a.forwarding");
}

#[test]
fn routes_and_programs_at_tc_have_their_sentences() {
    let d = fault("dropped-no-route", C::EndpointsReachable, R::NoRouteToHost, |f| {
        lost(f, DropCause::NoRoute, |_| {});
    });
    said(&d, "Node n1 has no route to 10.244.");
    // Of answers the way back is meant, and what a node sends by itself has come in by no interface.
    for (change, command) in [
        (
            (|drop| drop.answers = true) as fn(&mut PacketDrop),
            "`ip route get 10.244.1.9 from 10.244.1.5 iif veth3a`",
        ),
        (
            |drop| drop.reason = "IP_OUTNOROUTES".to_owned(),
            "`ip route get 10.244.1.5`",
        ),
    ] {
        let mut f = with_agents();
        lost(&mut f, DropCause::NoRoute, change);
        let remediation = svcdiag_engine::diagnose(&f).root_cause.unwrap().remediation;
        assert!(remediation.contains(command), "{remediation}");
        assert_eq!(remediation.matches("ip route get").count(), 1, "{remediation}");
    }
    let d = fault("dropped-at-tc", C::EndpointsReachable, R::TimedOut, |f| {
        lost(f, DropCause::TrafficControl, |_| {});
    });
    said(&d, "A tc filter on node n1 drops the packets (TC_EGRESS");
}

#[test]
fn through_the_service_what_was_dropped_before_translation_counts() {
    let d = fault("dropped-service", C::ServiceReachable, R::FirewallDrops, |f| {
        fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
        let mut drop = dropped(f, 1, DropCause::Firewall);
        drop.target = VIP.to_owned();
        drop.endpoint = None;
        on(f, "n1", |n| n.drops.push(drop));
    });
    said(&d, "A firewall on node n1");
}

#[test]
fn drops_beside_dials_that_work_are_no_fault() {
    works(|f| {
        let drops: Vec<PacketDrop> = DropCause::ALL.iter().map(|cause| dropped(f, 1, *cause)).collect();
        on(f, "n1", |n| n.drops = drops);
    });
}

#[test]
fn drops_of_another_dial_explain_nothing() {
    let changes: [fn(&mut PacketDrop); 3] = [
        |drop| drop.from = None,
        |drop| drop.target = VIP.to_owned(),
        |drop| {
            drop.target = "10.244.9.9:9376".to_owned();
            drop.endpoint = Some("10.244.9.9:9376".to_owned());
        },
    ];
    for change in changes {
        let mut f = with_agents();
        lost(&mut f, DropCause::Firewall, change);
        let d = svcdiag_engine::diagnose(&f);
        assert_ne!(d.root_cause.unwrap().reason, R::FirewallDrops.as_str());
    }
}

/// A rule that rejects drops the packet as well, and what it answers says more.
#[test]
fn an_answer_outranks_the_drop_beside_it() {
    for answer in [Answer::Refused, Answer::Rejected, Answer::Unreachable] {
        let mut f = with_agents();
        fail_direct(&mut f, &[0, 1, 2], answer);
        let drop = dropped(&f, 1, DropCause::Firewall);
        on(&mut f, "n1", |n| n.drops.push(drop));
        let d = svcdiag_engine::diagnose(&f);
        assert_ne!(
            d.root_cause.unwrap().reason,
            R::FirewallDrops.as_str(),
            "{answer}"
        );
    }
}

#[test]
fn nobody_who_could_not_watch_is_heard_on_anything_else() {
    let problem = "Dropped packets could not be watched: CAP_BPF and CAP_PERFMON are missing.";
    let mut f = with_agents();
    everywhere(&mut f, |n| {
        n.dials.clear();
        n.problems = vec![problem.to_owned()];
    });
    let d = svcdiag_engine::diagnose(&f);
    for (condition, finding) in &d.stages {
        assert!(!finding.message.contains("watched"), "{condition}: {finding:?}");
    }
}

#[test]
fn a_pods_dial_to_itself_is_explained_by_what_the_kernel_says() {
    let hairpin = |id: &str, reason: R, cause: DropCause, place: DropPlace| {
        fault(id, C::HairpinOK, reason, |f| {
            let mut drop = dropped(f, 1, cause);
            on(f, "n2", |n| {
                let hairpin = &mut n.hairpins[0];
                hairpin.answer = Some(Answer::TimedOut);
                // Nothing that is read tells of it.
                hairpin.hairpin_mode = None;
                hairpin.masqueraded = None;
                drop.from = Some(hairpin.pod.clone());
                drop.target = hairpin.target.clone();
                drop.place = place;
                n.drops.push(drop);
            });
        })
    };
    let d = hairpin(
        "dropped-hairpin-port",
        R::HairpinModeDisabled,
        DropCause::HairpinPortOff,
        DropPlace::Node,
    );
    said(&d, "not sent back by the bridge port");
    assert!(
        d.root_cause
            .unwrap()
            .remediation
            .contains("dev veth3a hairpin on")
    );
    let d = hairpin(
        "dropped-hairpin-source",
        R::MasqueradeMissing,
        DropCause::HairpinNotMasqueraded,
        DropPlace::Client,
    );
    said(&d, "as they have the Pod's own address as their source");
    let d = hairpin(
        "dropped-hairpin-firewall",
        R::HairpinTimedOut,
        DropCause::Firewall,
        DropPlace::Node,
    );
    said(&d, "dropped by a firewall");
}

/// The endpoint's own node dials it, and finds the queue full.
fn full_queue(facts: &mut Facts, endpoint: usize) {
    let (address, node, _) = endpoints(facts)[endpoint].clone();
    let drop = PacketDrop {
        from: None,
        cause: DropCause::AcceptQueueFull,
        place: DropPlace::Endpoint,
        interface: None,
        reason: "ListenOverflows".to_owned(),
        function: None,
        target: address,
        ..dropped(facts, endpoint, DropCause::AcceptQueueFull)
    };
    on(facts, &node, |n| n.drops.push(drop));
}

#[test]
fn an_application_that_does_not_accept_is_named_for_all_who_dial_it() {
    let d = fault("accept-queue", C::EndpointsReachable, R::AcceptQueueFull, |f| {
        fail_direct(f, &[0, 1, 2], Answer::TimedOut);
        for endpoint in 0..3 {
            full_queue(f, endpoint);
        }
    });
    said(&d, "does not accept connections on port 9376/TCP");
    let d = fault(
        "accept-queue-of-one",
        C::EndpointsReachable,
        R::SomeEndpointsFailing,
        |f| {
            fail_direct(f, &[1], Answer::TimedOut);
            full_queue(f, 1);
        },
    );
    said(&d, "its accept queue is full");
}

#[test]
fn a_queue_that_is_full_now_and_then_is_no_fault() {
    works(|f| (0..3).for_each(|endpoint| full_queue(f, endpoint)));
}

/// The endpoint's own Pod or node drops what is for it, and the others answer.
#[test]
fn one_endpoint_whose_packets_are_dropped_is_named_beside_those_that_answer() {
    let d = fault(
        "dropped-of-one",
        C::EndpointsReachable,
        R::SomeEndpointsFailing,
        |f| {
            fail_direct(f, &[0], Answer::TimedOut);
            let drop = dropped(f, 0, DropCause::Firewall);
            let by_node = PacketDrop {
                from: None,
                ..drop.clone()
            };
            on(f, "n1", |n| n.drops = vec![drop, by_node]);
        },
    );
    said(&d, "1 of 3 endpoints fails");
    said(&d, "A firewall on node n1 drops the packets");
}

#[test]
fn a_missing_route_between_nodes_is_still_the_way_between_them() {
    let d = fault(
        "dropped-between-nodes",
        C::EndpointsReachable,
        R::CrossNodeUnreachable,
        |f| {
            fail_from_clients(f, &[1, 2], Answer::TimedOut);
            let drops = [1, 2].map(|endpoint| dropped(f, endpoint, DropCause::NoRoute));
            on(f, "n1", |n| n.drops = drops.to_vec());
        },
    );
    said(
        &d,
        "not from other nodes: node n1 has no route to 10.244.2.6 and 10.244.3.7 (",
    );
}

#[test]
fn an_answer_that_passed_the_rules_by_is_the_bridges() {
    let d = fault(
        "dropped-untranslated",
        C::ServiceReachable,
        R::BridgeNetfilterDisabled,
        |f| {
            fail_service(f, "n1", Some(CLIENT), Answer::TimedOut);
            let mut drop = dropped(f, 0, DropCause::AnswerNotTranslated);
            drop.target = VIP.to_owned();
            drop.answers = true;
            drop.place = DropPlace::Client;
            on(f, "n1", |n| {
                n.settings.bridge_netfilter = Some(false);
                n.failures
                    .iter_mut()
                    .for_each(|failure| failure.same_bridge = true);
                n.drops.push(drop);
            });
        },
    );
    said(&d, "bypass kube-proxy's rules");
}

#[test]
fn an_answer_from_elsewhere_than_a_shared_bridge_explains_nothing() {
    for (from, stage, place) in [
        (Some(CLIENT), C::ServiceReachable, DropPlace::Client),
        (None, C::ProxyForwards, DropPlace::Node),
    ] {
        let mut f = with_agents();
        fail_service(&mut f, "n1", from, Answer::TimedOut);
        let mut drop = dropped(&f, 0, DropCause::AnswerNotTranslated);
        drop.from = from.map(str::to_owned);
        drop.target = VIP.to_owned();
        drop.answers = true;
        drop.place = place;
        on(&mut f, "n1", |n| {
            n.settings.bridge_netfilter = Some(false);
            n.drops.push(drop);
        });
        assert_root_cause(&diagnose(&f), stage, R::TimedOut);
    }
}

/// The client loses all three endpoints: a message about the first, and drops of the other two.
fn rejected_in_part(by: &str) -> Facts {
    let mut f = with_agents();
    fail_from_clients(&mut f, &[0, 1, 2], Answer::TimedOut);
    let drops = [1, 2].map(|endpoint| dropped(&f, endpoint, DropCause::Firewall));
    on(&mut f, "n1", |n| {
        n.failures[0].answer = Answer::Unreachable;
        n.failures[0].detail = Some(format!("prohibited by {by}"));
        n.drops = drops.to_vec();
    });
    f
}

#[test]
fn a_rule_that_rejects_drops_also_what_it_says_nothing_of() {
    let f = rejected_in_part("the node's address 10.244.1.1");
    assert_root_cause(&diagnose(&f), C::EndpointsReachable, R::FirewallRejects);
    // A rule of another machine drops nothing on this node.
    let f = rejected_in_part("the Pod's own address 10.244.1.9");
    let cause = diagnose(&f).root_cause.unwrap();
    assert_eq!(cause.reason, "FirewallDrops", "{}", cause.message);
}

#[test]
fn a_full_accept_queue_outranks_a_setting_that_nobody_saw_at_work() {
    let mut f = with_agents();
    fail_from_clients(&mut f, &[1], Answer::TimedOut);
    let mut drop = dropped(&f, 1, DropCause::AcceptQueueFull);
    drop.from = None;
    drop.place = DropPlace::Endpoint;
    everywhere(&mut f, |n| n.settings.conntrack_full = Some(true));
    on(&mut f, "n2", |n| n.drops.push(drop.clone()));
    let cause = diagnose(&f).root_cause.unwrap();
    assert!(!cause.message.contains("conntrack"), "{}", cause.message);
}

#[test]
fn forwarding_is_not_called_off_where_nobody_read_that_it_is() {
    let said = |forwards, interface: Option<&str>| {
        let mut f = with_agents();
        lost(&mut f, DropCause::ForwardingDisabled, |drop| {
            drop.interface = interface.map(str::to_owned);
        });
        everywhere(&mut f, |n| n.settings.ipv4_forwarding = forwards);
        diagnose(&f).root_cause.unwrap().message
    };
    assert!(said(Some(false), None).contains("net.ipv4.ip_forward"));
    for (forwards, interface) in [(None, Some("veth3a")), (Some(true), None), (None, None)] {
        let message = said(forwards, interface);
        assert!(!message.contains("net.ipv4.ip_forward"), "{message}");
    }
}

#[test]
fn a_neighbour_that_does_not_answer_is_the_next_hop_of_other_nodes_endpoints() {
    let mut f = with_agents();
    lost(&mut f, DropCause::NeighbourFailed, |_| {});
    let message = diagnose(&f).root_cause.unwrap().message;
    assert!(
        message.contains("the next hop on the way to 10.244.2."),
        "{message}"
    );
}

/// The Service has a port for each protocol, with the same number and the same endpoints.
#[test]
fn drops_of_udp_say_nothing_of_tcp() {
    let mut f = with_agents();
    lost(&mut f, DropCause::Firewall, |drop| drop.protocol = Protocol::Udp);
    let cause = diagnose(&f).root_cause.unwrap();
    assert_ne!(cause.reason, "FirewallDrops", "{}", cause.message);

    let mut f = with_agents();
    fail_direct(&mut f, &[0, 1, 2], Answer::TimedOut);
    for endpoint in 0..3 {
        full_queue(&mut f, endpoint);
    }
    everywhere(&mut f, |n| {
        n.drops.iter_mut().for_each(|drop| drop.protocol = Protocol::Udp);
    });
    let cause = diagnose(&f).root_cause.unwrap();
    assert_ne!(cause.reason, "AcceptQueueFull", "{}", cause.message);
}
