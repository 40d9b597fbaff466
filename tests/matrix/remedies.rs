//! The command of a remediation, typed as it stands, fixes what a node has.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use kube::Api;
use svcdiag::api::ServiceDiagnosis;
use svcdiag_sandbox::{
    error::chain,
    faults::{Fixture, Verdict},
    kernel::Wiring,
    kubectl::Kubectl,
    proxy::ProxyMode,
};

use crate::harness::{Harness, Kind, SOON, fault};

/// A fault of three nodes, or of three Pods, is fixed in three steps: each next remedy names the next.
const MOST_STEPS: usize = 4;

/// Agents report one after the other, so that a verdict may name one again that is fixed: then the same is typed again.
const MOST_TYPED: usize = 12;

/// The first command in a remediation, between backquotes, but for those that read kube-proxy's log: the sandbox serves
/// no logs.
fn command(remediation: &str) -> Option<&str> {
    let mut commands = remediation.split('`').skip(1).step_by(2);
    commands.find(|command| !command.starts_with("kubectl -n kube-system logs "))
}

/// The first node that a remediation is about; of several with one command, the next remediation names the rest.
fn node(remediation: &str) -> Option<&str> {
    let behind = |word: &str| Some((remediation.find(word)?, remediation.split_once(word)?.1));
    let (_, after) = ["node ", "nodes "].into_iter().filter_map(behind).min()?;
    after.split(|c: char| c != '-' && !c.is_alphanumeric()).next()
}

async fn remediation(harness: &Harness) -> Result<Option<String>, String> {
    let diagnoses: Api<ServiceDiagnosis> = Api::namespaced(harness.cluster.client(), "default");
    let diagnosis = diagnoses.get(Fixture::NAME).await.map_err(|e| chain(&e))?;
    Ok(diagnosis.status.and_then(|s| s.root_cause).map(|c| c.remediation))
}

/// As a user would: in a shell, kubectl anywhere and all else on the node.
async fn type_in(harness: &Harness, kubectl: &Kubectl, remediation: &str) -> Result<(), String> {
    let command = command(remediation).ok_or_else(|| format!("no command in: {remediation}"))?;
    if let Some(arguments) = command.strip_prefix("kubectl ") {
        let line = format!("{} {arguments}", kubectl.program().display());
        let mut shell = tokio::process::Command::new("sh");
        shell
            .args(["-c", &line])
            .env("KUBECONFIG", harness.cluster.kubeconfig_path())
            .kill_on_drop(true);
        let output = shell.output().await.map_err(|e| e.to_string())?;
        let told = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() || told.contains("No resources found") {
            return Err(format!(
                "{line}: {told}{}",
                String::from_utf8_lossy(&output.stderr)
            ));
        }
        return Ok(());
    }
    let name = node(remediation).ok_or_else(|| format!("no node in: {remediation}"))?;
    let kernel = harness.cluster.kernel().ok_or("no kernel")?;
    let node = kernel
        .node(name)
        .ok_or_else(|| format!("{name} is no node: {remediation}"))?;
    node.sh(command, &[]).await.map(drop).map_err(|e| chain(&e))
}

/// Breaks, and fixes by the remedies alone; the fault's own undoing comes when all is well.
async fn fixed_by_its_remedy(harness: &Harness, kubectl: &Kubectl, id: &str) -> Result<(), String> {
    let fault = fault(id);
    harness.inject(&fault).await?;
    harness.find(&fault).await?;
    let start = Instant::now();
    let mut typed: Vec<String> = Vec::new();
    let mut steps: BTreeSet<(Option<String>, Option<String>)> = BTreeSet::new();
    while typed.len() < MOST_TYPED {
        let Some(text) = remediation(harness).await? else {
            break;
        };
        steps.insert((node(&text).map(str::to_owned), command(&text).map(str::to_owned)));
        if steps.len() > MOST_STEPS {
            return Err(format!("more than {MOST_STEPS} steps: {steps:#?}"));
        }
        type_in(harness, kubectl, &text).await?;
        typed.push(text.clone());
        // The next cause, or none.
        let since = Instant::now();
        while remediation(harness).await?.is_some_and(|now| now == text) {
            if since.elapsed() > SOON {
                let verdict = harness.fixture.verdict().await.map_err(|e| chain(&e))?;
                return Err(format!("not helped by: {text}\n{}", harness.told(&verdict).await));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    harness.wait("fixed", SOON, Verdict::works).await?;
    println!(
        "remedy of {id}: Ready after {} commands and {:.0} s, the first: {}",
        typed.len(),
        start.elapsed().as_secs_f64(),
        typed.first().and_then(|t| command(t)).unwrap_or_default()
    );
    harness.fix(&fault).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_remedies_of_missing_rules_of_forwarding_and_of_hairpins_work() {
    let kubectl = Kubectl::find().await.unwrap();
    let kind = Kind {
        mode: ProxyMode::Nftables,
        wiring: Wiring::Bridge,
    };
    let harness = Harness::start(kind).await.unwrap();
    let mut result = Ok(());
    for id in ["N30", "N12", "N15"] {
        if result.is_ok() {
            result = fixed_by_its_remedy(&harness, &kubectl, id)
                .await
                .map_err(|why| format!("{id}: {why}"));
        }
    }
    harness.stop().await;
    result.unwrap_or_else(|why| panic!("{why}"));
}
