//! The dashboards of config/grafana: what they draw are metrics that there are, with labels that these have.

use std::{collections::BTreeSet, path::Path};

use serde_json::Value;
use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig},
    kubectl::Kubectl,
    svcdiag::Controller,
};

use super::{
    alerts::{metrics_of, metrics_with},
    find, render,
};

async fn dashboards() -> Vec<Value> {
    let kubectl = Kubectl::find().await.unwrap();
    let objects = render(&kubectl, "config/grafana").await;
    let map = find(&objects, "ConfigMap");
    assert_eq!(map.metadata.labels.as_ref().unwrap()["grafana_dashboard"], "1");
    let files = map.data["data"].as_object().unwrap().values();
    files
        .map(|text| serde_json::from_str(text.as_str().unwrap()).unwrap())
        .collect()
}

/// Every query of a dashboard: those of its panels and of its variables.
fn queries(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap().iter());
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    targets
        .filter_map(|target| text(&target["expr"]))
        .chain(variables.filter_map(|variable| text(&variable["query"]["query"])))
        .collect()
}

/// The names of the series that families make, also of those that have none yet.
fn names(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .flat_map(|line| {
            let (name, kind) = line.split_once(' ').unwrap();
            let suffixes: &[&str] = match kind {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_count", "_sum"],
                "info" => &["_info"],
                _ => &[""],
            };
            suffixes.iter().map(move |suffix| format!("{name}{suffix}"))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboards_draw_metrics_that_the_controller_has() {
    let config = ClusterConfig {
        controllers: false,
        assets: None,
        ..ClusterConfig::default()
    };
    let cluster = Cluster::start(config).await.unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_svcdiag"));
    let controller = Controller::start(binary, cluster.kubeconfig_path(), cluster.state_dir(), &[]).unwrap();
    // These are there once the watches have begun.
    let text = metrics_with(&controller, "svcdiag_watch_errors_total").await;
    controller.stop().await;
    cluster.stop().await;
    let there_are = names(&text);

    let mut drawn = BTreeSet::new();
    for dashboard in dashboards().await {
        for query in queries(&dashboard) {
            for metric in metrics_of(&query) {
                assert!(
                    there_are.contains(metric),
                    "{}: {query}\n{text}",
                    dashboard["title"]
                );
                drawn.insert(metric.to_owned());
            }
            assert!(
                metrics_of(&query).next().is_some(),
                "{query} draws nothing of ours"
            );
        }
    }
    assert!(drawn.len() > 12, "{drawn:?}");
}

#[tokio::test]
async fn panels_do_not_overlap_and_name_the_variables_that_there_are() {
    for dashboard in dashboards().await {
        let mut taken = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    assert!(
                        x < 24 && taken.insert((x, y)),
                        "{}: {}",
                        dashboard["title"],
                        panel["title"]
                    );
                }
            }
        }
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        let known: BTreeSet<&str> = variables.iter().filter_map(|v| v["name"].as_str()).collect();
        for query in queries(&dashboard) {
            for name in query
                .split("\"$")
                .skip(1)
                .filter_map(|rest| rest.split('"').next())
            {
                assert!(known.contains(name), "{query}");
            }
        }
    }
}
