//! Policies of kinds that are not judged: they may keep away, or let in, whoever they like.

use svcdiag_api::{Answer, ConditionType as C, DialPath, LookupResult, Reason as R};
use svcdiag_engine::{Facts, diagnose};

use crate::{
    agents::*,
    fixtures::default_deny,
    report::{assert_nothing_false, assert_root_cause, report, stage},
    walkthrough::*,
};

fn cilium(facts: &mut Facts) {
    facts.other_policy_kinds = vec!["CiliumNetworkPolicy".into()];
}

/// The client loses what it sends to the Service and to all its endpoints.
fn lose_all(facts: &mut Facts) {
    fail_from_clients(facts, &[0, 1, 2], Answer::TimedOut);
    fail_service(facts, "n1", Some(CLIENT), Answer::TimedOut);
}

#[test]
fn they_are_named_where_nothing_is_wrong() {
    let mut facts = healthy();
    cilium(&mut facts);
    let diagnosis = assert_nothing_false(&facts);
    let policies = stage(&diagnosis, C::NetworkPolicyAllows);
    assert_eq!(policies.reason, R::NoPolicySelects);
    assert!(policies.message.contains("CiliumNetworkPolicy"));
}

#[test]
fn they_may_admit_what_a_network_policy_denies() {
    let mut facts = healthy();
    cilium(&mut facts);
    default_deny(&mut facts);
    let diagnosis = assert_nothing_false(&facts);
    let policies = stage(&diagnosis, C::NetworkPolicyAllows);
    assert_eq!(policies.reason, R::OtherPoliciesApply);
    assert!(policies.message.contains("default-deny") && policies.message.contains("CiliumNetworkPolicy"));

    // With an agent, and with a candidate that is kept away.
    let mut facts = with_agents();
    cilium(&mut facts);
    default_deny(&mut facts);
    look(&mut facts);
    lose_all(&mut facts);
    let diagnosis = assert_nothing_false(&facts);
    assert_eq!(
        stage(&diagnosis, C::NetworkPolicyAllows).reason,
        R::OtherPoliciesApply
    );
    assert_eq!(
        diagnosis.ready.reason,
        R::WorksFromNodes,
        "{}",
        report(&diagnosis)
    );

    let mut facts = healthy();
    cilium(&mut facts);
    name_clients(&mut facts);
    policy(&mut facts, "egress", crate::fixtures::egress_to_app());
    let diagnosis = assert_nothing_false(&facts);
    assert_eq!(
        stage(&diagnosis, C::NetworkPolicyAllows).reason,
        R::OtherPoliciesApply
    );
}

#[test]
fn a_candidate_that_reaches_nobody_may_be_kept_away() {
    let mut facts = with_agents();
    cilium(&mut facts);
    lose_all(&mut facts);
    let diagnosis = assert_nothing_false(&facts);
    assert_eq!(
        stage(&diagnosis, C::NetworkPolicyAllows).reason,
        R::OtherPoliciesApply
    );
    assert_eq!(
        stage(&diagnosis, C::EndpointsReachable).reason,
        R::AllEndpointsAnswer
    );
    // Without such kinds that is a fault.
    facts.other_policy_kinds.clear();
    assert!(diagnose(&facts).root_cause.is_some());
}

#[test]
fn what_a_named_client_loses_is_a_fault_all_the_same() {
    let mut facts = with_agents();
    cilium(&mut facts);
    name_clients(&mut facts);
    look(&mut facts);
    lose_all(&mut facts);
    for i in 0..3 {
        let (address, node, _) = endpoints(&facts)[i].clone();
        let (from, path, answer) = (None, DialPath::Endpoint, Answer::TimedOut);
        let endpoint = Some(address.as_str());
        fail(
            &mut facts,
            Fail {
                node: &node,
                from,
                path,
                endpoint,
                answer,
            },
        );
    }
    let diagnosis = diagnose(&facts);
    assert_eq!(
        stage(&diagnosis, C::NetworkPolicyAllows).reason,
        R::OtherPoliciesApply
    );
    assert_root_cause(&diagnosis, C::EndpointsReachable, R::TimedOut);
    assert!(
        diagnosis
            .root_cause
            .unwrap()
            .message
            .contains("CiliumNetworkPolicy")
    );
}

#[test]
fn a_candidate_that_reaches_some_endpoints_is_not_kept_from_the_others() {
    let mut facts = with_agents();
    cilium(&mut facts);
    fail_from_clients(&mut facts, &[1, 2], Answer::TimedOut);
    assert_root_cause(&diagnose(&facts), C::EndpointsReachable, R::CrossNodeUnreachable);
}

#[test]
fn they_may_keep_nodes_and_hairpins_away() {
    let mut facts = with_agents();
    cilium(&mut facts);
    for node in ["n1", "n2", "n3"] {
        fail_service(&mut facts, node, None, Answer::TimedOut);
    }
    everywhere(&mut facts, |n| {
        n.hairpins
            .iter_mut()
            .for_each(|h| h.answer = Some(Answer::TimedOut));
    });
    let diagnosis = assert_nothing_false(&facts);
    assert_eq!(stage(&diagnosis, C::HairpinOK).reason, R::NotApplicable);
    assert_eq!(stage(&diagnosis, C::ProxyForwards).reason, R::NotApplicable);
    // A bridge port that sends nothing back is no policy's doing.
    everywhere(&mut facts, |n| {
        n.hairpins.iter_mut().for_each(|h| h.hairpin_mode = Some(false));
    });
    assert_root_cause(&diagnose(&facts), C::HairpinOK, R::HairpinModeDisabled);
}

#[test]
fn a_candidate_that_hears_and_reaches_nobody_says_nothing_of_dns() {
    let mut facts = with_agents();
    cilium(&mut facts);
    client_dns(&mut facts, |r| {
        r.lookups
            .iter_mut()
            .for_each(|l| l.result = LookupResult::TimedOut);
    });
    let diagnosis = assert_nothing_false(&facts);
    assert_eq!(stage(&diagnosis, C::DNSResolves).reason, R::ProbeFailed);
    lose_all(&mut facts);
    let diagnosis = assert_nothing_false(&facts);
    assert_eq!(stage(&diagnosis, C::DNSResolves).reason, R::NoClientPods);
}
