//! The kube-proxy of a node: a process with its name and ports, steered by an annotation of the Node.
//!
//! The process only answers; the rules are written by [`super::follow`]. What it answers stands in a
//! file that is written anew when something has changed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    str::FromStr,
};

use jiff::Timestamp;
use tokio::process::{Child, Command};

use super::{Error, Node, workload_program};
use crate::workload::kubeproxy::Answers;

/// What an annotation makes of kube-proxy (`sandbox.svcdiag.dev/kube-proxy` on a Node).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Conduct {
    /// `running`: it does its work.
    #[default]
    Running,
    /// `paused`: writes nothing, and reports that it does.
    Paused,
    /// `stopped`: it has ended; its rules are still there.
    Stopped,
    /// `hung`: it answers nobody and writes nothing (SIGSTOP).
    Hung,
    /// `stuck`: it answers, but changes wait and none is written.
    Stuck,
    /// `unreachable`: it cannot reach the API server.
    Unreachable,
    /// `draining`: healthz says no because the node is being drained; livez says yes.
    Draining,
    /// `no-metrics`: its port of metrics is closed.
    NoMetrics,
    /// `no-ports`: both its ports are closed.
    NoPorts,
    /// `k3s`: it runs inside k3s.
    K3s,
    /// `cilium`: cilium-agent does its work in its stead.
    Cilium,
}

impl FromStr for Conduct {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "running" => Self::Running,
            "paused" => Self::Paused,
            "stopped" => Self::Stopped,
            "hung" => Self::Hung,
            "stuck" => Self::Stuck,
            "unreachable" => Self::Unreachable,
            "draining" => Self::Draining,
            "no-metrics" => Self::NoMetrics,
            "no-ports" => Self::NoPorts,
            "k3s" => Self::K3s,
            "cilium" => Self::Cilium,
            other => return Err(format!("kube-proxy cannot be {other}")),
        })
    }
}

impl Conduct {
    /// Whether rules are written.
    pub(super) fn writes(self) -> bool {
        !matches!(
            self,
            Self::Paused | Self::Stopped | Self::Hung | Self::Stuck | Self::Unreachable
        )
    }

    /// Whether it gets no changes from the API server, so that none is pending.
    fn hears_nothing(self) -> bool {
        self == Self::Unreachable
    }

    /// Name of the process, if there is one.
    fn program(self) -> Option<&'static str> {
        match self {
            Self::Stopped => None,
            Self::K3s => Some("k3s"),
            Self::Cilium => Some("cilium-agent"),
            _ => Some("kube-proxy"),
        }
    }
}

/// kube-proxy of one node.
pub(super) struct KubeProxy {
    directory: PathBuf,
    process: Option<(&'static str, Child)>,
    conduct: Conduct,
    answers: Answers,
    /// UID of its Pod.
    pod: String,
    /// The process that is in a Pod, and the Pod's UID.
    home: (u32, String),
    /// The rules that were last written.
    pub(super) written: Option<String>,
}

impl KubeProxy {
    pub(super) fn new(directory: &Path) -> Result<Self, Error> {
        fs::create_dir_all(directory).map_err(|source| Error::File {
            path: directory.to_owned(),
            source,
        })?;
        Ok(Self {
            directory: directory.to_owned(),
            process: None,
            conduct: Conduct::Running,
            answers: Answers::default(),
            pod: String::new(),
            home: (0, String::new()),
            written: None,
        })
    }

    /// Takes on a conduct: starts, ends, stops or continues the process.
    pub(super) async fn behave(&mut self, node: &Node, conduct: Conduct) -> Result<(), Error> {
        if self.conduct.writes() != conduct.writes() || self.conduct == Conduct::Stopped {
            // Whatever became of the rules meanwhile, they are written anew.
            self.written = None;
        }
        self.conduct = conduct;
        if conduct.hears_nothing() {
            // What had come in before was written: nothing is pending.
            self.answers.applied = self.answers.applied.max(self.answers.queued);
        }
        self.answers.mode = node_mode(node);
        self.answers.draining = conduct == Conduct::Draining;
        self.answers.metrics_closed =
            matches!(conduct, Conduct::NoMetrics | Conduct::NoPorts | Conduct::Cilium);
        self.answers.health_closed = matches!(conduct, Conduct::NoPorts | Conduct::Cilium);
        self.tell()?;
        self.run(node, conduct.program()).await?;
        self.signal(if conduct == Conduct::Hung { "STOP" } else { "CONT" })
            .await;
        Ok(())
    }

    /// Whether its Pod is another one than before, so that all rules are to be written anew.
    pub(super) fn is_new(&mut self, pod: &str) -> bool {
        let is_new = self.pod != pod && self.conduct != Conduct::Stopped;
        if is_new {
            pod.clone_into(&mut self.pod);
            self.written = None;
        }
        is_new
    }

    /// Its process, if it is to move to this Pod: agents see by its cgroup that it is run in one.
    pub(super) fn moves_to(&mut self, pod: &str) -> Option<u32> {
        let (_, process) = self.process.as_ref().filter(|(name, _)| *name == "kube-proxy")?;
        let home = (process.id()?, pod.to_owned());
        (self.home != home).then(|| {
            self.home = home;
            self.home.0
        })
    }

    /// Notes that changes came in, which are to be written.
    pub(super) fn queued(&mut self, at: Timestamp) -> Result<(), Error> {
        if self.conduct.hears_nothing() {
            return Ok(());
        }
        self.answers.queued = seconds(at);
        self.answers.requests_answered += 1;
        self.tell()
    }

    /// Reports that the rules, these if any were written, are those of the objects as they were `read`: what came in
    /// later is pending still.
    pub(super) fn applied(&mut self, read: Timestamp, text: Option<String>) -> Result<(), Error> {
        let is_news = text.is_some() && text != self.written || self.answers.queued > self.answers.applied;
        self.written = text;
        if !is_news {
            return Ok(());
        }
        self.answers.applied = seconds(read);
        self.tell()
    }

    /// Time goes by.
    pub(super) fn tick(&mut self) -> Result<(), Error> {
        match self.conduct {
            Conduct::Unreachable => self.answers.requests_failed += 1,
            Conduct::Stuck => self.answers.queued = seconds(Timestamp::now()),
            _ => return Ok(()),
        }
        self.tell()
    }

    fn tell(&self) -> Result<(), Error> {
        let path = self.directory.join("answers.json");
        let text = serde_json::to_string(&self.answers).unwrap_or_default();
        let fresh = path.with_extension("new");
        fs::write(&fresh, text)
            .and_then(|()| fs::rename(&fresh, &path))
            .map_err(|source| Error::File { path, source })
    }

    async fn run(&mut self, node: &Node, program: Option<&'static str>) -> Result<(), Error> {
        let runs = |(_, process): &mut (&str, Child)| matches!(process.try_wait(), Ok(None));
        if !self.process.as_mut().is_some_and(runs) {
            self.process = None;
        }
        if self.process.as_ref().map(|(name, _)| *name) == program {
            return Ok(());
        }
        if let Some((_, mut process)) = self.process.take() {
            let _ = process.kill().await;
        }
        let Some(name) = program else { return Ok(()) };
        // It is known by the name that it was started by.
        let path = self.directory.join(name);
        if fs::symlink_metadata(&path).is_err() {
            std::os::unix::fs::symlink(workload_program()?, &path).map_err(|source| Error::File {
                path: path.clone(),
                source,
            })?;
        }
        // One that hangs does not see its input end, so the kernel has to end it with us.
        let mut command = node.namespace().command("setpriv");
        let process = command
            .args(["--pdeathsig", "KILL"])
            .arg(&path)
            .args(["workload", "kube-proxy", "--answers"])
            .arg(self.directory.join("answers.json"))
            .arg(format!("--hostname-override={}", node.name()))
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Start {
                program: name.to_owned(),
                source,
            })?;
        wait_until_named(process.id().unwrap_or_default(), name).await;
        self.process = Some((name, process));
        Ok(())
    }

    async fn signal(&self, name: &str) {
        if let Some(pid) = self.process.as_ref().and_then(|(_, process)| process.id()) {
            // Sending a signal other than SIGKILL would need unsafe code or another crate.
            let sent = Command::new("kill")
                .args(["-s", name, &pid.to_string()])
                .status()
                .await;
            tracing::trace!(?sent, pid, name, "a signal");
        }
    }
}

/// A moment after the start the process still has the name of what started it.
async fn wait_until_named(pid: u32, name: &str) {
    const TRIES: usize = 500;
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(4);
    for _ in 0..TRIES {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let first = arguments.split(|byte| *byte == 0).next().unwrap_or_default();
        if first.ends_with(name.as_bytes()) {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn node_mode(node: &Node) -> String {
    node.data_path().proxy.proxy_mode().to_owned()
}

#[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit")]
fn seconds(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1000.0
}
