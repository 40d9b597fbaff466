use jiff::Timestamp;

use super::*;
use crate::{
    api::{ServiceDiagnosis, ServiceDiagnosisSpec},
    bundle::{self, Bundle, Files},
    engine::{Facts, Unreadable},
    inventory::{Inventory, Listed},
    objects::{EndpointSlice, Lease, Namespace, Node, Pod, Service},
};

const SECRET: &str = "hunter2";

fn of<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// A Service with a Pod that has a secret wherever a Pod can have one, and agents.
fn gathered() -> Gathered {
    let annotations = json!({ "kubectl.kubernetes.io/last-applied-configuration": SECRET, "note": SECRET,
        "svcdiag.dev/unknown": SECRET, "svcdiag.dev.example.com/note": SECRET });
    let metadata = |name: &str, namespace: &str| {
        json!({ "name": name, "namespace": namespace, "uid": name, "annotations": annotations, "labels": { "app": "web" },
            "managedFields": [{ "manager": SECRET, "time": "2026-05-01T10:00:00Z", "fieldsV1": { SECRET: {} } }] })
    };
    let container = json!({ "name": "c", "image": "web:1", "command": [SECRET], "args": [SECRET],
        "env": [{ "name": "PASSWORD", "value": SECRET }], "envFrom": [{ "secretRef": { "name": SECRET } }],
        "volumeMounts": [{ "name": SECRET, "mountPath": "/x" }],
        "readinessProbe": { "periodSeconds": 5, "exec": { "command": [SECRET] },
            "httpGet": { "port": 80, "httpHeaders": [{ "name": "Authorization", "value": SECRET }] } },
        "lifecycle": { "preStop": { "exec": { "command": [SECRET] } } },
        "ports": [{ "containerPort": 9376 }] });
    let mut inventory = Inventory::default();
    inventory.apply::<Pod>(of(json!({ "metadata": metadata("web-1", "shop"),
        "spec": { "nodeName": "n1", "containers": [container], "initContainers": [container],
            "imagePullSecrets": [{ "name": SECRET }], "volumes": [{ "name": "v", "secret": { "secretName": SECRET } }] },
        "status": { "phase": "Running", "podIP": "10.244.0.5",
            "containerStatuses": [{ "name": "c", "ready": true, "restartCount": 0, "state": { "running": {} },
                "lastState": { "terminated": { "exitCode": 1, "message": SECRET } } }] } })));
    inventory.note_event(of(json!({ "metadata": metadata("web-1.1", "shop"), "type": "Warning", "reason": "FailedMount",
        "involvedObject": { "kind": "Pod", "name": "web-1", "uid": "web-1", "fieldPath": SECRET },
        "source": { "component": SECRET }, "message": "no such volume", "lastTimestamp": "2026-05-01T11:59:00Z" })));
    inventory.note_policy_kinds(["CiliumNetworkPolicy".to_owned()].into());
    inventory.apply::<Service>(of(json!({ "metadata": metadata("web", "shop"),
        "spec": { "selector": { "app": "web" }, "clusterIP": "10.96.0.7", "ports": [{ "port": 80, "targetPort": "yes" }] } })));
    inventory.apply::<EndpointSlice>(of(json!({ "metadata": { "name": "web-x", "namespace": "shop",
            "labels": { "kubernetes.io/service-name": "web", "a": "012", "b": "true", "c": "1e3", "d": "null" } },
        "addressType": "IPv4", "endpoints": [{ "addresses": ["10.244.0.5"] }], "ports": [] })));
    inventory.apply::<Namespace>(of(
        json!({ "metadata": { "name": "shop", "annotations": annotations } }),
    ));
    inventory.apply::<Node>(of(
        json!({ "metadata": { "name": "n1", "labels": { "zone": "a" } } }),
    ));
    inventory.observe_at("2026-05-01T12:00:00Z".parse().unwrap());
    inventory.apply::<Lease>(of(
        json!({ "metadata": { "name": "svcdiag-agent-n1", "namespace": "agents" },
        "spec": { "leaseDurationSeconds": 40, "renewTime": "2026-05-01T12:00:00.000000Z" } }),
    ));
    inventory.apply::<crate::api::NodeProbe>(of(json!({ "apiVersion": "svcdiag.dev/v1alpha1", "kind": "NodeProbe",
        "metadata": { "name": "p", "namespace": "shop", "generation": 1, "annotations": annotations },
        "spec": { "nodeName": "n1", "diagnosis": { "name": "web", "uid": "u" }, "serviceName": "web", "intervalSeconds": 60 },
        "status": { "observedGeneration": 1, "facts": {} } })));
    let diagnosis: ServiceDiagnosis = of(
        json!({ "apiVersion": "svcdiag.dev/v1alpha1", "kind": "ServiceDiagnosis",
        "metadata": { "name": "web", "namespace": "shop", "uid": "u", "annotations": annotations },
        "spec": { "serviceName": "web" } }),
    );
    let mut listed = Listed::default();
    for resource in [
        "services",
        "pods",
        "deployments",
        "replicasets",
        "statefulsets",
        "events",
    ] {
        listed.note(resource, "shop");
    }
    listed.note_slices_of("shop", "web");
    let mut spec = ServiceDiagnosisSpec::for_service("web");
    spec.clients.pod_selector = Some(of(json!({ "matchLabels": { "tier": "true" } })));
    Gathered {
        judged: ServiceDiagnosis::asked_now(Some(diagnosis.clone()), "shop", spec),
        diagnosis: Some(diagnosis),
        inventory,
        listed,
        gaps: vec![Unreadable {
            resource: "networkpolicies".to_owned(),
            why: "not allowed to list networkpolicies in namespace shop".to_owned(),
        }],
        is_unwatched: false,
        namespace_is_missing: false,
    }
}

fn manifest(gathered: &Gathered) -> Manifest {
    Manifest {
        time: Some(now()),
        namespace: Some("shop".to_owned()),
        service: Some("web".to_owned()),
        spec: Some(gathered.judged.spec.clone()),
        listed: Some(gathered.listed.iter().cloned().collect()),
        other_policy_kinds: gathered.inventory.policy_kinds().cloned().collect(),
        unreadable: gathered.gaps.clone(),
        ..Manifest::default()
    }
}

fn now() -> Timestamp {
    "2026-05-01T12:00:10Z".parse().unwrap()
}

#[test]
fn no_secret_gets_into_a_bundle() {
    let gathered = gathered();
    let files = files(&objects(&gathered, &Extras::default()), &manifest(&gathered));
    assert!(files.iter().any(|(path, _)| path == "objects/pods.json"));
    for (path, text) in files {
        assert!(!text.contains(SECRET), "{path}: {text}");
        assert!(!text.contains("PASSWORD"), "{path}: {text}");
    }
}

#[test]
fn the_bundle_tells_what_the_cluster_told() {
    let gathered = gathered();
    let files = files(&objects(&gathered, &Extras::default()), &manifest(&gathered));
    let file = |(path, text): (String, String)| bundle::files::File {
        path,
        text,
        modified: None,
    };
    let bundle = Bundle::of(Files {
        files: files.into_iter().map(file).collect(),
        problems: Vec::new(),
    });
    assert_eq!(bundle.problems, []);
    let diagnosis = bundle.diagnosis("shop", "web");
    let mut expected: Facts = gathered.facts(now());
    // Objects in the cluster's memory may have more metadata than a verdict depends on.
    let trim = |facts: &mut Facts| {
        let text = serde_json::to_string(&facts).unwrap();
        let mut value: Value = serde_json::from_str(&text).unwrap();
        without_metadata(&mut value);
        value
    };
    let (mut found, problems) = bundle::facts(&bundle, &diagnosis, bundle.time(Timestamp::MAX));
    assert_eq!(problems, []);
    assert_eq!(found.nodes.len(), 1);
    assert_eq!((found.events.len(), found.other_policy_kinds.len()), (1, 1));
    assert!(found.nodes[0].probe.is_some());
    assert_eq!(trim(&mut found), trim(&mut expected));
}

fn without_metadata(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("annotations");
            fields.remove("managedFields");
            fields.values_mut().for_each(without_metadata);
        }
        Value::Array(items) => items.iter_mut().for_each(without_metadata),
        _ => {}
    }
}

#[test]
fn no_secret_of_a_message_gets_into_a_bundle() {
    let mut gathered = gathered();
    gathered.inventory.apply::<Pod>(of(json!({ "metadata": { "name": "web-2", "namespace": "shop", "uid": "web-2" },
        "spec": { "nodeName": "n1", "containers": [{ "name": "c", "image": "web:1" }] },
        "status": { "phase": "Pending",
            "conditions": [{ "type": "Ready", "status": "False", "message": format!("password: {SECRET}") }],
            "containerStatuses": [{ "name": "c", "ready": false, "restartCount": 0, "state": { "waiting": {
                "reason": "CreateContainerError",
                "message": format!("cannot reach postgres://root:{SECRET}@db/x with --token={SECRET}") } } }] } })));
    gathered.inventory.note_event(of(json!({ "metadata": { "name": "e", "namespace": "shop" }, "type": "Warning",
        "reason": "Failed", "involvedObject": { "kind": "Pod", "name": "web-2", "uid": "web-2" },
        "message": format!("pull https://u:{SECRET}@registry/?sig={SECRET}"), "lastTimestamp": "2026-05-01T11:59:00Z" })));
    let extras = Extras {
        config_maps: vec![
            json!({ "kind": "ConfigMap", "data": { "Corefile": crate::collect::redact::corefile(&format!(
            ".:53 {{\n  etcd {{\n    credentials root {SECRET}\n  }}\n  forward . tls://u:{SECRET}@9.9.9.9\n}}\n")) } }),
        ],
        ..Extras::default()
    };
    for (path, text) in files(&objects(&gathered, &extras), &manifest(&gathered)) {
        assert!(!text.contains(SECRET), "{path}: {text}");
    }
}
