//! Bridge ports that stop sending packets back, on nodes whose Pods have reached themselves before: with one
//! endpoint on a node, which dials itself in every round, and with many, where that the port has changed is what
//! makes them dial.

use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use svcdiag::api::{Answer, NodeProbe};
use svcdiag_sandbox::{
    error::chain,
    faults::{Fixture, Verdict},
    kernel::Wiring,
    proxy::ProxyMode,
};

use crate::harness::{Failure, Harness, Kind, SOON, fault};

/// With one on each node, and with more on each than dial themselves in every round.
const ENDPOINTS: [usize; 2] = [3, 20];

fn reach_themselves(verdict: &Verdict) -> bool {
    verdict.works() && verdict.condition("HairpinOK").is_some_and(|c| c.status == "True")
}

/// Whether a Pod of each node with endpoints has reached itself, by the last report of its agent.
async fn were_met(harness: &Harness) -> Result<bool, String> {
    let mut probes = harness.probes().await?;
    probes.retain(|p| !p.spec.endpoints.is_empty());
    let has_met = |probe: &NodeProbe| {
        let facts = probe.status.as_ref().and_then(|s| s.facts.as_ref());
        facts.is_some_and(|f| f.hairpins.iter().any(|h| h.answer == Some(Answer::Accepted)))
    };
    Ok(!probes.is_empty() && probes.iter().all(has_met))
}

async fn switched_off(harness: &Harness, endpoints: usize) -> Result<(), Failure> {
    let deployments: Api<Deployment> = Api::namespaced(harness.cluster.client(), "default");
    let scale = Patch::Merge(json!({ "spec": { "replicas": endpoints } }));
    let scaled = deployments
        .patch(Fixture::NAME, &PatchParams::default(), &scale)
        .await;
    scaled.map_err(|e| chain(&e))?;
    let there = harness.fixture.wait_for_endpoints(endpoints).await;
    there.map_err(Failure::of_step("scale"))?;
    let start = std::time::Instant::now();
    while !were_met(harness).await? {
        if start.elapsed() > SOON {
            return Err(Failure::Late("no Pod of some node has reached itself".to_owned()));
        }
        harness.round(SOON).await?;
    }
    harness.wait("well before", SOON, reach_themselves).await?;
    let fault = fault("N30");
    harness.inject(&fault).await?;
    harness.find(&fault).await?;
    fault
        .undo(&harness.fixture)
        .await
        .map_err(Failure::of_step("undo"))?;
    harness.wait("well again", SOON, reach_themselves).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_that_stop_sending_packets_back_are_seen_where_pods_reached_themselves_before() {
    let kind = Kind {
        mode: ProxyMode::Nftables,
        wiring: Wiring::Bridge,
    };
    let harness = Harness::start(kind).await.unwrap();
    let mut result = Ok(());
    for endpoints in ENDPOINTS {
        if result.is_ok() {
            let done = switched_off(&harness, endpoints).await;
            result = done.map_err(|why| format!("{endpoints} endpoints: {why}"));
        }
    }
    harness.stop().await;
    result.unwrap_or_else(|why| panic!("{why}"));
}
