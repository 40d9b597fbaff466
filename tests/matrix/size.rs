//! A Service with a thousand endpoints: few are dialled, all are compared, and the report stays small.
//!
//! The endpoints are addresses of a network that one node answers for, whichever is asked: a Pod in that
//! node's network listens there. No Pods stand behind them, as for databases outside of the cluster.

use std::time::Instant;

use kube::{
    Api,
    api::{DynamicObject, ListParams},
};
use serde_json::{Value, json};
use svcdiag::api::{DialPath, NodeProbe, ServiceDiagnosis};
use svcdiag_sandbox::{
    error::chain,
    faults::{Verdict, kinds::Target},
};

use crate::harness::{Harness, SOON, on_a_cluster};

const ENDPOINTS: usize = 1000;
const IN_A_SLICE: usize = 100;
const MOST_DIALLED: u32 = 50;
const MOST_BYTES: usize = 64 * 1024;
const PORT: u16 = 9999;
const NETWORK: &str = "10.250.0.0/16";

fn address(number: usize) -> String {
    format!("10.250.{}.{}", number / 200, number % 200 + 1)
}

fn objects() -> Vec<Value> {
    let slice = |index: usize| {
        let endpoints: Vec<Value> = (index * IN_A_SLICE..(index + 1) * IN_A_SLICE)
            .map(|n| json!({ "addresses": [address(n)], "conditions": { "ready": true } }))
            .collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": format!("big-{index}"), "labels": { "kubernetes.io/service-name": "big" } },
            "addressType": "IPv4", "ports": [{ "name": "", "port": PORT, "protocol": "TCP" }],
            "endpoints": endpoints,
        })
    };
    let mut all = vec![
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "answers", "labels": { "app": "answers" } },
            "spec": { "hostNetwork": true, "nodeName": "sandbox-1", "containers": [{ "name": "answers", "image": "answers",
                "ports": [{ "containerPort": PORT, "hostPort": PORT, "protocol": "TCP" }] }] },
        }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "big" },
            "spec": { "ports": [{ "port": 80, "targetPort": PORT, "protocol": "TCP" }] },
        }),
    ];
    all.extend((0..ENDPOINTS / IN_A_SLICE).map(slice));
    all.push(json!({
        "apiVersion": "svcdiag.dev/v1alpha1", "kind": "ServiceDiagnosis", "metadata": { "name": "big" },
        "spec": { "serviceName": "big", "intervalSeconds": 10, "clients": { "podSelector": { "matchLabels": { "app": "client" } } } },
    }));
    all
}

async fn judge(harness: &Harness) -> Result<(), String> {
    let kernel = harness.cluster.kernel().ok_or("no kernel")?;
    for node in kernel.nodes() {
        let route = if node.name() == "sandbox-1" {
            format!("ip route add local {NETWORK} dev lo")
        } else {
            format!("ip route add {NETWORK} via 172.18.0.2")
        };
        node.sh(&route, &[]).await.map_err(|e| chain(&e))?;
    }
    let client = harness.cluster.client();
    let start = Instant::now();
    for value in objects() {
        let object: DynamicObject = serde_json::from_value(value).map_err(|e| e.to_string())?;
        let target = Target::of(&object, "default").ok_or("a kind")?;
        let created = target
            .api(&client)
            .create(&kube::api::PostParams::default(), &object)
            .await;
        created.map_err(|e| format!("{target}: {}", chain(&e)))?;
    }
    let diagnoses: Api<ServiceDiagnosis> = Api::namespaced(client.clone(), "default");
    let verdict = loop {
        let diagnosis = diagnoses.get("big").await.map_err(|e| chain(&e))?;
        let value = serde_json::to_value(&diagnosis).map_err(|e| e.to_string())?;
        let verdict = Verdict::read(&value);
        let conditions = || {
            verdict
                .conditions()
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n")
        };
        if !verdict.broken_stages().is_empty() {
            return Err(format!("false blame: {verdict}\n{value:#}"));
        }
        if verdict.condition("Ready").is_some_and(|c| c.status == "True") {
            break verdict;
        }
        if start.elapsed() > SOON * 2 {
            return Err(format!("no verdict: {}", conditions()));
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    };
    let took = start.elapsed();
    let probes: Api<NodeProbe> = Api::namespaced(client, "default");
    let all = probes.list(&ListParams::default()).await.map_err(|e| chain(&e))?;
    let (mut dialled, mut bytes, mut compared) = (0, 0, 0);
    for probe in all.iter().filter(|p| p.spec.diagnosis.name == "big") {
        let node = &probe.spec.node_name;
        bytes = bytes.max(serde_json::to_string(probe).map_err(|e| e.to_string())?.len());
        let facts = probe
            .status
            .clone()
            .and_then(|s| s.facts)
            .ok_or_else(|| format!("{node} says nothing"))?;
        let to_endpoints = facts.dials.iter().filter(|d| d.path == DialPath::Endpoint);
        dialled = dialled.max(to_endpoints.map(|d| d.made).sum::<u32>());
        let rules = facts
            .rules
            .ok_or_else(|| format!("{node} compared no rules: {:?}", facts.problems))?;
        if rules.compared == 0 || !rules.gaps.is_empty() {
            return Err(format!("{node}: {rules:?}"));
        }
        compared += rules.compared;
    }
    println!(
        "{ENDPOINTS} endpoints (N43): {verdict} after {:.0} s, at most {dialled} dialled per node, at most {bytes} bytes, {compared} ports compared without a gap",
        took.as_secs_f64()
    );
    if dialled == 0 || dialled > MOST_DIALLED || bytes >= MOST_BYTES || compared == 0 {
        return Err("not within the bounds".to_owned());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_endpoints_are_compared_and_few_are_dialled() {
    on_a_cluster(judge).await;
}
