//! What an evaluation takes, step by step and by the number of nodes, without the API server: `make bench`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a benchmark fails by panicking"
)]

#[path = "fleet/answers.rs"]
mod answers;
#[allow(dead_code, reason = "shared with the fleet, which uses all of it")]
#[path = "fleet/cluster.rs"]
mod cluster;
#[allow(dead_code, reason = "shared with the fleet, which uses all of it")]
#[path = "scale/population.rs"]
mod population;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use comfy_table::{Table, presets::ASCII_MARKDOWN};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use svcdiag::{
    api::{DiagnosisRef, NodeProbe, NodeProbeStatus, ServiceDiagnosis, ServiceDiagnosisSpec},
    engine::{diagnose, plan, probe_name, question_digest},
    inventory::{Inventory, Tracked},
    objects::{Deployment, EndpointSlice, Lease, Namespace, Node, Object, Pod, ReplicaSet, Service},
};

/// Diagnoses, each of a Service of its own.
const DIAGNOSES: usize = 200;

/// Times that each is evaluated.
const ROUNDS: u32 = 5;

const STEPS: [&str; 5] = ["NodeProbes", "facts", "plan", "ask", "diagnose"];

fn main() {
    let mut table = Table::new();
    let header = ["nodes"].into_iter().chain(STEPS).chain(["all"]);
    table.load_style(ASCII_MARKDOWN).set_header(header);
    for nodes in [10, 100, 1000] {
        let times = Fleet::of(nodes).evaluate();
        let all: Duration = times.iter().sum();
        let micros = |time: &Duration| format!("{:.0}", time.as_secs_f64() * 1e6);
        let row = times.iter().chain([&all]).map(micros);
        table.add_row([nodes.to_string()].into_iter().chain(row));
    }
    println!(
        "microseconds of an evaluation in which nothing has changed, mean of {DIAGNOSES} diagnoses:\n{table}"
    );
}

/// A cluster of so many nodes, all with agents that have answered.
struct Fleet {
    inventory: Inventory,
    diagnoses: Vec<ServiceDiagnosis>,
    now: Timestamp,
}

impl Fleet {
    fn of(nodes: usize) -> Self {
        let now = Timestamp::now();
        let mut inventory = Inventory::default();
        inventory.observe_at(now);
        let node_of = |service: usize, pod: usize| cluster::node_of(service, pod, nodes);
        let objects = cluster::objects(nodes).chain(population::objects(DIAGNOSES, node_of));
        for object in objects.chain((0..nodes).map(|node| lease(node, now))) {
            take_in(&mut inventory, object);
        }
        let diagnoses: Vec<ServiceDiagnosis> = (0..DIAGNOSES).map(diagnosis).collect();
        let mut fleet = Self {
            inventory,
            diagnoses,
            now,
        };
        for diagnosis in fleet.diagnoses.clone() {
            fleet.inventory.set_interest(&diagnosis);
            fleet.answer(&diagnosis);
        }
        fleet
    }

    /// Has the agents answer what they are to be asked, and what they are asked once they have.
    fn answer(&mut self, diagnosis: &ServiceDiagnosis) {
        for _ in 0..3 {
            let facts = self.inventory.facts(diagnosis, self.now, false);
            for (_, spec) in plan(&facts, &reference(diagnosis)) {
                let mut probe = NodeProbe::new(&probe_name(&reference(diagnosis), &spec.node_name), spec);
                probe.metadata.namespace = Some(diagnosis.namespace().to_owned());
                probe.metadata.generation = Some(1);
                probe.status = Some(NodeProbeStatus {
                    observed_generation: Some(1),
                    observed_question: question_digest(&probe.spec),
                    facts: Some(answers::all_is_well(diagnosis.namespace(), &probe.spec)),
                    ..NodeProbeStatus::default()
                });
                self.inventory.apply(probe);
            }
        }
    }

    /// The mean time of each step of an evaluation.
    fn evaluate(&self) -> [Duration; STEPS.len()] {
        let mut times = [Duration::ZERO; STEPS.len()];
        for diagnosis in &self.diagnoses {
            for _ in 0..ROUNDS {
                let lapse = |start: &mut Instant| std::mem::replace(start, Instant::now()).elapsed();
                let mut start = Instant::now();
                let key = (diagnosis.namespace().to_owned(), diagnosis.name().to_owned());
                let probes: Vec<NodeProbe> = self.inventory.probes_of(&key).collect();
                times[0] += lapse(&mut start);
                let mut facts = self.inventory.facts_with(diagnosis, &probes, self.now, false);
                times[1] += lapse(&mut start);
                let plan = plan(&facts, &reference(diagnosis));
                times[2] += lapse(&mut start);
                facts.ask(&plan);
                times[3] += lapse(&mut start);
                let verdict = diagnose(&facts);
                drop(facts);
                times[4] += lapse(&mut start);
                black_box(verdict);
            }
        }
        times.map(|time| time / (ROUNDS * u32::try_from(DIAGNOSES).unwrap()))
    }
}

fn reference(diagnosis: &ServiceDiagnosis) -> DiagnosisRef {
    DiagnosisRef {
        name: diagnosis.name().to_owned(),
        uid: diagnosis.metadata.uid.clone().unwrap(),
    }
}

fn diagnosis(number: usize) -> ServiceDiagnosis {
    let (namespace, name) = population::key(number);
    let mut diagnosis = ServiceDiagnosis::new(&name, ServiceDiagnosisSpec::for_service(&name));
    diagnosis.metadata.uid = Some(format!("5f0c4f4e-0000-4000-8000-{number:012}"));
    diagnosis.metadata.namespace = Some(namespace);
    diagnosis.metadata.generation = Some(1);
    diagnosis
}

fn lease(number: usize, now: Timestamp) -> Value {
    let node = cluster::node(number);
    json!({
        "kind": "Lease", "metadata": { "namespace": "svcdiag-system", "name": format!("svcdiag-agent-{node}"),
            "labels": { "app.kubernetes.io/managed-by": "svcdiag", "app.kubernetes.io/component": "svcdiag-agent" } },
        "spec": { "holderIdentity": node, "leaseDurationSeconds": 3600, "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string() },
    })
}

fn take_in(inventory: &mut Inventory, object: Value) {
    match object["kind"].as_str().unwrap() {
        "Namespace" => apply::<Namespace>(inventory, object),
        "Node" => apply::<Node>(inventory, object),
        "Pod" => apply::<Pod>(inventory, object),
        "Service" => apply::<Service>(inventory, object),
        "EndpointSlice" => apply::<EndpointSlice>(inventory, object),
        "Deployment" => apply::<Deployment>(inventory, object),
        "ReplicaSet" => apply::<ReplicaSet>(inventory, object),
        "Lease" => apply::<Lease>(inventory, object),
        other => panic!("a {other}"),
    }
}

fn apply<K: Tracked + DeserializeOwned>(inventory: &mut Inventory, object: Value) {
    inventory.apply(serde_json::from_value::<K>(object).unwrap());
}
