//! The process of a Pod: answers its name, as `serve_hostname` of the walk-through does.

use std::{
    io::{self, BufRead},
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    time::{sleep, timeout},
};

use super::{dns, end_of_input, mapped};
use crate::kernel::Role;

/// Who connects and says nothing is hung up on.
const PATIENCE: Duration = Duration::from_secs(2);

/// A burst of dials has to find room.
const BACKLOG: u32 = 1024;

pub(super) async fn run(root: &Path, name: &str, role: Role) -> io::Result<()> {
    std::os::unix::fs::chroot(root)?;
    std::env::set_current_dir("/")?;
    // A program has its C library from its first moment on.
    if let Role::Serve { libc: Some(libc), .. } = &role {
        mapped::library(libc)?;
    }
    // In a namespace of its own the Pod is linked to its node now; addresses can be bound afterwards.
    wait_for_link()?;
    let work = async {
        match role {
            Role::Dns => dns::run("/zone.json".into()).await,
            Role::Serve {
                listen,
                status,
                delay_milliseconds,
                ..
            } => serve(name, &listen, status, Duration::from_millis(delay_milliseconds)).await,
        }
    };
    tokio::select! {
        result = work => result,
        () = end_of_input() => Ok(()),
    }
}

/// The line that says so comes at once to a Pod in its node's network.
fn wait_for_link() -> io::Result<()> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map(drop)
}

async fn serve(name: &str, listen: &[String], status: u16, delay: Duration) -> io::Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for place in listen {
        let invalid = || io::Error::new(io::ErrorKind::InvalidInput, format!("cannot listen on {place}"));
        let (protocol, address) = place.split_once("://").ok_or_else(invalid)?;
        let address: SocketAddr = address.parse().map_err(|_| invalid())?;
        let name = name.to_owned();
        match protocol {
            "tcp" | "tcp6" => {
                let listener = listen_on(address, protocol == "tcp6")?;
                tasks.spawn(async move { take_connections(&listener, &name, status, delay).await });
            }
            "udp" => {
                let socket = UdpSocket::bind(address).await?;
                tasks.spawn(async move { echo(&socket, &name).await });
            }
            _ => return Err(invalid()),
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(io::Error::other)??;
    }
    // A Pod without a port runs all the same.
    std::future::pending().await
}

/// `[::]` means IPv6 and IPv4 as well, unless IPv4 is bound on its own: as programs in Go do it.
fn listen_on(address: SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
    let socket = match address.ip() {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    if only_v6 {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn take_connections(
    listener: &TcpListener,
    name: &str,
    status: u16,
    delay: Duration,
) -> io::Result<()> {
    loop {
        sleep(delay).await;
        // One connection that broke is no reason to stop.
        if let Ok((stream, _)) = listener.accept().await {
            let name = name.to_owned();
            tokio::spawn(async move { timeout(PATIENCE, answer(stream, &name, status)).await });
        }
    }
}

async fn answer(mut stream: TcpStream, name: &str, status: u16) -> io::Result<()> {
    let mut request = [0; 4096];
    if stream.read(&mut request).await? == 0 {
        return Ok(());
    }
    let answer = format!(
        "HTTP/1.1 {status} {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{name}",
        name.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

async fn echo(socket: &UdpSocket, name: &str) -> io::Result<()> {
    let mut datagram = [0; 2048];
    loop {
        // An error here is told of an earlier answer that nobody wanted.
        if let Ok((_, from)) = socket.recv_from(&mut datagram).await {
            let _ = socket.send_to(name.as_bytes(), from).await;
        }
    }
}
