//! Sends the recorded requests, one after the other, and compares the answers.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use svcdiag_testing_apiserver::ApiServer;
use tokio::{net::TcpStream, time::Instant};

use super::{
    compare::{Got, judge},
    placeholders::Placeholders,
    record::{Headers, Record},
};

/// How long what happens in the background may take here.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Replays records against one server.
pub(crate) struct Replay {
    server: ApiServer,
    known: Placeholders,
}

impl Replay {
    pub(crate) async fn start() -> Self {
        Self {
            server: ApiServer::start().await.unwrap(),
            known: Placeholders::default(),
        }
    }

    /// The differences of one answer.
    pub(crate) async fn one(&mut self, record: &Record) -> Vec<String> {
        if record.before.as_deref() == Some("compact") {
            self.server.compact();
        }
        let end = Instant::now() + PATIENCE.min(Duration::from_secs(record.poll));
        loop {
            let request = match self.request(record) {
                Ok(request) => request,
                Err(unbound) => return vec![format!("no answer has given {unbound}")],
            };
            let got = self.send(request).await;
            let differences = judge(record, &got, &mut self.known);
            if differences.is_empty() || Instant::now() >= end {
                return differences;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    fn request(&self, record: &Record) -> Result<Request<Full<Bytes>>, String> {
        let body = match (&record.raw, &record.body) {
            // The text of a record has one character for each byte.
            (Some(raw), _) => raw.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect(),
            (None, Some(body)) => self.known.fill_json(body.get())?.into_bytes(),
            (None, None) => Vec::new(),
        };
        let mut request = Request::builder()
            .method(record.method.as_str())
            .uri(self.known.fill_path(&record.path)?);
        for (name, value) in &record.headers {
            request = request.header(name, self.known.fill(value)?);
        }
        request = request.header(header::HOST, self.server.address().to_string());
        Ok(request.body(Full::from(body)).unwrap())
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Got {
        let stream = TcpStream::connect(self.server.address()).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        let text = |name| {
            response
                .headers()
                .get(name)
                .map(|v: &header::HeaderValue| v.to_str().unwrap().to_owned())
        };
        let warnings = response.headers().get_all(header::WARNING).iter();
        let headers = Headers {
            content_type: text(header::CONTENT_TYPE),
            warning: warnings.map(|v| v.to_str().unwrap().to_owned()).collect(),
            content_encoding: text(header::CONTENT_ENCODING),
            retry_after: text(header::RETRY_AFTER),
        };
        let body = response.into_body().collect().await.unwrap().to_bytes().to_vec();
        connection.abort();
        Got {
            status,
            headers,
            body,
        }
    }
}
