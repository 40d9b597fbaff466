//! Pods whose answers to HTTP never end: bodies, headers, and pieces of one byte each.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
};

use serde_json::{Value, json};
use svcdiag::api::Answer;
use svcdiag::netns::Netns;

use super::{
    agent::Agent,
    namespace::listen,
    test_cluster::{Pod, TestCluster},
};

/// Ports of each of three endpoints, which two clients dial: 72 answers, of which 64 come at once.
const PORTS: std::ops::Range<u16> = 8000..8012;

/// What an endless answer begins with and goes on with, by the port's number.
fn answer(port: u16) -> (&'static str, String) {
    match port % 3 {
        0 => ("HTTP/1.1 200 OK\r\n\r\n", "x".repeat(64 * 1024)),
        1 => ("HTTP/1.1 200 OK\r\n", "X-Header: 1\r\n".repeat(4096)),
        _ => (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "1\r\nx\r\n".repeat(8192),
        ),
    }
}

fn serve(mut stream: TcpStream, port: u16) {
    let _ = stream.read(&mut [0; 1024]);
    let (head, more) = answer(port);
    let mut sent = stream.write_all(head.as_bytes());
    // Until nobody listens any more.
    while sent.is_ok() {
        sent = stream.write_all(more.as_bytes());
    }
}

fn answer_endlessly(pod: &Pod) {
    let netns = Netns::of_process(pod.pid()).unwrap();
    for port in PORTS {
        let listener = listen(&netns, &format!("0.0.0.0:{port}"));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || serve(stream, port));
            }
        });
    }
}

/// What the cluster is asked, with HTTP on all these ports.
fn spec(cluster: &TestCluster) -> Value {
    let mut spec = serde_json::to_value(cluster.spec()).unwrap();
    spec["probe"] = json!({ "timeoutSeconds": 2, "attempts": 1, "http": { "path": "/" } });
    let name = |port: u16| format!("p{port}");
    spec["service"]["clusterIPs"] = json!(["None"]);
    spec["service"]["ports"] = PORTS
        .map(|port| json!({ "name": name(port), "protocol": "TCP", "port": port }))
        .collect();
    spec["subsets"][0]["ports"] = PORTS
        .map(|port| json!({ "name": name(port), "protocol": "TCP", "port": port }))
        .collect();
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_an_end_take_no_memory() {
    let cluster = TestCluster::new();
    cluster.endpoints.iter().for_each(answer_endlessly);
    let agent = Agent::start(&cluster).await;
    let facts = agent.round("endless", spec(&cluster)).await;
    let by_clients = facts.dials.iter().filter(|d| d.from.is_some());
    assert_eq!(by_clients.map(|d| d.made).sum::<u32>(), 72, "{facts:#?}");
    // Who answers with a status has answered; headers without an end are no answer.
    assert_eq!(facts.failures.len(), 24, "{facts:#?}");
    for failure in &facts.failures {
        let port: u16 = failure.target.rsplit(':').next().unwrap().parse().unwrap();
        assert_eq!(
            (port % 3, failure.answer),
            (1, Answer::Unexpected),
            "{failure:#?}"
        );
    }
    agent.assert_peak("endless answers");
    agent.stop().await;
}
