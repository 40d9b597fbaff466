//! A node between a client Pod and an endpoint Pod, and what is watched of a dial.

use std::{
    fs::File,
    io::Write,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    ops::Deref,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::sched::{CloneFlags, setns, unshare};
use svcdiag_drops::{Drop, Filter, Kernel, Leg, MAX_DROPS, Paths, Tuple, Unavailable, Watch};
use svcdiag_kube_proxy::Protocol;

/// A network namespace, which goes when this is dropped.
pub(crate) struct Namespace(File);

impl Namespace {
    pub(crate) fn new() -> Self {
        let file = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root, or hack/as-root");
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let namespace = Self(file.join().unwrap());
        // An address that is still looked for in the network is of no use.
        namespace.run(
            "sysctl -qw net.ipv6.conf.default.accept_dad=0
             ip link set lo up",
        );
        namespace
    }

    pub(crate) fn inode(&self) -> u32 {
        u32::try_from(self.0.metadata().unwrap().ino()).unwrap()
    }

    pub(crate) fn inside<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
                job()
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs commands, one a line.
    pub(crate) fn run(&self, commands: &str) {
        for command in commands.lines().map(str::trim).filter(|line| !line.is_empty()) {
            self.feed(command, "");
        }
    }

    /// Runs a command and gives it a text to read.
    pub(crate) fn feed(&self, command: &str, input: &str) {
        let lock = std::env::temp_dir().join(format!("svcdiag-tests-{}.lock", std::process::id()));
        self.inside(|| {
            let mut child = Command::new("sh")
                .args(["-c", command])
                .env("XTABLES_LOCKFILE", lock)
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            // A command that reads nothing may have ended by now.
            let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
            let output = child.wait_with_output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{command}: {error}");
        });
    }

    pub(crate) fn nft(&self, rules: &str) {
        self.feed("nft -f -", rules);
    }

    pub(crate) fn listen(&self, address: &str) -> TcpListener {
        self.inside(|| TcpListener::bind(address).unwrap())
    }

    /// What `ip` finds it by.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// A cable from the node to eth0 of a Pod.
    fn cable(&self, pod: &Self, name: &str) {
        self.run(&format!(
            "ip link add {name} type veth peer name eth0 netns {}
             ip link set {name} up",
            pod.path()
        ));
        pod.run("ip link set eth0 up");
    }
}

/// Client and endpoint have a cable to the node each.
pub(crate) struct Network {
    pub client: Namespace,
    pub node: Namespace,
    pub endpoint: Namespace,
}

pub(crate) const CLIENT: &str = "10.1.0.2";
pub(crate) const ENDPOINT: &str = "10.2.0.2:8080";
pub(crate) const CLIENT_V6: &str = "fd01::2";
pub(crate) const ENDPOINT_V6: &str = "[fd02::2]:8080";
/// Where nodes with a bridge send to the endpoint of the same bridge.
pub(crate) const SERVICE: &str = "10.96.0.1:80";
pub(crate) const BRIDGED_ENDPOINT: &str = "10.1.0.3:8080";

impl Network {
    /// The node routes between two networks: vethc and vethe.
    pub(crate) fn routed() -> Self {
        let network = Self::unconnected();
        let Self {
            client,
            node,
            endpoint,
        } = &network;
        node.cable(client, "vethc");
        node.cable(endpoint, "vethe");
        node.run(
            "ip addr add 10.1.0.1/24 dev vethc
             ip addr add 10.2.0.1/24 dev vethe
             ip addr add fd01::1/64 dev vethc nodad
             ip addr add fd02::1/64 dev vethe nodad
             sysctl -qw net.ipv4.ip_forward=1
             sysctl -qw net.ipv6.conf.all.forwarding=1",
        );
        for (pod, number) in [(client, 1), (endpoint, 2)] {
            pod.run(&format!(
                "ip addr add 10.{number}.0.2/24 dev eth0
                 ip route add default via 10.{number}.0.1
                 ip addr add fd0{number}::2/64 dev eth0 nodad
                 ip route add default via fd0{number}::1"
            ));
        }
        network
    }

    /// Both are on one bridge of the node, 10.1.0.2 and 10.1.0.3, with the address of a Service for the latter.
    pub(crate) fn bridged() -> Self {
        let network = Self::unconnected();
        let Self {
            client,
            node,
            endpoint,
        } = &network;
        node.run(
            "ip link add cni0 type bridge
             ip link set cni0 up
             ip addr add 10.1.0.1/24 dev cni0
             sysctl -qw net.ipv4.ip_forward=1",
        );
        for (pod, name, number) in [(client, "vethc", 2), (endpoint, "vethe", 3)] {
            node.cable(pod, name);
            node.run(&format!("ip link set {name} master cni0"));
            pod.run(&format!(
                "ip addr add 10.1.0.{number}/24 dev eth0
                 ip route add default via 10.1.0.1"
            ));
        }
        node.nft(
            "table ip nat { chain prerouting { type nat hook prerouting priority -100;
               ip daddr 10.96.0.1 tcp dport 80 dnat to 10.1.0.3:8080; }; }",
        );
        network
    }

    fn unconnected() -> Self {
        Self {
            client: Namespace::new(),
            node: Namespace::new(),
            endpoint: Namespace::new(),
        }
    }
}

/// The kernel, for one test alone: a watch sees all namespaces, and the tests use the same addresses.
pub(crate) struct Alone {
    kernel: Kernel,
    _turn: MutexGuard<'static, ()>,
}

impl Deref for Alone {
    type Target = Kernel;

    fn deref(&self) -> &Kernel {
        &self.kernel
    }
}

/// The kernel, unless it cannot be watched here, which is said.
pub(crate) fn kernel() -> Option<Alone> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that has failed is no reason for others to do so.
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let watchable = Kernel::read(Paths::default()).and_then(|kernel| {
        Watch::start(&kernel, &[])?;
        Ok(kernel)
    });
    match watchable {
        Ok(kernel) => Some(Alone { kernel, _turn: turn }),
        Err(why @ (Unavailable::Refused(_) | Unavailable::UnknownBtf(_))) => panic!("{why:?}"),
        Err(why) => {
            skip(&why.to_string());
            None
        }
    }
}

/// Says that a test was not made. The test harness would keep what `eprintln!` writes to itself.
pub(crate) fn skip(why: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {name}: {why}");
}

/// A dial over TCP from any port of the client.
pub(crate) fn filters(client: &str, service: Option<&str>, endpoint: &str) -> Vec<Filter> {
    let client = SocketAddr::new(client.parse::<IpAddr>().unwrap(), 0);
    let endpoint = endpoint.parse().unwrap();
    let filter = |leg, source, destination| Filter {
        leg,
        tuple: Tuple {
            protocol: Protocol::Tcp,
            source,
            destination,
        },
    };
    let mut filters = vec![
        filter(Leg::ToEndpoint, client, endpoint),
        filter(Leg::Answer, endpoint, client),
    ];
    filters.extend(service.map(|service| filter(Leg::ToService, client, service.parse().unwrap())));
    filters
}

/// What was dropped while a dial was made: all of it.
pub(crate) fn watched(kernel: &Kernel, filters: &[Filter], dial: impl FnOnce()) -> Vec<Drop> {
    let watch = Watch::start(kernel, filters).unwrap();
    dial();
    let drops = watch.stop().unwrap();
    assert!(drops.len() < MAX_DROPS);
    drops
}

/// Dials until the first packet would be sent again; whether it got through.
pub(crate) fn dial(from: &Namespace, target: &str) -> bool {
    let target: SocketAddr = target.parse().unwrap();
    from.inside(|| TcpStream::connect_timeout(&target, Duration::from_millis(500)).is_ok())
}
