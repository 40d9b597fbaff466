//! What the agent reads of a node besides its rules: settings, links, files of Pods, DNS, kube-proxy.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener},
    process::{Child, Command},
    time::Duration,
};

use svcdiag::netns::{
    Netns,
    links::{self, links},
    netfilter::{nf_tables::NfTables, rulesets::Rulesets},
    rootfs,
};
use svcdiag::{
    agent::{
        dns::{Reply, ask},
        kubeproxy, settings,
    },
    api::{NodeSettings, PortState},
    kube_proxy::{IpFamily, Layout, ProxyMode, Ruleset, Table},
};

use super::{
    captures::{Backend, Capture},
    namespace::{Cable, inside, listen, listen_udp, must, new_namespace, run},
};

const PATIENCE: Duration = Duration::from_secs(1);

/// A process that waits in a namespace, killed in the end.
pub(crate) struct Sleeper(Child);

impl Sleeper {
    pub(crate) fn in_namespace(netns: &Netns, command: &mut Command) -> Self {
        let sleeper = Self(inside(netns, || command.spawn().unwrap()));
        // For a moment after exec a process has no command line yet.
        while std::fs::read(format!("/proc/{}/cmdline", sleeper.pid()))
            .unwrap()
            .is_empty()
        {
            std::thread::yield_now();
        }
        sleeper
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read_settings(node: &Netns) -> std::io::Result<NodeSettings> {
    settings::read(node, &Rulesets::of(node.clone()))
}

#[test]
fn settings_are_those_of_the_namespace() {
    let node = new_namespace();
    assert_eq!(must(read_settings(&node)).ipv4_forwarding, Some(false));
    inside(&node, || {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap()
    });
    let read = must(read_settings(&node));
    assert_eq!(read.ipv4_forwarding, Some(true));
    assert_eq!(read.forward_drops, Some(false));
    assert_eq!(read.conntrack_full, Some(false));
    inside(&node, || run("iptables-nft -P FORWARD DROP"));
    assert_eq!(must(read_settings(&node)).forward_drops, Some(true));
    assert!(must(settings::reverse_path_drops(&node)) == 0);
}

#[test]
fn tunnels_are_those_that_are_up() {
    let node = new_namespace();
    assert_eq!(must(node.run(links::tunnels)), []);
    inside(&node, || {
        run(
            "ip link add flannel.1 type vxlan id 1 dstport 8472 local 127.0.0.1
             ip link add vxlan.calico type vxlan external dstport 4789
             ip link add down type vxlan id 2 dstport 8473
             ip link add cni0 type bridge
             ip link set cni0 up
             ip link set flannel.1 up
             ip link set vxlan.calico up",
        );
    });
    let told: Vec<(String, Option<u16>)> = must(node.run(links::tunnels))
        .into_iter()
        .map(|t| (t.name, t.port))
        .collect();
    let expected = [("flannel.1", 8472), ("vxlan.calico", 4789)];
    assert_eq!(told, expected.map(|(name, port)| (name.to_owned(), Some(port))));
}

#[test]
fn the_policy_of_the_legacy_backend_counts_as_well() {
    let node = new_namespace();
    inside(&node, || run("iptables-legacy -P FORWARD DROP"));
    assert_eq!(must(read_settings(&node)).forward_drops, Some(true));
}

/// Else a node of the legacy backend would seem to have kube-proxy's rules, all gaps, in the other one.
#[test]
fn a_chain_that_is_not_there_is_told_from_one_without_rules() {
    let node = new_namespace();
    let chain = |name: &str| {
        inside(&node, || {
            let rules = must(NfTables::open(Layout::Iptables));
            rules.chain(IpFamily::V4, Table::Nat, name).unwrap()
        })
    };
    assert_eq!(chain("KUBE-PROXY-CANARY"), None);
    inside(&node, || run("iptables-nft -t nat -N KUBE-SERVICES"));
    assert_eq!(chain("KUBE-PROXY-CANARY"), None);
    assert_eq!(chain("KUBE-SERVICES"), Some(Vec::new()));
    // Base chains have a policy, which is no matter here.
    inside(&node, || run("iptables-nft -t nat -P OUTPUT ACCEPT"));
    assert_eq!(chain("OUTPUT"), Some(Vec::new()));
}

#[test]
fn looking_creates_no_table_of_the_legacy_backend() {
    let node = new_namespace();
    let tables = || {
        inside(&node, || {
            std::fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default()
        })
    };
    let before = tables();
    must(read_settings(&node));
    inside(&node, || {
        Capture::load("iptables-legacy", "lab-2", Backend::IptablesLegacy).open();
    });
    assert_eq!(tables(), before);
    assert_eq!(before, "");
}

#[test]
fn ports_of_a_bridge_tell_their_hairpin_mode() {
    let node = new_namespace();
    inside(&node, || {
        run("ip link add cbr0 type bridge
             ip link add veth1 type veth peer name inner1
             ip link set veth1 master cbr0
             ip link set veth1 type bridge_slave hairpin on
             ip link add veth2 type veth peer name inner2
             ip link set veth2 master cbr0
             ip link add alone type veth peer name inner3");
    });
    let links = must(node.run(links));
    let link = |name: &str| links.iter().find(|l| l.name == name).unwrap();
    assert_eq!(link("veth1").hairpin_mode, Some(true));
    assert_eq!(link("veth2").hairpin_mode, Some(false));
    assert_eq!(link("veth2").bridge, Some(link("cbr0").index));
    assert_eq!(link("veth2").peer, Some(link("inner2").index));
    assert_eq!((link("alone").bridge, link("alone").hairpin_mode), (None, None));
}

#[test]
fn an_image_yields_nothing_of_the_host() {
    let root = tempfile::tempdir().unwrap();
    let etc = root.path().join("etc");
    std::fs::create_dir(&etc).unwrap();
    let outside = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(outside.path(), "of the host").unwrap();
    std::fs::write(etc.join("resolv.conf"), "nameserver 10.96.0.10\n").unwrap();
    std::os::unix::fs::symlink(outside.path(), etc.join("absolute")).unwrap();
    std::os::unix::fs::symlink(
        format!("../../../../../../../..{}", outside.path().display()),
        etc.join("relative"),
    )
    .unwrap();
    std::os::unix::fs::symlink("resolv.conf", etc.join("inner")).unwrap();
    std::os::unix::fs::symlink("/proc/self/root/etc/passwd", etc.join("magic")).unwrap();
    nix::unistd::mkfifo(&etc.join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    std::fs::write(etc.join("long"), vec![b'x'; 65 * 1024]).unwrap();

    let pod = Chrooted::start(root.path());
    let read = |path: &str| rootfs::read(pod.pid(), path);
    assert_eq!(read("/etc/resolv.conf").unwrap(), "nameserver 10.96.0.10\n");
    assert_eq!(read("/etc/inner").unwrap(), "nameserver 10.96.0.10\n");
    for path in ["/etc/absolute", "/etc/relative", "/etc/magic", "/etc/missing"] {
        assert_eq!(read(path).unwrap_err().kind(), ErrorKind::NotFound, "{path}");
    }
    assert_eq!(read("/etc/fifo").unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(read("/etc").unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(read("/etc/long").unwrap_err().kind(), ErrorKind::InvalidData);
}

/// A process with a root of its own.
struct Chrooted(Sleeper);

impl Chrooted {
    fn start(root: &std::path::Path) -> Self {
        // Once it runs, the interpreter needs no file of the new root.
        let script =
            "import os, sys, time; os.chroot(sys.argv[1]); os.chdir('/'); print(flush=True); time.sleep(60)";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .arg(root)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut byte = [0];
        child.stdout.take().unwrap().read_exact(&mut byte).unwrap();
        Self(Sleeper(child))
    }

    fn pid(&self) -> i32 {
        self.0.pid()
    }
}

/// A DNS server that answers every question in the same way, until the namespace goes.
fn serve_dns(netns: &Netns, address: &str, flags: [u8; 2], answer: &'static [u8]) {
    let reply = move |question: &[u8]| {
        let mut reply = question.to_vec();
        reply[2..4].copy_from_slice(&flags);
        let answers = u8::from(!answer.is_empty());
        reply[6..8].copy_from_slice(&[0, answers]);
        reply.extend(answer);
        reply
    };
    let udp = listen_udp(netns, address);
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(&reply(&buffer[..length]), from);
        }
    });
    let tcp = listen(netns, address);
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut question).unwrap();
            question[2..4].copy_from_slice(&[0x84, 0]);
            question[6..8].copy_from_slice(&[0, 1]);
            question.extend(A_RECORD);
            stream
                .write_all(&u16::try_from(question.len()).unwrap().to_be_bytes())
                .unwrap();
            stream.write_all(&question).unwrap();
        }
    });
}

/// The name of the question, A, IN, 30 s, 10.96.0.1.
const A_RECORD: &[u8] = &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 10, 96, 0, 1];
const NO_ERROR: [u8; 2] = [0x84, 0x00];
const NX_DOMAIN: [u8; 2] = [0x84, 0x03];
const SERVER_FAILURE: [u8; 2] = [0x84, 0x02];
const TRUNCATED: [u8; 2] = [0x86, 0x00];

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_dns_servers_are_told_apart() {
    let cable = Cable::new();
    let cases = [
        ("10.1.0.2:53", NO_ERROR, A_RECORD),
        ("10.1.0.2:54", NX_DOMAIN, &[][..]),
        ("10.1.0.2:55", SERVER_FAILURE, &[][..]),
        ("10.1.0.2:56", TRUNCATED, &[][..]),
        ("10.1.0.2:57", NO_ERROR, &[][..]),
    ];
    for (address, flags, answer) in cases {
        serve_dns(&cable.server, address, flags, answer);
    }
    let _silent = listen_udp(&cable.server, "10.1.0.2:58");
    let found = Reply::Addresses(vec!["10.96.0.1".parse().unwrap()], 30);
    for (server, expected) in [
        ("10.1.0.2:53", found.clone()),
        ("10.1.0.2:54", Reply::NotFound(60)),
        ("10.1.0.2:55", Reply::Failed("SERVFAIL".to_owned())),
        ("10.1.0.2:56", found),
        ("10.1.0.2:57", Reply::NotFound(60)),
        ("10.1.0.2:58", Reply::TimedOut),
        ("10.1.0.2:59", Reply::Refused),
    ] {
        let server: SocketAddr = server.parse().unwrap();
        let name = "hostnames.default.svc.cluster.local.";
        let mut reply = must(ask(&cable.client, server, name, false, PATIENCE).await);
        if reply == Reply::TimedOut && expected != Reply::TimedOut {
            // Other tests flood the machine, so a datagram may be lost.
            reply = must(ask(&cable.client, server, name, false, PATIENCE).await);
        }
        assert_eq!(reply, expected, "{server}");
    }
}

/// An HTTP server in a namespace that says the same to everybody.
fn serve_http(netns: &Netns, port: u16, answer: &'static str) {
    let listener = netns.run(move || TcpListener::bind(("127.0.0.1", port))).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn kube_proxy_is_well_ill_stuck_or_away() {
    let node = new_namespace();
    let away = kubeproxy::probe(&node).await;
    assert_eq!(
        (away.livez, away.metrics_port),
        (PortState::Closed, PortState::Closed)
    );

    serve_http(&node, 10256, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    serve_http(
        &node,
        10249,
        "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nnftables",
    );
    let well = kubeproxy::probe(&node).await;
    assert_eq!((well.livez, well.metrics_port), (PortState::Ok, PortState::Ok));
    assert_eq!(well.mode, Some(ProxyMode::Nftables));

    let ill_node = new_namespace();
    serve_http(
        &ill_node,
        10256,
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!(kubeproxy::probe(&ill_node).await.livez, PortState::Failing);

    let stuck_node = new_namespace();
    let _silent = listen(&stuck_node, "127.0.0.1:10256");
    assert_eq!(kubeproxy::probe(&stuck_node).await.livez, PortState::Silent);
}

#[test]
fn a_kube_proxy_of_another_namespace_is_not_the_nodes() {
    let (node, other) = (new_namespace(), new_namespace());
    let program = tempfile::tempdir().unwrap();
    let name = program.path().join("kube-proxy");
    std::os::unix::fs::symlink("/bin/sleep", &name).unwrap();
    let mut command = Command::new(&name);
    command.arg("60");
    let _elsewhere = Sleeper::in_namespace(&other, &mut command);
    assert_eq!(kubeproxy::programs::processes(&node).unwrap().kube_proxy, None);
    let _here = Sleeper::in_namespace(&node, &mut command);
    assert_eq!(
        kubeproxy::programs::processes(&node)
            .unwrap()
            .kube_proxy
            .as_deref(),
        Some("kube-proxy")
    );
}

#[test]
fn rules_of_one_family_alone_are_read() {
    // A node without IPv6 has no tables for it, which is no error.
    let capture = Capture::load("iptables", "lab-1", Backend::IptablesNft);
    let gaps = super::namespace::in_new_namespace(|| {
        capture.apply(&capture.rules, IpFamily::V4);
        super::captures::gaps(capture.open().as_ref(), &capture.expected())
    });
    assert!(
        gaps.iter().all(|(_, gap)| gap.destination.starts_with("[fd00")),
        "{gaps:?}"
    );
}
