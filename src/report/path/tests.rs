//! What is known of each hop, and what is not said of it.

use proptest::{prelude::*, sample::select};

use super::*;
use crate::{
    api::{ConditionType as C, Impact, Observation, RootCause},
    engine::{Diagnosis, Finding, Verdict},
    report::{fixtures::Fixture, tree::Style},
};

const PLAIN: Style = Style {
    colour: false,
    unicode: false,
};

/// A verdict with these answers; the other stages have that of `rest`.
fn diagnosis(answers: &[(C, Finding)], rest: &Finding) -> Diagnosis {
    let answer = |stage: &C| {
        let given = answers.iter().find(|(c, _)| c == stage);
        (
            *stage,
            given.map_or_else(|| rest.clone(), |(_, finding)| finding.clone()),
        )
    };
    let stages = C::stages().iter().map(answer).collect();
    Diagnosis::unjudged(stages, Reason::NoVantagePoint, String::new())
}

fn unknown(reason: Reason) -> Finding {
    Finding::unknown(reason, "")
}

fn yes() -> Finding {
    Finding::yes(Reason::Valid, "")
}

fn no(reason: Reason) -> Finding {
    Finding::nothing_works(reason, "", "")
}

/// With the root cause that the controller names.
fn caused(mut diagnosis: Diagnosis, stage: C, reason: Reason) -> Diagnosis {
    diagnosis.root_cause = Some(RootCause {
        condition: stage.to_string(),
        reason: reason.to_string(),
        impact: Impact::All,
        message: String::new(),
        remediation: String::new(),
        link: None,
    });
    diagnosis
}

fn seen(stage: C, pod: Option<&str>, target: &str) -> Observation {
    Observation {
        condition: stage.to_string(),
        node: Some("n7".to_owned()),
        pod: pod.map(str::to_owned),
        target: Some(target.to_owned()),
        result: "connection timed out".to_owned(),
        detail: None,
        latency_milliseconds: None,
    }
}

fn written(diagnosis: &Diagnosis) -> String {
    line(&hops("shop/web", diagnosis), PLAIN)
}

fn broken(hops: &[Hop]) -> Vec<Place> {
    let is_broken = |hop: &&Hop| matches!(hop.state, State::Broken { .. });
    hops.iter().filter(is_broken).map(|hop| hop.place).collect()
}

#[test]
fn each_kind_of_service_has_its_path() {
    let paths = [
        (
            "healthy",
            "Pod shop/box -> DNS -> 10.96.143.20:80 -> rules (iptables, 2/2 checked nodes) -> endpoints (2/2 ready)",
        ),
        (
            "wrong-selector",
            "? client Pod -> ? DNS -> ? Service shop/web -> ? rules -> x no endpoints",
        ),
        (
            "dropped",
            "Pod shop/box -> DNS -> ~ 10.96.143.20:80 -> rules (nftables, 2/2 checked nodes) -> x 10.244.1.5:8080",
        ),
        ("headless", "Pod default/app-0 -> DNS -> x endpoint (some)"),
        (
            "no-agents",
            "? client Pod -> ? DNS -> ? Service shop/web -> ? rules -> ? endpoints (2/2 ready)",
        ),
        ("external-name", "Pod web/app-0 -> x DNS"),
    ];
    for (name, path) in paths {
        assert_eq!(written(&Fixture::named(name).diagnosis()), path, "{name}");
    }
}

#[test]
fn every_fault_of_every_stage_breaks_one_hop() {
    let no_address: Vec<(C, Finding)> = [
        C::KubeProxyHealthy,
        C::ProxyRulesPresent,
        C::ProxyForwards,
        C::ServiceReachable,
    ]
    .map(|stage| (stage, unknown(Reason::NotApplicable)))
    .into();
    for stage in C::stages() {
        for reason in stage.faults() {
            for rest in [
                yes(),
                unknown(Reason::NoVantagePoint),
                unknown(Reason::NotApplicable),
            ] {
                let fault = (*stage, no(*reason));
                for others in [Vec::new(), no_address.clone()] {
                    let answers: Vec<_> = [fault.clone()].into_iter().chain(others).collect();
                    let hops = hops("shop/web", &diagnosis(&answers, &rest));
                    let blamed = State::Broken {
                        stage: *stage,
                        reason: *reason,
                    };
                    let states: Vec<State> = hops.iter().map(|hop| hop.state).collect();
                    assert_eq!(broken(&hops).len(), 1, "{stage} {reason}: {hops:?}");
                    assert!(states.contains(&blamed), "{stage} {reason}: {hops:?}");
                }
            }
        }
    }
}

#[test]
fn a_policy_is_broken_where_the_packets_end() {
    let place = |reason| {
        let found = diagnosis(&[(C::NetworkPolicyAllows, no(reason))], &yes());
        broken(&hops("shop/web", &found))
    };
    assert_eq!(place(Reason::IngressDenied), [Place::Endpoint]);
    assert_eq!(place(Reason::EgressDenied), [Place::Client]);
    assert_eq!(place(Reason::EgressToDNSDenied), [Place::Dns]);
}

#[test]
fn dials_that_a_later_hop_explains_do_not_break_the_address() {
    let dials = (C::ServiceReachable, no(Reason::TimedOut));
    let rules = (C::ProxyRulesPresent, no(Reason::RulesMissing));
    let both = diagnosis(&[dials.clone(), rules], &yes());
    let explained = caused(both.clone(), C::ProxyRulesPresent, Reason::RulesMissing);
    let found = hops("shop/web", &explained);
    assert_eq!(broken(&found), [Place::Proxy]);
    assert_eq!(
        found[2].state,
        State::BrokenFurtherOn,
        "the nodes get through, but not all"
    );
    let beside = caused(both, C::ServiceReachable, Reason::TimedOut);
    assert_eq!(broken(&hops("shop/web", &beside)), [Place::Service, Place::Proxy]);
    let alone = caused(diagnosis(&[dials], &yes()), C::ServiceReachable, Reason::TimedOut);
    assert_eq!(broken(&hops("shop/web", &alone)), [Place::Service]);
}

#[test]
fn an_address_is_not_checked_if_its_dials_wait_for_a_stage_that_is_unknown() {
    let state = |endpoints: Finding| {
        let blocked = |stage| (stage, Finding::blocked(C::EndpointsPopulated));
        let answers = [
            (C::EndpointsPopulated, endpoints),
            blocked(C::ServiceReachable),
            blocked(C::ProxyForwards),
        ];
        let mut found = diagnosis(&answers, &yes());
        found.observations = vec![seen(C::ServiceReachable, Some("far/lost"), "10.1.9.5:81")];
        hops("shop/web", &found)[2].state
    };
    assert_eq!(state(unknown(Reason::Pending)), State::Unknown);
    assert_eq!(state(no(Reason::NoReadyEndpoints)), State::BrokenFurtherOn);
}

/// The state of the Service's address after these dials of client Pods, of which the nodes' succeed.
fn address_after(answers: &[(C, Finding)], dials: Vec<Observation>) -> State {
    let mut found = diagnosis(answers, &yes());
    found.observations = dials;
    let hops = hops("shop/web", &found);
    hops.iter().find(|hop| hop.place == Place::Service).unwrap().state
}

#[test]
fn an_address_that_some_do_not_reach_is_not_in_order() {
    let failed = || vec![seen(C::ServiceReachable, Some("far/lost"), "10.96.0.7:80")];
    let lost = (C::EndpointsReachable, no(Reason::TimedOut));
    let blocked = (C::ServiceReachable, Finding::blocked(C::EndpointsReachable));
    let later = address_after(&[lost.clone(), blocked.clone()], failed());
    assert_eq!(later, State::BrokenFurtherOn);
    assert_eq!(
        address_after(std::slice::from_ref(&blocked), failed()),
        State::Unknown
    );
    // Nobody failed.
    assert_eq!(address_after(&[lost, blocked], Vec::new()), State::Passed);
    // Dials of nodes, which a policy may keep away.
    let kept_away = [(C::ProxyForwards, unknown(Reason::NotApplicable))];
    let from_nodes = vec![seen(C::ProxyForwards, None, "10.96.0.7:80")];
    assert_eq!(address_after(&kept_away, from_nodes), State::Passed);
}

#[test]
fn dials_that_were_answered_are_no_failures() {
    let answers = [
        (C::NetworkPolicyAllows, no(Reason::IngressDenied)),
        (C::ServiceReachable, Finding::blocked(C::NetworkPolicyAllows)),
        (C::ProxyForwards, unknown(Reason::ProbeFailed)),
    ];
    let target = "the Service, port 80/TCP over IPv4";
    let answered = seen(C::ServiceReachable, Some("far/lucky"), target);
    assert_eq!(address_after(&answers, vec![answered]), State::Unknown);
}

#[test]
fn the_client_of_a_policy_is_one_that_it_keeps_away() {
    let mut found = caused(
        diagnosis(&[(C::NetworkPolicyAllows, no(Reason::IngressDenied))], &yes()),
        C::NetworkPolicyAllows,
        Reason::IngressDenied,
    );
    let dial = |pod| {
        seen(
            C::ServiceReachable,
            Some(pod),
            "the Service, port 80/TCP over IPv4",
        )
    };
    found.observations = vec![dial("far/lucky"), dial("far/lost")];
    assert!(
        written(&found).starts_with("? client Pod -> "),
        "{}",
        written(&found)
    );
    let name = |message: &str, found: &mut Diagnosis| {
        found.root_cause.as_mut().unwrap().message = message.to_owned();
    };
    name("Not from Pod far/lost-1.", &mut found);
    assert!(
        written(&found).starts_with("? client Pod -> "),
        "{}",
        written(&found)
    );
    name("Not from Pods far/other and far/lost.", &mut found);
    assert!(
        written(&found).starts_with("Pod far/lost -> "),
        "{}",
        written(&found)
    );
}

#[test]
fn the_client_of_a_hairpin_is_the_pod_itself() {
    let mut found = caused(
        diagnosis(&[(C::HairpinOK, no(Reason::HairpinModeDisabled))], &yes()),
        C::HairpinOK,
        Reason::HairpinModeDisabled,
    );
    let mut other = seen(C::HairpinOK, Some("shop/web-1"), "10.96.0.7:80");
    other.result = "connected".to_owned();
    found.observations = vec![
        other,
        seen(C::HairpinOK, Some("shop/web-2"), "10.96.0.7:80"),
        seen(
            C::ServiceReachable,
            Some("shop/box"),
            "the Service, port 80/TCP over IPv4",
        ),
    ];
    let path = "Pod shop/web-2 -> DNS -> 10.96.0.7:80 -> rules -> endpoints -> x back to the same Pod";
    assert_eq!(written(&found), path);
}

#[test]
fn what_the_clients_are_set_to_is_no_fault_of_dns() {
    for reason in [
        Reason::NameserverNotClusterDNS,
        Reason::SearchPathMissing,
        Reason::NdotsTooLow,
    ] {
        let found = diagnosis(&[(C::DNSResolves, no(reason))], &yes());
        assert_eq!(broken(&hops("shop/web", &found)), [Place::Client]);
    }
}

#[test]
fn a_fault_of_a_part_says_so() {
    let part = |reason| Finding::part_fails(reason, "", "");
    let of = |stage: C, reason: Reason, summary: &str| {
        let mut found = diagnosis(&[(stage, part(reason))], &yes());
        summary.clone_into(&mut found.summary.endpoints);
        found.observations = vec![seen(C::EndpointsReachable, None, "10.1.9.4:81")];
        hops("shop/web", &found).pop().unwrap().label
    };
    assert_eq!(
        of(C::EndpointsReachable, Reason::TimedOut, "3/3"),
        "10.1.9.4:81 (some)"
    );
    assert_eq!(
        of(C::EndpointsPopulated, Reason::NoReadyEndpoints, "2/3"),
        "endpoints (2/3 ready; some)"
    );
}

#[test]
fn a_hop_that_the_service_does_not_have_is_left_out() {
    let places = |answers: &[(C, Finding)]| -> Vec<Place> {
        let found = diagnosis(answers, &yes());
        hops("shop/web", &found).iter().map(|hop| hop.place).collect()
    };
    let none = unknown(Reason::NotApplicable);
    let skipped = unknown(Reason::Skipped);
    let blocked = || Finding::blocked(C::EndpointsPopulated);
    let without_address = vec![Place::Client, Place::Dns, Place::Endpoint];
    let headless = [
        (C::KubeProxyHealthy, none.clone()),
        (C::ProxyRulesPresent, none.clone()),
        (C::ProxyForwards, blocked()),
        (C::ServiceReachable, blocked()),
    ];
    assert_eq!(places(&headless), without_address);
    let skipping = [
        (C::KubeProxyHealthy, skipped.clone()),
        (C::ProxyRulesPresent, none.clone()),
        (C::ProxyForwards, skipped.clone()),
        (C::ServiceReachable, skipped.clone()),
    ];
    assert_eq!(places(&skipping), without_address);
    // Of a protocol that is not dialled, but with rules.
    let of_sctp = [(C::ProxyForwards, none.clone()), (C::ServiceReachable, none)];
    assert_eq!(places(&of_sctp).len(), 5);
    let all_skipped = diagnosis(&[], &skipped);
    assert_eq!(hops("shop/web", &all_skipped).len(), 5);
    let mut suspended = diagnosis(&[], &skipped);
    suspended.ready.reason = Reason::Suspended;
    assert_eq!(hops("shop/web", &suspended), []);
}

#[test]
fn client_and_endpoint_are_those_of_a_dial_that_failed() {
    let mut found = caused(
        diagnosis(&[(C::EndpointsReachable, no(Reason::TimedOut))], &yes()),
        C::EndpointsReachable,
        Reason::TimedOut,
    );
    found.observations = vec![
        seen(C::EndpointsReachable, None, "10.1.9.4:81"),
        seen(C::EndpointsReachable, Some("far/lost"), "10.1.9.5:81"),
        seen(
            C::ServiceReachable,
            Some("far/other"),
            "the Service, port 81/TCP over IPv4",
        ),
    ];
    let path = "Pod far/lost -> DNS -> Service shop/web -> rules -> x 10.1.9.5:81";
    assert_eq!(written(&found), path);
    found.observations.remove(1);
    let path = "node n7 -> DNS -> Service shop/web -> rules -> x 10.1.9.4:81";
    assert_eq!(written(&found), path);
}

#[test]
fn the_proxy_has_the_name_of_what_was_found() {
    let of = |answers: &[(C, Finding)], mode: Option<&str>, summary: &str| {
        let mut found = diagnosis(answers, &yes());
        found.proxy_mode = mode.map(str::to_owned);
        summary.clone_into(&mut found.summary.proxy);
        let hops = hops("shop/web", &found);
        let proxy: Vec<Hop> = hops.into_iter().filter(|hop| hop.place == Place::Proxy).collect();
        line(&proxy, PLAIN)
    };
    assert_eq!(
        of(&[], Some("nftables"), "nftables 3/3"),
        "rules (nftables, 3/3 checked nodes)"
    );
    assert_eq!(
        of(&[], Some("ipvs"), "ipvs 1/1"),
        "rules (ipvs, 1/1 checked node)"
    );
    assert_eq!(of(&[], None, "OK"), "rules");
    let stopped = (C::KubeProxyHealthy, no(Reason::NotRunning));
    assert_eq!(of(&[stopped], Some("ipvs"), "ipvs 1/1"), "x kube-proxy (ipvs)");
    let replaced = [C::KubeProxyHealthy, C::ProxyRulesPresent].map(|c| (c, unknown(Reason::ProxyReplaced)));
    assert_eq!(of(&replaced, Some("cilium"), "cilium"), "? cilium");
    let other =
        [C::KubeProxyHealthy, C::ProxyRulesPresent].map(|c| (c, unknown(Reason::HandledByAnotherProxy)));
    assert_eq!(of(&other, None, "?"), "? another proxy");
    let uncompared = [(C::ProxyRulesPresent, unknown(Reason::NotApplicable))];
    assert_eq!(
        of(&uncompared, Some("userspace"), "n/a"),
        "kube-proxy (userspace)"
    );
}

#[test]
fn a_service_that_is_only_a_name_has_no_path() {
    let answers = [(C::ServiceExists, yes()), (C::DefinitionValid, yes())];
    let found = diagnosis(&answers, &unknown(Reason::NotApplicable));
    assert_eq!(hops("shop/web", &found), []);
}

#[test]
fn a_terminal_gets_colours_and_what_others_wrote_does_not_steer_it() {
    let rich = Style {
        colour: true,
        unicode: true,
    };
    let found = diagnosis(&[(C::EndpointsPopulated, no(Reason::NoReadyEndpoints))], &yes());
    let text = line(&hops("shop/\u{1b}[2J", &found), rich);
    assert!(text.contains(" → \u{1b}[31m✗ endpoints\u{1b}[0m"), "{text}");
    assert!(!text.contains("\u{1b}[2J") && text.contains("[2J"), "{text}");
}

fn answer() -> impl Strategy<Value = Finding> {
    select(vec![
        yes(),
        no(Reason::TimedOut),
        unknown(Reason::NotApplicable),
        unknown(Reason::NoVantagePoint),
        unknown(Reason::Blocked),
        unknown(Reason::Skipped),
    ])
}

proptest! {
    #[test]
    fn nothing_is_claimed_that_no_stage_says(
        answers in proptest::collection::vec(answer(), C::stages().len()),
        lost in proptest::collection::vec(select(C::stages()), 0..3),
    ) {
        let stages: Vec<(C, Finding)> = C::stages().iter().copied().zip(answers).collect();
        let mut found = diagnosis(&stages, &yes());
        found.observations = lost.iter().map(|stage| seen(*stage, Some("far/lost"), "10.1.9.5:81")).collect();
        let hops = hops("shop/web", &found);
        let has = |status| stages.iter().any(|(_, finding)| finding.status() == status);
        let is_broken = has(crate::api::ConditionStatus::False);
        prop_assert_eq!(!broken(&hops).is_empty(), is_broken, "{:?}", &hops);
        let is_known = is_broken || has(crate::api::ConditionStatus::True) || !lost.is_empty();
        prop_assert!(is_known || hops.iter().all(|hop| hop.state == State::Unknown), "{:?}", &hops);
        prop_assert!(hops.is_sorted_by_key(|hop| hop.place), "{:?}", &hops);
        for hop in hops.iter().filter(|hop| hop.state == State::Passed) {
            let own: &[C] = match hop.place {
                // It is enough that it was seen.
                Place::Client => continue,
                Place::Dns => &[C::DNSResolves],
                Place::Service => &[C::ServiceReachable, C::ProxyForwards],
                Place::Proxy => &[C::KubeProxyHealthy, C::ProxyRulesPresent],
                Place::Endpoint => &[C::EndpointsReachable],
                Place::Hairpin => &[],
            };
            let of = |wanted: &C| stages.iter().find(|(c, _)| c == wanted).map(|(_, f)| f).unwrap();
            prop_assert!(own.iter().any(|stage| of(stage).verdict == Verdict::True), "{:?}", hop);
            let is_dialled = matches!(hop.place, Place::Service | Place::Endpoint);
            let in_vain = |stage: &&C| lost.contains(*stage) && of(stage).reason != Reason::NotApplicable;
            prop_assert!(!is_dialled || !own.iter().any(|stage| in_vain(&stage)), "{:?}", hop);
        }
    }
}

/// Tables of a paste show endpoints that no EndpointSlice lists.
#[test]
fn endpoints_that_are_there_without_slices_are_not_called_none() {
    let mut found = diagnosis(&[(C::EndpointsPopulated, yes())], &unknown(Reason::ProbeFailed));
    found.summary.endpoints = "0/0".to_owned();
    assert!(written(&found).ends_with("? endpoints"), "{}", written(&found));
    let mut found = diagnosis(&[], &unknown(Reason::ProbeFailed));
    found.summary.endpoints = "0/0".to_owned();
    assert!(written(&found).ends_with("no endpoints"), "{}", written(&found));
}
