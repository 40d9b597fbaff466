//! The faults of the data path really do to the kernel what their rows say, and leave nothing behind: seen
//! from outside, without svcdiag.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{Api, ResourceExt, api::ListParams};
use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig, DataPath, NODES},
    error::chain,
    faults::{Driver, Fault, Scene, Twin, data_path_catalogue},
    kernel::{Kernel, Wiring},
    proxy::ProxyMode,
};

/// Rules and zones are written, and Pods linked, well within this time.
const SOON: Duration = Duration::from_secs(20);

/// What is to be seen of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Works,
    Partly,
    Fails,
}

use Seen::{Fails, Partly, Works};

/// Who dials whom.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// The client dials the Service.
    Client,
    /// The client dials all endpoints.
    Direct,
    /// All nodes dial the Service.
    Nodes,
    /// All nodes dial their node port.
    NodePorts,
    /// The Service's Pods dial the Service, so often that they meet themselves.
    Hairpin,
    /// The client asks the Service of cluster DNS for the Service's address.
    Name,
    /// The client asks the servers of cluster DNS.
    NameServers,
    /// Each node's kube-proxy is asked whether it lives.
    Livez,
    /// The client speaks HTTP to the Service.
    Http,
}

/// What each fault does. Others have an effect that only svcdiag looks for: it is enough that they come and go.
fn effects(id: &str) -> &'static [(Way, Seen)] {
    match id {
        "N01" | "N02" | "N03" => &[(Way::Client, Fails), (Way::Direct, Fails)],
        "N04" | "N21" => &[(Way::Client, Partly), (Way::Direct, Partly)],
        "N06" => &[(Way::Livez, Partly), (Way::Client, Works)],
        "N07" => &[(Way::Livez, Partly)],
        "N08" | "N44" => &[(Way::Livez, Works), (Way::Client, Works)],
        "N09" => &[(Way::Client, Fails), (Way::Nodes, Fails), (Way::Direct, Works)],
        "N10" => &[(Way::Client, Works), (Way::Direct, Works)],
        // Which rules come first depends on which were there first.
        "N13" | "N14" => &[(Way::Direct, Works)],
        "N11" => &[(Way::Client, Partly), (Way::Direct, Works)],
        "N12" => &[(Way::NodePorts, Fails), (Way::Client, Works)],
        "N05" | "N05-return" | "N15" | "N16" | "N17" | "N19" | "N38" => {
            &[(Way::Client, Fails), (Way::Direct, Fails)]
        }
        "N15-same-node" | "N20" => &[(Way::Direct, Works), (Way::Client, Fails)],
        "N22" => &[(Way::Client, Works), (Way::Http, Fails)],
        "N26" | "N27" | "N28" => &[(Way::Name, Fails), (Way::Client, Works)],
        "N29" => &[(Way::NameServers, Partly)],
        "N30" | "N31" | "N32" | "N47" | "N47-refused" => &[(Way::Hairpin, Partly), (Way::Client, Works)],
        "N35" => &[(Way::Client, Fails)],
        "N36" | "N45" => &[(Way::Nodes, Fails), (Way::Client, Works)],
        "N37" | "N45-pods" => &[(Way::Client, Fails), (Way::Nodes, Works), (Way::Direct, Works)],
        "N46" => &[(Way::Client, Partly), (Way::Direct, Works)],
        _ => &[],
    }
}

/// Dials TARGETS, several at a time, and prints how each ended.
const DIAL: &str = r#"exec python3 - <<'END'
import os, socket
from concurrent.futures import ThreadPoolExecutor
def dial(target):
    address, port = target.rsplit(":", 1)
    s = socket.socket()
    s.settimeout(1.2)
    try:
        s.connect((address, int(port)))
        if os.environ.get("HTTP"):
            s.sendall(f"GET {os.environ['HTTP']} HTTP/1.0\r\n\r\n".encode())
            s.settimeout(4)
            status = s.recv(64).split()[1].decode()
            return "ok" if status == "200" else status
        return "ok"
    except Exception as e:
        return type(e).__name__
    finally:
        s.close()
targets = os.environ["TARGETS"].split()
with ThreadPoolExecutor(40) as pool:
    print(*pool.map(dial, targets))
END"#;

/// Asks SERVERS for the address of NAME, and prints whether each says WANTED.
const ASK: &str = r#"exec python3 - <<'END'
import os, socket, struct
question = b"".join(bytes([len(p)]) + p.encode() for p in os.environ["NAME"].split(".")) + b"\0"
def ask(server):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(1.2)
    try:
        s.connect((server, 53))
        s.send(struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + question + struct.pack("!2H", 1, 1))
        answer = s.recv(4096)
        if answer[3] & 15 or not struct.unpack("!H", answer[6:8])[0]:
            return "NXDOMAIN"
        return "ok" if socket.inet_ntoa(answer[-4:]) == os.environ["WANTED"] else "wrong"
    except Exception as e:
        return type(e).__name__
print(*map(ask, os.environ["SERVERS"].split()))
END"#;

/// What a node's network is made of, but for addresses of Pods and for empty tables of iptables.
const LOOK: &str = r"
ip route | grep -v veth | sed 's/ *$//' | sort
nft list tables | grep -vE ' (nat|filter|mangle|raw)$' | sort
for table in nat filter mangle; do iptables-nft -S -t $table 2>/dev/null | grep -E '^-P|LEFTOVER|KUBELET' || true; done
cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/all/rp_filter /proc/sys/net/bridge/bridge-nf-call-iptables
bridge -d link show 2>/dev/null | grep -c 'hairpin off' || true
ip -o link | grep -c second || true
";

struct Stage {
    cluster: Cluster,
    scene: Scene,
}

impl Stage {
    async fn start(proxy: ProxyMode, wiring: Wiring) -> Self {
        let config = ClusterConfig {
            data_path: Some(DataPath { proxy, wiring }),
            assets: None,
            ..ClusterConfig::default()
        };
        let cluster = Cluster::start(config).await.unwrap();
        let scene = Scene::of(&cluster, "play");
        scene.set_up().await.unwrap();
        let stage = Self { cluster, scene };
        stage.wait_until_healthy("at the start").await;
        stage
    }

    fn kernel(&self) -> &Kernel {
        self.cluster.kernel().unwrap()
    }

    async fn pods(&self, namespace: &str, labels: &str) -> Vec<Pod> {
        let api = Api::<Pod>::namespaced(self.cluster.client(), namespace);
        let list = api.list(&ListParams::default().labels(labels)).await.unwrap();
        let mut pods = list.items;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        pods
    }

    async fn service(&self) -> (String, String) {
        let api = Api::<Service>::namespaced(self.cluster.client(), "play");
        let spec = api.get(Scene::NAME).await.unwrap().spec.unwrap();
        let port = spec.ports.unwrap().remove(0);
        let node_port = port.node_port.unwrap_or_default().to_string();
        (spec.cluster_ip.unwrap(), node_port)
    }

    /// How the tries of a way ended.
    async fn tries(&self, way: Way) -> Vec<String> {
        let (address, node_port) = self.service().await;
        let service = format!("{address}:80 ");
        let servers = addresses(&self.pods("play", "app=hostnames").await);
        let dns = addresses(&self.pods("kube-system", "k8s-app=kube-dns").await);
        let targets = match way {
            Way::Client | Way::Http => service.repeat(20),
            Way::Direct => servers.iter().map(|ip| format!("{ip}:9376 ")).collect(),
            Way::Nodes => service.repeat(5),
            Way::Hairpin => service.repeat(20 * servers.len().min(8)),
            Way::NodePorts | Way::Livez | Way::Name | Way::NameServers => String::new(),
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut variables = vec![pair("TARGETS", targets.trim())];
        let mut printed = String::new();
        match way {
            Way::Client | Way::Direct => printed = self.in_client(DIAL, &variables).await,
            Way::Http => {
                variables.push(pair("HTTP", "/"));
                printed = self.in_client(DIAL, &variables).await;
            }
            Way::Name | Way::NameServers => {
                let asked = if matches!(way, Way::Name) {
                    "10.96.0.10".to_owned()
                } else {
                    dns.join(" ")
                };
                variables.push(pair("SERVERS", &asked));
                variables.push(pair("NAME", "hostnames.play.svc.cluster.local"));
                variables.push(pair("WANTED", &address));
                printed = self.in_client(ASK, &variables).await;
            }
            Way::Nodes | Way::NodePorts | Way::Livez => {
                for node in self.kernel().nodes() {
                    let mut variables = variables.clone();
                    match way {
                        Way::NodePorts => variables[0].1 = format!("{}:{node_port}", node.address()),
                        Way::Livez => {
                            variables[0].1 = "127.0.0.1:10256".to_owned();
                            variables.push(pair("HTTP", "/livez"));
                        }
                        _ => {}
                    }
                    printed.push_str(&node.sh(DIAL, &variables).await.unwrap());
                }
            }
            Way::Hairpin => {
                for pod in self.pods("play", "app=hostnames").await.iter().take(3) {
                    let uid = pod.uid().unwrap();
                    printed.push_str(&self.kernel().in_pod(&uid, DIAL, &variables).await.unwrap());
                }
            }
        }
        printed.split_whitespace().map(str::to_owned).collect()
    }

    async fn in_client(&self, script: &str, variables: &[(String, String)]) -> String {
        let client = self.pods("play", "app=client").await.remove(0);
        self.kernel()
            .in_pod(&client.uid().unwrap(), script, variables)
            .await
            .unwrap()
    }

    /// Waits until a way is as it should be.
    async fn wait(&self, what: &str, way: Way, wanted: Seen) -> Result<(), String> {
        let start = Instant::now();
        loop {
            let tries = self.tries(way).await;
            let good = tries.iter().filter(|end| *end == "ok").count();
            let seen = match good {
                0 => Fails,
                _ if good == tries.len() => Works,
                _ => Partly,
            };
            if seen == wanted {
                return Ok(());
            }
            if start.elapsed() > SOON {
                let mut ends = BTreeMap::new();
                for end in tries {
                    *ends.entry(end).or_insert(0) += 1;
                }
                return Err(format!("{what}: {way:?} is not {wanted:?}: {ends:?}"));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn wait_until_healthy(&self, what: &str) {
        for way in [
            Way::Direct,
            Way::Client,
            Way::Nodes,
            Way::Name,
            Way::NameServers,
            Way::Hairpin,
            Way::Livez,
        ] {
            self.wait(what, way, Works).await.unwrap();
        }
    }

    async fn look(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for node in self.kernel().nodes() {
            all.insert(node.name().to_owned(), node.sh(LOOK, &[]).await.unwrap());
        }
        all
    }

    async fn play(&self, fault: &Fault) -> Result<(), String> {
        if matches!(fault.driver, Some(driver) if driver != Driver::AgentRestarted) {
            return Ok(());
        }
        let before = self.look().await;
        let injected = fault.inject(&self.scene).await.map_err(|error| chain(&error));
        let mut problems: Vec<String> = injected.err().into_iter().collect();
        if problems.is_empty() {
            for (way, seen) in effects(&fault.id) {
                problems.extend(self.wait(&fault.id, *way, *seen).await.err());
            }
        }
        problems.extend(fault.undo(&self.scene).await.err().map(|error| chain(&error)));
        self.end(&fault.id, before, problems).await
    }

    async fn play_twin(&self, twin: &Twin) -> Result<(), String> {
        let what = format!("twin of {}: {}", twin.fault, twin.title);
        let before = self.look().await;
        let applied = twin.apply(&self.scene).await.map_err(|error| chain(&error));
        let mut problems: Vec<String> = applied.err().into_iter().collect();
        let way = match twin.fault.as_str() {
            // UDP, headless, or clients that are no Pods of the cluster's network.
            "N18" | "N35" | "N41" => None,
            "N09" => Some(Way::Direct),
            "N26" if twin.title.contains("headless") => Some(Way::Direct),
            "N22" => Some(Way::Client),
            "N12" => Some(Way::NodePorts),
            _ => Some(Way::Client),
        };
        if let Some(way) = way.filter(|_| problems.is_empty()) {
            problems.extend(self.wait(&what, way, Works).await.err());
        }
        problems.extend(twin.undo(&self.scene).await.err().map(|error| chain(&error)));
        self.end(&what, before, problems).await
    }

    /// Everything works again, and is as it was.
    async fn end(
        &self,
        what: &str,
        before: BTreeMap<String, String>,
        mut problems: Vec<String>,
    ) -> Result<(), String> {
        if let Err(error) = self.scene.wait_until_settled().await {
            problems.push(chain(&error));
        }
        for way in [Way::Client, Way::Nodes, Way::Name, Way::Hairpin, Way::Livez] {
            problems.extend(self.wait("afterwards", way, Works).await.err());
        }
        let after = self.look().await;
        for node in NODES {
            if before[node] != after[node] {
                problems.push(format!("{node} was\n{}\nand is\n{}", before[node], after[node]));
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        let problem = format!("{what}: {}", problems.join("; "));
        println!("{problem}");
        Err(problem)
    }
}

fn addresses(pods: &[Pod]) -> Vec<String> {
    let addresses = pods.iter().filter_map(|pod| pod.status.as_ref()?.pod_ip.clone());
    addresses.collect()
}

async fn every_fault_comes_and_goes(mode: ProxyMode, wiring: Wiring) {
    let stage = Stage::start(mode, wiring).await;
    let only = std::env::var("ONLY").ok();
    let is_meant = |id: &str| {
        only.as_ref()
            .is_none_or(|ids| ids.split(',').any(|one| one == id))
    };
    let mut problems = Vec::new();
    let mut played = 0;
    for fault in data_path_catalogue()
        .unwrap()
        .iter()
        .filter(|fault| is_meant(&fault.id))
    {
        let start = Instant::now();
        if fault.modes.all().contains(&mode) && fault.wiring == wiring {
            problems.extend(stage.play(fault).await.err());
            played += 1;
        }
        for twin in &fault.twins {
            if twin.modes.all().contains(&mode) && twin.wiring == wiring {
                problems.extend(stage.play_twin(twin).await.err());
                played += 1;
            }
        }
        println!("{mode} {} {:.1} s", fault.id, start.elapsed().as_secs_f32());
    }
    stage.cluster.stop().await;
    println!("{mode}: {played} faults and twins came and went");
    assert!(played > 0);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_come_and_go_in_nftables_mode() {
    every_fault_comes_and_goes(ProxyMode::Nftables, Wiring::Bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_come_and_go_in_the_older_nftables_mode() {
    every_fault_comes_and_goes(ProxyMode::NftablesOld, Wiring::Bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_come_and_go_in_iptables_mode() {
    every_fault_comes_and_goes(ProxyMode::Iptables, Wiring::Bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_come_and_go_in_iptables_mode_with_the_legacy_backend() {
    every_fault_comes_and_goes(ProxyMode::IptablesLegacy, Wiring::Bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_come_and_go_where_every_pod_has_a_link_of_its_own() {
    every_fault_comes_and_goes(ProxyMode::Nftables, Wiring::PointToPoint).await;
}
