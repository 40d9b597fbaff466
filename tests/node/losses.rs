//! Packets that are lost at times on the real kernel: what rounds report of them, the counters that rise with them, and
//! what the verdict says. And counters that rise for other reasons.

use std::{
    io::Read,
    net::UdpSocket,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use svcdiag::{
    api::{ConditionType, LossCounterName, LossyPath, NodeFacts, PathLoss},
    engine::{Facts, NodeReport, ProbeReport, diagnose},
    netns::{
        Netns,
        netfilter::conntrack::{Conntrack, Dropped, Statistics},
    },
};

use super::{
    namespace::{Cable, inside, must, new_namespace, nft, run, shell},
    rounds::Rounds,
    test_cluster::{NAMESPACE, TestCluster},
};

const COLLIDE: &str = include_str!("losses/collide.py");
const FILL: &str = include_str!("losses/fill.py");
const DNS: &str = include_str!("losses/dns.py");

/// Tables of more entries take too long to fill.
const MAX_TABLE: u32 = 600_000;

fn statistics(netns: &Netns) -> Statistics {
    let conntrack = must(netns.run(Conntrack::open));
    must(conntrack.statistics())
}

/// A Python program in a network namespace, which ends with it.
struct Program(Child);

impl Program {
    fn start(netns: &Netns, script: &str, arguments: &[&str]) -> Self {
        Self::spawn(netns, script, arguments, Stdio::null())
    }

    /// Starts one that prints an empty line once it serves.
    fn serve(netns: &Netns, script: &str, arguments: &[&str]) -> Self {
        let mut program = Self::spawn(netns, script, arguments, Stdio::piped());
        let printed = program.0.stdout.as_mut().unwrap();
        printed.read_exact(&mut [0]).unwrap();
        program
    }

    fn spawn(netns: &Netns, script: &str, arguments: &[&str], stdout: Stdio) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", script]).args(arguments);
        Self(inside(netns, || command.stdout(stdout).spawn().unwrap()))
    }

    fn wait(mut self) {
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Has packets to two addresses go to one server, and be held after that. Needs 10.244.1.1.
fn prepare_collisions(node: &Netns) {
    inside(node, || {
        run("ip route add 10.200.9.0/30 dev lo
             iptables-nft -t nat -A OUTPUT -p udp -d 10.200.9.0/30 -j DNAT --to-destination 10.244.1.1:9
             iptables-nft -t nat -A POSTROUTING -p udp -d 10.244.1.1 --dport 9 -j NFQUEUE --queue-num 7");
    });
}

#[test]
fn packets_that_collide_in_conntrack_are_counted() {
    let node = new_namespace();
    inside(&node, || run("ip addr add 10.244.1.1/32 dev lo"));
    prepare_collisions(&node);
    let before = statistics(&node);
    Program::start(&node, COLLIDE, &["5", "0"]).wait();
    let expected = Dropped {
        clashes: 5,
        ..Dropped::default()
    };
    assert_eq!(before.until(&statistics(&node)), expected);
}

/// The size of conntrack tables, which all namespaces share; None if it is too large for a test.
fn table_size() -> Option<u32> {
    let size = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").unwrap();
    let size = size.trim().parse().unwrap();
    (1..=MAX_TABLE).contains(&size).then_some(size)
}

/// Two namespaces, the first of which tracks connections and needs no answer to send to 10.200.0.0 and up.
fn with_conntrack() -> Cable {
    let cable = Cable::new();
    nft(
        &cable.client,
        "table ip track { chain out { type filter hook output priority 0; ct state new accept; }; }",
    );
    inside(&cable.client, || {
        run("ip neigh replace 10.1.0.2 lladdr 02:00:00:00:00:02 dev eth0
             ip route add 10.192.0.0/10 via 10.1.0.2");
        std::fs::write("/proc/sys/net/netfilter/nf_conntrack_udp_timeout", "120").unwrap();
    });
    cable
}

#[test]
fn entries_that_make_room_in_a_full_table_are_counted() {
    let Some(size) = table_size() else { return };
    let cable = with_conntrack();
    let before = statistics(&cable.client);
    let more = 1000;
    inside(&cable.client, || {
        let socket = UdpSocket::bind("10.1.0.1:0").unwrap();
        for number in 0..size + more {
            let to = std::net::Ipv4Addr::from_bits(0x0ac8_0000 + number);
            socket.send_to(&[], (to, 9)).unwrap();
        }
    });
    let dropped = before.until(&statistics(&cable.client));
    assert_eq!((dropped.clashes, dropped.table_full), (0, 0));
    // More than one may have to go where several share a place.
    assert!(dropped.evicted >= more, "{dropped:?}");
}

#[test]
fn packets_that_find_no_room_in_a_full_table_are_counted() {
    if table_size().is_none() {
        return;
    }
    let cable = with_conntrack();
    let before = statistics(&cable.client);
    let refused = inside(&cable.client, || shell(&format!("python3 -c '{FILL}'")));
    assert_eq!(refused.trim(), "5");
    let expected = Dropped {
        table_full: 5,
        ..Dropped::default()
    };
    assert_eq!(before.until(&statistics(&cable.client)), expected);
}

fn new_rounds() -> Rounds {
    let cluster = TestCluster::new();
    let mut spec = cluster.spec();
    // The second SYN comes after a second.
    spec.probe.timeout_seconds = 4;
    spec.probe.attempts = 2;
    Rounds::of(cluster, spec)
}

impl Rounds {
    /// Drops so many of a hundred SYNs to endpoints.
    fn lose(&self, of_a_hundred: u8) {
        self.drop_syns(&format!("numgen random mod 100 < {of_a_hundred}"));
    }

    /// Drops SYNs to endpoints to which a part of a rule applies.
    fn drop_syns(&self, which: &str) {
        let rule = format!("tcp dport 9376 tcp flags & (syn | ack) == syn {which} drop");
        nft(
            &self.cluster.node,
            &format!(
                "table inet loss {{ chain forward {{ type filter hook forward priority 0; {rule}; }}; }}"
            ),
        );
    }

    /// The facts of the last of so many rounds.
    async fn rounds(&self, count: usize) -> NodeFacts {
        let mut facts = NodeFacts::default();
        for _ in 0..count {
            facts = self.next().await;
        }
        facts
    }

    /// What a stage says of a Service with these facts.
    fn message(&self, facts: NodeFacts, condition: ConditionType) -> String {
        let [service, slice] = self.cluster.objects();
        let pod = |name: &str, ip: &str| {
            json!({
                "metadata": { "name": name, "namespace": NAMESPACE, "uid": name, "labels": { "app": "hostnames" } },
                "spec": { "nodeName": self.spec.node_name },
                "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
                    "conditions": [{ "type": "Ready", "status": "True" }] },
            })
        };
        let pods = self.spec.clients.iter().chain(&self.spec.endpoints);
        let now = jiff::Timestamp::now();
        let mut all: Facts = serde_json::from_value(json!({
            "now": now, "namespace": NAMESPACE, "spec": { "serviceName": "hostnames" },
            "service": service, "slices": [slice],
            "pods": pods.map(|p| pod(&p.name, &p.ips[0])).collect::<Vec<_>>(),
        }))
        .unwrap();
        all.nodes = vec![NodeReport {
            name: self.spec.node_name.as_str().into(),
            labels: Default::default(),
            alive_until: Some(now + jiff::SignedDuration::from_secs(60)),
            saved: None,
            probe: Some(Box::new(ProbeReport {
                asked: self.spec.clone(),
                is_current: true,
                question: String::new(),
                owed_since: None,
                facts: Some(Arc::new(facts)),
            })),
        }];
        let diagnosis = diagnose(&all);
        let (_, finding) = diagnosis.stages.iter().find(|(c, _)| *c == condition).unwrap();
        finding.message.clone()
    }
}

/// The losses of a client's path.
fn of_client<'a>(facts: &'a NodeFacts, rounds: &Rounds, path: LossyPath) -> &'a PathLoss {
    let clients = rounds.cluster.clients.iter().map(|pod| pod.key());
    let clients: Vec<String> = clients.collect();
    let is_its = |loss: &&PathLoss| {
        let from = loss.from.as_ref();
        loss.path == path && from.is_some_and(|from| clients.contains(from))
    };
    facts
        .losses
        .iter()
        .find(is_its)
        .unwrap_or_else(|| panic!("{facts:#?}"))
}

fn counters(facts: &NodeFacts) -> Vec<LossCounterName> {
    let counters = facts.losses.iter().flat_map(|loss| &loss.counters);
    counters.map(|counter| counter.counter).collect()
}

/// Loses so many of a hundred SYNs for no reason that anybody counts.
async fn lose_by_chance(of_a_hundred: u8) {
    let rounds = new_rounds();
    rounds.lose(of_a_hundred);
    // The first round does not count, and three have to lose some.
    let facts = rounds.rounds(8).await;
    assert_eq!(facts.probes_failed, 0, "{facts:#?}");
    let loss = of_client(&facts, &rounds, LossyPath::Service);
    let share = f64::from(loss.lost) / f64::from(loss.tries);
    println!(
        "{of_a_hundred} %: {} of {} connections through the Service",
        loss.lost, loss.tries
    );
    assert!(share > 0.02 && share < 0.6, "{loss:?}");
    assert_eq!(counters(&facts), []);
    let message = rounds.message(facts, ConditionType::ServiceReachable);
    assert!(message.contains("But packets are lost at times: "), "{message}");
    assert!(!message.contains("In the same rounds"), "{message}");
}

#[tokio::test]
async fn syns_that_are_lost_by_chance_are_a_hint_without_a_cause() {
    tokio::join!(lose_by_chance(15), lose_by_chance(33));
}

/// Packets that collide, from now on until it is dropped.
fn collisions(node: &Netns) -> Program {
    let before = statistics(node);
    let program = Program::start(node, COLLIDE, &["100000", "0.005"]);
    let begun = Instant::now();
    while before.until(&statistics(node)).clashes == 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing collides");
        std::thread::sleep(Duration::from_millis(20));
    }
    program
}

/// Rounds with collisions and losses, and some with neither.
async fn rounds_with_collisions() -> (Rounds, NodeFacts) {
    let rounds = new_rounds();
    prepare_collisions(&rounds.cluster.node);
    let mut facts = NodeFacts::default();
    // Counters are read once something was lost, have to rise in five rounds with losses, and to stay in three without.
    for number in 0..15 {
        let fault = number % 3 < 2;
        let _collisions = fault.then(|| collisions(&rounds.cluster.node));
        if fault {
            // Each third, so that every client loses some in every such round.
            rounds.drop_syns("numgen inc mod 3 0");
        }
        facts = rounds.next().await;
        if fault {
            nft(&rounds.cluster.node, "delete table inet loss");
        }
    }
    (rounds, facts)
}

#[tokio::test]
async fn collisions_that_come_with_losses_are_their_probable_cause() {
    // A client that by chance lost nothing in a round with collisions does not blame them.
    for _ in 0..3 {
        let (rounds, facts) = rounds_with_collisions().await;
        let mut losses = facts.losses.iter();
        let told = losses.find(|loss| loss.path == LossyPath::Service && !loss.counters.is_empty());
        let Some(loss) = told else { continue };
        let [counter] = &loss.counters[..] else {
            panic!("{loss:?}")
        };
        println!("{} of {} connections lost, {counter:?}", loss.lost, loss.tries);
        assert_eq!(
            (&counter.pod, counter.counter),
            (&None, LossCounterName::ConntrackInsertFailed)
        );
        assert!(
            counter.rounds >= 5 && counter.rose >= counter.rounds,
            "{counter:?}"
        );
        let message = rounds.message(facts.clone(), ConditionType::ServiceReachable);
        assert!(
            message.contains(" because connections collided (insert_failed). Probably "),
            "{message}"
        );
        return;
    }
    panic!("collisions were not told in three times fifteen rounds");
}

#[tokio::test]
async fn collisions_without_losses_and_those_of_other_rounds_are_not_blamed() {
    let rounds = new_rounds();
    prepare_collisions(&rounds.cluster.node);
    let collide = || Program::start(&rounds.cluster.node, COLLIDE, &["100000", "0.005"]);
    let collisions = collide();
    let begun = Instant::now();
    let facts = rounds.rounds(4).await;
    println!("a healthy round takes {} ms", begun.elapsed().as_millis() / 4);
    assert_eq!(facts.losses, []);
    for condition in [ConditionType::EndpointsReachable, ConditionType::ServiceReachable] {
        let message = rounds.message(facts.clone(), condition);
        assert!(!message.contains("at times"), "{message}");
    }
    drop(collisions);
    rounds.lose(33);
    let mut facts = NodeFacts::default();
    // The counter is read in five rounds with collisions, and in as many without.
    for number in 0..12 {
        let _collisions = (number % 2 == 0).then(collide);
        facts = rounds.next().await;
    }
    of_client(&facts, &rounds, LossyPath::Service);
    assert_eq!(counters(&facts), [], "{facts:#?}");
}

#[tokio::test]
async fn answers_with_wrong_checksums_are_the_cause_of_questions_without_one() {
    let rounds = new_rounds();
    let node = &rounds.cluster.node;
    nft(
        node,
        "table ip dns { chain in { type nat hook prerouting priority -110; udp dport 53 dnat to 10.244.1.1:54; }; }",
    );
    let (mut facts, mut message) = Default::default();
    for number in 1..=20 {
        // Rounds without a loss show that the counter does not rise anyway.
        let one_of = if number % 3 == 0 { "1000000" } else { "4" };
        let _server = Program::serve(node, DNS, &[one_of]);
        facts = rounds.next().await;
        message = rounds.message(facts.clone(), ConditionType::DNSResolves);
        // A name that is not resolved in two attempts is another matter.
        if message.contains("(InCsumErrors)") {
            println!("reported after {number} rounds");
            break;
        }
    }
    let is_its = |loss: &&PathLoss| loss.path == LossyPath::DNS && !loss.counters.is_empty();
    let loss = facts.losses.iter().find(is_its);
    let loss = loss.unwrap_or_else(|| panic!("{facts:#?}"));
    println!("{loss:?}");
    // The counter is that of the Pod that got no answer.
    assert_eq!(loss.counters.len(), 1, "{loss:?}");
    assert_eq!(loss.counters[0].pod, loss.from);
    assert_eq!(loss.counters[0].counter, LossCounterName::UDPChecksumErrors);
    for words in [
        "But answers are missing at times: ",
        "for wrong checksums (InCsumErrors)",
        "`ethtool -k`",
    ] {
        assert!(message.contains(words), "{message}");
    }
}
