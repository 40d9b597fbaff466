//! What a round says of kube-proxy, and of tracked connections that it has left behind.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{TcpListener, UdpSocket},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use svcdiag::netns::Netns;
use svcdiag::{
    agent::round::{Memory, probe},
    api::{DialPath, GapKind, NodeFacts, NodeProbeSpec, PortState},
};

use super::{
    environment::Sleeper,
    namespace::{inside, listen, nft, run},
    test_cluster::{NAMESPACE, Same, TestCluster},
};

/// A process by the name of kube-proxy, which opens no port.
fn kube_proxy(node: &Netns) -> (Sleeper, tempfile::TempDir) {
    let program = tempfile::tempdir().unwrap();
    let name = program.path().join("kube-proxy");
    std::os::unix::fs::symlink("/bin/sleep", &name).unwrap();
    let sleeper = Sleeper::in_namespace(node, Command::new(&name).arg("120"));
    (sleeper, program)
}

#[tokio::test]
async fn leftovers_beside_a_kube_proxy_that_does_not_tell_its_mode_are_not_compared() {
    let cluster = TestCluster::new();
    inside(&cluster.node, || run("iptables-nft -t nat -N KUBE-PROXY-CANARY"));
    let _kube_proxy = kube_proxy(&cluster.node);
    let (node, spec, memory) = (cluster.as_node(), cluster.spec(), Memory::default());
    let facts = probe(&node, NAMESPACE, &spec, &Same(spec.clone()), &memory).await;
    let proxy = facts.kube_proxy.unwrap();
    assert_eq!(proxy.process.as_deref(), Some("kube-proxy"));
    assert_eq!(
        (proxy.livez, proxy.metrics),
        (PortState::Closed, PortState::Closed)
    );
    assert_eq!((facts.rules, facts.probes_failed), (None, 0));
}

#[tokio::test]
async fn a_kube_proxy_that_is_away_is_looked_for_twice_and_then_known_to_be() {
    let cluster = TestCluster::new();
    let (node, spec) = (cluster.as_node(), cluster.spec());
    let source = Same(spec.clone());
    let memory = Memory::default();
    let round = async || {
        let facts = probe(&node, NAMESPACE, &spec, &source, &memory).await;
        facts.kube_proxy.unwrap().process
    };
    let starts_after = async |seconds| {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        kube_proxy(&cluster.node)
    };
    let (process, kube_proxy) = tokio::join!(round(), starts_after(4));
    assert_eq!(process.as_deref(), Some("kube-proxy"));
    drop(kube_proxy);
    // What others saw within the last seconds does.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let begun = Instant::now();
    let process = round().await;
    let lasted = begun.elapsed();
    assert!(process.is_none() && lasted > Duration::from_secs(9), "{lasted:?}");
    // By now it is known: this round waits for nobody who may come.
    let mut known = std::pin::pin!(round());
    let process = tokio::select! {
        process = &mut known => process,
        _kube_proxy = starts_after(8) => known.await,
    };
    assert_eq!(process, None);
}

/// Tells its mode, and that a change waits to be written, for as long as the process lives.
fn say_that_changes_wait(node: &Netns) {
    let listener = node.run(|| TcpListener::bind("127.0.0.1:10249")).unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut request = [0; 1024];
            let length = connection.read(&mut request).unwrap_or_default();
            let body = if request[..length].starts_with(b"GET /proxyMode") {
                "nftables"
            } else {
                "kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"} 100\n\
                 kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family=\"IPv4\"} 105\n"
            };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            // Whoever asked may have gone.
            let _ = connection.write_all(format!("{head}{body}").as_bytes());
        }
    });
}

/// A round that begins without rules for a Service that changed so many seconds before; kube-proxy, which says that
/// it has yet to write them, does so a while later, if at all.
async fn round_without_rules(changed_before: i64, written_after: Option<u64>) -> NodeFacts {
    let cluster = TestCluster::new();
    let _kube_proxy = kube_proxy(&cluster.node);
    say_that_changes_wait(&cluster.node);
    nft(&cluster.node, "delete table ip kube-proxy\n");
    let mut spec = cluster.spec();
    let changed = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(changed_before);
    spec.service.changed_time = Some(Time(changed));
    let (node, memory, source) = (cluster.as_node(), Memory::default(), Same(spec.clone()));
    let writes = async {
        if let Some(seconds) = written_after {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            cluster.write_rules();
        }
    };
    let (facts, ()) = tokio::join!(probe(&node, NAMESPACE, &spec, &source, &memory), writes);
    facts
}

#[tokio::test]
async fn nothing_is_blamed_on_rules_that_kube_proxy_has_yet_to_write() {
    let facts = round_without_rules(14, Some(9)).await;
    assert_eq!(facts.rules.as_ref().unwrap().gaps, [], "{facts:#?}");
    assert!(facts.failures.is_empty(), "{facts:#?}");
    assert!(facts.probes_made > 15 && facts.probes_failed == 0, "{facts:#?}");
}

#[tokio::test]
async fn rules_are_missing_once_kube_proxy_has_had_its_time() {
    let facts = round_without_rules(55, None).await;
    assert_ne!(facts.rules.as_ref().unwrap().gaps, [], "{facts:#?}");
    assert!(facts.failures.iter().any(|f| f.from.is_some()), "{facts:#?}");
}

/// What a round says of a node port without rules.
async fn node_port_without_rules(cluster: &TestCluster) -> (GapKind, String) {
    let mut spec = cluster.spec();
    spec.service.ports[0].node_port = Some(30080);
    let (node, memory, source) = (cluster.as_node(), Memory::default(), Same(spec.clone()));
    let facts = probe(&node, NAMESPACE, &spec, &source, &memory).await;
    let mut gaps = facts.rules.unwrap().gaps.into_iter();
    let gap = gaps.find(|gap| gap.destination == "node port 30080/TCP").unwrap();
    (gap.kind, gap.detail)
}

#[tokio::test]
async fn whoever_listens_on_a_node_port_without_rules_is_named() {
    let cluster = TestCluster::new();
    let (kind, _) = node_port_without_rules(&cluster).await;
    assert_eq!(kind, GapKind::NodePortMissing);
    // Nobody else gets to this one.
    let _local = listen(&cluster.node, "127.0.0.1:30080");
    let (kind, _) = node_port_without_rules(&cluster).await;
    assert_eq!(kind, GapKind::NodePortMissing);
    let _listener = listen(&cluster.node, "10.244.1.1:30080");
    let (kind, detail) = node_port_without_rules(&cluster).await;
    assert_eq!(kind, GapKind::NodePortInUse);
    assert!(
        detail.ends_with(&format!("PID {}", std::process::id())),
        "{detail}"
    );
}

#[tokio::test]
async fn whoever_rejects_with_an_address_of_the_node_is_the_node() {
    let cluster = TestCluster::new();
    nft(
        &cluster.node,
        "add table ip firewall
         add chain ip firewall forward { type filter hook forward priority 0; }
         add rule ip firewall forward reject with icmp admin-prohibited",
    );
    let (node, spec, memory) = (cluster.as_node(), cluster.spec(), Memory::default());
    let facts = probe(&node, NAMESPACE, &spec, &Same(spec.clone()), &memory).await;
    let of = |path| {
        let failures = facts
            .failures
            .iter()
            .filter(move |f| f.from.is_some() && f.path == path);
        let details: BTreeSet<&str> = failures.filter_map(|f| f.detail.as_deref()).collect();
        details.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(
        of(DialPath::Endpoint),
        ["prohibited by the node's address 10.244.1.1"]
    );
    assert_eq!(of(DialPath::Service), ["prohibited by 10.96.0.7"]);
}

/// The Service over UDP.
fn udp(cluster: &TestCluster) -> NodeProbeSpec {
    let mut spec = cluster.spec();
    spec.service.ports[0].protocol = "UDP".into();
    spec.subsets[0].ports[0].protocol = "UDP".into();
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tracked_connection_is_stale_while_somebody_sends() {
    let cluster = TestCluster::new();
    // The packets of a client go to a port that no endpoint has.
    let gone = format!("{}:9999", cluster.endpoints[0].ip());
    nft(
        &cluster.node,
        &format!(
            "table ip old {{ chain pre {{ type nat hook prerouting priority -110;\n\
             ip daddr 10.96.0.7 udp dport 80 udp sport 41000 dnat to {gone}; }}\n}}\n"
        ),
    );
    let client = Netns::of_process(cluster.clients[0].pid()).unwrap();
    let socket = client.run(|| UdpSocket::bind("0.0.0.0:41000")).unwrap();
    let has_ended = AtomicBool::new(false);
    let (node, spec) = (cluster.as_node(), udp(&cluster));
    let (source, memory) = (Same(spec.clone()), Memory::default());
    let stale = async || {
        let NodeFacts {
            stale_connections, ..
        } = probe(&node, NAMESPACE, &spec, &source, &memory).await;
        stale_connections
    };
    let sends = async {
        while !has_ended.load(Ordering::Relaxed) {
            // What comes of earlier ones is no matter.
            let _ = socket.send_to(b"x", "10.96.0.7:80");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let pause = || tokio::time::sleep(Duration::from_secs(10));
    let samples = async {
        let first = stale().await;
        pause().await;
        let second = stale().await;
        has_ended.store(true, Ordering::Relaxed);
        (first, second)
    };
    let ((first, second), ()) = tokio::join!(samples, sends);
    assert_eq!(first, []);
    let [one] = second.as_slice() else {
        panic!("{second:?}");
    };
    assert_eq!(
        (one.destination.as_str(), one.endpoint.as_str()),
        ("10.96.0.7:80", gone.as_str())
    );
    pause().await;
    assert_eq!(stale().await, [], "its sender has ended");
}
