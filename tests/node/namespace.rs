//! Network namespaces for tests.

use std::{
    fs::File,
    io::{self, Write},
    net::{TcpListener, UdpSocket},
    os::fd::AsRawFd,
    process::{Command, Stdio},
};

use nix::sched::{CloneFlags, setns, unshare};
use svcdiag::netns::Netns;

/// Runs something in a new and empty network namespace, which goes when it ends.
pub(crate) fn in_new_namespace<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect(
                "a network namespace of its own; the tests need root, which `make test` gets from a user \
                 namespace where it can",
            );
            run()
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// A new and empty network namespace with its loopback up.
pub(crate) fn new_namespace() -> Netns {
    in_new_namespace(|| {
        run("ip link set lo up");
        Netns::current().unwrap()
    })
}

/// Runs commands in the namespace of the calling thread, one a line.
pub(crate) fn run(commands: &str) {
    for command in commands.lines().map(str::trim).filter(|c| !c.is_empty()) {
        let words: Vec<&str> = command.split_whitespace().collect();
        feed(&words, "");
    }
}

/// Runs a command in the namespace of the calling thread and gives it a text to read.
pub(crate) fn feed(command: &[&str], input: &str) {
    let lock = std::env::temp_dir().join(format!("svcdiag-tests-{}.lock", std::process::id()));
    let mut child = Command::new(command[0])
        .args(&command[1..])
        // Elsewhere all processes of the machine wait for one lock, which takes root to open.
        .env("XTABLES_LOCKFILE", lock)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| panic!("{}: {e}", command[0]));
    // A command that reads nothing may have ended by now.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Has a shell run a line in the namespace of the calling thread, as one who types it; what it prints.
pub(crate) fn shell(line: &str) -> String {
    let lock = std::env::temp_dir().join(format!("svcdiag-tests-{}.lock", std::process::id()));
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).env("XTABLES_LOCKFILE", lock);
    let output = shell.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Does something in a namespace; commands that it starts run there, too.
pub(crate) fn inside<T: Send>(netns: &Netns, job: impl FnOnce() -> T + Send) -> T {
    let namespace = file_of(netns);
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
            job()
        });
        inside.join().unwrap()
    })
}

/// The file that stands for a namespace.
fn file_of(netns: &Netns) -> File {
    netns.run(|| File::open("/proc/thread-self/ns/net")).unwrap()
}

/// Two namespaces with a cable between them: 10.1.0.1 and 10.1.0.2, fd01::1 and fd01::2.
pub(crate) struct Cable {
    pub client: Netns,
    pub server: Netns,
}

impl Cable {
    pub(crate) fn new() -> Self {
        let (client, server) = (new_namespace(), new_namespace());
        // `ip` finds a namespace by the path of its file.
        let file = file_of(&server);
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        inside(&client, || {
            run(&format!(
                "ip link add eth0 type veth peer name eth0 netns {path}
                 ip addr add 10.1.0.1/24 dev eth0
                 ip -6 addr add fd01::1/64 dev eth0 nodad
                 ip link set eth0 up"
            ));
        });
        inside(&server, || {
            run("ip addr add 10.1.0.2/24 dev eth0
                 ip -6 addr add fd01::2/64 dev eth0 nodad
                 ip link set eth0 up");
        });
        Self { client, server }
    }
}

/// Listens in a namespace until the listener is dropped; the kernel takes the connections.
pub(crate) fn listen(netns: &Netns, address: &str) -> TcpListener {
    let address = address.to_owned();
    netns.run(move || TcpListener::bind(address)).unwrap()
}

/// Takes datagrams in a namespace until the socket is dropped.
pub(crate) fn listen_udp(netns: &Netns, address: &str) -> UdpSocket {
    let address = address.to_owned();
    netns.run(move || UdpSocket::bind(address)).unwrap()
}

/// Loads rules of nftables into a namespace.
pub(crate) fn nft(netns: &Netns, rules: &str) {
    inside(netns, || feed(&["nft", "-f", "-"], rules));
}

/// The result of something that a namespace does not forbid.
pub(crate) fn must<T>(result: io::Result<T>) -> T {
    result.unwrap_or_else(|e| panic!("{e}"))
}
