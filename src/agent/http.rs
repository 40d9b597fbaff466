//! HTTP over a connection made in a network namespace.

use std::{error::Error, io, net::SocketAddr, time::Duration};

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
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
    /// The connection was taken, but no answer came in time.
    Silent,
    /// The connection was taken, and reset or closed before an answer was whole.
    Reset,
    /// The connection was taken, and what came is no HTTP.
    Garbled,
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
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::get(path)
            .header("Host", target.to_string())
            .header("User-Agent", concat!("svcdiag/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = match Limited::new(response.into_body(), MAX_BODY).collect().await {
            Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            // Somebody answers, and at length.
            Err(error) if error.is::<LengthLimitError>() => String::new(),
            Err(error) => return Err(error),
        };
        connection.abort();
        Ok::<_, Box<dyn Error + Send + Sync>>((status, body))
    };
    match timeout(patience, answer).await {
        Ok(Ok((status, body))) => Got::Answer(status, body),
        Ok(Err(error)) if is_end(error.as_ref()) => Got::Reset,
        Ok(Err(_)) => Got::Garbled,
        Err(_) => Got::Silent,
    }
}

/// Whether the connection came to its end before the answer did.
fn is_end(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let by_http = error.downcast_ref::<hyper::Error>();
        let by_socket = error.downcast_ref::<io::Error>();
        if by_http.is_some_and(|e| e.is_incomplete_message() || e.is_closed() || e.is_canceled())
            || by_socket.is_some_and(|e| e.kind() == io::ErrorKind::ConnectionReset)
        {
            return true;
        }
        cause = error.source();
    }
    false
}
