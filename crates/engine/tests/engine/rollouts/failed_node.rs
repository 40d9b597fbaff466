//! A node that fails takes endpoints away as a rollout does, and its agent does not answer. An ordinary rollout on nodes
//! that are well is not taken for that.

use svcdiag_objects::Node;

use super::*;

/// The states of the nodes, as the cluster says them.
fn nodes(facts: &mut Facts, states: [&str; 3]) {
    let node = |(name, ready): (&str, &str)| -> Arc<Node> {
        Arc::new(object(
            json!({ "metadata": { "name": name }, "status": { "conditions": [
            { "type": "Ready", "status": ready, "lastTransitionTime": ago(0) }] } }),
        ))
    };
    facts.cluster_nodes = ["n1", "n2", "n3"].into_iter().zip(states).map(node).collect();
}

/// The Pod on n3 is not ready any more, and neither is its endpoint; the agents of all other nodes have answered since.
fn lose_the_third(run: &mut Run) {
    let pod = run
        .facts
        .pods
        .iter_mut()
        .find(|p| p.spec.node_name.as_deref() == Some("n3"));
    let conditions = json!([{ "type": "Ready", "status": "False", "lastTransitionTime": run.facts.now }]);
    patch(
        Arc::make_mut(pod.unwrap()),
        json!({ "status": { "conditions": conditions } }),
    );
    run.endpoints_change();
    assert_eq!(ready(&run.judge()), ConditionStatus::True);
    let silent = run.facts.nodes[2].clone();
    look(&mut run.facts);
    run.facts.nodes[2] = silent;
}

/// For how many seconds Ready stays True, and why it is not then.
fn stays_ready(run: &mut Run) -> (i64, R) {
    for seconds in 0..120 {
        let verdict = run.judge();
        match ready(&verdict) {
            ConditionStatus::True => run.wait(1),
            ConditionStatus::Unknown => return (seconds, verdict.ready.reason),
            ConditionStatus::False => panic!("{}", report(&verdict)),
        }
    }
    panic!("always")
}

#[test]
fn the_agent_of_a_failed_node_with_endpoints_is_waited_for_ten_seconds() {
    for state in ["Unknown", "False"] {
        let mut run = Run::new();
        nodes(&mut run.facts, ["True", "True", state]);
        lose_the_third(&mut run);
        let kept = stage(&run.judge(), C::ServiceReachable).recheck_at;
        assert_eq!(kept, Some(run.facts.now + SignedDuration::from_secs(10)));
        assert_eq!(stays_ready(&mut run), (10, R::Pending), "{state}");
        // Its Lease has lapsed.
        run.facts.nodes[2].alive_until = Some(run.facts.now);
        assert_eq!(run.judge().ready.reason, R::AgentNotResponding);
    }
}

#[test]
fn an_agent_that_only_owes_its_answer_is_waited_for_longer() {
    for states in [["True", "True", "True"], ["Unknown", "True", "True"]] {
        let mut run = Run::new();
        nodes(&mut run.facts, states);
        lose_the_third(&mut run);
        assert_eq!(stays_ready(&mut run), (30, R::Pending), "{states:?}");
    }
    let mut run = Run::new();
    lose_the_third(&mut run);
    assert_eq!(stays_ready(&mut run), (30, R::Pending), "Nodes may not be read");
}

#[test]
fn a_failed_node_without_pods_of_the_service_is_as_good_as_any_other_to_wait_for() {
    let mut run = Run::new();
    let elsewhere = "n2";
    let pod = run
        .facts
        .pods
        .iter_mut()
        .find(|p| p.spec.node_name.as_deref() == Some("n3"));
    patch(
        Arc::make_mut(pod.unwrap()),
        json!({ "spec": { "nodeName": elsewhere } }),
    );
    run.endpoints_change();
    run.judge();
    look(&mut run.facts);
    assert_eq!(ready(&run.judge()), ConditionStatus::True);
    nodes(&mut run.facts, ["True", "True", "Unknown"]);
    run.wait(40);
    run.ready_pod(1);
    assert_eq!(ready(&run.judge()), ConditionStatus::True);
    let silent = run.facts.nodes[2].clone();
    look(&mut run.facts);
    run.facts.nodes[2] = silent;
    assert_eq!(stays_ready(&mut run), (30, R::Pending));
}

#[test]
fn a_rollout_is_ready_all_the_time_where_the_agent_of_an_unready_node_answers() {
    let mut run = Run::new();
    nodes(&mut run.facts, ["True", "Unknown", "True"]);
    for step in 0..6 {
        run.ready_pod(step);
        assert_eq!(
            ready(&run.judge()),
            ConditionStatus::True,
            "before the agents answer"
        );
        run.wait(6);
        assert_eq!(ready(&run.judge()), ConditionStatus::True);
        look(&mut run.facts);
        assert_eq!(ready(&run.judge()), ConditionStatus::True);
        run.remove_pod();
        assert_eq!(ready(&run.judge()), ConditionStatus::True);
        run.wait(6);
        look(&mut run.facts);
    }
}
