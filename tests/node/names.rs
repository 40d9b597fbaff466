//! In which domain names are asked for.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
};

use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, PTR},
    },
};
use serde_json::json;
use svcdiag::netns::Netns;
use svcdiag::{
    agent::round::{Memory, probe},
    api::{LookupResult, NodeProbeSpec},
};

use super::{
    namespace::{inside, run},
    test_cluster::{NAMESPACE, Same, TestCluster},
};

const CLUSTER_DNS: Ipv4Addr = Ipv4Addr::new(10, 250, 0, 10);

/// Questions that came from the node, by name.
type Asked = Arc<Mutex<Vec<String>>>;

/// Cluster DNS of a cluster in a domain of its own, on the node's loopback where no Pod reaches it.
fn serve(node: &Netns, domain: &'static str) -> Asked {
    serve_but(node, domain, |_, _| false)
}

/// The same, where some questions from the node get no answer: by name, and how many came before.
fn serve_but(node: &Netns, domain: &'static str, is_lost: fn(&str, usize) -> bool) -> Asked {
    inside(node, || run(&format!("ip addr add {CLUSTER_DNS}/32 dev lo")));
    let socket = node.run(|| UdpSocket::bind((CLUSTER_DNS, 53))).unwrap();
    let asked = Asked::default();
    let seen = asked.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let mut message = Message::from_vec(&buffer[..length]).unwrap();
            if from.ip() == CLUSTER_DNS {
                let name = message.queries[0].name().to_ascii();
                let mut seen = seen.lock().unwrap();
                seen.push(name.clone());
                if is_lost(&name, seen.len() - 1) {
                    continue;
                }
            }
            answer(&mut message, domain);
            let _ = socket.send_to(&message.to_vec().unwrap(), from);
        }
    });
    asked
}

fn answer(message: &mut Message, domain: &str) {
    let query = message.queries[0].clone();
    let name = query.name().clone();
    message.metadata.message_type = MessageType::Response;
    let data = match query.query_type() {
        RecordType::PTR => {
            let own = format!("kube-dns.kube-system.svc.{domain}.");
            Some(RData::PTR(PTR(Name::from_ascii(own).unwrap())))
        }
        _ if name.to_ascii().ends_with(&format!(".svc.{domain}.")) => {
            Some(RData::A(A(Ipv4Addr::new(10, 96, 0, 7))))
        }
        _ => None,
    };
    match data {
        Some(data) => message.answers.push(Record::from_rdata(name, 30, data)),
        None => message.metadata.response_code = ResponseCode::NXDomain,
    }
}

/// What the node asked of cluster DNS, and what came of it.
async fn by_node(cluster: &TestCluster, spec: NodeProbeSpec) -> svcdiag::api::DnsServer {
    said_by_node(cluster, spec)
        .await
        .expect("the node says something")
}

async fn said_by_node(cluster: &TestCluster, spec: NodeProbeSpec) -> Option<svcdiag::api::DnsServer> {
    let facts = probe(
        &cluster.as_node(),
        NAMESPACE,
        &spec,
        &Same(spec.clone()),
        &Memory::default(),
    )
    .await;
    facts.dns_servers.into_iter().find(|s| s.from.is_none())
}

fn spec(cluster: &TestCluster, cluster_domain: Option<&str>) -> NodeProbeSpec {
    let mut spec = serde_json::to_value(cluster.spec()).unwrap();
    spec["clusterDomain"] = cluster_domain.into();
    spec["clusterDns"] = json!({ "addresses": [SocketAddr::from((CLUSTER_DNS, 53)).ip()] });
    serde_json::from_value(spec).unwrap()
}

#[tokio::test]
async fn the_node_asks_in_the_clusters_own_domain_whatever_tenants_say() {
    let cluster = TestCluster::new();
    // The resolv.conf of a Pod is its own to write.
    for pod in &cluster.clients {
        let text = "search svc.secrets.attacker.example\nnameserver 10.244.1.1\n";
        std::fs::write(pod.root().join("etc/resolv.conf"), text).unwrap();
    }
    let asked = serve(&cluster.node, "corp.local");
    for said in [Some("other.attacker.example"), None] {
        let server = by_node(&cluster, spec(&cluster, said)).await;
        assert_eq!(
            (server.control, server.result),
            (LookupResult::Found, LookupResult::Found)
        );
        assert_eq!(
            server.domain.as_deref(),
            Some("corp.local"),
            "it is not that of the clients"
        );
    }
    let asked = asked.lock().unwrap();
    let is_own = |name: &String| name.ends_with(".corp.local.") || name.ends_with(".in-addr.arpa.");
    assert!(asked.len() >= 6 && asked.iter().all(is_own), "{asked:#?}");
}

#[tokio::test]
async fn the_usual_domain_needs_no_mention() {
    let cluster = TestCluster::new();
    let _asked = serve(&cluster.node, "cluster.local");
    let server = by_node(&cluster, spec(&cluster, None)).await;
    assert_eq!((server.control, server.domain), (LookupResult::Found, None));
}

/// The answer to the first question is lost, and of other domains the server asks another one in vain.
#[tokio::test]
async fn a_server_that_is_silent_about_another_domain_than_its_own_is_not_silent() {
    let cluster = TestCluster::new();
    let _asked = serve_but(&cluster.node, "corp.local", |name, before| {
        before == 0 || name.ends_with(".cluster.local.")
    });
    assert_eq!(said_by_node(&cluster, spec(&cluster, None)).await, None);
}

#[tokio::test]
async fn a_server_that_answers_nothing_is_silent() {
    let cluster = TestCluster::new();
    let _asked = serve_but(&cluster.node, "corp.local", |_, _| true);
    let server = by_node(&cluster, spec(&cluster, None)).await;
    assert_eq!(server.control, LookupResult::TimedOut);
}
