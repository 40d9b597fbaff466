//! HTTP over a connection made in a network namespace.
//!
//! The peer may send responses of any length. So the head of a response is read up to a limit, and its body only on
//! request, up to another limit; nothing beyond that is kept.

use std::{error::Error, io, net::SocketAddr, time::Duration};

use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Uri,
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::dns::stream;
use svcdiag_netns::Netns;

/// Longest head of a response; servers themselves accept some 8 or 16 KiB of headers.
const MAX_HEAD: usize = 32 * 1024;

/// Maximum number of headers: as many as fit in there.
const MAX_HEADERS: usize = 4096;

/// Result of a request.
#[derive(Debug)]
pub enum Got {
    /// A status, and the requested part of the body.
    Answer(u16, String),
    /// Connected, but no response in time.
    Silent,
    /// Connected, but reset or closed before the head of the response was complete.
    Reset,
    /// Connected, but the response is not HTTP.
    Garbled,
    /// Connected, but the headers exceed the limit.
    TooManyHeaders,
    /// There was no connection.
    NotConnected(io::Error),
}

/// Requests a path. The body is read up to a limit: with 0 it is not read at all, and a longer one counts as
/// none.
///
/// # Errors
/// When the path cannot be sent: then nothing was requested.
pub async fn get(
    netns: &Netns,
    target: SocketAddr,
    path: &str,
    patience: Duration,
    longest_body: usize,
) -> io::Result<Got> {
    let path = sendable(path)?;
    let stream = match timeout(patience, stream(netns, target)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Ok(Got::NotConnected(error)),
        Err(_) => return Ok(Got::NotConnected(io::ErrorKind::TimedOut.into())),
    };
    let answer = async {
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .handshake(TokioIo::new(stream))
            .await?;
        let request = Request::get(path)
            .header("Host", target.to_string())
            .header("User-Agent", concat!("svcdiag/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status().as_u16();
            let body = body(response.into_body(), longest_body).await?;
            Ok::<_, hyper::Error>((status, body))
        };
        // The connection is closed after the exchange, however that ends.
        let mut connection = std::pin::pin!(connection);
        let mut exchange = std::pin::pin!(exchange);
        let answer = tokio::select! {
            biased;
            answer = &mut exchange => answer,
            ended = &mut connection => match ended {
                Ok(()) => exchange.await,
                Err(error) => Err(error),
            },
        };
        Ok::<_, Box<dyn Error + Send + Sync>>(answer?)
    };
    Ok(match timeout(patience, answer).await {
        Ok(Ok((status, body))) => Got::Answer(status, body),
        Ok(Err(error)) if is_end(error.as_ref()) => Got::Reset,
        Ok(Err(error)) if is_too_large(error.as_ref()) => Got::TooManyHeaders,
        Ok(Err(_)) => Got::Garbled,
        Err(_) => Got::Silent,
    })
}

/// A body, unless it exceeds a limit. It is copied as it arrives: keeping each piece would cost more than the single
/// byte that it may contain.
async fn body(mut body: Incoming, longest: usize) -> Result<String, hyper::Error> {
    let mut bytes = Vec::new();
    if longest == 0 {
        return Ok(String::new());
    }
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if bytes.len() + data.len() > longest {
            return Ok(String::new());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A path as it is sent. Characters that the API's pattern permits and HTTP does not are written as %XX.
fn sendable(path: &str) -> io::Result<Uri> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
    let mut escaped = String::with_capacity(path.len());
    for c in path.chars() {
        match c {
            '<' | '>' | '#' | '`' | '"' | '{' | '}' | '^' | '\\' | '|' => {
                escaped.push_str(&format!("%{:02X}", u32::from(c)));
            }
            other => escaped.push(other),
        }
    }
    if !path.starts_with('/') {
        return Err(invalid(format!("the path {path:?} does not start with /")));
    }
    escaped
        .parse()
        .map_err(|_| invalid(format!("the path {path:?} is not valid in a request")))
}

fn is_too_large(error: &(dyn Error + 'static)) -> bool {
    let by_http = error.downcast_ref::<hyper::Error>();
    by_http.is_some_and(hyper::Error::is_parse_too_large)
}

/// Whether the connection ended before the response did.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_that_cannot_be_sent_is_an_error() {
        for path in ["", "x", "/a b", "/a\r\nHost: x", "/\u{e9}\0"] {
            assert!(sendable(path).is_err(), "{path:?}");
        }
        assert_eq!(sendable("/a?b=<c>#d").unwrap().to_string(), "/a?b=%3Cc%3E%23d");
    }

    proptest! {
        #[test]
        fn every_path_of_the_api_is_sent(path in "/[!-~]{0,60}") {
            let sent = sendable(&path).unwrap();
            prop_assert!(sent.host().is_none() && sent.to_string().starts_with('/'), "{sent}");
        }
    }
}
