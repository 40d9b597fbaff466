//! A Pod that may change its own network (NET_ADMIN) fills it with rules that take forever to follow.

use std::{fmt::Write, time::Duration};

use svcdiag::netns::Netns;

use super::{
    agent::Agent,
    namespace::{feed, inside, nft},
    test_cluster::{Pod, TestCluster},
};

/// Each chain leads to the next one so often: followed naively, these are 30^12 ways.
const LEVELS: usize = 12;
const RULES: usize = 30;

/// Chains of iptables-nft, whose rules differ so that none is left out.
fn tangle(pod: &Pod) {
    let mut rules = String::from("*nat\n:OUTPUT ACCEPT [0:0]\n");
    for level in 0..LEVELS {
        writeln!(rules, ":L{level} - [0:0]").unwrap();
    }
    for n in 0..RULES {
        writeln!(rules, "-A OUTPUT -d 10.9.{n}.0/24 -j L0").unwrap();
    }
    for level in 1..LEVELS {
        for n in 0..RULES {
            writeln!(rules, "-A L{} -d 10.9.{n}.0/24 -j L{level}", level - 1).unwrap();
        }
    }
    rules.push_str("COMMIT\n");
    let netns = Netns::of_process(pod.pid()).unwrap();
    inside(&netns, || feed(&["iptables-nft-restore"], &rules));
}

/// One chain that is longer than anybody reads, in the table of iptables.
fn flood(pod: &Pod) {
    let mut rules = String::from(
        "add table ip nat\nadd chain ip nat OUTPUT { type nat hook output priority -100; policy accept; }\n",
    );
    for n in 0..60_000 {
        let _ = writeln!(
            rules,
            "add rule ip nat OUTPUT ip daddr 10.{}.{}.1 accept",
            n / 250 % 250,
            n % 250
        );
    }
    nft(&Netns::of_process(pod.pid()).unwrap(), &rules);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_of_a_pod_holds_up_nobody() {
    let cluster = TestCluster::new();
    tangle(&cluster.clients[0]);
    flood(&cluster.clients[1]);
    let agent = Agent::start(&cluster).await;
    let spec = serde_json::to_value(cluster.spec()).unwrap();
    let facts = {
        let mut round = std::pin::pin!(agent.round("tangled", spec));
        loop {
            tokio::select! {
                facts = &mut round => break facts,
                () = tokio::time::sleep(Duration::from_millis(200)) => agent.assert_healthy().await,
            }
        }
    };
    assert_eq!(facts.probes_failed, 0, "{facts:#?}");
    assert!(facts.probes_made > 15, "{facts:#?}");
    assert_eq!(facts.intercepted, [""; 0]);
    agent.assert_peak("tangled rules");
    agent.stop().await;
}
