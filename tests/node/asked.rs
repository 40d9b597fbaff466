//! What a round does, and what it leaves alone, of what it is asked.

use serde_json::{Value, json};
use svcdiag::{
    agent::round::{Memory, probe},
    api::{Answer, NodeFacts, NodeProbeSpec},
};

use super::{
    namespace::nft,
    pocket::{NAMESPACE, Pocket, Same},
};

/// What the pocket is asked, with a change.
fn spec(pocket: &Pocket, change: impl FnOnce(&mut Value)) -> NodeProbeSpec {
    let mut spec = serde_json::to_value(pocket.spec()).unwrap();
    change(&mut spec);
    serde_json::from_value(spec).unwrap()
}

async fn round(pocket: &Pocket, spec: &NodeProbeSpec, memory: &Memory) -> NodeFacts {
    probe(&pocket.as_node(), NAMESPACE, spec, &Same(spec.clone()), memory).await
}

/// The Pods of the pocket close what they take, so that whoever speaks is left without an answer.
#[tokio::test]
async fn http_is_spoken_from_the_networks_of_pods_only() {
    let pocket = Pocket::new();
    let spec = spec(&pocket, |spec| {
        spec["probe"]["http"] = json!({ "path": "/" });
        let clients = spec["clients"].as_array_mut().unwrap();
        clients.truncate(1);
        let mut on_the_hosts_network = clients[0].clone();
        on_the_hosts_network["name"] = "host".into();
        on_the_hosts_network["hostNetwork"] = true.into();
        on_the_hosts_network["ips"] = json!(["10.244.1.1"]);
        clients.push(on_the_hosts_network);
    });
    let facts = round(&pocket, &spec, &Memory::default()).await;
    let pod = pocket.clients[0].key();
    let host = format!("{NAMESPACE}/host");
    for (from, speaks) in [(Some(&pod), true), (Some(&host), false), (None, false)] {
        let dials = || facts.dials.iter().filter(|d| d.from.as_ref() == from);
        assert!(dials().any(|d| d.made > 0), "{from:?}: {facts:#?}");
        assert!(dials().all(|d| (d.failed > 0) == speaks), "{from:?}: {facts:#?}");
    }
}

#[tokio::test]
async fn a_pod_that_no_longer_reaches_itself_is_seen_in_the_next_round() {
    let pocket = Pocket::new();
    let (spec, memory) = (pocket.spec(), Memory::default());
    let answer = |facts: &NodeFacts, n: usize| {
        let key = pocket.endpoints[n].key();
        let found = facts.hairpins.iter().find(|h| h.pod == key);
        found.and_then(|h| h.answer)
    };
    let facts = round(&pocket, &spec, &memory).await;
    assert_eq!(answer(&facts, 0), Some(Answer::Accepted), "{facts:#?}");
    // Nothing that is read of the node tells of it: neither its rules for Services nor its links.
    let ip = pocket.endpoints[0].ip();
    nft(
        &pocket.node,
        &format!(
            "add table ip t
             add chain ip t f {{ type filter hook forward priority 0; }}
             add rule ip t f ip saddr {ip} ip daddr {ip} drop"
        ),
    );
    let facts = round(&pocket, &spec, &memory).await;
    assert_eq!(answer(&facts, 0), Some(Answer::TimedOut), "{facts:#?}");
    assert_eq!(answer(&facts, 1), Some(Answer::Accepted), "{facts:#?}");
}

#[tokio::test]
async fn only_ready_pods_dial_themselves_and_only_on_asked_ports() {
    let pocket = Pocket::new();
    let asked = spec(&pocket, |spec| {
        spec["ports"] = json!([80]);
        spec["endpoints"][0]["notReady"] = true.into();
    });
    let facts = round(&pocket, &asked, &Memory::default()).await;
    let mut pods: Vec<&str> = facts.hairpins.iter().map(|h| h.pod.as_str()).collect();
    pods.sort_unstable();
    let ready = [pocket.endpoints[1].key(), pocket.endpoints[2].key()];
    assert_eq!(pods, ready);
    let another = spec(&pocket, |spec| spec["ports"] = json!(["another"]));
    let facts = round(&pocket, &another, &Memory::default()).await;
    assert_eq!(facts.hairpins, [], "{facts:#?}");
}
