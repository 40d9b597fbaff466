//! Which process listens on a port: the socket's inode, and the process that has it open.
//!
//! Source: the kernel's Documentation/networking/proc_net_tcp.rst, and proc(5) on /proc/PID/fd.

use std::{collections::BTreeSet, fs, io};

use super::{Netns, procfs, sockets};
use svcdiag_kube_proxy::Protocol;

/// A node has some ten thousand open files; who is not found among so many is not known.
const MAX_FILES: usize = 200_000;

/// Longest name of a process (TASK_COMM_LEN without its zero byte).
const MAX_NAME: usize = 15;

/// Who listens on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The user that made the socket.
    pub uid: u32,
    /// The process; None if it is not found. Which files a process of another user has open is not told to everybody.
    pub process: Option<Process>,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number, as the agent sees it.
    pub pid: i32,
    /// Its name, without what is not plain in it.
    pub name: String,
}

/// Who listens on a port in a network namespace, on whatever address but a loopback one. Several processes may hold the
/// socket, as a server and its workers do: then it is the first of them, and not the one that starts all others.
///
/// # Errors
/// When the sockets or the processes cannot be listed.
pub fn holder(netns: &Netns, protocol: Protocol, port: u16) -> io::Result<Option<Holder>> {
    let sockets = netns.run(move || sockets::on_port(protocol, port))?;
    let Some(uid) = sockets.first().map(|(_, uid)| *uid) else {
        return Ok(None);
    };
    let wanted: BTreeSet<String> = sockets
        .iter()
        .map(|(inode, _)| format!("socket:[{inode}]"))
        .collect();
    let mut left = MAX_FILES;
    let mut found: Option<i32> = None;
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let is_better = found.is_none_or(|known| (pid == 1, pid) < (known == 1, known));
        if is_better && has_open(pid, &wanted, &mut left) {
            found = Some(pid);
        }
    }
    let process = found.map(|pid| Process { pid, name: name(pid) });
    Ok(Some(Holder { uid, process }))
}

/// Whether a process has one of some files open.
fn has_open(pid: i32, wanted: &BTreeSet<String>, left: &mut usize) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    for file in files.flatten() {
        if *left == 0 {
            return false;
        }
        *left -= 1;
        let target = fs::read_link(file.path());
        if target.is_ok_and(|target| target.to_str().is_some_and(|t| wanted.contains(t))) {
            return true;
        }
    }
    false
}

/// The name that a process has given itself.
fn name(pid: i32) -> String {
    plain(&procfs::name(pid).unwrap_or_default())
}

fn plain(name: &str) -> String {
    name.chars()
        .filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c))
        .take(MAX_NAME)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn whoever_listens_is_found_by_its_socket() {
        let here = Netns::current().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let pid = |protocol, port| {
            holder(&here, protocol, port)
                .unwrap()
                .map(|h| h.process.unwrap().pid)
        };
        let tcp = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        assert_eq!(pid(Protocol::Tcp, port), Some(own));
        drop(tcp);
        assert_eq!(pid(Protocol::Tcp, port), None);
        let udp = UdpSocket::bind("[::]:0").unwrap();
        assert_eq!(pid(Protocol::Udp, udp.local_addr().unwrap().port()), Some(own));
        // It takes nothing that comes from elsewhere.
        let local = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(pid(Protocol::Tcp, local.local_addr().unwrap().port()), None);
    }

    #[test]
    fn only_what_is_plain_is_kept_of_a_name() {
        assert_eq!(plain("nginx\n"), "nginx");
        assert_eq!(plain("$(reboot)`x`"), "rebootx");
        assert_eq!(plain("0123456789abcdefgh"), "0123456789abcde");
    }
}
