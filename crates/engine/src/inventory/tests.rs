use serde_json::{Value, json};

use super::*;
use svcdiag_objects::trim_metadata;

fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn service(namespace: &str, name: &str, app: &str) -> Service {
    object(
        json!({ "metadata": { "namespace": namespace, "name": name }, "spec": { "selector": { "app": app }, "ports": [{ "port": 80 }] } }),
    )
}

fn pod(namespace: &str, name: &str, app: &str) -> Pod {
    object(
        json!({ "metadata": { "namespace": namespace, "name": name, "uid": name, "labels": { "app": app } },
        "status": { "phase": "Running", "podIP": "10.0.0.1" } }),
    )
}

fn slice(namespace: &str, name: &str, service: &str) -> EndpointSlice {
    object(
        json!({ "metadata": { "namespace": namespace, "name": name, "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4", "endpoints": [{ "addresses": ["10.0.0.1"] }] }),
    )
}

fn diagnosis(namespace: &str, name: &str, spec: Value) -> ServiceDiagnosis {
    object(
        json!({ "apiVersion": "svcdiag.dev/v1alpha1", "kind": "ServiceDiagnosis",
        "metadata": { "namespace": namespace, "name": name }, "spec": spec }),
    )
}

/// Two Services with a diagnosis each in `shop`, one in `web`.
fn inventory() -> Inventory {
    let mut inventory = Inventory::default();
    for (namespace, name) in [("shop", "cart"), ("shop", "pay"), ("web", "front")] {
        inventory.set_interest(&diagnosis(namespace, name, json!({ "serviceName": name })));
        inventory.apply(service(namespace, name, name));
        inventory.apply(slice(namespace, &format!("{name}-1"), name));
    }
    inventory
}

/// The facts about a Service of `shop`, for a diagnosis of the same name.
fn facts(inventory: &Inventory, name: &str) -> crate::Facts {
    let diagnosis = diagnosis("shop", name, json!({ "serviceName": name }));
    inventory.facts(&diagnosis, Timestamp::UNIX_EPOCH, true)
}

/// The same for whoever may know nothing of other namespaces.
fn own_facts(inventory: &Inventory, name: &str) -> crate::Facts {
    let diagnosis = diagnosis("shop", name, json!({ "serviceName": name }));
    inventory.facts(&diagnosis, Timestamp::UNIX_EPOCH, false)
}

fn names(keys: BTreeSet<DiagnosisKey>) -> Vec<String> {
    keys.into_iter().map(|(_, name)| name).collect()
}

#[test]
fn a_service_concerns_its_own_diagnosis() {
    assert_eq!(names(inventory().apply(service("shop", "cart", "x"))), ["cart"]);
}

#[test]
fn a_new_service_concerns_those_that_look_for_one() {
    let mut inventory = inventory();
    inventory.set_interest(&diagnosis("web", "lost", json!({ "serviceName": "lost" })));
    assert_eq!(
        names(inventory.apply(service("shop", "lost", "x"))),
        ["lost"],
        "a namesake elsewhere"
    );
    assert_eq!(
        names(inventory.apply(service("web", "los", "x"))),
        ["lost"],
        "a near miss"
    );
    assert!(
        names(inventory.apply(service("web", "los", "y"))).is_empty(),
        "which was known"
    );
}

#[test]
fn a_slice_concerns_the_diagnosis_of_its_service() {
    let mut inventory = inventory();
    assert_eq!(names(inventory.apply(slice("shop", "pay-2", "pay"))), ["pay"]);
    assert_eq!(
        names(inventory.apply(slice("shop", "pay-2", "cart"))),
        ["cart", "pay"],
        "before and after"
    );
    assert_eq!(
        names(inventory.delete::<EndpointSlice>("shop", "pay-2")),
        ["cart"]
    );
}

#[test]
fn that_slices_have_gone_is_known_for_a_while() {
    let at = |second: i64| Timestamp::from_second(second).unwrap();
    let mut inventory = inventory();
    assert_eq!(facts(&inventory, "cart").slices_gone_at, None);
    inventory.observe_at(at(10));
    inventory.apply(slice("shop", "cart-1", "cart"));
    assert_eq!(facts(&inventory, "cart").slices_gone_at, None, "a change");
    inventory.delete::<EndpointSlice>("shop", "cart-1");
    assert_eq!(facts(&inventory, "cart").slices_gone_at, Some(at(10)));
    inventory.observe_at(at(100));
    inventory.replace::<EndpointSlice>(vec![slice("shop", "pay-1", "cart")]);
    assert_eq!(facts(&inventory, "cart").slices_gone_at, None, "long ago");
    assert_eq!(
        facts(&inventory, "pay").slices_gone_at,
        Some(at(100)),
        "now another's"
    );
}

#[test]
fn a_pod_concerns_the_services_that_select_it_before_or_after() {
    let mut inventory = inventory();
    assert_eq!(names(inventory.apply(pod("shop", "p", "cart"))), ["cart"]);
    assert_eq!(names(inventory.apply(pod("shop", "p", "pay"))), ["cart", "pay"]);
    assert_eq!(names(inventory.delete::<Pod>("shop", "p")), ["pay"]);
}

#[test]
fn a_pod_concerns_services_without_endpoints_which_it_may_miss_narrowly() {
    let mut inventory = inventory();
    inventory.delete::<EndpointSlice>("shop", "cart-1");
    assert_eq!(names(inventory.apply(pod("shop", "p", "other"))), ["cart"]);
}

#[test]
fn a_pod_concerns_those_who_are_judged_by_their_clients() {
    let mut inventory = inventory();
    let spec = json!({ "serviceName": "cart", "clients": { "namespace": "web", "podSelector": {} } });
    inventory.set_interest(&diagnosis("shop", "cart", spec));
    assert_eq!(names(inventory.apply(pod("web", "p", "none"))), ["cart"]);
    assert!(
        names(inventory.apply(pod("web", "p", "none"))).is_empty(),
        "nothing has changed for clients"
    );
    let spec = json!({ "serviceName": "cart", "clients": { "namespace": "api", "podSelector": {} } });
    inventory.set_interest(&diagnosis("shop", "cart", spec));
    assert!(names(inventory.apply(pod("web", "q", "none"))).is_empty());
    assert_eq!(names(inventory.apply(pod("api", "q", "none"))), ["cart"]);
    inventory.remove_interest("shop", "cart");
    assert!(names(inventory.apply(pod("api", "r", "none"))).is_empty());
}

#[test]
fn a_pod_of_cluster_dns_concerns_all() {
    let mut inventory = inventory();
    inventory.apply(service("kube-system", "kube-dns", "dns"));
    assert_eq!(
        names(inventory.apply(pod("kube-system", "coredns", "dns"))),
        ["cart", "pay", "front"]
    );
    assert!(names(inventory.apply(pod("kube-system", "etcd", "etcd"))).is_empty());
}

#[test]
fn a_relist_replaces_everything_at_once() {
    let mut inventory = inventory();
    assert_eq!(inventory.replace(vec![slice("shop", "new", "cart")]).len(), 3);
    assert_eq!(
        facts(&inventory, "cart")
            .slices
            .iter()
            .map(|s| s.name().to_owned())
            .collect::<Vec<_>>(),
        ["new"]
    );
    assert!(facts(&inventory, "pay").slices.is_empty());
}

#[test]
fn facts_hold_what_concerns_the_service_and_no_more() {
    let mut inventory = inventory();
    inventory.apply(pod("shop", "p", "cart"));
    inventory.apply(pod("web", "q", "front"));
    inventory.apply(service("web", "cart", "x"));
    let found = facts(&inventory, "cart");
    assert_eq!((found.pods.len(), found.slices.len()), (1, 1));
    assert!(
        found.namesakes.is_empty(),
        "only looked for while the Service is missing"
    );
    inventory.delete::<Service>("shop", "cart");
    let found = facts(&inventory, "cart");
    let others: Vec<&str> = found.other_services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!((found.namesakes, others), (vec!["web".to_owned()], vec!["pay"]));
    let own = own_facts(&inventory, "cart");
    assert!(
        own.namesakes.is_empty() && own.other_services.len() == 1,
        "{own:?}"
    );
}

#[test]
fn clients_of_another_namespace_need_its_consent() {
    let mut inventory = inventory();
    inventory.apply(pod("web", "q", "front"));
    let facts = |inventory: &Inventory| {
        let spec = json!({ "serviceName": "cart", "clients": { "namespace": "web" } });
        let facts = inventory.facts(&diagnosis("shop", "d", spec), Timestamp::UNIX_EPOCH, false);
        facts.client_namespace.unwrap()
    };
    assert!(!facts(&inventory).granted && facts(&inventory).pods.is_empty());
    let web =
        json!({ "metadata": { "name": "web", "annotations": { "svcdiag.dev/clients-for": "pay, shop" } } });
    let mut web: Namespace = object(web);
    trim_metadata(&mut web.metadata);
    inventory.apply(web);
    assert!(facts(&inventory).granted && facts(&inventory).pods.len() == 1);
}

#[test]
fn what_cannot_be_parsed_is_a_gap_in_the_facts_until_it_can() {
    let mut inventory = inventory();
    let gaps = |inventory: &Inventory, name: &str| facts(inventory, name).unreadable.len();
    assert_eq!(
        names(inventory.note_unparsable::<Service>("shop", "cart", "odd".into())),
        ["cart", "pay"]
    );
    assert_eq!((gaps(&inventory, "cart"), gaps(&inventory, "pay")), (1, 0));
    inventory.apply(service("shop", "cart", "cart"));
    assert_eq!(gaps(&inventory, "cart"), 0);
}

#[test]
fn the_oldest_diagnoses_of_a_namespace_come_first() {
    let mut inventory = Inventory::default();
    for (name, created) in [
        ("c", "2026-01-01T00:00:00Z"),
        ("b", "2026-01-02T00:00:00Z"),
        ("a", "2026-01-03T00:00:00Z"),
    ] {
        let mut d = diagnosis("shop", name, json!({ "serviceName": name }));
        d.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            created.parse().unwrap(),
        ));
        inventory.set_interest(&d);
    }
    let beyond = |limit| ["a", "b", "c"].map(|name| inventory.is_beyond(limit, "shop", name));
    assert_eq!(beyond(0), [false, false, false]);
    assert_eq!(beyond(2), [true, false, false]);
    assert_eq!(beyond(1), [true, true, false]);
}

#[test]
fn a_new_list_forgets_what_could_not_be_parsed_before() {
    let mut inventory = inventory();
    inventory.note_unparsable::<Pod>("shop", "p", "odd".to_owned());
    let gaps = |inventory: &Inventory| facts(inventory, "cart").unreadable.len();
    assert_eq!(gaps(&inventory), 1);
    inventory.replace::<Pod>(Vec::new());
    assert_eq!(gaps(&inventory), 0);
}

/// The facts about a Service whose diagnosis is `shop/cart`, with Pods of its labels in `web`.
#[test]
fn a_selector_that_misses_is_looked_for_in_other_places() {
    let mut inventory = inventory();
    inventory.apply(pod("web", "a", "cart"));
    inventory.apply(pod("web", "b", "front"));
    let missed = facts(&inventory, "cart");
    assert_eq!(missed.selected_elsewhere, ["web"]);
    let beside: Vec<&str> = missed.other_services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(beside, ["pay"], "those of the namespace, without itself");
    let own = own_facts(&inventory, "cart");
    assert!(
        own.selected_elsewhere.is_empty() && own.other_services.len() == 1,
        "{own:?}"
    );
    // A Pod that has ended is no endpoint, neither here nor elsewhere.
    let mut ended = pod("shop", "job", "cart");
    ended.status.phase = Some("Succeeded".into());
    inventory.apply(ended);
    assert_eq!(facts(&inventory, "cart").selected_elsewhere, ["web"]);
    let mut ended = pod("web", "a", "cart");
    ended.status.phase = Some("Failed".into());
    inventory.apply(ended);
    assert!(facts(&inventory, "cart").selected_elsewhere.is_empty());
    // Where the selector has its Pods nobody looks elsewhere.
    inventory.apply(pod("web", "a", "cart"));
    inventory.apply(pod("shop", "c", "cart"));
    let found = facts(&inventory, "cart");
    assert!(found.selected_elsewhere.is_empty() && found.other_services.is_empty());
}

#[test]
fn endpoints_by_hand_that_are_cluster_ips_are_known_by_their_services() {
    let mut inventory = inventory();
    let service = |namespace: &str, name: &str, spec: Value| -> Service {
        object(json!({ "metadata": { "namespace": namespace, "name": name }, "spec": spec }))
    };
    let by_hand = || {
        service(
            "shop",
            "cart",
            json!({ "clusterIP": "10.96.0.1", "ports": [{ "port": 80 }] }),
        )
    };
    inventory.apply(by_hand());
    assert!(
        facts(&inventory, "cart").chained_services.is_empty(),
        "Pods' addresses"
    );
    inventory.apply(service(
        "web",
        "front",
        json!({ "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"] }),
    ));
    let chained = facts(&inventory, "cart").chained_services;
    let [one] = chained.as_slice() else {
        panic!("{chained:?}");
    };
    assert_eq!(
        (one.address.as_str(), one.namespace.as_str(), one.name.as_str()),
        ("10.0.0.1", "web", "front")
    );
    let own = own_facts(&inventory, "cart");
    assert!(
        own.chained_services.is_empty() && own.endpoints_of_services.is_empty(),
        "{own:?}"
    );
    // Behind a selector the addresses are the Pods'.
    inventory.apply(self::service("shop", "cart", "cart"));
    assert!(facts(&inventory, "cart").chained_services.is_empty());
    inventory.apply(by_hand());
    inventory.delete::<EndpointSlice>("shop", "cart-1");
    assert!(facts(&inventory, "cart").chained_services.is_empty());
}
