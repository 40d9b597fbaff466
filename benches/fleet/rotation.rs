//! How often the samples of nodes move on in an hour, by the plan itself: what it asks for each diagnosis at every minute.

use std::{collections::BTreeSet, fmt::Debug};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::{Api, Client, Resource, api::ListParams};
use serde::de::DeserializeOwned;
use svcdiag::{
    api::{DiagnosisRef, NodeProbe, ServiceDiagnosis},
    engine::plan,
    inventory::{Inventory, Tracked},
    objects::{EndpointSlice, Lease, Namespace, Node, Object, Pod, Service},
};

/// Writes for each node that comes into a sample: its NodeProbe, the report, and the deletion of the NodeProbe of the node
/// that has left.
pub(crate) const WRITES: usize = 3;

const MINUTES: i64 = 60;

/// Of so many diagnoses, evenly spread, the moves are computed; they stand for all.
const DIAGNOSES: usize = 500;

/// Nodes that come into the samples in each minute of an hour.
pub(crate) async fn an_hour(client: &Client) -> Vec<usize> {
    let mut inventory = Inventory::default();
    let start = Timestamp::now();
    inventory.observe_at(start);
    take::<Namespace>(client, &mut inventory).await;
    take::<Service>(client, &mut inventory).await;
    take::<EndpointSlice>(client, &mut inventory).await;
    take::<Pod>(client, &mut inventory).await;
    take::<Node>(client, &mut inventory).await;
    take::<NodeProbe>(client, &mut inventory).await;
    let leases = take::<Lease>(client, &mut inventory).await;
    let all = list::<ServiceDiagnosis>(client).await;
    let every = all.len().div_ceil(DIAGNOSES);
    let diagnoses: Vec<ServiceDiagnosis> = all.into_iter().step_by(every).collect();
    let asked = |inventory: &Inventory, now: Timestamp| -> Vec<BTreeSet<String>> {
        let of = |diagnosis: &ServiceDiagnosis| {
            let facts = inventory.facts(diagnosis, now, false);
            let reference = DiagnosisRef {
                name: diagnosis.name().to_owned(),
                uid: diagnosis.metadata.uid.clone().unwrap(),
            };
            plan(&facts, &reference).into_keys().collect()
        };
        diagnoses.iter().map(of).collect()
    };
    let mut before = asked(&inventory, start);
    let mut moves = Vec::new();
    for minute in 1..=MINUTES {
        let now = start + SignedDuration::from_mins(minute);
        inventory.observe_at(now);
        for lease in &leases {
            let mut lease = lease.clone();
            lease.spec.renew_time = Some(MicroTime(now));
            // Minutes pass at once here, and no agent is to come back in each of them.
            lease.spec.lease_duration_seconds = Some(3600);
            inventory.apply(lease);
        }
        // Long, and the agents and the API server have to go on meanwhile.
        let present = tokio::task::block_in_place(|| asked(&inventory, now));
        let pairs = present.iter().zip(&before);
        let moved: usize = pairs
            .map(|(present, before)| present.difference(before).count())
            .sum();
        moves.push(moved * every);
        before = present;
    }
    moves
}

async fn take<K>(client: &Client, inventory: &mut Inventory) -> Vec<K>
where
    K: Tracked + Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let all = list::<K>(client).await;
    inventory.replace(all.clone());
    all
}

async fn list<K>(client: &Client) -> Vec<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api = Api::<K>::all(client.clone());
    api.list(&ListParams::default()).await.unwrap().items
}
