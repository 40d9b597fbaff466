//! What is kept of a verdict while Pods are replaced, and what ends that.

use super::*;

#[test]
fn another_candidate_under_other_policies_is_no_other_question() {
    let mut run = Run::new();
    admitting(&mut run.facts, "of-the-client", "client");
    run.judge();
    look(&mut run.facts);
    assert_eq!(ready(&run.judge()), ConditionStatus::True);
    run.facts.policies.clear();
    run.ready_pod(1);
    assert_eq!(ready(&run.judge()), ConditionStatus::True);
}

#[test]
fn clients_of_another_namespace_wait_while_an_endpoint_comes_or_goes() {
    let mut run = Run::new();
    lend_a_client(&mut run.facts);
    run.judge();
    look(&mut run.facts);
    assert_eq!(
        ready(&run.judge()),
        ConditionStatus::True,
        "{}",
        report(&run.judge())
    );
    let gone = run.facts.pods.remove(0);
    let time = run.facts.now.to_string();
    let changed = json!({ "metadata": { "resourceVersion": "77", "managedFields": [{ "time": time }] } });
    patch(Arc::make_mut(&mut run.facts.slices[0]), changed);
    let verdict = run.judge();
    assert_eq!(ready(&verdict), ConditionStatus::True, "{}", report(&verdict));
    run.wait(31);
    let verdict = run.judge();
    assert_eq!(
        stage(&verdict, C::ServiceReachable).reason,
        R::ClientNamespaceNotGranted
    );
    run.facts.pods.insert(0, gone);
}

#[test]
fn what_was_seen_stays_with_what_is_kept() {
    let mut run = Run::new();
    let before = run.status.clone().unwrap();
    assert!(!before.observations.is_empty() && before.proxy_mode.is_some());
    run.ready_pod(1);
    let verdict = run.judge();
    assert_eq!(verdict.observations, before.observations);
    assert_eq!(verdict.proxy_mode, before.proxy_mode);
    assert_eq!(verdict.summary.proxy, before.summary.unwrap().proxy);
    // One node has answered, and says what it sees itself.
    let waited_for = run.facts.nodes[1..].to_vec();
    look(&mut run.facts);
    run.facts.nodes.truncate(1);
    run.facts.nodes.extend(waited_for);
    let verdict = run.judge();
    assert_eq!(ready(&verdict), ConditionStatus::True);
    assert_eq!(verdict.proxy_mode, before.proxy_mode);
    let of_node = |observations: &[svcdiag_api::Observation], name: &str| {
        observations
            .iter()
            .filter(|o| o.node.as_deref() == Some(name))
            .count()
    };
    for name in ["n1", "n2", "n3"] {
        assert!(
            of_node(&verdict.observations, name) > 0,
            "{name}: {:?}",
            verdict.observations
        );
    }
    for name in ["n2", "n3"] {
        assert_eq!(
            of_node(&verdict.observations, name),
            of_node(&before.observations, name)
        );
    }
    // Nothing is left of it when it is kept no longer.
    run.wait(31);
    assert_eq!(run.judge().ready.reason, R::Pending);
    let verdict = run.judge();
    assert_eq!(of_node(&verdict.observations, "n2"), 0);
}

#[test]
fn new_pods_that_refuse_are_blamed_as_soon_as_agents_say_so() {
    let mut run = Run::new();
    run.ready_pod(1);
    assert_eq!(ready(&run.judge()), ConditionStatus::True);
    run.wait(3);
    look(&mut run.facts);
    fail_direct(&mut run.facts, &[3], Answer::Refused);
    let verdict = run.judge();
    assert_eq!(
        verdict.root_cause.as_ref().unwrap().condition,
        "EndpointsReachable"
    );
    assert_eq!(
        run.writes, 1,
        "a verdict is written at once, and other words wait for it"
    );
    // The next endpoint is no reason to take it back before anybody has looked.
    run.ready_pod(2);
    let verdict = run.judge();
    assert_eq!(ready(&verdict), ConditionStatus::False);
    assert_eq!(verdict.root_cause.unwrap().condition, "EndpointsReachable");
    look(&mut run.facts);
    assert_eq!(ready(&run.judge()), ConditionStatus::True);
}

#[test]
fn no_endpoint_left_is_said_at_once() {
    let mut run = Run::new();
    run.facts
        .pods
        .retain(|p| !p.metadata.name.as_ref().unwrap().starts_with("hostnames-"));
    patch(
        Arc::make_mut(&mut run.facts.deployments[0]),
        json!({ "spec": { "replicas": 0 } }),
    );
    run.endpoints_change();
    let verdict = run.judge();
    assert_eq!(stage(&verdict, C::EndpointsPopulated).reason, R::ScaledToZero);
    assert_eq!(ready(&verdict), ConditionStatus::False);
}

/// Changes more than the endpoints; then nothing is kept.
#[track_caller]
fn expect_pending(change: impl FnOnce(&mut Facts)) {
    let mut run = Run::new();
    run.ready_pod(1);
    change(&mut run.facts);
    let verdict = run.judge();
    assert_eq!(stage(&verdict, C::ServiceReachable).reason, R::Pending);
    // Nor later, when that has become the question that is waited for.
    run.wait(1);
    assert_eq!(run.judge().ready.reason, R::Pending);
}

#[test]
fn what_was_said_of_another_service_or_question_is_not_kept() {
    expect_pending(|facts| service(facts, json!({ "spec": { "sessionAffinity": "ClientIP" } })));
    expect_pending(|facts| patch(&mut facts.spec, json!({ "probe": { "timeoutSeconds": 7 } })));
}

/// A policy that admits everybody to the Pods of a label.
fn admitting(facts: &mut Facts, name: &str, app: &str) {
    let spec = json!({ "podSelector": { "matchLabels": { "app": app } }, "policyTypes": ["Ingress"], "ingress": [{}] });
    policy(facts, name, spec);
}

#[test]
fn nothing_is_kept_once_a_policy_has_changed() {
    expect_pending(|facts| admitting(facts, "all", "hostnames"));
}

#[test]
fn a_policy_that_is_deleted_while_endpoints_change_is_noticed_and_one_about_others_is_no_matter() {
    let with_policies = || {
        let mut run = Run::new();
        for (name, app) in [("admits", "hostnames"), ("others", "somebody-else")] {
            admitting(&mut run.facts, name, app);
        }
        run.judge();
        look(&mut run.facts);
        assert_eq!(ready(&run.judge()), ConditionStatus::True);
        run.wait(4);
        run.ready_pod(1);
        assert_eq!(ready(&run.judge()), ConditionStatus::True);
        run
    };
    let delete = |run: &mut Run, name: &str| {
        run.facts
            .policies
            .retain(|p| p.metadata.name.as_deref() != Some(name));
    };
    let mut run = with_policies();
    delete(&mut run, "others");
    assert_eq!(ready(&run.judge()), ConditionStatus::True);
    let mut run = with_policies();
    delete(&mut run, "admits");
    assert_eq!(run.judge().ready.reason, R::Pending);
    look(&mut run.facts);
    assert_eq!(ready(&run.judge()), ConditionStatus::True);
}

#[test]
fn without_a_status_on_the_present_spec_nothing_is_kept() {
    let mut run = Run::new();
    run.ready_pod(1);
    run.status = None;
    assert_eq!(run.judge().ready.reason, R::Pending);
}

#[test]
fn other_words_wait_and_other_verdicts_do_not() {
    let now = now();
    let at = |seconds| now + SignedDuration::from_secs(seconds);
    let verdict = diagnose(&with_agents());
    let written = verdict.status(None, Some(1), now);
    let other_words = ServiceDiagnosisStatus {
        proxy_mode: Some("ipvs".into()),
        ..written.clone()
    };
    let of = |settled_at, answered_at| Diagnosis {
        settled_at,
        answered_at,
        ..verdict.clone()
    };
    let pace_of = |status: &ServiceDiagnosisStatus, settled, written_at| {
        pace(Some(&written), written_at, status, &of(settled, None), now)
    };
    assert_eq!(pace_of(&written, Some(at(9)), Some(now)), Pace::Never);
    assert_eq!(pace_of(&other_words, Some(at(9)), Some(now)), Pace::At(at(9)));
    assert_eq!(
        pace_of(&other_words, Some(Timestamp::MAX), Some(at(-20))),
        Pace::At(at(40))
    );
    assert_eq!(
        pace_of(&other_words, Some(Timestamp::MAX), Some(at(500))),
        Pace::At(at(60))
    );
    assert_eq!(
        pace_of(&other_words, Some(Timestamp::MAX), Some(at(-60))),
        Pace::Now
    );
    for (settled, written_at) in [(None, Some(now)), (Some(now), Some(now)), (Some(at(9)), None)] {
        assert_eq!(pace_of(&other_words, settled, written_at), Pace::Now);
    }
    assert_eq!(pace(None, None, &written, &of(Some(at(9)), None), now), Pace::Now);
    // Those that are about to answer are waited for, whenever it was written last.
    let while_awaited = |status: &ServiceDiagnosisStatus, settled| {
        let verdict = of(settled, Some(at(5)));
        pace(Some(&written), Some(at(-600)), status, &verdict, now)
    };
    assert_eq!(while_awaited(&other_words, None), Pace::At(at(5)));
    assert_eq!(while_awaited(&other_words, Some(at(9))), Pace::At(at(5)));
    let mut flipped = written.clone();
    flipped.conditions[0].status = "False".into();
    let mut of_next_spec = other_words;
    of_next_spec.observed_generation = Some(2);
    for status in [flipped, of_next_spec] {
        assert_eq!(pace_of(&status, Some(at(9)), Some(now)), Pace::Now);
        assert_eq!(while_awaited(&status, None), Pace::Now);
    }
}
