//! Agents that are not there, die, come back, or lose the API server: what is not known is Unknown, and
//! nothing is False that is not so.

use std::time::{Duration, Instant};

use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use svcdiag::{
    api::NodeProbe,
    objects::{EndpointSlice, Lease},
};
use svcdiag_sandbox::{
    error::chain,
    faults::{Fixture, Verdict},
    kernel::Wiring,
    proxy::ProxyMode,
};

use crate::harness::{Harness, Kind, SOON, fault};

const KIND: Kind = Kind {
    mode: ProxyMode::Nftables,
    wiring: Wiring::Bridge,
};

/// How long the Lease of an agent holds after its last renewal.
const LEASE: Duration = Duration::from_secs(60);

/// So long the API server is away: Leases end meanwhile, and the pauses of all watches have grown.
const AWAY: Duration = Duration::from_secs(70);

fn unknown(reason: &str) -> impl Fn(&Verdict) -> bool {
    move |v| {
        v.condition("Ready")
            .is_some_and(|c| (c.status.as_str(), c.reason.as_str()) == ("Unknown", reason))
    }
}

async fn absent_and_dead(harness: &mut Harness) -> Result<(), String> {
    // Nobody has come yet.
    harness
        .unblamed_while(harness.wait("without agents", SOON, unknown("NoVantagePoint")))
        .await?;
    harness.start_agents()?;
    harness
        .unblamed_while(harness.wait("well", SOON, Verdict::works))
        .await?;
    harness.kill_agents().await;
    let start = Instant::now();
    let within = LEASE + SOON;
    harness
        .unblamed_while(harness.wait("dead", within, unknown("AgentNotResponding")))
        .await?;
    let dead = start.elapsed();
    // Leases that are gone with their agents, as when the DaemonSet is deleted.
    let leases: Api<Lease> = Api::namespaced(harness.cluster.client(), "svcdiag-system");
    leases
        .delete_collection(&DeleteParams::default(), &ListParams::default())
        .await
        .map_err(|e| chain(&e))?;
    harness
        .unblamed_while(harness.wait("gone", SOON, unknown("NoVantagePoint")))
        .await?;
    harness.start_agents()?;
    let start = Instant::now();
    harness
        .unblamed_while(harness.wait("well again", SOON, Verdict::works))
        .await?;
    println!(
        "agents absent and dead (N33): NoVantagePoint, AgentNotResponding after {:.0} s, Ready {:.0} s after their return; nothing False",
        dead.as_secs_f64(),
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_agents_the_data_path_is_unknown() {
    let mut harness = Harness::start_without_agents(KIND).await.unwrap();
    let result = absent_and_dead(&mut harness).await;
    harness.stop().await;
    result.unwrap_or_else(|why| panic!("{why}"));
}

async fn probe_of(harness: &Harness, node: &str) -> Result<NodeProbe, String> {
    let probe = harness
        .probes()
        .await?
        .into_iter()
        .find(|p| p.spec.node_name == node);
    probe.ok_or_else(|| format!("nobody asks {node}"))
}

async fn restarted_on_a_broken_node(harness: &mut Harness) -> Result<(), String> {
    const NODE: &str = "sandbox-2";
    let n34 = fault("N34");
    // Its last report, which says that all is well, must not be what counts.
    harness.agents.kill_on(NODE).await;
    harness.inject(&n34).await?;
    let restarted = jiff::Timestamp::now();
    harness.agents.start_on(NODE).map_err(|e| chain(&e))?;
    harness.find(&n34).await?;
    let status = probe_of(harness, NODE).await?.status.unwrap_or_default();
    let observed = status.observed_time.map(|t| t.0);
    if observed.is_none_or(|t| t.as_second() < restarted.as_second()) {
        return Err(format!("reported at {observed:?}, restarted at {restarted}"));
    }
    let proxy = status.facts.and_then(|f| f.kube_proxy);
    if proxy.as_ref().is_none_or(|p| p.process.is_some()) {
        return Err(format!("the report of {NODE} is not fresh: {proxy:?}"));
    }
    let after = restarted.duration_until(jiff::Timestamp::now());
    harness.fix(&n34).await?;
    println!(
        "agent restarted on a node without kube-proxy and rules (N34): NotRunning from its own report after {:.0} s",
        after.as_secs_f64()
    );
    Ok(())
}

/// The verdict on a fault stands while agents are killed and come back; the new ones see that it is fixed.
async fn restarted_in_a_fault(harness: &mut Harness) -> Result<(), String> {
    let n36 = fault("N36");
    harness.inject(&n36).await?;
    harness.find(&n36).await?;
    harness.kill_agents().await;
    harness.start_agents()?;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        let verdict = harness.fixture.verdict().await.map_err(|e| chain(&e))?;
        if !n36.expected.is_met_by(&verdict) {
            return Err(format!("forgotten: {}", harness.told(&verdict).await));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    harness.fix(&n36).await?;
    println!(
        "agents killed and restarted in the middle of a fault (N36): the verdict stood, and went with the fault"
    );
    Ok(())
}

async fn server_away(harness: &mut Harness) -> Result<(), String> {
    let n36 = fault("N36");
    // At rest: facts arrive afterwards, and nothing is False.
    harness.cluster.stop_server().await;
    tokio::time::sleep(AWAY).await;
    harness.cluster.restart_server().await.map_err(|e| chain(&e))?;
    let start = Instant::now();
    let back = async {
        harness.round(SOON).await?;
        harness.wait("well after it was away", SOON, Verdict::works).await
    };
    harness.unblamed_while(back).await?;
    let well = start.elapsed();
    // What breaks while nobody can be told is told afterwards. The steps need the server for the addresses.
    let kernel = harness.cluster.kernel().cloned().ok_or("no kernel")?;
    let vip = harness.service_address().await?;
    harness.cluster.stop_server().await;
    let rule = format!(
        "nft add table ip foreign
        nft 'add chain ip foreign output {{ type filter hook output priority raw; }}'
        nft add rule ip foreign output ip daddr {vip} drop"
    );
    for node in kernel.nodes() {
        node.sh(&rule, &[]).await.map_err(|e| chain(&e))?;
    }
    tokio::time::sleep(Duration::from_secs(15)).await;
    harness.cluster.restart_server().await.map_err(|e| chain(&e))?;
    let start = Instant::now();
    let expected = |v: &Verdict| n36.expected.is_met_by(v);
    harness.wait(&n36.expected.to_string(), SOON, expected).await?;
    let found = start.elapsed();
    for node in kernel.nodes() {
        node.sh("nft delete table ip foreign", &[])
            .await
            .map_err(|e| chain(&e))?;
    }
    harness.wait("fixed", SOON, Verdict::works).await?;
    println!(
        "API server away for {} s: Ready again after {:.0} s, nothing False; a fault of its absence found after {:.0} s",
        AWAY.as_secs(),
        well.as_secs_f64(),
        found.as_secs_f64()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_come_back_to_a_broken_node_and_in_the_middle_of_a_fault() {
    let mut harness = Harness::start(KIND).await.unwrap();
    let mut result = restarted_on_a_broken_node(&mut harness).await;
    if result.is_ok() {
        result = restarted_in_a_fault(&mut harness).await;
    }
    harness.stop().await;
    result.unwrap_or_else(|why| panic!("{why}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_is_away_for_a_minute() {
    let mut harness = Harness::start(KIND).await.unwrap();
    let result = server_away(&mut harness).await;
    harness.stop().await;
    result.unwrap_or_else(|why| panic!("{why}"));
}

/// Sends a signal to the agent of a node.
async fn signal(harness: &Harness, node: &str, signal: &str) -> Result<(), String> {
    let pid = harness.agents.pid(node).ok_or("the agent does not run")?;
    let sent = tokio::process::Command::new("kill")
        .args([&format!("-{signal}"), &pid.to_string()])
        .status()
        .await
        .map_err(|e| chain(&e))?;
    sent.success()
        .then_some(())
        .ok_or(format!("no {signal} for {pid}"))
}

/// Deletes the Service's slices and waits until the endpoints are what they were before: the slices say the same in
/// other versions.
async fn endpoints_go_and_come_back(harness: &Harness) -> Result<(), String> {
    let slices: Api<EndpointSlice> = Api::namespaced(harness.cluster.client(), "default");
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={}", Fixture::NAME));
    slices
        .delete_collection(&DeleteParams::default(), &of_service)
        .await
        .map_err(|e| chain(&e))?;
    harness.fixture.wait_until_settled().await.map_err(|e| chain(&e))
}

/// An agent is held up with a question in hand, and comes to when the endpoints have gone and are back.
async fn answers_late(harness: &Harness) -> Result<(), String> {
    const NODE: &str = "sandbox-2";
    let before = probe_of(harness, NODE).await?.metadata.generation;
    signal(harness, NODE, "STOP").await?;
    harness.fixture.refresh().await.map_err(|e| chain(&e))?;
    let asked_anew = async |than: Option<i64>| {
        let start = Instant::now();
        loop {
            let generation = probe_of(harness, NODE).await?.metadata.generation;
            if generation > than {
                return Ok(generation);
            }
            if start.elapsed() > SOON {
                return Err("nobody asks anew".to_owned());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let first = asked_anew(before).await?;
    // It takes the question, and no more of it than that.
    signal(harness, NODE, "CONT").await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    signal(harness, NODE, "STOP").await?;
    endpoints_go_and_come_back(harness).await?;
    asked_anew(first).await?;
    signal(harness, NODE, "CONT").await?;
    let start = Instant::now();
    loop {
        let probe = probe_of(harness, NODE).await?;
        let observed = probe.status.and_then(|s| s.observed_generation);
        if observed == probe.metadata.generation {
            break;
        }
        if start.elapsed() > SOON {
            return Err(format!("the answer is still to question {observed:?}"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    harness.wait("well again", SOON, Verdict::works).await?;
    println!(
        "an agent held up while the endpoints went and came back: Ready {:.1} s after it came to, nothing False",
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_held_up_answers_what_is_asked_by_then() {
    let harness = Harness::start(KIND).await.unwrap();
    let result = harness.unblamed_while(answers_late(&harness)).await;
    harness.stop().await;
    result.unwrap_or_else(|why| panic!("{why}"));
}
