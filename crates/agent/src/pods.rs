//! From a Pod to its processes and its network namespace.
//!
//! The kubelet gives each Pod a cgroup with the Pod's UID in its name, so that the processes of a Pod
//! are found in /proc without asking the container runtime. The drivers write it differently:
//!
//! ```text
//! systemd:   /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid with _>.slice/cri-containerd-<id>.scope
//! cgroupfs:  /kubepods/burstable/pod<uid>/<id>
//! CRI-O:     .../kubepods-pod<uid with _>.slice/crio-<id>.scope
//! ```
//!
//! A static Pod's cgroup has the hash of its manifest instead, which its annotation
//! kubernetes.io/config.hash carries. Source: kubelet's pkg/kubelet/cm (`GetPodCgroupNameSuffix`).

use std::{
    collections::HashMap,
    fs, io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use svcdiag_netns::{Netns, links, procfs};

/// Maximum processes read per Pod, oldest first: those of the containers come before their children.
const MAX_PROCESSES: usize = 64;

/// How long a list of the node's processes is reused.
const LIST_LASTS: Duration = Duration::from_secs(10);

/// Why a Pod's network namespace could not be opened. This says nothing about the Pod.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No process of the Pod runs here.
    #[error("no process of Pod {uid} was found")]
    NoProcess {
        /// UID of the Pod.
        uid: String,
    },
    /// The namespace found belongs to something else.
    #[error("the network namespace of Pod {uid} does not have its address {ip}")]
    WrongNamespace {
        /// UID of the Pod.
        uid: String,
        /// The address that the Pod should have.
        ip: IpAddr,
    },
    /// The kernel returned an error.
    #[error("could not {what} of Pod {uid}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// UID of the Pod.
        uid: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// The UID of the Pod that a line of /proc/PID/cgroup names, with dashes.
#[must_use]
pub fn pod_uid(line: &str) -> Option<String> {
    // hierarchy-id:controllers:path; the path may itself hold colons (cgroupfs with CRI plugins).
    let path = line.splitn(3, ':').nth(2)?;
    path.split('/').find_map(|part| {
        let part = part.strip_suffix(".slice").unwrap_or(part);
        let start = part.rfind("pod")?;
        let is_pod = start == 0 || part.starts_with("kubepods") && part[..start].ends_with('-');
        let uid = part.get(start + 3..)?.replace('_', "-");
        let is_uid = |uid: &str| {
            uid.len() >= 32 && uid.len() <= 36 && uid.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
        };
        (is_pod && is_uid(&uid)).then_some(uid)
    })
}

/// The processes of all Pods on the node, by the UID in their cgroups. Processes that cannot be read are skipped:
/// they may have just exited.
///
/// # Errors
/// When /proc itself cannot be read.
pub fn processes() -> io::Result<HashMap<String, Vec<i32>>> {
    let mut pods: HashMap<String, Vec<i32>> = HashMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(uid) = pod_of(pid) {
            let pids = pods.entry(uid).or_default();
            pids.push(pid);
            // The kernel lists them by number.
            if pids.len() > 2 * MAX_PROCESSES {
                keep_first(pids);
            }
        }
    }
    pods.values_mut().for_each(keep_first);
    Ok(pods)
}

fn keep_first(pids: &mut Vec<i32>) {
    pids.sort_unstable();
    pids.truncate(MAX_PROCESSES);
}

/// The UID of the Pod that a process belongs to.
fn pod_of(pid: i32) -> Option<String> {
    let cgroups = procfs::cgroups(pid).ok()?;
    cgroups.lines().find_map(pod_uid)
}

/// The processes of all Pods, listed once for all callers within a few seconds.
#[derive(Debug, Default)]
pub struct Census(Mutex<Option<Listed>>);

/// When, and the processes by the UID of their Pod.
type Listed = (Instant, Arc<HashMap<String, Vec<i32>>>);

impl Census {
    /// The processes of some Pods, each verified to belong to its Pod. If a Pod has no known process, all are listed
    /// again. Processes that a Pod started within the last seconds may be missing.
    ///
    /// # Errors
    /// When /proc itself cannot be read.
    pub fn of(&self, uids: &[String]) -> io::Result<HashMap<String, Vec<i32>>> {
        let mut known = self.0.lock();
        if let Some((_, listed)) = known.as_ref().filter(|(at, _)| at.elapsed() < LIST_LASTS) {
            let still_theirs = |uid: &String| {
                let mut pids = listed.get(uid)?.clone();
                pids.retain(|pid| pod_of(*pid).as_ref() == Some(uid));
                (!pids.is_empty()).then(|| (uid.clone(), pids))
            };
            let found: Option<HashMap<_, _>> = uids.iter().map(still_theirs).collect();
            if let Some(found) = found {
                return Ok(found);
            }
        }
        let listed = Arc::new(processes()?);
        *known = Some((Instant::now(), listed.clone()));
        Ok(uids
            .iter()
            .filter_map(|uid| Some((uid.clone(), listed.get(uid)?.clone())))
            .collect())
    }
}

/// The network namespace of a Pod, verified by one of the Pod's addresses in it.
///
/// # Errors
/// When there is none, or it is not the Pod's.
pub async fn network_namespace(uid: &str, pids: &[i32], ips: &[IpAddr]) -> Result<Netns, Error> {
    let io = |what| {
        move |source| Error::Io {
            what,
            uid: uid.to_owned(),
            source,
        }
    };
    let mut last = Error::NoProcess { uid: uid.to_owned() };
    for pid in pids {
        let found = match Netns::of_process(*pid).map_err(io("open the network namespace")) {
            Ok(netns) => {
                let addresses = netns
                    .visit(links::addresses)
                    .await
                    .map_err(io("read the addresses"));
                addresses.map(|addresses| (netns, addresses))
            }
            Err(error) => Err(error),
        };
        match found {
            Ok((netns, addresses)) => match ips.first() {
                Some(ip) if !ips.iter().any(|ip| addresses.contains(ip)) => {
                    last = Error::WrongNamespace {
                        uid: uid.to_owned(),
                        ip: *ip,
                    };
                }
                _ => return Ok(netns),
            },
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UID: &str = "6d5c8b1e-0f3a-4f0b-9d3e-2a1b3c4d5e6f";

    #[test]
    fn a_pods_uid_is_found_however_the_driver_writes_it() {
        for line in [
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod6d5c8b1e_0f3a_4f0b_9d3e_2a1b3c4d5e6f.slice/cri-containerd-0123.scope",
            "0::/kubepods.slice/kubepods-pod6d5c8b1e_0f3a_4f0b_9d3e_2a1b3c4d5e6f.slice/crio-0123.scope",
            "4:memory:/kubepods/besteffort/pod6d5c8b1e-0f3a-4f0b-9d3e-2a1b3c4d5e6f/0123456789abcdef",
            "0::/../../pod6d5c8b1e-0f3a-4f0b-9d3e-2a1b3c4d5e6f/0123",
            "1:name=systemd:/docker/0123/kubelet/kubepods/pod6d5c8b1e-0f3a-4f0b-9d3e-2a1b3c4d5e6f/4567:cri",
        ] {
            assert_eq!(pod_uid(line).as_deref(), Some(UID), "{line}");
        }
        let static_pod = "0::/kubepods/burstable/pod0123456789abcdef0123456789abcdef/4567";
        assert_eq!(
            pod_uid(static_pod).as_deref(),
            Some("0123456789abcdef0123456789abcdef")
        );
    }

    #[test]
    fn other_cgroups_are_no_pods() {
        for line in [
            "0::/",
            "0::/system.slice/podman.service",
            "0::/user.slice/user-1000.slice/podcast",
            "0::/kubepods.slice",
            "",
        ] {
            assert_eq!(pod_uid(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_survived(line in ".{0,200}") {
            let _ = pod_uid(&line);
        }

        #[test]
        fn a_uid_is_found_in_any_path(uid in "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", before in "[a-z0-9/]{0,20}") {
            let line = format!("0::/{before}/pod{uid}/0123");
            prop_assert_eq!(pod_uid(&line), Some(uid));
        }
    }
}
