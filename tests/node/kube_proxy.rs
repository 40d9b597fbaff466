//! What a round says of kube-proxy, and of tracked connections that it has left behind.

use std::{
    net::UdpSocket,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use svcdiag::{
    agent::{
        netns::Netns,
        round::{Memory, look},
    },
    api::{NodeFacts, NodeProbeSpec, PortState},
};

use super::{
    environment::Sleeper,
    namespace::{inside, nft, run},
    pocket::{NAMESPACE, Pocket, Same},
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
    let pocket = Pocket::new();
    inside(&pocket.node, || run("iptables-nft -t nat -N KUBE-PROXY-CANARY"));
    let _kube_proxy = kube_proxy(&pocket.node);
    let (node, spec, memory) = (pocket.as_node(), pocket.spec(), Memory::default());
    let facts = look(&node, NAMESPACE, &spec, &Same(spec.clone()), &memory).await;
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
    let pocket = Pocket::new();
    let (node, spec) = (pocket.as_node(), pocket.spec());
    let source = Same(spec.clone());
    let memory = Memory::default();
    let round = async || {
        let facts = look(&node, NAMESPACE, &spec, &source, &memory).await;
        facts.kube_proxy.unwrap().process
    };
    let starts_after = async |seconds| {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        kube_proxy(&pocket.node)
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

/// The Service over UDP.
fn udp(pocket: &Pocket) -> NodeProbeSpec {
    let mut spec = pocket.spec();
    spec.service.ports[0].protocol = "UDP".into();
    spec.subsets[0].ports[0].protocol = "UDP".into();
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tracked_connection_is_stale_while_somebody_sends() {
    let pocket = Pocket::new();
    // The packets of a client go to a port that no endpoint has.
    let gone = format!("{}:9999", pocket.endpoints[0].ip());
    nft(
        &pocket.node,
        &format!(
            "table ip old {{ chain pre {{ type nat hook prerouting priority -110;\n\
             ip daddr 10.96.0.7 udp dport 80 udp sport 41000 dnat to {gone}; }}\n}}\n"
        ),
    );
    let client = Netns::of_process(pocket.clients[0].pid()).unwrap();
    let socket = client.run(|| UdpSocket::bind("0.0.0.0:41000")).unwrap();
    let has_ended = AtomicBool::new(false);
    let (node, spec) = (pocket.as_node(), udp(&pocket));
    let (source, memory) = (Same(spec.clone()), Memory::default());
    let stale = async || {
        let NodeFacts {
            stale_connections, ..
        } = look(&node, NAMESPACE, &spec, &source, &memory).await;
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
    let looks = async {
        let first = stale().await;
        pause().await;
        let second = stale().await;
        has_ended.store(true, Ordering::Relaxed);
        (first, second)
    };
    let ((first, second), ()) = tokio::join!(looks, sends);
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
