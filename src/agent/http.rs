//! HTTP over a connection made in a network namespace.

use std::{io, net::SocketAddr, time::Duration};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::{dns::stream, netns::Netns};

/// No answer that is read here is longer; the metrics of a large node have some hundred KiB.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// What came of a request.
#[derive(Debug)]
pub enum Got {
    /// A status and a body.
    Answer(u16, String),
    /// The connection was taken, but no answer came in time, or none that is HTTP.
    Silent,
    /// There was no connection.
    NotConnected(io::Error),
}

/// Asks for a path.
pub async fn get(netns: &Netns, target: SocketAddr, path: &str, patience: Duration) -> Got {
    let stream = match timeout(patience, stream(netns, target)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Got::NotConnected(error),
        Err(_) => return Got::NotConnected(io::ErrorKind::TimedOut.into()),
    };
    let answer = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let connection = tokio::spawn(connection);
        let request = Request::get(path)
            .header("Host", target.to_string())
            .header("User-Agent", concat!("svcdiag/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .map_err(io::Error::other)?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_BODY)
            .collect()
            .await
            .map_err(io::Error::other)?;
        connection.abort();
        io::Result::Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    };
    match timeout(patience, answer).await {
        Ok(Ok((status, body))) => Got::Answer(status, body),
        _ => Got::Silent,
    }
}
