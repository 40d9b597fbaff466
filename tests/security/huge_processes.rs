//! Processes of a Pod with more arguments, environment, mappings and sockets than anybody can want to read.

use std::{
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

use serde_json::json;
use svcdiag::netns::Netns;

use super::{
    agent::Agent,
    namespace::inside,
    test_cluster::{Pod, TestCluster},
};

/// Killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process of a Pod's that does this, and says so when it is done.
fn start(pod: &Pod, command: &mut Command) -> Process {
    let netns = Netns::of_process(pod.pid()).unwrap();
    let procs = pod.cgroup().join("cgroup.procs");
    let child = inside(&netns, || command.stdout(Stdio::piped()).spawn().unwrap());
    let mut process = Process(child);
    std::fs::write(procs, process.0.id().to_string()).unwrap();
    let mut stdout = process.0.stdout.take().unwrap();
    std::io::Read::read_exact(&mut stdout, &mut [0]).unwrap();
    process
}

/// Says that its arguments and environment are 64 MiB of memory each, as any process may (PR_SET_MM_MAP).
const HUGE_ARGUMENTS: &str = r#"
import ctypes, mmap, struct, time
libc = ctypes.CDLL(None, use_errno=True)
libc.sbrk.restype = ctypes.c_void_p
size = 64 << 20
memory = mmap.mmap(-1, 2 * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.write(b"http://web:80/" * (2 * size // 14))
memory[size - 1] = memory[2 * size - 1] = 0
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
with open("/proc/self/stat") as file:
    stat = file.read().rsplit(")", 1)[1].split()
field = lambda number: int(stat[number - 3])
map = struct.pack(
    "11QQII",
    field(26), field(27), field(45), field(46), field(47), libc.sbrk(0), field(28),
    start, start + size, start + size, start + 2 * size, 0, 0, 0xFFFFFFFF)
if libc.prctl(35, ctypes.c_ulong(14), map, ctypes.c_ulong(len(map)), 0):
    raise OSError(ctypes.get_errno(), "PR_SET_MM_MAP")
print(flush=True)
time.sleep(3600)
"#;

/// Maps single pages that the kernel cannot put together, each of a file with a long name.
const MANY_MAPPINGS: &str = r#"
import mmap, os, sys, time
directory = sys.argv[1]
for _ in range(10):
    directory += "/" + "d" * 200
os.makedirs(directory)
with open(directory + "/file", "wb") as file:
    file.truncate(2 * 4096)
kept = []
with open(directory + "/file", "rb") as file:
    try:
        while len(kept) < 60000:
            kept.append(mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE))
    except OSError:
        pass
print(flush=True)
time.sleep(3600)
"#;

/// Listens wherever it may.
const MANY_SOCKETS: &str = r#"
import resource, socket, time
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
kept = []
for port in range(10000, 60000):
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        s.bind(("0.0.0.0", port))
        s.listen(1)
    except OSError:
        break
    kept.append(s)
    if len(kept) >= most - 100:
        break
print(flush=True)
time.sleep(3600)
"#;

fn python(script: &str) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", script]).process_group(0);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_of_any_size_take_no_memory() {
    let cluster = TestCluster::new();
    let client = &cluster.clients[0];
    let directory = tempfile::tempdir().unwrap();
    let processes = || -> Vec<Process> {
        let mut many = vec![
            start(client, &mut python(HUGE_ARGUMENTS)),
            start(client, python(MANY_MAPPINGS).arg(directory.path())),
            start(&cluster.endpoints[0], &mut python(MANY_SOCKETS)),
        ];
        // More processes than are read.
        for _ in 0..100 {
            many.push(start(
                client,
                Command::new("sh").args(["-c", "echo; exec sleep 3600"]),
            ));
        }
        many
    };
    let mut many = processes();
    // Those with the lowest numbers are read, and after the highest one (pid_max) the kernel begins again.
    while !many.is_sorted_by_key(|process| process.0.id()) {
        drop(many);
        std::fs::remove_dir_all(directory.path()).unwrap();
        std::fs::create_dir(directory.path()).unwrap();
        many = processes();
    }
    let arguments = format!("/proc/{}/cmdline", many[0].0.id());
    assert_eq!(std::fs::read(arguments).unwrap().len(), 64 << 20);
    let agent = Agent::start(&cluster).await;
    let mut spec = serde_json::to_value(cluster.spec()).unwrap();
    // The clients are of another namespace, where their arguments matter; the port is closed, so that sockets are listed.
    for client in spec["clients"].as_array_mut().unwrap() {
        client["namespace"] = "another".into();
    }
    spec["serviceName"] = "web".into();
    spec["subsets"][0]["ports"] = json!([{ "protocol": "TCP", "port": 9 }]);
    let facts = agent.round("huge", spec).await;
    assert_eq!(facts.resolvers.len(), 2, "{facts:#?}");
    let used: Vec<bool> = facts.resolvers.iter().map(|r| r.uses_short_name).collect();
    assert_eq!(used, [true, false], "{facts:#?}");
    assert!(!facts.listeners.is_empty(), "{facts:#?}");
    agent.assert_peak("huge processes");
    agent.stop().await;
}
