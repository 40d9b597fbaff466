//! Tables, the form in which kubectl asks for what `kubectl get` prints.

use jiff::Timestamp;
use serde_json::{Value, json};
use serde_json_path::JsonPath;

use super::resources::Resource;

/// A column: name, type, priority, and its cell for an object.
type Column = (&'static str, i64, fn(&Value) -> Value);

/// A Table of objects. `include` says what comes with each row: Metadata (default), Object or None.
pub(crate) fn table(
    resource: &Resource,
    objects: &[Value],
    metadata: &Value,
    include: &str,
    now: Timestamp,
) -> Value {
    let (columns, cells) = match &resource.custom {
        Some(custom) => custom_columns(&custom.columns, objects, now),
        None if resource.kind == "Event" => event_columns(objects, now),
        None => built_in_columns(resource, objects, now),
    };
    let rows: Vec<Value> = objects
        .iter()
        .zip(cells)
        .map(|(object, cells)| {
            let object = match include {
                "Object" => object.clone(),
                "None" => Value::Null,
                _ => partial(object),
            };
            json!({ "cells": cells, "object": object })
        })
        .collect();
    json!({ "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": columns, "rows": rows })
}

/// An object cut down to its metadata.
pub(crate) fn partial(object: &Value) -> Value {
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"] })
}

fn definition(name: &str, type_: &str, priority: i64) -> Value {
    let format = if name == "Name" { "name" } else { "" };
    json!({ "name": name, "type": type_, "format": format, "description": name, "priority": priority })
}

fn custom_columns(columns: &[Value], objects: &[Value], now: Timestamp) -> (Vec<Value>, Vec<Vec<Value>>) {
    let mut definitions = vec![definition("Name", "string", 0)];
    let mut paths = Vec::new();
    for column in columns {
        let text = |key: &str| column[key].as_str().unwrap_or_default();
        definitions.push(definition(
            text("name"),
            text("type"),
            column["priority"].as_i64().unwrap_or(0),
        ));
        let path = text("jsonPath").trim_start_matches('.');
        paths.push((JsonPath::parse(&format!("$.{path}")).ok(), text("type") == "date"));
    }
    let row = |object: &Value| {
        let cells = paths.iter().map(|(path, is_date)| {
            let found = path
                .as_ref()
                .and_then(|p| p.query(object).first())
                .cloned()
                .unwrap_or(Value::Null);
            if *is_date && !found.is_null() {
                json!(age(&found, now))
            } else {
                found
            }
        });
        std::iter::once(object["metadata"]["name"].clone())
            .chain(cells)
            .collect()
    };
    (definitions, objects.iter().map(row).collect())
}

/// Events have a table of their own, by when they were seen.
fn event_columns(events: &[Value], now: Timestamp) -> (Vec<Value>, Vec<Vec<Value>>) {
    let columns = [
        ("Last Seen", 0),
        ("Type", 0),
        ("Reason", 0),
        ("Object", 0),
        ("Subobject", 1),
        ("Source", 1),
        ("Message", 0),
        ("First Seen", 1),
        ("Count", 1),
        ("Name", 1),
    ];
    let row = |e: &Value| {
        let first = [&e["firstTimestamp"], &e["eventTime"]]
            .into_iter()
            .find(|t| t.is_string());
        let last = [&e["series"]["lastObservedTime"], &e["lastTimestamp"]]
            .into_iter()
            .find(|t| t.is_string());
        let first = first.unwrap_or(&Value::Null);
        let count = [&e["series"]["count"], &e["count"]]
            .into_iter()
            .find_map(Value::as_i64)
            .unwrap_or(1);
        let object = &e["involvedObject"];
        let reporter = [&e["reportingComponent"], &e["reportingInstance"]];
        let source = [&e["source"]["component"], &e["source"]["host"]];
        let told = if source[0].is_string() { source } else { reporter };
        let told: Vec<&str> = told
            .into_iter()
            .filter_map(Value::as_str)
            .filter(|t| !t.is_empty())
            .collect();
        vec![
            json!(age(last.unwrap_or(first), now)),
            e["type"].clone(),
            e["reason"].clone(),
            json!(format!(
                "{}/{}",
                text(&object["kind"]).to_lowercase(),
                text(&object["name"])
            )),
            json!(text(&object["fieldPath"])),
            json!(told.join(", ")),
            e["message"].clone(),
            json!(age(first, now)),
            json!(count),
            e["metadata"]["name"].clone(),
        ]
    };
    let definitions = columns
        .iter()
        .map(|(name, priority)| definition(name, "string", *priority))
        .collect();
    (definitions, events.iter().map(row).collect())
}

fn built_in_columns(resource: &Resource, objects: &[Value], now: Timestamp) -> (Vec<Value>, Vec<Vec<Value>>) {
    let columns: &[Column] = match resource.kind.as_str() {
        "Pod" => &[
            ("Ready", 0, pod_ready),
            ("Status", 0, pod_status),
            ("Restarts", 0, pod_restarts),
            ("IP", 1, |o| some(&o["status"]["podIP"])),
            ("Node", 1, |o| some(&o["spec"]["nodeName"])),
            ("Nominated Node", 1, |o| some(&o["status"]["nominatedNodeName"])),
            ("Readiness Gates", 1, readiness_gates),
        ],
        "Service" => &[
            ("Type", 0, |o| o["spec"]["type"].clone()),
            ("Cluster-IP", 0, |o| some(&o["spec"]["clusterIP"])),
            ("External-IP", 0, external_ip),
            ("Port(s)", 0, service_ports),
            ("Selector", 1, |o| selector(&o["spec"]["selector"])),
        ],
        "Deployment" | "StatefulSet" => &[
            ("Ready", 0, |o| {
                json!(format!(
                    "{}/{}",
                    number(&o["status"]["readyReplicas"]),
                    number(&o["spec"]["replicas"])
                ))
            }),
            ("Up-to-date", 0, |o| {
                json!(number(&o["status"]["updatedReplicas"]))
            }),
            ("Available", 0, |o| {
                json!(number(&o["status"]["availableReplicas"]))
            }),
            ("Containers", 1, |o| of_containers(o, "name")),
            ("Images", 1, |o| of_containers(o, "image")),
            ("Selector", 1, |o| selector(&o["spec"]["selector"]["matchLabels"])),
        ],
        "ReplicaSet" => &[
            ("Desired", 0, |o| json!(number(&o["spec"]["replicas"]))),
            ("Current", 0, |o| json!(number(&o["status"]["replicas"]))),
            ("Ready", 0, |o| json!(number(&o["status"]["readyReplicas"]))),
        ],
        "EndpointSlice" => &[
            ("AddressType", 0, |o| o["addressType"].clone()),
            ("Ports", 0, |o| {
                joined(o["ports"].as_array(), |p| p["port"].to_string())
            }),
            ("Endpoints", 0, |o| {
                joined(o["endpoints"].as_array(), |e| text(&e["addresses"][0]))
            }),
        ],
        "Node" => &[
            ("Status", 0, node_status),
            ("Version", 0, |o| {
                o["status"]["nodeInfo"]["kubeletVersion"].clone()
            }),
        ],
        "Namespace" => &[("Status", 0, |o| o["status"]["phase"].clone())],
        "NetworkPolicy" => &[("Pod-Selector", 0, |o| {
            selector(&o["spec"]["podSelector"]["matchLabels"])
        })],
        "ConfigMap" => &[("Data", 0, |o| {
            let size = |field: &str| o[field].as_object().map_or(0, serde_json::Map::len);
            json!(size("data") + size("binaryData"))
        })],
        "Lease" => &[("Holder", 0, |o| o["spec"]["holderIdentity"].clone())],
        "CustomResourceDefinition" => &[],
        _ => &[],
    };
    let mut definitions = vec![definition("Name", "string", 0)];
    definitions.extend(
        columns
            .iter()
            .filter(|c| c.1 == 0)
            .map(|(name, priority, _)| definition(name, "string", *priority)),
    );
    definitions.push(definition("Age", "string", 0));
    definitions.extend(
        columns
            .iter()
            .filter(|c| c.1 > 0)
            .map(|(name, priority, _)| definition(name, "string", *priority)),
    );
    let row = |object: &Value| {
        let cells = |priority: i64| {
            columns
                .iter()
                .filter(move |c| c.1 == priority)
                .map(|(_, _, cell)| cell(object))
        };
        let age = json!(age(&object["metadata"]["creationTimestamp"], now));
        std::iter::once(object["metadata"]["name"].clone())
            .chain(cells(0))
            .chain([age])
            .chain(cells(1))
            .collect()
    };
    (definitions, objects.iter().map(row).collect())
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn some(value: &Value) -> Value {
    if value.is_null() {
        json!("<none>")
    } else {
        value.clone()
    }
}

fn joined(items: Option<&Vec<Value>>, one: impl Fn(&Value) -> String) -> Value {
    let items: Vec<String> = items.into_iter().flatten().map(one).collect();
    if items.is_empty() {
        json!("<unset>")
    } else {
        json!(items.join(","))
    }
}

fn selector(labels: &Value) -> Value {
    let pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", text(v)))
        .collect();
    if pairs.is_empty() {
        json!("<none>")
    } else {
        json!(pairs.join(","))
    }
}

fn external_ip(service: &Value) -> Value {
    match service["spec"]["type"].as_str() {
        Some("ExternalName") => service["spec"]["externalName"].clone(),
        Some("LoadBalancer") => match &service["status"]["loadBalancer"]["ingress"][0]["ip"] {
            Value::Null => json!("<pending>"),
            ip => ip.clone(),
        },
        _ => json!("<none>"),
    }
}

fn service_ports(service: &Value) -> Value {
    let port = |p: &Value| match p["nodePort"].as_i64() {
        Some(node_port) => format!("{}:{node_port}/{}", p["port"], text(&p["protocol"])),
        None => format!("{}/{}", p["port"], text(&p["protocol"])),
    };
    match service["spec"]["ports"].as_array() {
        None => json!("<none>"),
        ports => joined(ports, port),
    }
}

fn pod_ready(pod: &Value) -> Value {
    let statuses = pod["status"]["containerStatuses"].as_array();
    let ready = statuses
        .into_iter()
        .flatten()
        .filter(|s| s["ready"] == true)
        .count();
    json!(format!(
        "{ready}/{}",
        pod["spec"]["containers"].as_array().map_or(0, Vec::len)
    ))
}

fn pod_status(pod: &Value) -> Value {
    if pod["metadata"]["deletionTimestamp"].is_string() {
        return json!("Terminating");
    }
    let statuses = pod["status"]["containerStatuses"].as_array();
    let waiting = statuses
        .into_iter()
        .flatten()
        .find_map(|s| s["state"]["waiting"]["reason"].as_str());
    waiting.map_or_else(|| pod["status"]["phase"].clone(), |reason| json!(reason))
}

fn pod_restarts(pod: &Value) -> Value {
    let statuses = pod["status"]["containerStatuses"].as_array();
    json!(
        statuses
            .into_iter()
            .flatten()
            .map(|s| number(&s["restartCount"]))
            .sum::<i64>()
            .to_string()
    )
}

fn readiness_gates(pod: &Value) -> Value {
    let gates: Vec<&Value> = pod["spec"]["readinessGates"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    let conditions: Vec<&Value> = pod["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    let open = |gate: &&&Value| {
        conditions
            .iter()
            .any(|c| c["type"] == gate["conditionType"] && c["status"] == "True")
    };
    if gates.is_empty() {
        json!("<none>")
    } else {
        json!(format!("{}/{}", gates.iter().filter(open).count(), gates.len()))
    }
}

fn of_containers(workload: &Value, field: &str) -> Value {
    joined(
        workload["spec"]["template"]["spec"]["containers"].as_array(),
        |c| text(&c[field]),
    )
}

fn node_status(node: &Value) -> Value {
    let conditions = node["status"]["conditions"].as_array();
    let ready = conditions
        .into_iter()
        .flatten()
        .any(|c| c["type"] == "Ready" && c["status"] == "True");
    json!(if ready { "Ready" } else { "NotReady" })
}

/// A time as its age, as `kubectl get` shows it.
fn age(time: &Value, now: Timestamp) -> String {
    let Some(then) = time.as_str().and_then(|t| t.parse::<Timestamp>().ok()) else {
        return "<unknown>".to_owned();
    };
    let seconds = now.as_second() - then.as_second();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        i64::MIN..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 if seconds % 60 > 0 => format!("{minutes}m{}s", seconds % 60),
        120..10_800 => format!("{minutes}m"),
        10_800..28_800 if minutes % 60 > 0 => format!("{hours}h{}m", minutes % 60),
        10_800..172_800 => format!("{hours}h"),
        172_800..691_200 if hours % 24 > 0 => format!("{days}d{}h", hours % 24),
        _ => format!("{days}d"),
    }
}
