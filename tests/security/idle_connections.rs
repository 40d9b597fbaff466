//! Somebody holds 1,100 connections to each port of the controller, says nothing, and opens another for each that is
//! closed: from an address of their own, as a Pod, and from the kubelet's, as whoever is on the host's network.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig},
    svcdiag::Controller,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

use super::memory::{peak_of, raise_descriptors};

const CONNECTIONS: usize = 1100;

/// The kubelet's address, and how many tries it takes at most: from there, some 10,000 connections a second push
/// others out, so that not every try is answered.
const KUBELET: (IpAddr, usize) = (IpAddr::V4(Ipv4Addr::LOCALHOST), 20);

/// A Pod's, which pushes out nobody but itself.
const POD: (IpAddr, usize) = (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), 1);

/// What takes as long as this hangs; the kubelet waits for less.
const SOON: Duration = Duration::from_secs(30);

/// Keeps a connection open, for ever.
async fn hold(from: IpAddr, address: SocketAddr) {
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        if socket.bind((from, 0).into()).is_ok()
            && let Ok(mut stream) = socket.connect(address).await
        {
            let _ = stream.read(&mut [0; 1]).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The status line, if there is an answer.
async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.lines().next().map(str::to_owned)
    };
    tokio::time::timeout(SOON, ask).await.ok()?
}

async fn addresses(controller: &Controller) -> [SocketAddr; 2] {
    for _ in 0..600 {
        let log = std::fs::read_to_string(controller.log()).unwrap_or_default();
        let after = log.split("address=").skip(1);
        let found = after.filter_map(|rest| rest.split_whitespace().next()?.parse().ok());
        if let [probes, metrics] = found.collect::<Vec<_>>()[..] {
            return [probes, metrics];
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the controller serves no HTTP");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_keeps_neither_the_kubelet_nor_prometheus_waiting() {
    let cluster = Cluster::start(ClusterConfig::default()).await.unwrap();
    let controller = Controller::start(
        Path::new(env!("CARGO_BIN_EXE_svcdiag")),
        cluster.kubeconfig_path(),
        cluster.state_dir(),
        &["--metrics-listen", "127.0.0.1:0"],
    )
    .unwrap();
    let [probes, metrics] = addresses(&controller).await;
    // Ours, not those of the controller, which has started with as many as it gets.
    raise_descriptors();
    for (from, most_tries) in [POD, KUBELET] {
        let mut attack = JoinSet::new();
        for _ in 0..CONNECTIONS {
            attack.spawn(hold(from, probes));
            attack.spawn(hold(from, metrics));
        }
        let (mut most, mut all) = (0, 0);
        for round in 0..25 {
            for (address, path) in [(probes, "/healthz"), (metrics, "/metrics")] {
                let mut tries = 0;
                loop {
                    tries += 1;
                    let answer = get(address, path).await;
                    if answer.as_deref() == Some("HTTP/1.1 200 OK") {
                        break;
                    }
                    assert!(
                        tries < most_tries,
                        "{path} in round {round} beside {from}: {answer:?}"
                    );
                }
                most = most.max(tries);
                all += tries;
            }
        }
        println!("beside connections of {from} 50 answers in {all} tries, at most {most} for one");
        attack.shutdown().await;
    }
    let peak = peak_of(controller.pid().unwrap());
    println!("peak memory of the controller under idle connections: {peak} MiB");
    assert!(peak < 128, "{peak} MiB");
    controller.stop().await;
    cluster.stop().await;
}
