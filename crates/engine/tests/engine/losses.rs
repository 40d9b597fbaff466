//! Packets that are lost at times: a hint in the message of a True, and what the kernel's counters add to it.

use svcdiag_api::{ConditionType as C, LossCounter, LossCounterName as N, LossyPath, PathLoss, Reason as R};
use svcdiag_engine::diagnose;

use crate::{agents::*, report::stage};

/// A path that loses twelve packets, with counters of these Pods that rose by so much.
fn lossy(from: Option<&str>, path: LossyPath, counters: &[(Option<&str>, N, u32)]) -> PathLoss {
    let counters = counters.iter().map(|(pod, counter, rose)| LossCounter {
        pod: pod.map(str::to_owned),
        counter: *counter,
        rose: *rose,
        rounds: 5,
    });
    PathLoss {
        from: from.map(str::to_owned),
        path,
        tries: 240,
        lost: 12,
        counters: counters.collect(),
    }
}

/// A client's losses with every counter, of the node and of the client.
pub(crate) fn of_all_kinds(path: LossyPath) -> PathLoss {
    let pods = [None, Some(CLIENT)];
    let counters: Vec<_> = pods
        .iter()
        .flat_map(|pod| N::ALL.iter().map(|name| (*pod, *name, 30)))
        .collect();
    // A Pod tracks nothing, and eight are heard.
    lossy(Some(CLIENT), path, &counters[2..10])
}

/// What packets that are lost at times make of a stage that is True.
#[test]
fn losses_are_told_where_they_happen_and_are_no_fault() {
    let of = |from, path| lossy(from, path, &[]);
    let mut facts = with_agents();
    on(&mut facts, "n1", |n| {
        n.losses = vec![
            of(Some(CLIENT), LossyPath::OtherNode),
            of(Some(CLIENT), LossyPath::Service),
            of(None, LossyPath::Service),
            of(Some(CLIENT), LossyPath::DNS),
        ];
    });
    let diagnosis = diagnose(&facts);
    assert_eq!(diagnosis.ready.reason, R::ServiceWorks);
    let from_client = format!("12 of 240 connections from Pod {CLIENT} on node n1");
    for (condition, words) in [
        (
            C::EndpointsReachable,
            format!("{from_client} to endpoints on other nodes needed a second SYN"),
        ),
        (C::ServiceReachable, format!("{from_client} needed a second SYN")),
        (
            C::ProxyForwards,
            "12 of 240 connections from node n1 needed a second SYN".to_owned(),
        ),
        (
            C::DNSResolves,
            format!("12 of 240 DNS questions from Pod {CLIENT} on node n1 got no answer"),
        ),
    ] {
        let message = &stage(&diagnosis, condition).message;
        assert!(message.contains(&words), "{message}");
        assert_eq!(message.matches("at times").count(), 1, "{message}");
    }
    for (condition, found) in &diagnose(&with_agents()).stages {
        assert!(
            !found.message.contains("at times"),
            "{condition}: {}",
            found.message
        );
    }
}

/// What a stage says of its losses after what it says of the packets.
fn causes(condition: C, path: LossyPath, counters: &[(Option<&str>, N, u32)]) -> String {
    let mut facts = with_agents();
    on(&mut facts, "n1", |n| {
        n.losses = vec![lossy(Some(CLIENT), path, counters)]
    });
    let diagnosis = diagnose(&facts);
    assert_eq!(
        diagnosis.ready.reason,
        R::ServiceWorks,
        "{}",
        diagnosis.ready.message
    );
    let message = &stage(&diagnosis, condition).message;
    let (_, hint) = message.split_once(" But ").unwrap();
    let (_, causes) = hint.split_once(". ").unwrap_or_default();
    causes
        .trim_start_matches("Most resolvers wait for five before they ask again.")
        .trim()
        .to_owned()
}

fn of_dns(counters: &[(Option<&str>, N, u32)]) -> String {
    causes(C::DNSResolves, LossyPath::DNS, counters)
}

fn of_service(counters: &[(Option<&str>, N, u32)]) -> String {
    causes(C::ServiceReachable, LossyPath::Service, counters)
}

#[track_caller]
fn says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "{word}: {message}");
    }
}

#[test]
fn dns_questions_that_collide_in_conntrack_are_the_known_race() {
    let said = of_dns(&[(None, N::ConntrackInsertFailed, 14)]);
    let words = [
        "conntrack on node n1 dropped 14 packets because connections collided (insert_failed)",
        "Clients that ask for A and AAAA over one socket lose answers by that",
        "56903",
        "need not have lost its own so",
        "single-request-reopen",
        "NodeLocal DNSCache",
    ];
    says(&said, &words);
    // That would be a guess: no question of svcdiag's shares a socket with another.
    assert!(!said.contains("robably"), "{said}");
    // Who asks no questions is not told how to ask them.
    let said = of_service(&[(None, N::ConntrackInsertFailed, 14)]);
    says(&said, &["14 packets", "Probably", "--random-fully"]);
    for words in ["AAAA", "resolv.conf", "DNSCache"] {
        assert!(!said.contains(words), "{said}");
    }
}

#[test]
fn a_full_table_is_probable_by_its_drops_and_sure_by_its_evictions() {
    const FIX: &str = "`sysctl -w net.netfilter.nf_conntrack_max=$((2 * $(sysctl -n net.netfilter.nf_conntrack_max)))` on node n1";
    let said = of_service(&[(None, N::ConntrackTableFull, 40)]);
    says(
        &said,
        &[
            "conntrack on node n1 dropped 40 packets (drop), probably because its table was full",
            FIX,
            "`conntrack -L` there shows who fills it",
            "conntrack.maxPerCore",
        ],
    );
    let said = of_service(&[
        (None, N::ConntrackTableFull, 40),
        (None, N::ConntrackEarlyDrop, 1),
    ]);
    says(
        &said,
        &[
            "the conntrack table of node n1 was full: 40 packets had no room (drop)",
            "connections not yet established were removed 1 time for",
            FIX,
        ],
    );
    assert!(!said.contains("robably"), "{said}");
    assert_eq!(said.matches("sysctl -w").count(), 1, "{said}");
    let said = of_dns(&[(None, N::ConntrackEarlyDrop, 40)]);
    says(&said, &["the conntrack table of node n1 was full", FIX]);
}

#[test]
fn wrong_checksums_are_probably_those_of_an_offload() {
    let pod = format!("Pod {CLIENT} on node n1 dropped 13 UDP packets for wrong checksums");
    let said = of_dns(&[(Some(CLIENT), N::UDPChecksumErrors, 13)]);
    says(&said, &[&pod, "Probably", "`ethtool -k`", "offload"]);
    let said = of_service(&[(None, N::UDPChecksumErrors, 13)]);
    says(
        &said,
        &["node n1 dropped 13 UDP packets for wrong checksums", "tunnel"],
    );
}

#[test]
fn sockets_without_room_are_named_by_whose_they_are() {
    let said = of_dns(&[(None, N::UDPReceiveBufferErrors, 13)]);
    says(
        &said,
        &[
            "node n1 dropped 13 UDP packets",
            "receive buffer",
            "Probably the DNS server there",
        ],
    );
    let said = of_service(&[(Some(CLIENT), N::ListenOverflows, 13)]);
    let pod = format!("Pod {CLIENT} on node n1 dropped 13 connections");
    says(&said, &[&pod, "accept queue", "Probably the application"]);
}

#[test]
fn losses_without_a_counter_have_no_cause_and_counters_without_losses_none_either() {
    assert_eq!(of_dns(&[]), "");
    assert_eq!(of_service(&[]), "");
    assert_eq!(
        of_service(&[(None, N::ConntrackInsertFailed, 0)]),
        "",
        "it did not rise"
    );
    // Those of paths that the stage does not speak of.
    let mut facts = with_agents();
    let clashes = [(None, N::ConntrackInsertFailed, 14)];
    on(&mut facts, "n1", |n| {
        n.losses = vec![
            lossy(Some(CLIENT), LossyPath::DNS, &clashes),
            lossy(Some(CLIENT), LossyPath::Service, &[]),
        ];
    });
    let diagnosis = diagnose(&facts);
    for condition in [C::EndpointsReachable, C::ServiceReachable, C::ProxyForwards] {
        let message = &stage(&diagnosis, condition).message;
        assert!(!message.contains("insert_failed"), "{message}");
    }
}

#[test]
fn a_pod_tracks_no_connections() {
    assert_eq!(of_dns(&[(Some(CLIENT), N::ConntrackInsertFailed, 14)]), "");
}

#[test]
fn one_cause_of_several_paths_is_said_once_and_never_more_than_three() {
    let mut facts = with_agents();
    let clashes = |rose| [(None, N::ConntrackInsertFailed, rose)];
    on(&mut facts, "n1", |n| {
        n.losses = vec![
            lossy(Some(CLIENT), LossyPath::SameNode, &clashes(13)),
            lossy(Some(CLIENT), LossyPath::OtherNode, &clashes(20)),
        ];
    });
    let message = &stage(&diagnose(&facts), C::EndpointsReachable).message.clone();
    assert_eq!(message.matches("insert_failed").count(), 1, "{message}");
    says(message, &["dropped 20 packets"]);
    let all: Vec<_> = N::ALL.iter().map(|name| (None, *name, 30)).collect();
    let said = of_dns(&all);
    assert_eq!(said.matches("In the same rounds").count(), 3, "{said}");
}

/// Those of other losses would say why something happens that the message does not mention.
#[test]
fn only_losses_that_are_shown_have_a_cause_and_the_largest_first() {
    let mut facts = with_agents();
    let of = |client: &str, lost, counter| PathLoss {
        lost,
        ..lossy(Some(client), LossyPath::Service, &[(Some(client), counter, 30)])
    };
    on(&mut facts, "n1", |n| {
        n.losses = vec![
            of("a/few", 10, N::ListenOverflows),
            of("b/more", 20, N::ListenOverflows),
            of("c/many", 30, N::ListenOverflows),
            // As many as there were tries.
            of("d/most", 900, N::ListenOverflows),
        ];
    });
    let message = &stage(&diagnose(&facts), C::ServiceReachable).message.clone();
    says(message, &["240 of 240 connections from Pod d/most"]);
    let place = |pod: &str| message.find(&format!("In the same rounds Pod {pod} "));
    assert_eq!(place("a/few"), None, "{message}");
    let places = ["d/most", "c/many", "b/more"].map(place);
    assert!(places.is_sorted() && places[0].is_some(), "{message}");
}

#[test]
fn losses_are_summed_by_node_and_path_whoever_tries() {
    let mut facts = with_agents();
    on(&mut facts, "n1", |n| {
        n.losses = vec![
            lossy(Some(CLIENT), LossyPath::Service, &[]),
            lossy(None, LossyPath::Service, &[]),
            lossy(Some(CLIENT), LossyPath::DNS, &[]),
        ];
    });
    let sums = diagnose(&facts).losses;
    let sums: Vec<_> = sums
        .iter()
        .map(|s| (s.node.as_str(), s.path, s.lost, s.tries))
        .collect();
    assert_eq!(
        sums,
        [
            ("n1", LossyPath::Service, 24, 480),
            ("n1", LossyPath::DNS, 12, 240)
        ]
    );
    assert_eq!(diagnose(&with_agents()).losses, []);
}
