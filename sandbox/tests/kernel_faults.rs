//! Every fault of the data path comes about in every mode it is meant for, and leaves nothing behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig, DataPath},
    faults::{Scene, data_path_catalogue},
    kernel::Wiring,
    proxy::ProxyMode,
};

/// What a node is like, with nothing in it that counts or belongs to one Pod.
///
/// Tables of iptables that are empty stay behind: the tools make them when they are asked for anything.
const STATE_OF_NODE: &str = r#"
    echo "--- kube-proxy"
    nft -s list ruleset |
        awk '/^table/ { name = $0; kept = "" }
             { text[name] = text[name] $0 "\n" }
             /^\t(chain KUBE|set|map)/ || /^\t\t[^t}]/ { filled[name] = 1 }
             /policy drop/ { filled[name] = 1 }
             END { for (name in filled) print text[name] }' | sort
    echo "--- legacy"
    for table in $(cat /proc/self/net/ip_tables_names 2> /dev/null); do
        iptables-legacy -t "$table" -S | grep -v -e '-P [A-Z]* ACCEPT' || true
    done
    echo "--- routes"
    ip route show table all | grep -v -e veth -e ' asym' | sort
    ip rule
    echo "--- settings"
    cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/bridge/bridge-nf-call-iptables
    cat /proc/sys/net/ipv4/conf/all/rp_filter /proc/sys/net/ipv4/conf/eth0/rp_filter
    echo "--- links"
    ip -o link | grep -c -v veth
    bridge -d link | grep -o 'hairpin [a-z]*' | sort -u
    ip -o addr | grep -v -e veth -e fe80 | awk '{ print $2, $4 }'
"#;

async fn state(cluster: &Cluster) -> BTreeMap<String, String> {
    let mut state = BTreeMap::new();
    for node in cluster.kernel().unwrap().nodes() {
        let text = node.sh(STATE_OF_NODE, &[]).await.unwrap();
        state.insert(node.name().to_owned(), text);
    }
    state
}

/// Addresses of Pods are new after a rollout, and with them the names of their chains.
fn without_addresses(state: &BTreeMap<String, String>) -> Vec<String> {
    let address = regex::Regex::new(r"10\.244\.([123])\.\d+\b").unwrap();
    let handle = regex::Regex::new(r"(KUBE-[A-Z]{3}|endpoint|affinity)-[A-Z0-9]+").unwrap();
    let mut lines = Vec::new();
    for (place, text) in state {
        for line in text.lines() {
            let line = address.replace_all(line, "10.244.$1.x");
            lines.push(format!("{place}: {}", handle.replace_all(&line, "$1-x")));
        }
    }
    lines.sort();
    lines
}

/// What the nodes are like once the rules of all that was set up are written.
async fn at_rest(cluster: &Cluster) -> Vec<String> {
    const QUIET_LOOKS: usize = 6;
    let mut last = Vec::new();
    let mut quiet = 0;
    while quiet < QUIET_LOOKS {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = without_addresses(&state(cluster).await);
        quiet = if now == last { quiet + 1 } else { 0 };
        last = now;
    }
    last
}

async fn settled(scene: &Scene, cluster: &Cluster, before: &[String]) -> Vec<String> {
    scene.wait_until_settled().await.unwrap();
    let start = Instant::now();
    loop {
        let now = without_addresses(&state(cluster).await);
        if now == before || start.elapsed() > Duration::from_secs(6) {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn difference(before: &[String], after: &[String]) -> String {
    let gone = before
        .iter()
        .filter(|line| !after.contains(line))
        .map(|line| format!("- {line}"));
    let new = after
        .iter()
        .filter(|line| !before.contains(line))
        .map(|line| format!("+ {line}"));
    gone.chain(new).take(20).collect::<Vec<_>>().join("\n")
}

async fn every_fault_comes_and_goes(proxy: ProxyMode, wiring: Wiring) {
    let config = ClusterConfig {
        data_path: Some(DataPath { proxy, wiring }),
        assets: None,
        dual_stack: true,
        ..ClusterConfig::default()
    };
    let cluster = Cluster::start(config).await.unwrap();
    let scene = Scene::of(&cluster, "default");
    scene.set_up().await.unwrap();
    let only = std::env::var("FAULT").unwrap_or_default();
    let mut healthy = at_rest(&cluster).await;
    let mut wrong = Vec::new();
    let mut played = 0;
    for fault in data_path_catalogue().unwrap() {
        if !fault.id.starts_with(&only) {
            continue;
        }
        let mut plays = Vec::new();
        if fault.modes.all().contains(&proxy) && fault.wiring == wiring {
            plays.push((fault.id.clone(), None));
        }
        let twins = fault
            .twins
            .iter()
            .filter(|twin| twin.modes.all().contains(&proxy) && twin.wiring == wiring);
        plays.extend(twins.map(|twin| (format!("{}, {}", fault.id, twin.title), Some(twin))));
        for (name, twin) in plays {
            let injected = match twin {
                None => fault.inject(&scene).await,
                Some(twin) => twin.apply(&scene).await,
            };
            if let Err(error) = injected {
                wrong.push(format!(
                    "{name} does not come about: {}",
                    svcdiag_sandbox::error::chain(&error)
                ));
            }
            if let Err(error) = fault.undo(&scene).await {
                wrong.push(format!(
                    "{name} is not undone: {}",
                    svcdiag_sandbox::error::chain(&error)
                ));
            }
            let after = settled(&scene, &cluster, &healthy).await;
            if after != healthy {
                wrong.push(format!(
                    "{name} leaves this behind:\n{}",
                    difference(&healthy, &after)
                ));
            }
            healthy = after;
            played += 1;
            eprintln!("{proxy} {wiring:?}: {name}");
        }
    }
    cluster.stop().await;
    assert!(
        wrong.is_empty(),
        "{} wrong of {played}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(played > 0 || !only.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_in_nftables_mode() {
    every_fault_comes_and_goes(ProxyMode::Nftables, Wiring::Bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_in_the_earlier_nftables_mode() {
    every_fault_comes_and_goes(ProxyMode::NftablesOld, Wiring::Bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_in_iptables_mode() {
    every_fault_comes_and_goes(ProxyMode::Iptables, Wiring::Bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_in_iptables_legacy_mode() {
    every_fault_comes_and_goes(ProxyMode::IptablesLegacy, Wiring::Bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_without_a_bridge() {
    every_fault_comes_and_goes(ProxyMode::Nftables, Wiring::PointToPoint).await;
}
