//! Probing leaves nothing behind, changes nothing, and is not led astray by Pods that vanish.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    sync::Mutex,
    time::{Duration, Instant},
};

use svcdiag::netns::{Netns, links::links, rootfs};
use svcdiag::{
    agent::round::{Memory, Source, probe},
    api::{NodeFacts, NodeProbeSpec},
    engine::asked::Subject,
};

use super::{
    namespace::{inside, must, nft},
    test_cluster::{NAMESPACE, Same, TestCluster},
};

const ROUNDS: usize = 1_000;

/// Whether this is a process that runs one test only; else starts one. What a process holds can only be
/// counted where no other test runs.
fn is_alone(test: &str) -> bool {
    const ALONE: &str = "SVCDIAG_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("robustness::{test}"), "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.contains("1 passed"), "there is no test {test}: {text}");
    false
}

/// Open files by kind, and threads.
type Held = (BTreeMap<String, usize>, usize);

/// File descriptors by what they are, and the number of threads.
fn held() -> Held {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let Ok(target) = fs::read_link(entry.path()) else {
            continue;
        };
        // socket:[123], net:[456] and the like: the kind.
        let target = target.display().to_string();
        let kind = target.split('[').next().unwrap_or_default().to_owned();
        *files.entry(kind).or_insert(0) += 1;
    }
    // Only this check itself has /proc open.
    files.retain(|kind, _| !kind.starts_with("/proc/"));
    (files, fs::read_dir("/proc/self/task").unwrap().count())
}

/// The same, once the threads of namespaces that nobody holds any more have ended.
async fn settled() -> Held {
    let mut last = held();
    for _ in 0..100 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let now = held();
        if now.1 < last.1 {
            last = now;
        }
    }
    last
}

/// Every sysctl of the network of the calling thread's namespace that can be read.
fn sysctls(directory: &Path, into: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sysctls(&path, into);
        } else if let Ok(text) = fs::read_to_string(&path) {
            into.insert(path.display().to_string(), text);
        }
    }
}

/// What must not change by a probe.
fn untouched(node: &Netns) -> BTreeMap<String, String> {
    inside(node, || {
        let mut all = BTreeMap::new();
        sysctls(Path::new("/proc/sys/net"), &mut all);
        for family in ["ip", "ip6"] {
            let file = format!("/proc/thread-self/net/{family}_tables_names");
            all.insert(file.clone(), fs::read_to_string(file).unwrap_or_default());
        }
        // The traffic of any round moves these.
        all.retain(|path, _| !path.ends_with("/nf_conntrack_count"));
        all
    })
}

fn assert_healthy(facts: &NodeFacts) {
    assert!(facts.probes_made > 15, "{facts:#?}");
    assert_eq!(facts.probes_failed, 0, "{facts:#?}");
    assert_eq!(facts.rules.as_ref().unwrap().gaps, [], "{facts:#?}");
    assert_eq!(facts.rules.as_ref().unwrap().layout, "nftables");
    assert_eq!(facts.hairpins.len(), 3);
    assert_eq!(facts.resolvers.len(), 2);
    assert_eq!(facts.problems, [""; 0]);
}

#[tokio::test]
async fn a_thousand_rounds_leave_nothing_behind() {
    if !is_alone("a_thousand_rounds_leave_nothing_behind") {
        return;
    }
    let cluster = TestCluster::new();
    let (node, spec, memory) = (cluster.as_node(), cluster.spec(), Memory::default());
    let source = Same(spec.clone());
    let round = || probe(&node, NAMESPACE, &spec, &source, &memory);
    let unprobed = untouched(&cluster.node);
    assert_healthy(&round().await);
    let before = settled().await;
    for _ in 1..ROUNDS {
        assert_healthy(&round().await);
    }
    let (mut now, mut before) = (settled().await, before);
    // Up to seven sockets of each type and family wait in the node's namespace to be used.
    let sockets = |held: &mut Held| held.0.remove("socket:").unwrap_or_default();
    let (some, others) = (sockets(&mut now), sockets(&mut before));
    assert!(some <= others + 28, "{some} sockets, {others} before");
    // Tokio keeps threads that may block for ten seconds.
    assert!(now.1 <= before.1 + 8, "{} threads, {} before", now.1, before.1);
    assert_eq!(now.0, before.0);
    let after = untouched(&cluster.node);
    assert!(after.len() > 100, "{} sysctls", after.len());
    for (name, value) in &unprobed {
        assert_eq!(after.get(name), Some(value), "{name}");
    }
    assert_eq!(after.len(), unprobed.len());
}

#[tokio::test]
async fn a_namespace_whose_processes_have_died_is_let_go() {
    let mut cluster = TestCluster::new();
    let (node, spec, memory) = (cluster.as_node(), cluster.spec(), Memory::default());
    let source = Same(spec.clone());
    assert_healthy(&probe(&node, NAMESPACE, &spec, &source, &memory).await);
    let client = cluster.clients.pop().unwrap();
    let link = client.link();
    let has_link = || {
        let links = must(cluster.node.run(links));
        links.iter().any(|l| l.name == link)
    };
    assert!(has_link());
    drop(client);
    // The kernel takes a namespace down, and with it the link, when nobody holds it any more.
    let begun = Instant::now();
    while has_link() {
        assert!(
            begun.elapsed() < Duration::from_secs(180),
            "somebody holds the namespace"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let facts = probe(&node, NAMESPACE, &spec, &source, &memory).await;
    assert_eq!(facts.probes_failed, 0, "{facts:#?}");
    let [problem] = facts.problems.as_slice() else {
        panic!("{facts:#?}");
    };
    assert!(problem.contains("no process of Pod"), "{problem}");
}

/// A NodeProbe; before it is read again something has happened.
struct Meanwhile<'a> {
    spec: NodeProbeSpec,
    happens: Mutex<Option<Box<dyn FnOnce() + Send + 'a>>>,
}

impl Source for Meanwhile<'_> {
    fn latest(&self) -> Subject {
        if let Some(happens) = self.happens.lock().unwrap().take() {
            happens();
        }
        Subject::of(&self.spec)
    }
}

/// A round in which the first client's packets are lost, and between the two probes something happens.
async fn round_with_a_lost_client(vanishes: bool) -> (NodeFacts, String) {
    let mut cluster = TestCluster::new();
    let (node, spec) = (cluster.as_node(), cluster.spec());
    let client = cluster.clients.remove(0);
    let (ip, key) = (client.ip(), client.key());
    nft(
        &cluster.node,
        &format!(
            "table ip lost {{ chain forward {{ type filter hook forward priority 0; ip saddr {ip} drop; }}\n}}\n"
        ),
    );
    let mut client = Some(client);
    let source = Meanwhile {
        spec: spec.clone(),
        happens: Mutex::new(Some(Box::new(|| {
            if vanishes {
                client = None;
            }
        }))),
    };
    let facts = probe(&node, NAMESPACE, &spec, &source, &Memory::default()).await;
    (facts, key)
}

#[tokio::test]
async fn a_client_that_vanishes_in_a_round_is_a_problem_and_no_failure() {
    let (facts, key) = round_with_a_lost_client(false).await;
    assert!(facts.failures.iter().any(|f| f.from.as_ref() == Some(&key)));
    assert_eq!(facts.problems, [""; 0]);

    let (facts, key) = round_with_a_lost_client(true).await;
    assert!(facts.failures.is_empty(), "{:#?}", facts.failures);
    assert_eq!(facts.probes_failed, 0);
    assert!(facts.probes_made > 0);
    let [problem] = facts.problems.as_slice() else {
        panic!("{:#?}", facts.problems);
    };
    assert!(problem.contains(&key), "{problem}");
}

#[tokio::test]
async fn an_endpoint_that_vanishes_in_a_round_is_no_failure() {
    let mut cluster = TestCluster::new();
    let (node, before) = (cluster.as_node(), cluster.spec());
    cluster.endpoints.pop();
    let source = Same(cluster.spec());
    let facts = probe(&node, NAMESPACE, &before, &source, &Memory::default()).await;
    let (direct, through): (Vec<_>, Vec<_>) = facts
        .failures
        .iter()
        .partition(|f| f.path == svcdiag::api::DialPath::Endpoint);
    assert!(direct.is_empty(), "{direct:#?}");
    assert!(through.is_empty(), "{through:#?}");
}

/// Failures at the Service in a round in which all packets to it are lost, and the API's second answer is another.
async fn failures_at_a_lost_service(vanishes: bool) -> usize {
    let mut cluster = TestCluster::new();
    let (node, before) = (cluster.as_node(), cluster.spec());
    let lost = "type filter hook prerouting priority -150; ip daddr 10.96.0.7 drop;";
    nft(
        &cluster.node,
        &format!("table ip lost {{ chain pre {{ {lost} }}\n}}\n"),
    );
    if vanishes {
        cluster.endpoints.pop();
    }
    let source = Same(cluster.spec());
    let facts = probe(&node, NAMESPACE, &before, &source, &Memory::default()).await;
    let is_at_service = |f: &&svcdiag::api::DialFailure| f.path == svcdiag::api::DialPath::Service;
    facts.failures.iter().filter(is_at_service).count()
}

#[tokio::test]
async fn what_is_lost_while_an_endpoint_vanishes_may_have_been_sent_there() {
    let (stays, vanishes) = tokio::join!(
        failures_at_a_lost_service(false),
        failures_at_a_lost_service(true)
    );
    assert_eq!((stays, vanishes), (2, 0), "of two clients");
}

#[test]
fn a_hostile_resolv_conf_yields_nothing_and_does_not_hang() {
    let cluster = TestCluster::new();
    let pod = &cluster.clients[0];
    let file = pod.root().join("etc/resolv.conf");
    let read = || {
        // A fifo that nobody writes to would keep it for ever.
        rootfs::read(pod.pid(), "/etc/resolv.conf")
    };
    assert!(read().unwrap().contains("nameserver"));
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), "of the host").unwrap();
    fs::remove_file(&file).unwrap();

    std::os::unix::fs::symlink(secret.path(), &file).unwrap();
    assert!(read().is_err());
    fs::remove_file(&file).unwrap();

    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert!(read().is_err());
    fs::remove_file(&file).unwrap();

    let long = fs::File::create(&file).unwrap();
    long.set_len(1 << 30).unwrap();
    assert!(read().is_err());
}

#[test]
fn a_device_for_a_resolv_conf_is_not_read() {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let cluster = TestCluster::new();
    let pod = &cluster.clients[0];
    let file = pod.root().join("etc/resolv.conf");
    fs::remove_file(&file).unwrap();
    // /dev/zero never ends. In a user namespace nobody may make a device, and a Pod neither.
    match mknod(&file, SFlag::S_IFCHR, Mode::S_IRUSR, makedev(1, 5)) {
        Ok(()) => assert!(rootfs::read(pod.pid(), "/etc/resolv.conf").is_err()),
        Err(error) => assert_eq!(error, nix::errno::Errno::EPERM),
    }
}
