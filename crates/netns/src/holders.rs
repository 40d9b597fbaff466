//! Which process listens on a port: the socket's inode, and the process that has it open.
//!
//! Source: the kernel's Documentation/networking/proc_net_tcp.rst, and proc(5) on /proc/PID/fd.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
};

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

/// A protocol and a port.
pub type Port = (Protocol, u16);

/// Who listens on ports in a network namespace, at all addresses or at one of these; of a port on which nobody does
/// nothing is said. Several processes may hold a socket, as a server and its workers do: then it is the first of them,
/// and not the one that starts all others.
///
/// # Errors
/// When the sockets or the processes cannot be listed.
pub fn holders(netns: &Netns, ports: &BTreeSet<Port>, ips: &[IpAddr]) -> io::Result<BTreeMap<Port, Holder>> {
    let (wanted, ips) = (ports.clone(), ips.to_vec());
    let sockets = netns.run(move || sockets::on_ports(&wanted, &ips))?;
    let mut found: BTreeMap<Port, Holder> = BTreeMap::new();
    let mut names: BTreeMap<String, Port> = BTreeMap::new();
    for socket in sockets {
        let port = (socket.protocol, socket.port);
        let of_nobody = Holder {
            uid: socket.uid,
            process: None,
        };
        found.entry(port).or_insert(of_nobody);
        names.insert(format!("socket:[{}]", socket.inode), port);
    }
    if names.is_empty() {
        return Ok(found);
    }
    let processes = fs::read_dir("/proc")?.flatten();
    let mut processes: Vec<i32> = processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    processes.sort_by_key(|pid| (*pid == 1, *pid));
    let mut left = MAX_FILES;
    for pid in processes {
        if found.values().all(|holder| holder.process.is_some()) {
            break;
        }
        for port in open_sockets(pid, &names, &mut left) {
            if let Some(holder) = found.get_mut(&port)
                && holder.process.is_none()
            {
                holder.process = Some(Process { pid, name: name(pid) });
            }
        }
    }
    Ok(found)
}

/// The ports of the sockets that a process has open, of those with these names.
fn open_sockets(pid: i32, names: &BTreeMap<String, Port>, left: &mut usize) -> BTreeSet<Port> {
    let mut found = BTreeSet::new();
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return found;
    };
    for file in files.flatten() {
        let Some(rest) = left.checked_sub(1) else { break };
        *left = rest;
        let target = fs::read_link(file.path()).ok();
        found.extend(target.and_then(|target| names.get(target.to_str()?).copied()));
    }
    found
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

    use std::net::{SocketAddr, TcpListener, UdpSocket};

    use super::*;

    fn local_port(address: io::Result<SocketAddr>) -> u16 {
        address.unwrap().port()
    }

    /// The processes that listen on ports of a node with an address.
    fn found(ports: &[Port], ip: &str) -> BTreeMap<Port, i32> {
        let here = Netns::current().unwrap();
        let ports = ports.iter().copied().collect();
        let holders = holders(&here, &ports, &[ip.parse().unwrap()]).unwrap();
        let process = |(port, holder): (Port, Holder)| (port, holder.process.unwrap().pid);
        holders.into_iter().map(process).collect()
    }

    #[test]
    fn whoever_listens_is_found_by_its_socket() {
        let own = i32::try_from(std::process::id()).unwrap();
        let tcp = TcpListener::bind("0.0.0.0:0").unwrap();
        let udp = UdpSocket::bind("[::]:0").unwrap();
        let ports = [
            (Protocol::Tcp, local_port(tcp.local_addr())),
            (Protocol::Udp, local_port(udp.local_addr())),
        ];
        let of_both = BTreeMap::from(ports.map(|port| (port, own)));
        assert_eq!(found(&ports, "127.0.0.2"), of_both);
        drop(tcp);
        assert_eq!(found(&ports[..1], "127.0.0.2"), BTreeMap::new());
    }

    /// What comes for the node's address does not get there.
    #[test]
    fn who_listens_at_another_address_than_the_nodes_is_none() {
        for (bound, takes) in [
            ("127.0.0.1:0", false),
            ("127.0.0.2:0", true),
            ("127.0.0.3:0", false),
            ("[::1]:0", false),
            ("[::ffff:127.0.0.1]:0", false),
            ("[::ffff:127.0.0.2]:0", true),
        ] {
            let listener = TcpListener::bind(bound).unwrap();
            let port = (Protocol::Tcp, local_port(listener.local_addr()));
            assert_eq!(found(&[port], "127.0.0.2").len(), usize::from(takes), "{bound}");
        }
    }

    #[test]
    fn only_what_is_plain_is_kept_of_a_name() {
        assert_eq!(plain("nginx\n"), "nginx");
        assert_eq!(plain("$(reboot)`x`"), "rebootx");
        assert_eq!(plain("0123456789abcdefgh"), "0123456789abcde");
    }
}
