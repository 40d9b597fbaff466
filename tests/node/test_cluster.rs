//! A node with Pods in namespaces of their own, each on a link to the node, and a Service in front of three.

use std::{
    io::Read,
    net::{Ipv4Addr, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::json;
use svcdiag::netns::Netns;
use svcdiag::{
    agent::{
        budget::Budget,
        round::{Node, Source},
    },
    api::NodeProbeSpec,
    engine::asked::Subject,
};
use svcdiag_sandbox::proxy::{Cluster, NodeView, ProxyMode, rules};

use super::namespace::{feed, inside, new_namespace, run};

/// The node and what is on it.
pub(crate) struct TestCluster {
    pub node: Netns,
    pub clients: Vec<Pod>,
    pub endpoints: Vec<Pod>,
}

const NODE_NAME: &str = "n1";
pub(crate) const NAMESPACE: &str = "shop";
const NODE_IP: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 1);
const PORT: u16 = 9376;

impl TestCluster {
    /// Two clients, three endpoints, rules and DNS, all in order.
    pub(crate) fn new() -> Self {
        let node = new_namespace();
        inside(&node, || {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            // Without a way out of the node its own packets to a ClusterIP are lost before any rule sees them.
            run(&format!(
                "ip addr add {NODE_IP}/32 dev lo
                 ip link add uplink type veth peer name outside
                 ip link set outside up
                 ip link set uplink up
                 ip route add default dev uplink src {NODE_IP}"
            ));
        });
        serve_dns(&node);
        let pods = |numbers: std::ops::Range<u8>| numbers.map(|n| Pod::start(&node, n)).collect();
        let cluster = Self {
            clients: pods(10..12),
            endpoints: pods(20..23),
            node,
        };
        cluster.write_rules();
        cluster
    }

    /// Writes the rules of the Service, as kube-proxy does.
    pub(crate) fn write_rules(&self) {
        let [service, slice] = self.objects();
        let cluster = Cluster {
            services: vec![serde_json::from_value(service).unwrap()],
            slices: vec![serde_json::from_value(slice).unwrap()],
        };
        let view = NodeView {
            name: NODE_NAME.to_owned(),
            ips: vec![NODE_IP.into()],
            pod_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
            service_cidrs: vec!["10.96.0.0/12".parse().unwrap()],
            ..NodeView::default()
        };
        for script in rules(ProxyMode::Nftables, &cluster, &view) {
            let command = [&[script.program], script.args].concat();
            inside(&self.node, || feed(&command, &script.wanted));
        }
    }

    /// As the agent knows the node, without a limit on its dials.
    pub(crate) fn as_node(&self) -> Node {
        Node::new(NODE_NAME, self.node.clone(), Budget::new(64, 100_000))
    }

    /// What the agent is asked.
    pub(crate) fn spec(&self) -> NodeProbeSpec {
        let pods = |pods: &[Pod]| -> Vec<_> { pods.iter().map(Pod::as_json).collect() };
        serde_json::from_value(json!({
            "nodeName": NODE_NAME,
            "diagnosis": { "name": "hostnames", "uid": "1" },
            "serviceName": "hostnames",
            "intervalSeconds": 60,
            "probe": { "timeoutSeconds": 1, "attempts": 1 },
            "fromNode": true,
            "node": { "ips": [NODE_IP] },
            "service": { "clusterIPs": ["10.96.0.7"], "ports": [{ "protocol": "TCP", "port": 80 }] },
            "subsets": [{
                "local": true,
                "ports": [{ "protocol": "TCP", "port": PORT }],
                "addresses": self.endpoints.iter().map(Pod::ip).collect::<Vec<_>>(),
            }],
            "clients": pods(&self.clients),
            "endpoints": pods(&self.endpoints),
        }))
        .unwrap()
    }

    /// The Service and its slice, as they are in the API.
    #[allow(dead_code, reason = "shared with the attacks, which judge nothing")]
    pub(crate) fn objects(&self) -> [serde_json::Value; 2] {
        let endpoints: Vec<_> = self
            .endpoints
            .iter()
            .map(|pod| {
                json!({ "addresses": [pod.ip()], "conditions": { "ready": true }, "nodeName": NODE_NAME })
            })
            .collect();
        [
            json!({
                "metadata": { "name": "hostnames", "namespace": NAMESPACE },
                "spec": {
                    "type": "ClusterIP",
                    "clusterIP": "10.96.0.7",
                    "clusterIPs": ["10.96.0.7"],
                    "ports": [{ "port": 80, "targetPort": PORT, "protocol": "TCP" }],
                },
            }),
            json!({
                "metadata": {
                    "name": "hostnames-x",
                    "namespace": NAMESPACE,
                    "labels": { "kubernetes.io/service-name": "hostnames" },
                },
                "addressType": "IPv4",
                "endpoints": endpoints,
                "ports": [{ "name": "", "port": PORT, "protocol": "TCP" }],
            }),
        ]
    }
}

/// What a NodeProbe says whenever it is read.
pub(crate) struct Same(pub NodeProbeSpec);

impl Source for Same {
    fn latest(&self) -> Subject {
        Subject::of(&self.0)
    }
}

/// A Pod: a process that takes connections, in a network namespace, a root and a cgroup of its own.
pub(crate) struct Pod {
    number: u8,
    uid: String,
    process: Child,
    cgroup: PathBuf,
    root: tempfile::TempDir,
}

impl Pod {
    fn start(node: &Netns, number: u8) -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(
            root.path().join("etc/resolv.conf"),
            format!(
                "search {NAMESPACE}.svc.cluster.local svc.cluster.local cluster.local\nnameserver {NODE_IP}\n\
                 options ndots:5\n"
            ),
        )
        .unwrap();
        // Once it runs, the interpreter needs no file of the new root.
        let script = format!(
            "import os, socket, sys\n\
             s = socket.socket()\n\
             s.bind(('0.0.0.0', {PORT}))\n\
             s.listen(512)\n\
             os.chroot(sys.argv[1])\n\
             os.chdir('/')\n\
             print(flush=True)\n\
             while True: s.accept()[0].close()\n"
        );
        let netns = new_namespace();
        let mut process = inside(&netns, || {
            Command::new("python3")
                .args(["-c", &script])
                .arg(root.path())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        });
        let mut byte = [0];
        process.stdout.take().unwrap().read_exact(&mut byte).unwrap();
        let uid = new_uid();
        let pod = Self {
            number,
            cgroup: cgroup().join(format!("pod{uid}")),
            uid,
            process,
            root,
        };
        std::fs::create_dir_all(&pod.cgroup).unwrap();
        std::fs::write(pod.cgroup.join("cgroup.procs"), pod.process.id().to_string()).unwrap();
        let (ip, link, pid) = (pod.ip(), pod.link(), pod.process.id());
        inside(node, || {
            run(&format!(
                "ip link add {link} type veth peer name eth0 netns {pid}
                 ip link set {link} up
                 ip route add {ip}/32 dev {link} src {NODE_IP}"
            ));
            std::fs::write(format!("/proc/sys/net/ipv4/conf/{link}/proxy_arp"), "1").unwrap();
        });
        inside(&netns, || {
            run(&format!(
                "ip addr add {ip}/32 dev eth0
                 ip link set eth0 up
                 ip route add {NODE_IP} dev eth0 scope link
                 ip route add default via {NODE_IP}"
            ));
        });
        pod
    }

    pub(crate) fn ip(&self) -> String {
        Ipv4Addr::new(10, 244, 1, self.number).to_string()
    }

    /// Name of the node's end of its link.
    pub(crate) fn link(&self) -> String {
        format!("veth{}", self.number)
    }

    /// As namespace/name.
    pub(crate) fn key(&self) -> String {
        format!("{NAMESPACE}/pod-{}", self.number)
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.process.id()).unwrap()
    }

    /// Where its processes are listed.
    #[allow(dead_code, reason = "shared with the attacks, which add processes")]
    pub(crate) fn cgroup(&self) -> &std::path::Path {
        &self.cgroup
    }

    /// Its root directory.
    pub(crate) fn root(&self) -> &std::path::Path {
        self.root.path()
    }

    fn as_json(&self) -> serde_json::Value {
        json!({
            "name": format!("pod-{}", self.number),
            "namespace": NAMESPACE,
            "uid": self.uid,
            "ips": [self.ip()],
        })
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir(&self.cgroup);
        // The last one takes what they had in common.
        let _ = self.cgroup.parent().map(std::fs::remove_dir);
    }
}

/// Of one Pod alone: several tests may run in this process, and in others.
fn new_uid() -> String {
    static PODS: AtomicU32 = AtomicU32::new(0);
    let number = PODS.fetch_add(1, Ordering::Relaxed);
    format!("6d5c8b1e-0f3a-4f0b-9d3e-{:08x}{number:04x}", std::process::id())
}

/// Where cgroups of Pods are made: the unified hierarchy, or one of the others where there is none.
fn cgroup() -> PathBuf {
    let roots = ["", "unified", "pids", "systemd"].map(|name| PathBuf::from("/sys/fs/cgroup").join(name));
    let root = roots.iter().find(|root| root.join("cgroup.procs").exists());
    root.expect("a cgroup hierarchy, which finds the processes of Pods")
        .join(format!("svcdiag-tests-{}", std::process::id()))
}

/// The name of the thread that serves DNS.
pub(crate) const DNS_THREAD: &str = "test-dns";

/// Answers every question with one address, as long as the process runs.
fn serve_dns(node: &Netns) {
    /// The name of the question, A, IN, 30 s, 10.96.0.7.
    const RECORD: &[u8] = &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 10, 96, 0, 7];
    let socket = node.run(|| UdpSocket::bind((NODE_IP, 53))).unwrap();
    let thread = std::thread::Builder::new().name(DNS_THREAD.to_owned());
    let serve = move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let mut reply = buffer[..length].to_vec();
            reply[2..4].copy_from_slice(&[0x84, 0]);
            reply[6..8].copy_from_slice(&[0, 1]);
            reply.extend(RECORD);
            let _ = socket.send_to(&reply, from);
        }
    };
    thread.spawn(serve).unwrap();
}
