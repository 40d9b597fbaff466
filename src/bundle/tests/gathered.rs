//! What is taken from objects that are no kinds of their own to a verdict: Events, and kinds of policies.

use super::*;

fn found(extra: &[(&str, Value)]) -> crate::engine::Facts {
    let mut files = healthy();
    files.extend_from_slice(extra);
    let bundle = bundle(&files);
    let (facts, problems) = facts(&bundle, &bundle.diagnosis("shop", "web"), NOW.parse().unwrap());
    assert_eq!((problems, &bundle.problems), (vec![], &vec![]));
    facts
}

fn event(pod: &str, type_: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Event", "type": type_, "reason": "FailedMount", "message": "no such volume",
        "metadata": { "name": format!("{pod}.{type_}"), "namespace": "shop" }, "lastTimestamp": NOW,
        "involvedObject": { "kind": "Pod", "name": pod, "namespace": "shop", "uid": pod } })
}

#[test]
fn warnings_about_pods_are_found_in_lists_of_kubectl_and_of_the_api() {
    let events = [
        event("web-1", "Warning"),
        event("web-1", "Normal"),
        event("gone", "Warning"),
    ];
    let of_api = json!({ "apiVersion": "v1", "kind": "EventList", "metadata": { "resourceVersion": "7" }, "items": events });
    for (path, content) in [
        ("objects/events.json", of_api),
        ("notes/events.yaml", list(&events)),
    ] {
        let facts = found(&[(path, content)]);
        let names: Vec<&str> = facts.events.iter().map(|e| e.name()).collect();
        assert_eq!(names, ["web-1.Warning"], "{path}");
        assert_eq!(facts.why_unreadable("events"), None, "{path}");
    }
    let why = found(&[]).why_unreadable("events").map(str::to_owned);
    assert_eq!(
        why.as_deref(),
        Some("the bundle has no list of the Events of namespace shop")
    );
}

#[test]
fn kinds_of_policies_are_told_by_their_objects_their_definitions_and_the_manifest() {
    let cilium = json!({ "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": { "name": "a", "namespace": "shop" } });
    let calico = json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "globalnetworkpolicies.crd.projectcalico.org" },
        "spec": { "group": "crd.projectcalico.org", "names": { "kind": "GlobalNetworkPolicy" } } });
    let kinds = |extra: &[(&str, Value)]| found(extra).other_policy_kinds;
    assert_eq!(kinds(&[("a.yaml", list(&[cilium]))]), ["CiliumNetworkPolicy"]);
    assert_eq!(kinds(&[("a.yaml", calico)]), ["Calico GlobalNetworkPolicy"]);
    let empty = json!({ "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicyList", "metadata": { "resourceVersion": "7" }, "items": [] });
    assert_eq!(
        kinds(&[("a.json", empty)]),
        ["CiliumNetworkPolicy"],
        "who can list them serves them"
    );
    let manifest = json!({ "time": NOW, "namespace": "shop", "service": "web", "otherPolicyKinds": ["AdminNetworkPolicy"] });
    assert_eq!(kinds(&[("manifest.yaml", manifest)]), ["AdminNetworkPolicy"]);
    // Of Cilium, but no policy; a policy, but the kind that every cluster has.
    let endpoint = json!({ "apiVersion": "cilium.io/v2", "kind": "CiliumEndpoint", "metadata": { "name": "a", "namespace": "shop" } });
    let usual = json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": "a", "namespace": "shop" }, "spec": { "podSelector": {} } });
    assert!(kinds(&[("a.yaml", endpoint), ("b.yaml", usual)]).is_empty());
}
