//! The HTTP server: small responses for the kubelet and for Prometheus, on ports that every Pod can reach.
//!
//! A connection costs a file descriptor and memory, and a client with a thousand idle ones must not delay the kubelet:
//! the controller would be restarted for nothing. So a connection must send its request within seconds, none lasts long,
//! and if there are too many, the oldest of the client with the most is closed: a flood from one Pod closes its own
//! connections.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, task::JoinHandle};

/// Maximum connections of a port: the kubelet has one or two, Prometheus one. Even in a flood from the kubelet's own address,
/// each lasts some milliseconds, enough to answer a request.
const MOST: usize = 256;

/// Deadline for a complete request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum lifetime of a connection; clients reconnect.
const LIFETIME: Duration = Duration::from_secs(60);

/// Pause after a failed accept: there are no file descriptors, and retrying at once changes nothing.
const RETRY: Duration = Duration::from_millis(100);

/// Largest request head, in bytes.
const HEAD: usize = 16 * 1024;

/// Serves until the controller stops.
pub(super) async fn serve(listener: TcpListener, app: Router) {
    let mut open: VecDeque<(IpAddr, JoinHandle<()>)> = VecDeque::new();
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(RETRY).await;
            continue;
        };
        open.retain(|(_, connection)| !connection.is_finished());
        if open.len() >= MOST
            && let Some((_, connection)) = excess(&open).and_then(|at| open.remove(at))
        {
            connection.abort();
        }
        let app = app.clone();
        let serve = async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(HEAD)
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
            // A client that disconnects or sends nothing is not our error.
            let _ = tokio::time::timeout(LIFETIME, connection).await;
        };
        open.push_back((peer.ip(), tokio::spawn(serve)));
    }
}

/// The oldest connection of the address with the most.
fn excess<T>(open: &VecDeque<(IpAddr, T)>) -> Option<usize> {
    let mut of: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for (peer, _) in open {
        *of.entry(*peer).or_default() += 1;
    }
    let most = of.values().max()?;
    open.iter().position(|(peer, _)| of.get(peer) == Some(most))
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    async fn healthz(address: std::net::SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn served() -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(
            listener,
            Router::new().route("/healthz", get(|| async { "ok" })),
        ));
        address
    }

    #[test]
    fn who_has_most_connections_makes_room() {
        let open = |peers: &str| -> VecDeque<(IpAddr, ())> {
            let ip = |last: char| format!("10.0.0.{last}").parse().unwrap();
            peers.chars().map(|last| (ip(last), ())).collect()
        };
        assert_eq!(excess(&open("")), None);
        assert_eq!(excess(&open("1222")), Some(1));
        assert_eq!(
            excess(&open("12233")),
            Some(1),
            "the oldest of those who have most"
        );
        assert_eq!(excess(&open("1234")), Some(0));
    }

    #[tokio::test]
    async fn idle_connections_make_room() {
        let address = served().await;
        let mut idle = Vec::new();
        for _ in 0..3 * MOST {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        assert!(healthz(address).await.ends_with("ok"));
        // The first was closed by us.
        assert_eq!(idle[0].read(&mut [0; 1]).await.unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn a_request_that_does_not_end_is_given_up() {
        let address = served().await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(2 * LIFETIME, slow.read_to_end(&mut rest)).await;
        assert!(ended.is_ok() && !rest.starts_with(b"HTTP/1.1 200"));
        assert!(healthz(address).await.ends_with("ok"));
    }
}
