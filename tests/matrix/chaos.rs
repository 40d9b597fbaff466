//! Chaos: controllers and agents are killed and held up, and the API server goes and comes back, all at random, while faults
//! come and go. No version of the status may blame what is not broken, and the verdict comes soon after the last blow.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use svcdiag_sandbox::{
    cluster::NODES,
    error::chain,
    faults::{Fault, Recorder, Verdict},
    kernel::Wiring,
    proxy::ProxyMode,
    svcdiag::Controller,
};

use crate::harness::{BINARY, Failure, Harness, Kind, SOON, fault};

/// For how many seconds: `make chaos` says so. Without it, so long as to be a part of the tests.
const SECONDS: &str = "SVCDIAG_CHAOS_SECONDS";
const SHORT: Duration = Duration::from_secs(120);

/// The number that the blows follow from, to repeat a run.
const SEED: &str = "SVCDIAG_CHAOS_SEED";

/// Where nothing else runs on the machine, so soon after the last blow the verdict is right.
const CONVERGES_WITHIN: Duration = Duration::from_secs(15);

/// One for each way in which a fault comes to be known: from objects, from processes, from rules, from dials that are refused
/// and that are lost, and from names.
const FAULTS: [&str; 6] = ["A08", "N06", "N09", "N45", "N36", "N27"];

/// Blows between two changes of the cluster.
const BLOWS: usize = 3;

/// Its agent is held up, but never killed: what it leaks it keeps.
const SURVIVOR: &str = NODES[NODES.len() - 1];

/// The longest pause that a leader survives, and one that is longer than its Lease.
const SHORT_PAUSE: Duration = Duration::from_secs(3);
const LONG_PAUSE: Duration = Duration::from_secs(14);

/// More than the test itself keeps open.
const STALE_CONNECTIONS: usize = 8;

/// Candidates, as in the shipped manifests.
const CONTROLLERS: usize = 2;

/// The candidates.
struct Controllers {
    running: Vec<Controller>,
    started: usize,
}

impl Controllers {
    fn start_one(&mut self, harness: &Harness) -> Result<(), String> {
        self.started += 1;
        let directory = harness
            .cluster
            .state_dir()
            .join(format!("controller-{}", self.started));
        fs::create_dir(&directory).map_err(|e| chain(&e))?;
        let arguments = ["--leader-elect", "--min-probe-interval", "0"];
        let kubeconfig = harness.cluster.kubeconfig_path();
        let one = Controller::start(Path::new(BINARY), kubeconfig, &directory, &arguments);
        self.running.push(one.map_err(|e| chain(&e))?);
        Ok(())
    }

    /// Does what the kubelet does: a leader that finds another one in its place has ended.
    async fn revive(&mut self, harness: &Harness) -> Result<(), String> {
        let mut at = 0;
        while let Some(one) = self.running.get_mut(at) {
            match one.check() {
                Ok(()) => at += 1,
                Err(_) => self.running.swap_remove(at).kill().await,
            }
        }
        while self.running.len() < CONTROLLERS {
            self.start_one(harness)?;
        }
        Ok(())
    }

    /// What they have logged, for whoever reads a failure.
    fn told(&self) -> String {
        let logs = self
            .running
            .iter()
            .map(|one| fs::read_to_string(one.log()).unwrap_or_default());
        logs.collect::<Vec<_>>().join("\n")
    }
}

/// What happens to a process or to the API server.
#[derive(Clone, Copy, Debug)]
enum Blow {
    KillController,
    HoldController,
    HoldControllerForLong,
    KillAgent,
    HoldAgent,
    RestartServer,
}

impl Blow {
    fn any(random: &mut fastrand::Rng, are_controllers_spared: bool) -> Self {
        let all = [
            Self::HoldControllerForLong,
            Self::KillController,
            Self::HoldController,
            Self::KillAgent,
            Self::HoldAgent,
            Self::RestartServer,
        ];
        // The first two end one.
        all[random.usize(if are_controllers_spared { 2 } else { 0 }..all.len())]
    }

    /// Strikes, and returns when what was struck runs again.
    async fn strike(
        self,
        harness: &mut Harness,
        controllers: &mut Controllers,
        random: &mut fastrand::Rng,
    ) -> Result<(), String> {
        let pause = SHORT_PAUSE.mul_f64(random.f64());
        match self {
            Self::KillController => {
                let which = random.usize(..controllers.running.len());
                controllers.running.swap_remove(which).kill().await;
                tokio::time::sleep(pause).await;
                controllers.start_one(harness)
            }
            Self::HoldController => {
                let which = random.usize(..controllers.running.len());
                hold(controllers.running[which].pid(), pause).await
            }
            Self::HoldControllerForLong => {
                let which = random.usize(..controllers.running.len());
                hold(controllers.running[which].pid(), LONG_PAUSE).await
            }
            Self::KillAgent => {
                let node = NODES[random.usize(..NODES.len() - 1)];
                harness.agents.kill_on(node).await;
                tokio::time::sleep(pause).await;
                harness.agents.start_on(node).map_err(|e| chain(&e))
            }
            Self::HoldAgent => {
                let node = NODES[random.usize(..NODES.len())];
                hold(harness.agents.pid(node), pause).await
            }
            Self::RestartServer => {
                harness.cluster.stop_server().await;
                tokio::time::sleep(pause).await;
                harness.cluster.restart_server().await.map_err(|e| chain(&e))?;
                // Connections of the test itself to the one that is gone: each fails once.
                for _ in 0..STALE_CONNECTIONS {
                    let _ = harness.probes().await;
                }
                Ok(())
            }
        }
    }
}

/// Stops a process, and lets it go on later.
async fn hold(pid: Option<u32>, pause: Duration) -> Result<(), String> {
    let pid = pid.ok_or("what is to be held up does not run")?;
    signal(pid, "STOP").await?;
    tokio::time::sleep(pause).await;
    signal(pid, "CONT").await
}

async fn signal(pid: u32, signal: &str) -> Result<(), String> {
    let mut kill = tokio::process::Command::new("kill");
    let sent = kill
        .args([&format!("-{signal}"), &pid.to_string()])
        .status()
        .await;
    let sent = sent.map_err(|e| chain(&e))?.success();
    sent.then_some(()).ok_or(format!("no {signal} for {pid}"))
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    descriptors: usize,
    threads: usize,
    resident_kib: usize,
}

impl Held {
    /// The least of some moments: what is in use for a round is no leak.
    async fn at_rest(pid: u32) -> Result<Self, String> {
        let mut least = Self::now(pid)?;
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = Self::now(pid)?;
            least = Self {
                descriptors: least.descriptors.min(now.descriptors),
                threads: least.threads.min(now.threads),
                resident_kib: least.resident_kib.min(now.resident_kib),
            };
        }
        Ok(least)
    }

    fn now(pid: u32) -> Result<Self, String> {
        let count = |what: &str| fs::read_dir(format!("/proc/{pid}/{what}")).map(Iterator::count);
        let read = || -> std::io::Result<(usize, usize, String)> {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            Ok((count("fd")?, count("task")?, status))
        };
        let (descriptors, threads, status) = read().map_err(|e| format!("process {pid}: {}", chain(&e)))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        Ok(Self {
            descriptors,
            threads,
            resident_kib: resident.ok_or("no VmRSS")?,
        })
    }

    /// Whether it has grown by more than caches and a pool of threads do.
    fn leaked_since(self, before: Self) -> bool {
        self.descriptors > before.descriptors + 16
            || self.threads > before.threads + 16
            || self.resident_kib > before.resident_kib * 3 / 2 + 8 * 1024
    }
}

/// What each process holds that is meant to live until the end, once none of them is about to end: a leader that was held up
/// for longer than its Lease ends a moment after it goes on.
async fn survivors(harness: &Harness, controllers: &mut Controllers) -> Result<BTreeMap<u32, Held>, String> {
    let start = Instant::now();
    loop {
        controllers.revive(harness).await?;
        let agent = harness
            .agents
            .pid(SURVIVOR)
            .ok_or("the agent that is spared has ended")?;
        let controllers = controllers.running.iter().filter_map(Controller::pid);
        let pids: Vec<u32> = controllers.chain([agent]).collect();
        let held = futures::future::join_all(pids.iter().map(|pid| Held::at_rest(*pid))).await;
        let held: Result<Vec<Held>, String> = held.into_iter().collect();
        match held {
            Ok(held) => return Ok(pids.into_iter().zip(held).collect()),
            Err(why) if start.elapsed() > SOON => return Err(why),
            Err(_) => {}
        }
    }
}

/// A run of it.
struct Chaos {
    harness: Harness,
    controllers: Controllers,
    random: fastrand::Rng,
    /// In the second half, so that what they leak stays.
    are_controllers_spared: bool,
    /// How soon after the last blow the verdict was right, each time.
    converged: Vec<Duration>,
    blows: usize,
    versions: usize,
}

impl Chaos {
    /// Blows, one after the other.
    async fn strike(&mut self) -> Result<(), String> {
        for _ in 0..BLOWS {
            self.controllers.revive(&self.harness).await?;
            let between = Duration::from_millis(self.random.u64(0..2000));
            tokio::time::sleep(between).await;
            let blow = Blow::any(&mut self.random, self.are_controllers_spared);
            println!("chaos: {blow:?}");
            blow.strike(&mut self.harness, &mut self.controllers, &mut self.random)
                .await?;
            self.blows += 1;
        }
        self.controllers.revive(&self.harness).await
    }

    /// Waits for a round of all agents after the last blow, and for the verdict.
    async fn converge(&mut self, what: &str, passes: impl Fn(&Verdict) -> bool) -> Result<(), Failure> {
        let last = Instant::now();
        let told = |why: Failure| format!("{why}\n{}", self.controllers.told());
        self.harness.round(SOON).await.map_err(told)?;
        self.harness.wait(what, SOON, passes).await.map_err(told)?;
        println!("chaos: {what} after {:.1} s", last.elapsed().as_secs_f64());
        self.converged.push(last.elapsed());
        Ok(())
    }

    /// What was written meanwhile blames nothing else.
    fn check(&mut self, recorder: &Recorder, may_be_broken: &[&str]) -> Result<(), String> {
        self.versions += recorder.counts().values().sum::<usize>();
        let wrong = recorder.blamed_other_than(may_be_broken);
        let wrong: Vec<&str> = wrong.iter().map(String::as_str).collect();
        match wrong.as_slice() {
            [] => Ok(()),
            _ => Err(format!(
                "false blame:\n{}\n{}",
                wrong.join("\n"),
                self.controllers.told()
            )),
        }
    }

    /// Blows while all is well, and while something is broken.
    async fn round(&mut self, fault: &Fault) -> Result<(), String> {
        let recorder = Recorder::start(&self.harness.fixture)
            .await
            .map_err(|e| chain(&e))?;
        self.strike().await?;
        self.converge("well", Verdict::works).await?;
        self.check(&recorder, &[])?;

        println!("chaos: {}", fault.id);
        let recorder = Recorder::start(&self.harness.fixture)
            .await
            .map_err(|e| chain(&e))?;
        self.harness.inject(fault).await?;
        self.strike().await?;
        let expected = fault.expected.to_string();
        self.converge(&expected, |v| fault.expected.is_met_by(v)).await?;
        self.harness.fix(fault).await?;
        let stage = expected.split('/').next().unwrap_or_default();
        let meanwhile = fault.meanwhile.iter().map(String::as_str);
        self.check(&recorder, &meanwhile.chain([stage]).collect::<Vec<_>>())
    }

    async fn run(&mut self, length: Duration) -> Result<(), String> {
        self.controllers.revive(&self.harness).await?;
        self.harness.start_agents()?;
        self.harness
            .wait("well at the start", SOON, Verdict::works)
            .await?;
        let start = Instant::now();
        let mut faults = FAULTS.iter().cycle().map(|id| fault(id));
        while start.elapsed() < length / 2 {
            let next = faults.next().ok_or("no fault")?;
            self.round(&next).await?;
        }
        self.are_controllers_spared = true;
        let before = survivors(&self.harness, &mut self.controllers).await?;
        while start.elapsed() < length {
            let next = faults.next().ok_or("no fault")?;
            self.round(&next).await?;
        }
        let after = survivors(&self.harness, &mut self.controllers).await?;
        for (pid, before) in &before {
            // On a busy machine a leader may fail to renew its Lease, and ends.
            let Some(after) = after.get(pid) else {
                println!("chaos: process {pid} has ended, and another one is in its place");
                continue;
            };
            println!("chaos: process {pid} held {before:?}, then {after:?}");
            if after.leaked_since(*before) {
                return Err(format!("process {pid} held {before:?}, then {after:?}"));
            }
        }
        let longest = self.converged.iter().max().copied().unwrap_or_default();
        println!(
            "chaos: {} blows in {:.0} s, {} versions of the status, no stage blamed wrongly; right {:.1} s after the last blow at the latest",
            self.blows,
            start.elapsed().as_secs_f64(),
            self.versions,
            longest.as_secs_f64()
        );
        let is_alone = std::env::var_os(SECONDS).is_some();
        if is_alone && longest > CONVERGES_WITHIN {
            return Err(format!("right only after {longest:?}, not {CONVERGES_WITHIN:?}"));
        }
        Ok(())
    }
}

/// A number from the environment.
fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{variable}: not a number: {value}")),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_blamed_wrongly_while_processes_are_killed_at_random() {
    let length = number(SECONDS).map_or(SHORT, Duration::from_secs);
    let seed = number(SEED).unwrap_or_else(|| fastrand::u64(..));
    println!("chaos: {SEED}={seed} repeats these blows");
    let kind = Kind {
        mode: ProxyMode::Nftables,
        wiring: Wiring::Bridge,
    };
    let harness = Harness::start_without_svcdiag(kind).await.unwrap();
    let mut chaos = Chaos {
        harness,
        controllers: Controllers {
            running: Vec::new(),
            started: 0,
        },
        random: fastrand::Rng::with_seed(seed),
        are_controllers_spared: false,
        converged: Vec::new(),
        blows: 0,
        versions: 0,
    };
    let result = chaos.run(length).await;
    for controller in chaos.controllers.running {
        controller.stop().await;
    }
    chaos.harness.stop().await;
    result.unwrap_or_else(|why| panic!("{why}"));
}
