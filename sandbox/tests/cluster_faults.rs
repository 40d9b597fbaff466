//! Every fault of the catalogue can be injected, and undone without a trace.

use futures::StreamExt;
use svcdiag_sandbox::cluster::{Cluster, ClusterConfig};
use svcdiag_sandbox::error::chain;
use svcdiag_sandbox::faults::{Error, Fault, Scene, Twin, catalogue};

/// What is played on a scene, under a name for the report.
enum Act<'a> {
    Fault(&'a Fault),
    Twin(&'a Twin),
}

impl Act<'_> {
    fn title(&self) -> String {
        match self {
            Act::Fault(fault) => format!("{}: {}", fault.id, fault.title),
            Act::Twin(twin) => format!("twin of {}: {}", twin.fault, twin.title),
        }
    }

    fn is_exclusive(&self) -> bool {
        match self {
            Act::Fault(fault) => fault.exclusive,
            Act::Twin(twin) => twin.exclusive,
        }
    }

    async fn play(&self, scene: &Scene) -> Result<(), Error> {
        match self {
            Act::Fault(fault) => fault.inject(scene).await,
            Act::Twin(twin) => twin.apply(scene).await,
        }
    }

    async fn undo(&self, scene: &Scene) -> Result<(), Error> {
        match self {
            Act::Fault(fault) => fault.undo(scene).await,
            Act::Twin(twin) => twin.undo(scene).await,
        }
    }
}

async fn play(cluster: &Cluster, number: usize, act: &Act<'_>) -> Result<(), String> {
    let scene = Scene::new(cluster.client(), format!("act-{number}"));
    let trouble = |step: &str, error: Error| format!("{}: {step}: {}", act.title(), chain(&error));
    scene.set_up().await.map_err(|error| trouble("set up", error))?;
    let before = scene.snapshot().await.map_err(|error| trouble("look", error))?;
    match act.play(&scene).await {
        Err(Error::Refused { .. }) => return Ok(()),
        result => result.map_err(|error| trouble("play", error))?,
    }
    let during = scene.snapshot().await.map_err(|error| trouble("look", error))?;
    act.undo(&scene).await.map_err(|error| trouble("undo", error))?;
    scene
        .wait_until_settled()
        .await
        .map_err(|error| trouble("settle", error))?;
    let after = scene.snapshot().await.map_err(|error| trouble("look", error))?;
    scene
        .tear_down()
        .await
        .map_err(|error| trouble("tear down", error))?;
    for name in before.keys().chain(after.keys()) {
        if before.get(name) != after.get(name) {
            return Err(format!(
                "{}: {name} was {:?}, is {:?}",
                act.title(),
                before.get(name),
                after.get(name)
            ));
        }
    }
    let patched_pods = matches!(act, Act::Fault(fault) if ["A10", "A22", "A25"].contains(&fault.id.as_str()));
    if before == during && !patched_pods && matches!(act, Act::Fault(_)) {
        return Err(format!("{}: nothing was changed", act.title()));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_and_every_twin_can_be_undone() {
    let logs = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "off".into());
    let _ = tracing_subscriber::fmt()
        .with_env_filter(logs)
        .with_test_writer()
        .try_init();
    let cluster = Cluster::start(ClusterConfig::default()).await.unwrap();
    let faults = catalogue().unwrap();
    let acts: Vec<Act> = faults
        .iter()
        .flat_map(|fault| std::iter::once(Act::Fault(fault)).chain(fault.twins.iter().map(Act::Twin)))
        .collect();
    let run = |exclusive: bool, width: usize| {
        let acts = acts
            .iter()
            .enumerate()
            .filter(move |(_, act)| act.is_exclusive() == exclusive);
        futures::stream::iter(acts.map(|(number, act)| play(&cluster, number, act)))
            .buffer_unordered(width)
            .filter_map(async |result| result.err())
            .collect::<Vec<String>>()
    };
    let mut failures = run(false, 6).await;
    failures.extend(run(true, 1).await);
    println!("played {} faults and twins", acts.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_string_9376_is_refused_as_the_catalogue_says() {
    let cluster = Cluster::start(ClusterConfig::default()).await.unwrap();
    let scene = Scene::new(cluster.client(), "refused");
    let faults = catalogue().unwrap();
    let fault = faults.iter().find(|fault| fault.id == "A06").unwrap();
    let error = fault.inject(&scene).await.unwrap_err();
    assert!(error.to_string().contains("needs a letter"), "{error}");
    cluster.stop().await;
}
