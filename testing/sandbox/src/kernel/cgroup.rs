//! Cgroups of Pods, named as the kubelet names them, so that their processes are known by them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::Error;

/// Directory of one of our clusters, followed by the number of the process that made it.
const PREFIX: &str = "svcdiag-sandbox-";

/// Where cgroups of Pods are made. Removed when dropped.
pub(super) struct Cgroups {
    base: PathBuf,
}

impl Cgroups {
    /// Finds a hierarchy that can be written to, and removes what clusters left behind that were killed.
    pub(super) fn prepare() -> Result<Self, Error> {
        let mut tried = Vec::new();
        for hierarchy in hierarchies() {
            sweep(&hierarchy);
            match make(&hierarchy) {
                Ok(base) => return Ok(Self { base }),
                Err(error) => tried.push(format!("{}: {error}", hierarchy.display())),
            }
        }
        Err(Error::Cgroup {
            message: tried.join(", "),
        })
    }

    /// Puts a process into the cgroup of a Pod.
    pub(super) fn join(&self, uid: &str, pid: u32) -> Result<(), Error> {
        let directory = self.of(uid).join("container");
        let failed = |source| Error::File {
            path: directory.clone(),
            source,
        };
        fs::create_dir_all(&directory).map_err(failed)?;
        fs::write(directory.join("cgroup.procs"), pid.to_string()).map_err(failed)
    }

    /// Removes the cgroup of a Pod whose processes have ended.
    pub(super) fn remove(&self, uid: &str) {
        remove(&self.of(uid));
    }

    fn of(&self, uid: &str) -> PathBuf {
        self.base.join(format!("kubepods/burstable/pod{uid}"))
    }
}

impl Drop for Cgroups {
    /// Processes that were killed a moment ago may still be there.
    fn drop(&mut self) {
        const TRIES: u32 = 20;
        const PAUSE: std::time::Duration = std::time::Duration::from_millis(10);
        // Only the unified hierarchy can end all processes at once.
        let _ = fs::write(self.base.join("cgroup.kill"), "1");
        for _ in 0..TRIES {
            remove(&self.base);
            if !self.base.exists() {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Makes a directory of our own; one process may have several clusters.
fn make(hierarchy: &Path) -> io::Result<PathBuf> {
    for number in 0.. {
        let base = hierarchy.join(format!("{PREFIX}{}-{number}", std::process::id()));
        match fs::create_dir(&base) {
            Ok(()) => return fs::create_dir_all(base.join("kubepods/burstable")).map(|()| base),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Roots of hierarchies, the unified one first; below our own cgroup where the roots are not ours.
fn hierarchies() -> Vec<PathBuf> {
    const ROOT: &str = "/sys/fs/cgroup";
    let mut all = Vec::new();
    for name in ["unified", "pids", "systemd", "memory"] {
        all.push(Path::new(ROOT).join(name));
    }
    all.insert(0, ROOT.into());
    // A cgroup that was handed to us, as user sessions of systemd are.
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let unified = own.lines().find_map(|line| line.strip_prefix("0::/"));
    for root in ["", "unified"] {
        all.extend(unified.map(|path| Path::new(ROOT).join(root).join(path)));
    }
    all.retain(|path| path.join("cgroup.procs").is_file());
    all
}

/// Removes what processes left behind that are no more.
fn sweep(hierarchy: &Path) {
    for entry in fs::read_dir(hierarchy).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove(&entry.path());
        }
    }
}

/// Cgroups are removed from the leaves upwards; one with processes stays.
fn remove(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::debug!(%error, directory = %directory.display(), "a cgroup stays");
        }
        _ => {}
    }
}
