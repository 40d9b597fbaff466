//! Manifests as they are kept in Git: what they prove, and what they do not say.

use super::*;

/// Judges manifests that are applied to a namespace.
fn applied(manifests: &[Value]) -> Bundle {
    let text: Vec<String> = manifests.iter().map(ToString::to_string).collect();
    let file = File {
        path: "app.yaml".to_owned(),
        text: text.join("\n"),
        modified: None,
    };
    let files = Files {
        files: vec![file],
        problems: Vec::new(),
    };
    Bundle::within(files, Some("shop"))
}

fn service(selector: Value, target: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" },
        "spec": { "selector": selector, "ports": [{ "port": 80, "targetPort": target }] } })
}

fn workload(kind: &str, name: &str, labels: Value, port: Value) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": name, "creationTimestamp": null },
        "spec": { "template": { "metadata": { "labels": labels },
            "spec": { "containers": [{ "name": "c", "ports": [port] }] } } },
        "status": {} })
}

fn checkout(target: Value) -> Vec<Value> {
    let port = json!({ "name": "http", "containerPort": 3000 });
    vec![
        service(json!({ "app": "checkout" }), target),
        workload(
            "Deployment",
            "web",
            json!({ "app": "checkout", "tier": "shop" }),
            port,
        ),
    ]
}

#[test]
fn manifests_that_fit_are_no_sign_of_anything_that_runs() {
    for target in [json!("http"), json!(3000), json!(9999)] {
        let found = applied(&checkout(target));
        assert_eq!(found.without_namespace, 2);
        assert_nobody_is_blamed(&found);
        let answers = answers(&found);
        let (status, reason, _) = &answers[&C::DefinitionValid];
        assert_eq!((*status, *reason), (ConditionStatus::True, Reason::Valid));
        for stage in [C::PodsHealthy, C::EndpointsPopulated] {
            let (status, _, message) = &answers[&stage];
            assert_eq!(*status, ConditionStatus::Unknown);
            assert!(
                message.contains("the objects come from manifests")
                    || message.contains("The objects come from manifests"),
                "{message}"
            );
        }
    }
}

#[test]
fn a_target_port_that_no_container_has_is_pointed_out() {
    let found = applied(&checkout(json!("web")));
    // A patch or an injected container may have it.
    assert_nobody_is_blamed(&found);
    let (_, _, message) = &answers(&found)[&C::DefinitionValid];
    assert!(
        message.contains("Deployment web") && message.contains("http (3000/TCP)"),
        "{message}"
    );
    let numeric = applied(&checkout(json!("3000")));
    assert_cause(&numeric, "NumericTargetPortName");
    // The API server has refused it, so there is nothing to edit in the cluster.
    let cause = judge(&numeric).root_cause.unwrap();
    assert!(!cause.remediation.contains("kubectl"), "{cause:?}");
}

#[test]
fn a_name_of_another_protocol_is_none_and_a_number_of_another_is_a_hint() {
    let mut by_name = checkout(json!("http"));
    by_name[0]["spec"]["ports"][0]["protocol"] = "UDP".into();
    let found = applied(&by_name);
    assert_nobody_is_blamed(&found);
    assert!(
        answers(&found)[&C::DefinitionValid]
            .2
            .contains("UDP port of that name")
    );
    let mut by_number = checkout(json!(3000));
    by_number[0]["spec"]["ports"][0]["protocol"] = "UDP".into();
    let found = applied(&by_number);
    assert_nobody_is_blamed(&found);
    let (_, reason, message) = &answers(&found)[&C::DefinitionValid];
    assert_eq!(*reason, Reason::ValidWithHints);
    assert!(message.contains("declare 3000/TCP only"), "{message}");
}

#[test]
fn what_may_be_a_typing_error_in_the_selector_is_pointed_out() {
    let mut all = checkout(json!(3000));
    all[0]["spec"]["selector"] = json!({ "app": "chekout" });
    let found = applied(&all);
    assert_nobody_is_blamed(&found);
    let (_, _, message) = &answers(&found)[&C::EndpointsPopulated];
    assert!(
        message.contains("app=checkout where the selector wants app=chekout"),
        "{message}"
    );
    // The other Service is the one that these Pods are for.
    let mut other = service(json!({ "app": "checkout" }), json!(80));
    other["metadata"]["name"] = "other".into();
    all.push(other);
    assert_nobody_is_blamed(&applied(&all));
}

#[test]
fn the_workload_may_be_in_another_file() {
    let all = [
        service(json!({ "app": "web" }), json!("http")),
        workload(
            "Deployment",
            "redis",
            json!({ "app": "redis" }),
            json!({ "containerPort": 6379 }),
        ),
        workload(
            "Deployment",
            "web",
            json!({ "app": "web-canary" }),
            json!({ "containerPort": 80 }),
        ),
    ];
    let found = applied(&all);
    assert_nobody_is_blamed(&found);
    let (_, _, message) = &answers(&found)[&C::EndpointsPopulated];
    assert!(
        message.contains("app=redis") && message.contains("Unless another manifest"),
        "{message}"
    );
}

#[test]
fn a_daemon_set_and_a_pod_have_templates_too() {
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "web", "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "c", "ports": [{ "name": "http", "containerPort": 80 }] }] } });
    for other in [
        workload(
            "DaemonSet",
            "web",
            json!({ "app": "web" }),
            json!({ "name": "http", "containerPort": 80 }),
        ),
        pod,
    ] {
        let found = applied(&[service(json!({ "app": "web" }), json!("http")), other]);
        assert_nobody_is_blamed(&found);
        assert_eq!(answers(&found)[&C::DefinitionValid].0, ConditionStatus::True);
    }
}

#[test]
fn what_was_observed_counts_for_more_than_manifests() {
    let mut files = healthy();
    let manifest = workload(
        "Deployment",
        "web",
        json!({ "app": "wed" }),
        json!({ "containerPort": 80 }),
    );
    files.push(("app.yaml", manifest));
    assert_eq!(judge(&bundle(&files)).root_cause, None);
    // A Service that was seen in the cluster, and a manifest that may not be what runs there.
    let mut misses = checkout(json!("web"));
    misses[0]["metadata"]["uid"] = "u".into();
    assert_nobody_is_blamed(&applied(&misses));
    misses[0]["spec"]["selector"] = json!({ "app": "chekout" });
    assert_nobody_is_blamed(&applied(&misses));
}
