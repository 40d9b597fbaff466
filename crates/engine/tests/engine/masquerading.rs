//! Dials that are lost through the Service alone, and how their packets left the node: which source address they had, and
//! which one the node's own dial of the endpoint has.

use svcdiag_api::{
    Answer, ConditionType as C, Departure, DialPath, DirectDial, DropCause, PacketDrop, Reason as R, Tunnel,
    TunnelKind,
};
use svcdiag_engine::{Diagnosis, Facts, diagnose};

use crate::{agents::*, dropped::dropped, fixtures::*, report::*};

/// The addresses of node n1: to everybody, and on its tunnel.
const NODE: &str = "192.168.0.1";
const TUNNEL: &str = "10.244.1.0";

/// What n1 sends to the Service is lost on its way to the only endpoint, on n2.
fn lost(from: Option<&str>) -> Facts {
    let mut facts = with_agents();
    single(&mut facts, 1);
    look(&mut facts);
    lose(&mut facts, "n1", from);
    facts
}

fn lose(facts: &mut Facts, node: &str, from: Option<&str>) {
    fail(
        facts,
        Fail {
            node,
            from,
            path: DialPath::Service,
            endpoint: Some(E2),
            answer: Answer::TimedOut,
        },
    );
}

/// How packets left: with which source they were sent and have left, and how a dial of the node past the Service ended.
fn left(
    facts: &mut Facts,
    node: &str,
    from: Option<&str>,
    [source, left_as]: [&str; 2],
    direct: Option<(Answer, &str)>,
) {
    on(facts, node, |n| {
        n.departures.push(Departure {
            from: from.map(str::to_owned),
            target: VIP.to_owned(),
            endpoint: E2.to_owned(),
            source: source.to_owned(),
            left_as: left_as.to_owned(),
            direct: direct.map(|(answer, source)| DirectDial {
                answer,
                source: source.to_owned(),
            }),
        });
    });
}

fn assert_told(diagnosis: &Diagnosis, condition: C, says: &[&str]) {
    let cause = diagnosis.root_cause.as_ref().unwrap();
    assert_eq!(cause.condition, condition.as_str(), "{}", report(diagnosis));
    let told = format!("{} {}", cause.message, cause.remediation);
    for words in says {
        assert!(told.contains(words), "{words:?} is not in {told}");
    }
}

/// Nothing is said of how packets left.
fn assert_not_told(diagnosis: &Diagnosis) {
    let report = report(diagnosis);
    for words in ["itself reaches", "source address", "masqueradeAll"] {
        assert!(!report.contains(words), "{report}");
    }
}

#[test]
fn a_node_that_does_not_masquerade_what_it_sends() {
    let mut facts = lost(None);
    let direct = Some((Answer::Accepted, TUNNEL));
    left(&mut facts, "n1", None, [NODE, NODE], direct);
    let diagnosis = diagnose(&facts);
    assert_eq!(diagnosis.root_cause.as_ref().unwrap().reason, "TimedOut");
    assert_told(
        &diagnosis,
        C::ProxyForwards,
        &[
            "Node n1 itself reaches 10.244.2.6:9376 directly, with the source address 10.244.1.0. \
             Through the Service its packets leave with 192.168.0.1: they are not masqueraded",
            "Set clusterCIDR",
        ],
    );
    // Nor does another.
    lose(&mut facts, "n3", None);
    let direct = Some((Answer::Accepted, "10.244.3.0"));
    left(&mut facts, "n3", None, ["192.168.0.3"; 2], direct);
    assert_told(
        &diagnose(&facts),
        C::ProxyForwards,
        &["The same is true of node n3."],
    );
}

#[test]
fn packets_of_which_the_node_only_translates_some() {
    let mut facts = lost(None);
    left(
        &mut facts,
        "n1",
        None,
        [NODE, TUNNEL],
        Some((Answer::Accepted, TUNNEL)),
    );
    on(&mut facts, "n1", |n| {
        n.tunnels = Some(vec![Tunnel {
            name: "flannel.1".into(),
            kind: TunnelKind::Vxlan,
            port: Some(8472),
        }]);
    });
    assert_told(
        &diagnose(&facts),
        C::ProxyForwards,
        &[
            "with the same source address (10.244.1.0)",
            "only packets that the node translates are lost",
            "on node n1, see `ethtool -k` for flannel.1",
        ],
    );
}

#[test]
fn packets_that_get_an_address_of_another_way() {
    let mut facts = lost(None);
    let direct = Some((Answer::Accepted, TUNNEL));
    left(&mut facts, "n1", None, [NODE, "192.168.7.1"], direct);
    assert_told(
        &diagnose(&facts),
        C::ProxyForwards,
        &[
            "masqueraded and leave with 192.168.7.1, so answers go to that address instead",
            "translates the source to 192.168.7.1 on node n1",
        ],
    );
}

#[test]
fn pods_whose_packets_the_node_masquerades() {
    let mut facts = lost(Some(CLIENT));
    left(&mut facts, "n1", Some(CLIENT), ["10.244.1.9", TUNNEL], None);
    assert_told(
        &diagnose(&facts),
        C::ServiceReachable,
        &[
            "Pod shop/client reaches endpoints on other nodes directly",
            "leave node n1 with the source address 10.244.1.0, and only these are lost",
            "masqueradeAll",
        ],
    );
}

#[test]
fn what_does_not_differ_from_a_direct_dial_explains_nothing() {
    for (from, sources, direct) in [
        // One address for everything, as without a tunnel.
        (None, [NODE; 2], Some((Answer::Accepted, NODE))),
        (None, [NODE; 2], None),
        // A Pod whose packets leave as it sends them.
        (Some(CLIENT), ["10.244.1.9"; 2], None),
        // No addresses.
        (None, ["", "x"], Some((Answer::Accepted, "?"))),
    ] {
        let mut facts = lost(from);
        left(&mut facts, "n1", from, sources, direct);
        assert_not_told(&diagnose(&facts));
    }
}

#[test]
fn a_node_that_does_not_reach_the_endpoint_at_all_blames_no_service() {
    for answer in [Answer::TimedOut, Answer::Refused] {
        let mut facts = lost(None);
        left(&mut facts, "n1", None, [NODE, NODE], Some((answer, TUNNEL)));
        let diagnosis = assert_nothing_false(&facts);
        let said = stage(&diagnosis, C::ProxyForwards);
        assert_eq!(said.reason, R::ProbeFailed, "{}", report(&diagnosis));
        assert!(said.message.contains("past the Service"), "{}", said.message);
    }
}

#[test]
fn nodes_whose_packets_leave_in_different_ways_are_not_lumped_together() {
    let mut facts = lost(None);
    lose(&mut facts, "n3", None);
    let direct = Some((Answer::Accepted, TUNNEL));
    left(&mut facts, "n1", None, [NODE, NODE], direct);
    left(&mut facts, "n3", None, ["192.168.0.3", TUNNEL], direct);
    assert_not_told(&diagnose(&facts));
}

#[test]
fn departures_without_a_lost_dial_are_nothing() {
    let mut facts = with_agents();
    look(&mut facts);
    left(
        &mut facts,
        "n1",
        None,
        [NODE, NODE],
        Some((Answer::Accepted, TUNNEL)),
    );
    let diagnosis = diagnose(&facts);
    assert_eq!(diagnosis.ready.reason, R::ServiceWorks, "{}", report(&diagnosis));
    assert_not_told(&diagnosis);
}

/// One that an agent has looked at stands for the others of its node and client.
#[test]
fn of_many_failures_some_are_enough() {
    let mut facts = with_agents();
    let third = endpoints(&facts)[2].0.clone();
    for endpoint in [E2, &third] {
        let failed = Fail {
            node: "n1",
            from: None,
            path: DialPath::Service,
            endpoint: Some(endpoint),
            answer: Answer::TimedOut,
        };
        fail(&mut facts, failed);
    }
    let direct = Some((Answer::Accepted, TUNNEL));
    left(&mut facts, "n1", None, [NODE, NODE], direct);
    assert_told(&diagnose(&facts), C::ProxyForwards, &["they are not masqueraded"]);
}

/// The kernel says that reverse path filtering of n1 drops the answers to what the node itself sends.
fn filtered(facts: &mut Facts) {
    let drop = PacketDrop {
        from: None,
        target: VIP.to_owned(),
        answers: true,
        ..dropped(facts, 0, DropCause::ReversePathFilter)
    };
    on(facts, "n1", |n| n.drops.push(drop));
}

#[test]
fn what_the_kernel_saw_is_not_overruled() {
    let mut facts = lost(None);
    let direct = Some((Answer::Accepted, TUNNEL));
    left(&mut facts, "n1", None, [NODE, TUNNEL], direct);
    filtered(&mut facts);
    let diagnosis = diagnose(&facts);
    let cause = diagnosis.root_cause.as_ref().unwrap();
    assert_eq!(cause.reason, "ReversePathFiltering", "{}", report(&diagnosis));
    assert!(cause.remediation.contains("rp_filter"), "{}", cause.remediation);
    assert_not_told(&diagnosis);
}

#[test]
fn answers_that_come_back_another_way_are_no_matter_of_reverse_path_filtering_alone() {
    let mut facts = lost(None);
    let direct = Some((Answer::Accepted, TUNNEL));
    left(&mut facts, "n1", None, [NODE, NODE], direct);
    filtered(&mut facts);
    let diagnosis = diagnose(&facts);
    let reason = &diagnosis.root_cause.as_ref().unwrap().reason;
    assert_eq!(reason, "ReversePathFiltering", "{}", report(&diagnosis));
    assert_told(
        &diagnosis,
        C::ProxyForwards,
        &["they are not masqueraded", "Set clusterCIDR"],
    );
}
