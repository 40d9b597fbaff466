//! A network namespace, held by a process that does nothing but wait for the end of its input.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::OnceLock,
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
};

use super::Error;

/// A namespace is there a few milliseconds after `unshare` was started.
const MADE_WITHIN: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// What is done first. An IPv6 address is of no use for a second while it is looked for elsewhere (duplicate
/// address detection); here nobody has it.
const FRESH: &str = "
    ip link set lo up
    for kind in all default; do
        file=/proc/sys/net/ipv6/conf/$kind/accept_dad
        if [ -e $file ]; then echo 0 > $file; fi
    done
";

/// A network namespace. It ends with its holder, which ends when this is dropped or we are gone.
pub(super) struct Namespace {
    place: String,
    holder: Child,
    directory: PathBuf,
}

impl Namespace {
    /// A new one, with nothing in it but a loopback.
    pub(super) async fn new(place: &str, directory: &Path) -> Result<Self, Error> {
        let mut command = Command::new("unshare");
        command.args(["--net", "--", "cat"]);
        Self::held_by(command, place, directory).await
    }

    /// The one that a command makes for itself by way of `unshare --net`.
    pub(super) async fn held_by(mut command: Command, place: &str, directory: &Path) -> Result<Self, Error> {
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        let holder = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| Error::Start { program, source })?;
        let mut namespace = Self {
            place: place.to_owned(),
            holder,
            directory: directory.to_owned(),
        };
        namespace.wait_until_made().await?;
        namespace.sh(FRESH, &[]).await?;
        Ok(namespace)
    }

    async fn wait_until_made(&mut self) -> Result<(), Error> {
        let failed = |place: &str, message: String| Error::Namespace {
            place: place.to_owned(),
            message,
        };
        let own = std::fs::read_link("/proc/self/ns/net").ok();
        let start = tokio::time::Instant::now();
        loop {
            if let Ok(Some(status)) = self.holder.try_wait() {
                return Err(failed(&self.place, format!("unshare ended with {status}")));
            }
            let theirs = std::fs::read_link(self.path()).ok();
            if theirs.is_some() && theirs != own {
                return Ok(());
            }
            if start.elapsed() > MADE_WITHIN {
                return Err(failed(&self.place, "it was not made in time".to_owned()));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// The process in it that `ip link ... netns PID` and others know it by.
    pub(super) fn pid(&self) -> u32 {
        self.holder.id().unwrap_or_default()
    }

    /// The file that stands for it.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.pid()).into()
    }

    /// Input of the process that holds it.
    pub(super) async fn tell(&mut self, line: &str) {
        if let Some(input) = self.holder.stdin.as_mut() {
            // A process that has just ended reads no more.
            let _ = input.write_all(line.as_bytes()).await;
            let _ = input.flush().await;
        }
    }

    /// Ends the process that holds it, and waits for its end.
    pub(super) async fn end(mut self) {
        let _ = self.holder.kill().await;
    }

    /// A command that runs in it.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(nsenter());
        command
            .arg(format!("--net={}", self.path().display()))
            .args(["--", program])
            .env("PATH", search_path())
            // Elsewhere all processes of the machine wait for one lock, which takes root to open.
            .env("XTABLES_LOCKFILE", self.directory.join("xtables.lock"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs a shell script in it; what the script prints.
    pub(super) async fn sh(&self, script: &str, env: &[(String, String)]) -> Result<String, Error> {
        self.feed("sh", &["-ceu", script], env, "").await
    }

    /// Runs a program in it that reads `input`; what it prints.
    pub(super) async fn feed(
        &self,
        program: &str,
        arguments: &[&str],
        env: &[(String, String)],
        input: &str,
    ) -> Result<String, Error> {
        let start = |source| Error::Start {
            program: format!("nsenter -- {program}"),
            source,
        };
        let mut command = self.command(program);
        command
            .args(arguments)
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(start)?;
        let mut pipe = child.stdin.take();
        let write = async {
            if let Some(pipe) = pipe.as_mut() {
                // One that reads nothing may have ended by now.
                let _ = pipe.write_all(input.as_bytes()).await;
            }
            drop(pipe);
        };
        let ((), output) = tokio::join!(write, child.wait_with_output());
        let Output {
            status,
            stdout,
            stderr,
        } = output.map_err(start)?;
        if status.success() {
            return Ok(String::from_utf8_lossy(&stdout).into_owned());
        }
        Err(Error::Failed {
            program: format!("{program} {}", arguments.join(" ")),
            place: self.place.clone(),
            status,
            message: String::from_utf8_lossy(&stderr).trim().to_owned(),
        })
    }
}

/// Where nsenter is. With a path, and only then, a changed PATH does not keep the standard library from starting it by
/// posix_spawn: it would copy the tables of our memory for every command.
fn nsenter() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let directories = search_path();
        let mut files = std::env::split_paths(&directories).map(|directory| directory.join("nsenter"));
        files
            .find(|file| file.is_file())
            .unwrap_or_else(|| "nsenter".into())
    })
}

/// Tools of the network live where the paths of plain users do not lead.
fn search_path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}
