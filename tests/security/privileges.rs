//! Whoever takes over a thread of the agent is not to have the rights of all.

use std::fs;

use super::{agent::Agent, test_cluster::TestCluster};

/// CAP_SYS_ADMIN, CAP_PERFMON and CAP_BPF.
const OF_VISITORS: u64 = 1 << 21 | 1 << 38 | 1 << 39;

/// The name of a thread, and what it is permitted.
fn rights(status: &str) -> (String, u64) {
    let line = |key: &str| {
        let found = status.lines().find_map(|l| l.strip_prefix(key));
        found.unwrap().trim().to_owned()
    };
    (line("Name:"), u64::from_str_radix(&line("CapPrm:"), 16).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_those_who_enter_namespaces_may_do_so() {
    let cluster = TestCluster::new();
    let agent = Agent::start(&cluster).await;
    // A round has all threads started.
    let facts = agent
        .round("rights", serde_json::to_value(cluster.spec()).unwrap())
        .await;
    assert_eq!(facts.probes_failed, 0, "{facts:#?}");
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for thread in fs::read_dir(format!("/proc/{}/task", agent.pid()))
        .unwrap()
        .flatten()
    {
        let Ok(status) = fs::read_to_string(thread.path().join("status")) else {
            continue;
        };
        let (name, permitted) = rights(&status);
        let list = if permitted & OF_VISITORS != 0 {
            &mut with
        } else {
            &mut without
        };
        list.push(name);
    }
    with.sort();
    assert_eq!(with, ["netns", "netns-node", "netns-pods"]);
    assert!(
        without.iter().any(|name| name == "svcdiag") && without.len() >= 3,
        "{without:?}"
    );
    agent.stop().await;
}
