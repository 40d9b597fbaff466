//! What a round does, and what it leaves alone, of what it is asked.

use serde_json::{Value, json};
use svcdiag::{
    agent::round::{Memory, probe},
    api::{Answer, NodeFacts, NodeProbeSpec},
};

use super::{
    namespace::nft,
    test_cluster::{NAMESPACE, Same, TestCluster},
};

/// What the cluster is asked, with a change.
fn spec(cluster: &TestCluster, change: impl FnOnce(&mut Value)) -> NodeProbeSpec {
    let mut spec = serde_json::to_value(cluster.spec()).unwrap();
    change(&mut spec);
    serde_json::from_value(spec).unwrap()
}

async fn round(cluster: &TestCluster, spec: &NodeProbeSpec, memory: &Memory) -> NodeFacts {
    probe(&cluster.as_node(), NAMESPACE, spec, &Same(spec.clone()), memory).await
}

/// The Pods of the cluster close what they take, so that whoever speaks is left without an answer.
#[tokio::test]
async fn http_is_spoken_from_the_networks_of_pods_only() {
    let cluster = TestCluster::new();
    let spec = spec(&cluster, |spec| {
        spec["probe"]["http"] = json!({ "path": "/" });
        let clients = spec["clients"].as_array_mut().unwrap();
        clients.truncate(1);
        let mut on_the_hosts_network = clients[0].clone();
        on_the_hosts_network["name"] = "host".into();
        on_the_hosts_network["hostNetwork"] = true.into();
        on_the_hosts_network["ips"] = json!(["10.244.1.1"]);
        clients.push(on_the_hosts_network);
    });
    let facts = round(&cluster, &spec, &Memory::default()).await;
    let pod = cluster.clients[0].key();
    let host = format!("{NAMESPACE}/host");
    for (from, speaks) in [(Some(&pod), true), (Some(&host), false), (None, false)] {
        let dials = || facts.dials.iter().filter(|d| d.from.as_ref() == from);
        assert!(dials().any(|d| d.made > 0), "{from:?}: {facts:#?}");
        assert!(dials().all(|d| (d.failed > 0) == speaks), "{from:?}: {facts:#?}");
    }
}

#[tokio::test]
async fn a_pod_that_no_longer_reaches_itself_is_seen_in_the_next_round() {
    let cluster = TestCluster::new();
    let (spec, memory) = (cluster.spec(), Memory::default());
    let answer = |facts: &NodeFacts, n: usize| {
        let key = cluster.endpoints[n].key();
        let found = facts.hairpins.iter().find(|h| h.pod == key);
        found.and_then(|h| h.answer)
    };
    let facts = round(&cluster, &spec, &memory).await;
    assert_eq!(answer(&facts, 0), Some(Answer::Accepted), "{facts:#?}");
    // Nothing that is read of the node tells of it: neither its rules for Services nor its links.
    let ip = cluster.endpoints[0].ip();
    nft(
        &cluster.node,
        &format!(
            "add table ip t
             add chain ip t f {{ type filter hook forward priority 0; }}
             add rule ip t f ip saddr {ip} ip daddr {ip} drop"
        ),
    );
    let facts = round(&cluster, &spec, &memory).await;
    assert_eq!(answer(&facts, 0), Some(Answer::TimedOut), "{facts:#?}");
    assert_eq!(answer(&facts, 1), Some(Answer::Accepted), "{facts:#?}");
}

#[tokio::test]
async fn only_ready_pods_dial_themselves_and_only_on_asked_ports() {
    let cluster = TestCluster::new();
    let asked = spec(&cluster, |spec| {
        spec["ports"] = json!([80]);
        spec["endpoints"][0]["notReady"] = true.into();
    });
    let facts = round(&cluster, &asked, &Memory::default()).await;
    let mut pods: Vec<&str> = facts.hairpins.iter().map(|h| h.pod.as_str()).collect();
    pods.sort_unstable();
    let ready = [cluster.endpoints[1].key(), cluster.endpoints[2].key()];
    assert_eq!(pods, ready);
    let another = spec(&cluster, |spec| spec["ports"] = json!(["another"]));
    let facts = round(&cluster, &another, &Memory::default()).await;
    assert_eq!(facts.hairpins, [], "{facts:#?}");
}
