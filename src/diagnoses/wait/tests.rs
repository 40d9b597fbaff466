//! Which status counts as an answer, what happens to the diagnoses that are waited for, and what is said of the others.

use serde_json::{Value, json};

use super::*;

/// On generation 3 of the spec.
fn diagnosis(name: &str, status: Value) -> ServiceDiagnosis {
    let object = json!({
        "apiVersion": "svcdiag.dev/v1alpha1", "kind": "ServiceDiagnosis",
        "metadata": { "name": name, "namespace": "shop", "generation": 3 },
        "spec": { "serviceName": name }, "status": status,
    });
    serde_json::from_value(object).unwrap()
}

fn ready_is(status: &str, observed: i64) -> Value {
    json!({
        "observedGeneration": observed,
        "conditions": [{ "type": "Ready", "status": status, "reason": "Told", "message": "It is so.",
            "lastTransitionTime": "2026-01-01T00:00:00Z" }],
    })
}

fn broken() -> Value {
    let mut status = ready_is("False", 3);
    status["rootCause"] = json!({
        "condition": "EndpointsPopulated", "reason": "SelectorMatchesNoPods", "impact": "All",
        "message": "The selector matches no Pod.", "remediation": "Correct it.",
        "link": "https://example.org/page",
    });
    status
}

fn waiting(found: Vec<ServiceDiagnosis>) -> Waiting {
    Waiting::new(Wanted::default(), found)
}

#[test]
fn only_a_verdict_on_the_present_generation_is_an_answer() {
    let progress = |status| waiting(vec![diagnosis("web", status)]).progress();
    assert_eq!(progress(ready_is("True", 3)), Progress::Met);
    assert_eq!(progress(ready_is("True", 2)), Progress::Open);
    assert_eq!(progress(ready_is("Unknown", 3)), Progress::Open);
    assert_eq!(progress(json!({ "observedGeneration": -1 })), Progress::Open);
    assert_eq!(progress(Value::Null), Progress::Open);
    // The default status has no condition that could be False, whatever is waited for.
    let new = diagnosis("web", json!({ "observedGeneration": -1 }));
    let wanted: Wanted = "condition=Ready=False".parse().unwrap();
    assert_eq!(Waiting::new(wanted, vec![new]).progress(), Progress::Open);
}

#[test]
fn all_have_to_have_the_condition_at_the_same_time() {
    let mut waiting = waiting(vec![
        diagnosis("api", Value::Null),
        diagnosis("web", ready_is("True", 3)),
    ]);
    waiting.note(Event::Apply(diagnosis("web", broken())));
    waiting.note(Event::Apply(diagnosis("api", ready_is("True", 3))));
    assert_eq!(waiting.progress(), Progress::Open);
    waiting.note(Event::Apply(diagnosis("web", ready_is("True", 3))));
    assert_eq!(waiting.progress(), Progress::Met);
    assert_eq!(
        waiting.met(false),
        "servicediagnosis.svcdiag.dev/api condition met\nservicediagnosis.svcdiag.dev/web condition met\n"
    );
    assert!(waiting.met(true).contains("web condition met (namespace shop)"));
}

#[test]
fn one_that_comes_later_is_not_waited_for() {
    let mut waiting = waiting(vec![diagnosis("web", Value::Null)]);
    waiting.note(Event::Apply(diagnosis("later", broken())));
    waiting.note(Event::Apply(diagnosis("web", ready_is("True", 3))));
    assert_eq!(waiting.progress(), Progress::Met);
}

#[test]
fn a_deletion_ends_the_wait_even_if_nobody_watched() {
    let two = || waiting(vec![diagnosis("api", Value::Null), diagnosis("web", Value::Null)]);
    let mut watched = two();
    watched.note(Event::Delete(diagnosis("web", Value::Null)));
    assert_eq!(watched.progress(), Progress::Deleted);
    let mut relisted = two();
    relisted.note(Event::Init);
    relisted.note(Event::InitApply(diagnosis("api", Value::Null)));
    assert_eq!(relisted.progress(), Progress::Open);
    relisted.note(Event::InitDone);
    assert_eq!(relisted.progress(), Progress::Deleted);
    let text = explain(&relisted, Duration::from_secs(30));
    assert!(text.contains("shop/web: was deleted"), "{text}");
}

#[test]
fn each_without_the_condition_is_explained_with_its_fix() {
    let waiting = waiting(vec![
        diagnosis("api", ready_is("Unknown", 3)),
        diagnosis("cart", broken()),
        diagnosis("new", json!({ "observedGeneration": -1 })),
        diagnosis("old", ready_is("True", 2)),
        diagnosis("web", ready_is("True", 3)),
    ]);
    insta::assert_snapshot!(explain(&waiting, Duration::from_secs(90)), @"
    error: timed out after 1m 30s: 4 of 5 ServiceDiagnoses do not have condition=Ready=True

    shop/api: Ready is Unknown (Told)
    It is so.

    shop/cart: Ready is False (Told)
    Root cause  EndpointsPopulated / SelectorMatchesNoPods (All)
    Evidence    The selector matches no Pod.
    Fix         Correct it.
    Read more   https://example.org/page

    shop/new: no verdict yet. The controller writes it within seconds; check that it runs: `kubectl get pods --all-namespaces -l app.kubernetes.io/name=svcdiag,app.kubernetes.io/component=controller`

    shop/old: no verdict on generation 3 of its spec yet, the last one is on generation 2. The controller writes it within seconds; check that it runs: `kubectl get pods --all-namespaces -l app.kubernetes.io/name=svcdiag,app.kubernetes.io/component=controller`
    ");
    let one = Waiting::new(Wanted::default(), vec![diagnosis("cart", broken())]);
    let text = explain(&one, Duration::ZERO);
    assert!(
        text.starts_with("error: not met: the ServiceDiagnosis does not have"),
        "{text}"
    );
}

#[test]
fn a_refusal_ends_the_watch_and_an_outage_does_not() {
    let answer = |code| kube::Error::Api(kube::core::Status::failure("", "").with_code(code).boxed());
    for code in [400, 401, 403, 404] {
        assert!(is_refusal(&answer(code)), "{code}");
    }
    for code in [410, 429, 500, 503] {
        assert!(!is_refusal(&answer(code)), "{code}");
    }
}

#[test]
fn timeouts_are_parsed_as_kubectl_parses_them() {
    assert_eq!(timeout("90s"), Ok(Duration::from_secs(90)));
    assert_eq!(timeout("0"), Ok(Duration::ZERO));
    assert_eq!(timeout("0s"), Ok(Duration::ZERO));
    assert_eq!(timeout("-1s"), Ok(WEEK));
    assert!(timeout("soon").unwrap_err().contains("30s"));
}
