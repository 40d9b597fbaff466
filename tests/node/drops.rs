//! Who dropped the packets of dials that failed, as a round reports it from the real kernel; and what it leaves out.

use std::{
    io::Write,
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use svcdiag::{
    agent::round::{Memory, Node, probe},
    api::{DropCause, DropPlace, NodeFacts, PacketDrop},
    netns::Netns,
};

use super::{
    namespace::{inside, nft, shell},
    test_cluster::{NAMESPACE, Same, TestCluster},
};

async fn round_of(node: &Node, cluster: &TestCluster) -> NodeFacts {
    let spec = cluster.spec();
    probe(node, NAMESPACE, &spec, &Same(spec.clone()), &Memory::default()).await
}

/// What a round reports; None where the kernel cannot be watched here, which is said.
pub(crate) async fn round(cluster: &TestCluster) -> Option<NodeFacts> {
    let facts = round_of(&cluster.as_node(), cluster).await;
    let unwatched = facts.problems.iter().find(|problem| is_unwatched(problem));
    if let Some(why) = unwatched {
        assert!(is_excused(why), "{why}");
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        let _ = writeln!(std::io::stderr(), "skipped: {name}: {why}");
        return None;
    }
    Some(facts)
}

const UNWATCHED: &str = "Dropped packets could not be watched: ";

fn is_unwatched(problem: &str) -> bool {
    problem.starts_with(UNWATCHED)
}

/// Whether the kernel or the rights here do not allow to watch. That it refuses our program or has types that are not
/// understood is a fault of ours.
fn is_excused(problem: &str) -> bool {
    const REASONS: [&str; 5] = [
        "CAP_BPF and CAP_PERFMON are missing",
        "the kernel has no type information",
        "the kernel gives no reason for drops",
        "the kernel is locked down",
        "the kernel refuses bpf() although",
    ];
    let why = problem.strip_prefix(UNWATCHED);
    why.is_some_and(|why| REASONS.iter().any(|reason| why.starts_with(reason)))
}

const DROP: &str = "table inet filter { chain drops { type filter hook HOOK priority 0; MATCH drop; }; }";

pub(crate) fn drop_at(netns: &Netns, hook: &str, what: &str) {
    nft(netns, &DROP.replace("HOOK", hook).replace("MATCH", what));
}

/// The drops of a client's direct dial of the first endpoint, of which there have to be some, all for one cause.
#[track_caller]
pub(crate) fn of_direct_dial<'a>(facts: &'a NodeFacts, cluster: &TestCluster) -> &'a PacketDrop {
    let (client, endpoint) = (
        cluster.clients[0].key(),
        format!("{}:9376", cluster.endpoints[0].ip()),
    );
    let is_its = |drop: &&PacketDrop| drop.from.as_ref() == Some(&client) && drop.target == endpoint;
    let found: Vec<&PacketDrop> = facts.drops.iter().filter(is_its).collect();
    let [drop] = found[..] else {
        panic!("{found:#?} of {facts:#?}")
    };
    assert_eq!(drop.endpoint.as_ref(), Some(&endpoint));
    drop
}

#[tokio::test]
async fn a_rule_on_the_node_is_seen_with_the_interface_of_the_client() {
    let cluster = TestCluster::new();
    let match_ = format!("ip daddr {} tcp dport 9376", cluster.endpoints[0].ip());
    drop_at(&cluster.node, "forward", &match_);
    let Some(facts) = round(&cluster).await else {
        return;
    };
    let drop = of_direct_dial(&facts, &cluster);
    assert_eq!(
        (drop.cause, drop.place, drop.answers),
        (DropCause::Firewall, DropPlace::Node, false)
    );
    assert_eq!(drop.interface, Some(cluster.clients[0].link()));
    assert_eq!(drop.reason, "NETFILTER_DROP");
    assert!(drop.packets >= 1);
    // Through the Service as well.
    let through = |drop: &&PacketDrop| drop.target == "10.96.0.7:80" && drop.from.is_some();
    let through: Vec<&PacketDrop> = facts.drops.iter().filter(through).collect();
    assert!(!through.is_empty(), "{facts:#?}");
    assert!(
        through.iter().all(|drop| drop.cause == DropCause::Firewall),
        "{facts:#?}"
    );
}

#[tokio::test]
async fn a_rule_in_the_pod_is_told_from_one_on_the_node() {
    let cluster = TestCluster::new();
    let pod = Netns::of_process(cluster.endpoints[0].pid()).unwrap();
    drop_at(&pod, "input", "tcp dport 9376");
    let Some(facts) = round(&cluster).await else {
        return;
    };
    let drop = of_direct_dial(&facts, &cluster);
    assert_eq!(
        (drop.cause, drop.place),
        (DropCause::Firewall, DropPlace::Endpoint)
    );
    assert_eq!(drop.interface.as_deref(), Some("eth0"));
    let client = Netns::of_process(cluster.clients[1].pid()).unwrap();
    let answers = format!("ip saddr {} tcp sport 9376", cluster.endpoints[1].ip());
    drop_at(&client, "input", &answers);
    let Some(facts) = round(&cluster).await else {
        return;
    };
    let key = cluster.clients[1].key();
    let of_answer = |drop: &&PacketDrop| drop.from.as_ref() == Some(&key) && drop.answers;
    let found: Vec<&PacketDrop> = facts.drops.iter().filter(of_answer).collect();
    assert!(!found.is_empty(), "{facts:#?}");
    assert!(
        found.iter().all(|drop| drop.place == DropPlace::Client),
        "{found:#?}"
    );
}

#[tokio::test]
async fn a_node_that_does_not_forward_says_so() {
    let cluster = TestCluster::new();
    inside(&cluster.node, || {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
    });
    let Some(facts) = round(&cluster).await else {
        return;
    };
    let drop = of_direct_dial(&facts, &cluster);
    assert_eq!(
        (drop.cause, drop.place),
        (DropCause::ForwardingDisabled, DropPlace::Node)
    );
}

#[tokio::test]
async fn a_healthy_round_reports_no_drop_beside_ten_thousand_others_a_second() {
    const RATE: u128 = 10_000;
    let cluster = TestCluster::new();
    // The noise has the addresses of a dial, and another port.
    let noise = format!("{}:9", cluster.endpoints[0].ip());
    drop_at(&cluster.node, "forward", "udp dport 9");
    let netns = Netns::of_process(cluster.clients[0].pid()).unwrap();
    let socket = netns.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let sender = std::thread::spawn(move || {
        let (begin, mut sent) = (Instant::now(), 0);
        while !stopped.load(Ordering::Relaxed) {
            while sent < begin.elapsed().as_millis() * RATE / 1000 {
                let _ = socket.send_to(b"noise", &noise);
                sent += 1;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let healthy = round(&cluster).await;
    let match_ = format!("ip daddr {} tcp dport 9376", cluster.endpoints[0].ip());
    nft(
        &cluster.node,
        &format!("add rule inet filter drops {match_} drop"),
    );
    let faulty = round(&cluster).await;
    stop.store(true, Ordering::Relaxed);
    sender.join().unwrap();
    let Some((healthy, faulty)) = healthy.zip(faulty) else {
        return;
    };
    assert_eq!(
        (healthy.probes_failed, &healthy.drops[..]),
        (0, &[][..]),
        "{healthy:#?}"
    );
    assert_eq!(of_direct_dial(&faulty, &cluster).cause, DropCause::Firewall);
}

#[tokio::test]
async fn where_nothing_can_be_watched_one_problem_says_why_and_all_else_goes_on() {
    let cluster = TestCluster::new();
    let node = cluster.as_node().with_kernel_types("/nonexistent/vmlinux".into());
    let healthy = round_of(&node, &cluster).await;
    assert_eq!(
        (healthy.probes_failed, &healthy.problems[..]),
        (0, &[][..]),
        "{healthy:#?}"
    );
    let match_ = format!("ip daddr {} tcp dport 9376", cluster.endpoints[0].ip());
    drop_at(&cluster.node, "forward", &match_);
    let facts = round_of(&node, &cluster).await;
    assert!(facts.probes_failed > 0 && facts.drops.is_empty(), "{facts:#?}");
    let [problem] = &facts.problems[..] else {
        panic!("{facts:#?}")
    };
    assert!(
        is_unwatched(problem) && problem.contains("/nonexistent/vmlinux"),
        "{problem}"
    );
}

/// Fills the accept queue of a socket: those who have hung up wait in it, too.
fn fill(client: &Netns, target: &str) {
    let target = target.parse().unwrap();
    inside(client, || {
        let connect = || TcpStream::connect_timeout(&target, Duration::from_millis(300));
        while connect().is_ok() {}
    });
}

#[tokio::test]
async fn a_full_accept_queue_is_told_from_a_firewall_beside_another_queue_that_is_full() {
    let cluster = TestCluster::new();
    let client = Netns::of_process(cluster.clients[0].pid()).unwrap();
    let busy = format!("{}:9376", cluster.endpoints[0].ip());
    let signal = |name: &str| shell(&format!("kill -{name} {}", cluster.endpoints[0].pid()));
    // Whoever does not accept is found by the kernel's queue, which has room at first.
    signal("STOP");
    let Some(facts) = round(&cluster).await else {
        return;
    };
    assert_eq!(
        (facts.probes_failed, &facts.drops[..]),
        (0, &[][..]),
        "{facts:#?}"
    );
    fill(&client, &busy);
    let Some(facts) = round(&cluster).await else {
        return;
    };
    let of_node = |drop: &&PacketDrop| drop.from.is_none() && drop.target == busy;
    let found: Vec<&PacketDrop> = facts.drops.iter().filter(of_node).collect();
    let [drop] = found[..] else { panic!("{facts:#?}") };
    assert_eq!(
        (drop.cause, drop.place),
        (DropCause::AcceptQueueFull, DropPlace::Endpoint)
    );
    assert_eq!(of_direct_dial(&facts, &cluster).cause, DropCause::AcceptQueueFull);
    signal("CONT");

    // The other queue overflows in the same network, and the dials are lost elsewhere.
    let pod = Netns::of_process(cluster.endpoints[1].pid()).unwrap();
    let other = format!("{}:9999", cluster.endpoints[1].ip());
    let listener = inside(&pod, || TcpListener::bind("0.0.0.0:9999").unwrap());
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
    drop_at(
        &cluster.node,
        "forward",
        &format!("ip daddr {} tcp dport 9376", cluster.endpoints[1].ip()),
    );
    let (stopped, running) = (Arc::new(AtomicBool::new(false)), client.clone());
    let stop = stopped.clone();
    let sender = std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            fill(&running, &other);
        }
    });
    let facts = round(&cluster).await;
    stopped.store(true, Ordering::Relaxed);
    sender.join().unwrap();
    let Some(facts) = facts else { return };
    assert!(facts.probes_failed > 0 && !facts.drops.is_empty(), "{facts:#?}");
    let is_firewall = |drop: &PacketDrop| drop.cause == DropCause::Firewall;
    assert!(facts.drops.iter().all(is_firewall), "{facts:#?}");
}
