//! Order and cells of the table.

use serde_json::{Value, json};

use super::*;
use crate::api::crds;

const NOW: i64 = 1_800_000_000;

fn at(seconds: i64) -> String {
    Timestamp::from_second(NOW - seconds).unwrap().to_string()
}

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn diagnosis(namespace: &str, name: &str, status: Value) -> ServiceDiagnosis {
    let object = json!({
        "apiVersion": "svcdiag.dev/v1alpha1", "kind": "ServiceDiagnosis",
        "metadata": { "name": name, "namespace": namespace, "creationTimestamp": at(179) },
        "spec": { "serviceName": "storefront" }, "status": status,
    });
    serde_json::from_value(object).unwrap()
}

fn ready_is(status: &str, reason: &str) -> Value {
    json!({
        "observedGeneration": 1,
        "conditions": [{ "type": "Ready", "status": status, "reason": reason, "message": "It\nis so.",
            "lastTransitionTime": at(60) }],
        "summary": { "endpoints": "2/3", "dns": "OK", "proxy": "nftables 2/2", "hairpin": "n/a" },
        "proxyMode": "nftables",
    })
}

fn all() -> Vec<ServiceDiagnosis> {
    let mut all = vec![
        diagnosis("shop", "works", ready_is("True", "ServiceWorks")),
        diagnosis("shop", "new", json!({ "observedGeneration": -1 })),
        diagnosis("shop", "late", ready_is("Unknown", "AgentNotResponding")),
        diagnosis("web", "broken", ready_is("False", "NoReadyEndpoints")),
        diagnosis("shop", "zebra", ready_is("False", "FirewallDrops")),
    ];
    sort(&mut all);
    all
}

#[test]
fn what_does_not_work_comes_first_and_then_what_is_not_known() {
    let names: Vec<String> = all().iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["zebra", "broken", "late", "new", "works"]);
}

#[test]
fn the_columns_are_those_of_the_crd() {
    let crd = &crds()[0];
    let columns = crd["spec"]["versions"][0]["additionalPrinterColumns"]
        .as_array()
        .unwrap();
    let of = |is_wide: bool| {
        let wanted = columns.iter().filter(move |c| (c["priority"] == 1) == is_wide);
        wanted.map(|c| c["name"].as_str().unwrap().to_uppercase())
    };
    let expected: Vec<String> = std::iter::once("NAME".to_owned())
        .chain(of(false))
        .chain(of(true))
        .collect();
    assert_eq!(HEADINGS.to_vec(), expected);
    assert_eq!(NARROW, 1 + of(false).count());
}

#[test]
fn the_table_is_that_of_kubectl_with_no_empty_cells() {
    let narrow = Table {
        has_headings: true,
        has_namespaces: true,
        is_wide: false,
    };
    insta::assert_snapshot!(narrow.of(&all(), now()), @"
    NAMESPACE   NAME     READY     REASON               SERVICE      ENDPOINTS   DNS   PROXY          HAIRPIN   AGE
    shop        zebra    False     FirewallDrops        storefront   2/3         OK    nftables 2/2   n/a       2m59s
    web         broken   False     NoReadyEndpoints     storefront   2/3         OK    nftables 2/2   n/a       2m59s
    shop        late     Unknown   AgentNotResponding   storefront   2/3         OK    nftables 2/2   n/a       2m59s
    shop        new      Unknown   -                    storefront   ?           ?     ?              ?         2m59s
    shop        works    True      ServiceWorks         storefront   2/3         OK    nftables 2/2   n/a       2m59s
    ");
    let wide = Table {
        has_headings: false,
        has_namespaces: false,
        is_wide: true,
    };
    insta::assert_snapshot!(wide.of(&all()[2..4], now()), @"
    late   Unknown   AgentNotResponding   storefront   2/3   OK   nftables 2/2   n/a   2m59s   It is so.   nftables   60s
    new    Unknown   -                    storefront   ?     ?    ?              ?     2m59s   -           -          -
    ");
    assert_eq!(narrow.of(&[], now()), "");
}
