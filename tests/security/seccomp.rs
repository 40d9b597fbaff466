//! The profiles of config/seccomp, in the kernel: agent and controller do their work under them, and what somebody who
//! has taken them over would like to call is refused.

use std::{fs, path::Path, process::Stdio, time::Duration};

use seccompiler::{BpfProgram, TargetArch, apply_filter, compile_from_json};
use serde_json::{Value, json};
use svcdiag_sandbox::{
    cluster::{Cluster, ClusterConfig},
    faults::Fixture,
};
use tokio::process::{Child, Command};

use super::{agent::Agent, test_cluster::TestCluster};

/// No call that is let through fails with it: ENOTNAM.
const REFUSED: i64 = 118;

/// Rounds after the first one, if that was late.
const ROUNDS: usize = 10;

/// A profile as filters of the kernel, which obeys the strictest.
struct Profile(Vec<BpfProgram>);

impl Profile {
    /// As it is shipped, or with another error for what is refused.
    fn of(program: &str, error: Option<i64>) -> Self {
        let path = format!("config/seccomp/profiles/{program}.json");
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        let profile: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
        let default = error.map_or_else(|| profile["defaultErrnoRet"].clone(), Value::from);
        let mut all = Vec::new();
        let mut programs = Vec::new();
        for rule in profile["syscalls"].as_array().unwrap() {
            let calls = calls(rule);
            match rule["action"].as_str().unwrap() {
                "SCMP_ACT_ALLOW" => {}
                "SCMP_ACT_ERRNO" => programs.push(compile(&json!({
                    "mismatch_action": "allow", "match_action": { "errno": rule["errnoRet"] }, "filter": calls,
                }))),
                other => panic!("{other}"),
            }
            all.extend(calls);
        }
        // Last: it lets nobody add another.
        programs.push(compile(
            &json!({ "mismatch_action": { "errno": default }, "match_action": "allow", "filter": all }),
        ));
        Self(programs)
    }

    /// Starts a program under it.
    fn spawn(&self, command: &mut Command) -> Child {
        let runtime = tokio::runtime::Handle::current();
        std::thread::scope(|scope| {
            let confined = scope.spawn(|| {
                let _runtime = runtime.enter();
                for program in &self.0 {
                    apply_filter(program).unwrap();
                }
                command.spawn().unwrap()
            });
            confined.join().unwrap()
        })
    }
}

/// The calls of a rule, as the compiler reads them.
fn calls(rule: &Value) -> Vec<Value> {
    let arguments: Vec<Value> = rule["args"]
        .as_array()
        .into_iter()
        .flatten()
        .map(argument)
        .collect();
    let call = |name: &Value| match arguments.is_empty() {
        true => json!({ "syscall": name }),
        false => json!({ "syscall": name, "args": arguments }),
    };
    rule["names"].as_array().unwrap().iter().map(call).collect()
}

fn argument(argument: &Value) -> Value {
    let (op, value) = match argument["op"].as_str().unwrap() {
        "SCMP_CMP_EQ" => (json!("eq"), &argument["value"]),
        "SCMP_CMP_MASKED_EQ" => (json!({ "masked_eq": argument["value"] }), &argument["valueTwo"]),
        other => panic!("{other}"),
    };
    json!({ "index": argument["index"], "type": "dword", "op": op, "val": value })
}

fn compile(filter: &Value) -> BpfProgram {
    let arch = TargetArch::try_from(std::env::consts::ARCH).unwrap();
    let text = json!({ "all": filter }).to_string();
    compile_from_json(text.as_bytes(), arch)
        .unwrap()
        .remove("all")
        .unwrap()
}

/// Whether each thread of a process is under a filter.
fn assert_confined(pid: u32) {
    for thread in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        // Threads come and go.
        if let Ok(status) = fs::read_to_string(thread.path().join("status")) {
            assert!(status.contains("\nSeccomp:\t2\n"), "{status}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_works_under_its_profile() {
    let cluster = TestCluster::new();
    let profile = Profile::of("agent", None);
    let agent = Agent::start_by(&cluster, |command| profile.spawn(command)).await;
    let spec = serde_json::to_value(cluster.spec()).unwrap();
    // A busy machine may take longer than an agent waits for a file; what a filter refuses stays refused.
    let is_late = |facts: &svcdiag::api::NodeFacts| {
        facts
            .problems
            .iter()
            .any(|problem| problem.contains("could not be read within"))
    };
    let mut facts = agent.round("confined", spec.clone()).await;
    for round in 0..ROUNDS {
        if !is_late(&facts) {
            break;
        }
        facts = agent.round(&format!("confined-{round}"), spec.clone()).await;
    }
    assert_confined(agent.pid());
    assert_eq!(
        (facts.probes_failed, &facts.problems[..]),
        (0, &[][..]),
        "{facts:#?}"
    );
    assert!(facts.probes_made > 15, "{facts:#?}");
    assert!(
        !facts.hairpins.is_empty() && !facts.resolvers.is_empty(),
        "{facts:#?}"
    );
    assert!(facts.rules.is_some_and(|rules| rules.gaps.is_empty()));
    agent.assert_healthy().await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_controller_works_under_its_profile() {
    let cluster = Cluster::start(ClusterConfig::default()).await.unwrap();
    let log = cluster.state_dir().join("controller.log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_svcdiag"));
    command
        .args(["controller", "--listen", "127.0.0.1:0"])
        .env("KUBECONFIG", cluster.kubeconfig_path())
        .stdin(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .kill_on_drop(true);
    let mut controller = Profile::of("controller", None).spawn(&mut command);
    let fixture = Fixture::new(cluster.client(), "confined");
    fixture.set_up().await.unwrap();
    let said = || fs::read_to_string(&log).unwrap();
    for _ in 0..1200 {
        if fixture.verdict().await.is_ok_and(|v| v.is_healthy()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(fixture.verdict().await.unwrap().is_healthy(), "{}", said());
    assert_confined(controller.id().unwrap());
    let said = said();
    let address = said.split("address=").nth(1).unwrap().split_whitespace().next();
    assert!(tokio::net::TcpStream::connect(address.unwrap()).await.is_ok());
    controller.kill().await.unwrap();
    cluster.stop().await;
}

/// Tells of calls, with their numbers and arguments in its own arguments, by which error each has failed.
const CALLER: &str = "
import ctypes, sys
call = ctypes.CDLL(None, use_errno=True).syscall
call.restype = ctypes.c_long
for line in sys.argv[1:]:
    ctypes.set_errno(0)
    result = call(*[ctypes.c_long(int(word)) for word in line.split()])
    print(ctypes.get_errno() if result == -1 else 0)
";

const NEWNS: i64 = 0x2_0000;
const NEWUSER: i64 = 0x1000_0000;
const NEWNET: i64 = 0x4000_0000;

/// Calls that nobody is to make, with arguments by which they do no harm where they can be made.
const FORBIDDEN: &[(&str, i64, &[i64])] = &[
    ("ptrace", libc::SYS_ptrace, &[-1]),
    ("process_vm_readv", libc::SYS_process_vm_readv, &[-1]),
    ("process_vm_writev", libc::SYS_process_vm_writev, &[-1]),
    ("mount", libc::SYS_mount, &[]),
    ("umount2", libc::SYS_umount2, &[]),
    ("pivot_root", libc::SYS_pivot_root, &[]),
    ("chroot", libc::SYS_chroot, &[]),
    ("open_tree", libc::SYS_open_tree, &[-1]),
    ("move_mount", libc::SYS_move_mount, &[-1, 0, -1]),
    ("fsopen", libc::SYS_fsopen, &[]),
    ("open_by_handle_at", libc::SYS_open_by_handle_at, &[-1]),
    ("kexec_load", libc::SYS_kexec_load, &[0, 0, 0, -1]),
    ("kexec_file_load", libc::SYS_kexec_file_load, &[-1, -1, 0, 0, -1]),
    ("reboot", libc::SYS_reboot, &[]),
    ("swapon", libc::SYS_swapon, &[]),
    ("init_module", libc::SYS_init_module, &[]),
    ("finit_module", libc::SYS_finit_module, &[-1]),
    ("delete_module", libc::SYS_delete_module, &[]),
    ("keyctl", libc::SYS_keyctl, &[-1]),
    ("add_key", libc::SYS_add_key, &[]),
    ("request_key", libc::SYS_request_key, &[]),
    ("unshare of users", libc::SYS_unshare, &[NEWUSER]),
    ("unshare of a network", libc::SYS_unshare, &[NEWNET]),
    // Threads of a process share their user namespace.
    (
        "clone with users of its own",
        libc::SYS_clone,
        &[NEWUSER | 0x1_0000],
    ),
    ("setns to users", libc::SYS_setns, &[-1, NEWUSER]),
    ("setns to mounts", libc::SYS_setns, &[-1, NEWNS]),
    ("setns to anything", libc::SYS_setns, &[-1, 0]),
    ("perf_event_open", libc::SYS_perf_event_open, &[]),
    ("userfaultfd", libc::SYS_userfaultfd, &[-1]),
    ("io_uring_setup", libc::SYS_io_uring_setup, &[]),
    ("a packet socket", libc::SYS_socket, &[17, -1]),
    ("a socket to the hypervisor", libc::SYS_socket, &[40, -1]),
];

/// What only the agent may.
const OF_THE_AGENT: &[(&str, i64, &[i64])] = &[
    ("setns to a network", libc::SYS_setns, &[-1, NEWNET]),
    ("bpf", libc::SYS_bpf, &[-1]),
    ("a netlink socket", libc::SYS_socket, &[16, -1]),
];

/// The errors of calls under a profile.
async fn errors(program: &str, calls: &[(&str, i64, &[i64])]) -> Vec<i64> {
    let line = |(_, number, arguments): &(&str, i64, &[i64])| {
        let mut words = [*number, 0, 0, 0, 0, 0, 0];
        words[1..=arguments.len()].copy_from_slice(arguments);
        words.map(|word| word.to_string()).join(" ")
    };
    let mut command = Command::new("python3");
    command
        .args(["-c", CALLER])
        .args(calls.iter().map(line))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let caller = Profile::of(program, Some(REFUSED)).spawn(&mut command);
    let output = caller.wait_with_output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<i64> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(errors.len(), calls.len(), "{text}{said}");
    errors
}

#[tokio::test]
async fn neither_may_call_what_takes_over_a_node() {
    for program in ["agent", "controller"] {
        for ((call, ..), error) in FORBIDDEN.iter().zip(errors(program, FORBIDDEN).await) {
            assert_eq!(error, REFUSED, "{call} by the {program}");
        }
        // The C library then starts threads by clone, whose flags can be seen.
        let clone3 = errors(program, &[("clone3", libc::SYS_clone3, &[])]).await;
        assert_eq!(clone3, [i64::from(libc::ENOSYS)], "{program}");
    }
    for ((call, ..), error) in OF_THE_AGENT.iter().zip(errors("controller", OF_THE_AGENT).await) {
        assert_eq!(error, REFUSED, "{call} by the controller");
    }
    for ((call, ..), error) in OF_THE_AGENT.iter().zip(errors("agent", OF_THE_AGENT).await) {
        assert!(error != REFUSED && error != 0, "{call} by the agent: {error}");
    }
}
