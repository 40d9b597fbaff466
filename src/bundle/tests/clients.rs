//! Who the clients are, by what was saved of Pods.

use super::*;

fn policy(peer: Value) -> Value {
    json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": "guard", "namespace": "shop" },
        "spec": { "podSelector": { "matchLabels": { "app": "web" } }, "policyTypes": ["Ingress"], "ingress": [{ "from": [peer] }] } })
}

fn client(namespace: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "caller", "namespace": namespace, "uid": "caller", "labels": { "app": "caller" }, "creationTimestamp": LONG_AGO },
        "spec": { "nodeName": "n1", "containers": [{ "name": "c" }] },
        "status": { "phase": "Running", "podIP": "10.1.0.99", "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": LONG_AGO }] } })
}

fn namespace(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": { "kubernetes.io/metadata.name": name } } })
}

const TIMED_OUT: &str =
    "$ curl --max-time 5 http://10.96.0.7/\ncurl: (28) Connection timed out after 5001 milliseconds\n";
const ANSWERS: &str = "$ curl -s -o /dev/null -w '%{http_code}\\n' http://10.96.0.7/\n200\n";

/// The healthy bundle with a guard that admits a peer, a Pod elsewhere or not, and what it got.
fn with(peer: Value, elsewhere: &str, curl: Option<&str>) -> Bundle {
    let path = format!("pods/{elsewhere}/caller/curl.txt");
    let mut files = healthy();
    let lists = |kind: &str| json!({ "apiVersion": "v1", "kind": kind, "metadata": { "resourceVersion": "7" }, "items": [] });
    files.retain(|(path, _)| *path != "objects/networkpolicies.yaml");
    files.push(("objects/networkpolicies.yaml", list(&[policy(peer)])));
    files.push((
        "objects/namespaces.json",
        list(&[namespace("shop"), namespace("front")]),
    ));
    if elsewhere == "shop" {
        files.push(("objects/caller.json", client("shop")));
    } else {
        files.push(("objects/front/pods.json", api_list(&[client("front")])));
        files.push(("objects/front/networkpolicies.json", lists("NetworkPolicyList")));
    }
    if let Some(curl) = curl {
        files.push((&path, json!(curl)));
    }
    bundle(&files)
}

#[test]
fn a_pod_whose_request_was_saved_is_a_client() {
    let other = || json!({ "podSelector": { "matchLabels": { "app": "other" } } });
    let message = assert_cause(&with(other(), "shop", Some(TIMED_OUT)), "IngressDenied");
    assert!(message.contains("from Pod shop/caller"), "{message}");
    // What got through is enforced by nobody, and a Pod that nobody tried from is a neighbour.
    for curl in [Some(ANSWERS), None] {
        let found = judge(&with(other(), "shop", curl));
        assert_eq!(found.root_cause, None, "{curl:?}");
    }
}

#[test]
fn clients_of_another_namespace_need_no_permission_in_files() {
    let alone = json!({ "podSelector": { "matchLabels": { "app": "caller" } } });
    let message = assert_cause(&with(alone.clone(), "front", Some(TIMED_OUT)), "IngressDenied");
    assert!(message.contains("has no namespaceSelector"), "{message}");
    let namespace = json!({ "matchLabels": { "kubernetes.io/metadata.name": "front" } });
    let both = json!({ "namespaceSelector": namespace, "podSelector": alone["podSelector"] });
    let found = judge(&with(both, "front", Some(ANSWERS)));
    assert_eq!(found.root_cause, None, "{:#?}", found.stages);
}
