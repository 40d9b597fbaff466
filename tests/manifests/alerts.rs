//! The alerts of config/prometheus: they ask for metrics that there are, and lead to a page that there is.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use svcdiag::api::{Reason, ServiceDiagnosis};
use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig},
    kubectl::Kubectl,
    svcdiag::Controller,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{ROOT, find, render};

/// What takes as long as this hangs.
const SOON: Duration = Duration::from_secs(120);

/// The page that every alert names.
const PAGE: &str = "docs/alerts.md";

async fn alerts() -> Vec<Value> {
    let kubectl = Kubectl::find().await.unwrap();
    let objects = render(&kubectl, "config/prometheus").await;
    let groups = &find(&objects, "PrometheusRule").data["spec"]["groups"];
    let groups = groups.as_array().unwrap().iter();
    groups
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect()
}

/// The names of our metrics in an expression.
pub(super) fn metrics_of(expression: &str) -> impl Iterator<Item = &str> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    words.filter(|word| word.starts_with("svcdiag_") || word.starts_with("process_"))
}

/// The names of all series in the text of `/metrics`.
fn series(text: &str) -> BTreeSet<&str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split(['{', ' ']).next()).collect()
}

/// `/metrics` of a controller, None while it does not serve.
async fn metrics(controller: &Controller) -> Option<String> {
    let log = std::fs::read_to_string(controller.log()).ok()?;
    let address = log.split("address=").nth(1)?.split_whitespace().next()?;
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}

/// `/metrics` as soon as it has a series of this name.
pub(super) async fn metrics_with(controller: &Controller, name: &str) -> String {
    let start = Instant::now();
    loop {
        if let Some(text) = metrics(controller)
            .await
            .filter(|text| series(text).contains(name))
        {
            return text;
        }
        assert!(start.elapsed() < SOON, "there is no {name}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A family without series is not in the text: there is a diagnosis, and the watches are interrupted.
#[tokio::test(flavor = "multi_thread")]
async fn alerts_ask_for_metrics_that_the_controller_has() {
    let config = ClusterConfig {
        controllers: false,
        assets: None,
        ..ClusterConfig::default()
    };
    let mut cluster = Cluster::start(config).await.unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_svcdiag"));
    let controller = Controller::start(binary, cluster.kubeconfig_path(), cluster.state_dir(), &[]).unwrap();
    let diagnosis: ServiceDiagnosis = serde_json::from_value(
        json!({ "apiVersion": "svcdiag.dev/v1alpha1", "kind": "ServiceDiagnosis",
            "metadata": { "name": "web" }, "spec": { "serviceName": "web" } }),
    )
    .unwrap();
    let api: Api<ServiceDiagnosis> = Api::namespaced(cluster.client(), "default");
    api.create(&PostParams::default(), &diagnosis).await.unwrap();
    metrics_with(&controller, "svcdiag_ready").await;
    cluster.stop_server().await;
    let text = metrics_with(&controller, "svcdiag_watch_errors_total").await;
    let there_are = series(&text);

    let mut asked = BTreeSet::new();
    for alert in alerts().await {
        let expression = alert["expr"].as_str().unwrap();
        for metric in metrics_of(expression) {
            assert!(there_are.contains(metric), "{}: {metric}\n{text}", alert["alert"]);
            asked.insert(metric.to_owned());
        }
    }
    assert!(asked.len() >= 4, "{asked:?}");
    controller.stop().await;
    cluster.stop().await;
}

#[tokio::test]
async fn reasons_that_alerts_name_are_reasons() {
    let mut named = 0;
    for alert in alerts().await {
        let expression = alert["expr"].as_str().unwrap();
        let after = expression.split("reason").skip(1);
        for text in after.filter_map(|rest| rest.split('"').nth(1)) {
            for reason in text.split('|') {
                reason.parse::<Reason>().unwrap();
                named += 1;
            }
        }
    }
    assert!(named >= 3, "{named}");
}

/// GitHub makes the anchor of a heading of its words in lower case.
#[tokio::test]
async fn every_alert_leads_to_its_section_of_the_page() {
    let page = std::fs::read_to_string(format!("{ROOT}/{PAGE}")).unwrap();
    let sections: BTreeSet<&str> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let mut names = BTreeSet::new();
    for alert in alerts().await {
        let name = alert["alert"].as_str().unwrap();
        let anchor = name.to_ascii_lowercase();
        assert_eq!(
            alert["annotations"]["runbook_url"],
            format!("https://github.com/svcdiag/svcdiag/blob/main/{PAGE}#{anchor}")
        );
        assert!(sections.contains(name), "{name} has no section");
        names.insert(name.to_owned());
    }
    let named: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(sections, named, "sections without an alert");
}
