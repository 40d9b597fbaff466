//! Somebody holds 1,100 connections to each port of the controller, says nothing, and opens another for each that is
//! closed.

use std::{net::SocketAddr, path::Path, time::Duration};

use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig},
    svcdiag::Controller,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use super::memory::{peak_of, raise_descriptors};

const CONNECTIONS: usize = 1100;

/// Some 10,000 connections a second push others out, so that not every try is answered.
const TRIES: usize = 20;

/// What takes as long as this hangs; the kubelet waits for less.
const SOON: Duration = Duration::from_secs(30);

/// Keeps a connection open, for ever.
async fn hold(address: SocketAddr) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(address).await {
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
    let mut attack = JoinSet::new();
    for _ in 0..CONNECTIONS {
        attack.spawn(hold(probes));
        attack.spawn(hold(metrics));
    }
    let (mut most, mut all) = (0, 0);
    for round in 0..50 {
        for (address, path) in [(probes, "/healthz"), (metrics, "/metrics")] {
            let mut tries = 0;
            loop {
                tries += 1;
                let answer = get(address, path).await;
                if answer.as_deref() == Some("HTTP/1.1 200 OK") {
                    break;
                }
                assert!(tries < TRIES, "{path} in round {round}: {answer:?}");
            }
            most = most.max(tries);
            all += tries;
        }
    }
    let peak = peak_of(controller.pid().unwrap());
    println!(
        "peak memory of the controller under idle connections: {peak} MiB; 100 answers in {all} tries, at most {most} for one"
    );
    assert!(peak < 128, "{peak} MiB");
    attack.shutdown().await;
    controller.stop().await;
    cluster.stop().await;
}
