//! Spans for an OpenTelemetry collector, by OTLP over gRPC.
//!
//! Where to is what every program of OpenTelemetry is told by, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or
//! `OTEL_EXPORTER_OTLP_ENDPOINT`; so are resource, sampling and batches (`OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`,
//! `OTEL_BSP_*`): <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>. Without an endpoint
//! nothing is sent.

#![forbid(unsafe_code)]

use std::env;

use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_otlp::{
    ExporterBuildError, OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, SpanExporter,
};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing::Subscriber;
use tracing_subscriber::{Layer, registry::LookupSpan};

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This program speaks to collectors without TLS only: to one in its cluster, or beside it.
    #[error("spans cannot be sent to {endpoint}: it has to begin with http://, as TLS is not supported")]
    Endpoint {
        /// What the variable says.
        endpoint: String,
    },
    /// A variable of OpenTelemetry makes no sense.
    #[error("spans cannot be sent")]
    Exporter(#[from] ExporterBuildError),
}

/// Spans that have ended are sent in batches until this is dropped, the last ones then.
#[derive(Debug)]
pub struct Sending(SdkTracerProvider);

impl Drop for Sending {
    fn drop(&mut self) {
        // There is nobody to tell any more, and a collector that is away stops nobody.
        let _ = self.0.shutdown();
    }
}

/// What takes the spans of a subscriber, and sends them. None where no endpoint is set.
///
/// # Errors
/// When the endpoint, or another variable of OpenTelemetry, makes no sense.
pub fn layer<S>(
    service: &'static str,
    version: &'static str,
) -> Result<Option<(impl Layer<S>, Sending)>, Error>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let variables = [OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT];
    let endpoint = variables.into_iter().find_map(|variable| env::var(variable).ok());
    match endpoint.filter(|endpoint| !endpoint.is_empty()) {
        Some(endpoint) => to(&endpoint, service, version).map(Some),
        None => Ok(None),
    }
}

fn to<S>(
    endpoint: &str,
    service: &'static str,
    version: &'static str,
) -> Result<(impl Layer<S> + use<S>, Sending), Error>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    if !endpoint.starts_with("http://") {
        return Err(Error::Endpoint {
            endpoint: endpoint.to_owned(),
        });
    }
    use opentelemetry_otlp::WithExportConfig;
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()?;
    let resource = Resource::builder()
        .with_service_name(service)
        .with_attribute(KeyValue::new("service.version", version))
        .build();
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("svcdiag"));
    Ok((layer, Sending(provider)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::{Arc, Mutex};

    use http_body_util::{BodyExt, Empty};
    use hyper::{Request, Response, body::Bytes, body::Incoming, server::conn::http2, service::service_fn};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::net::TcpListener;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Paths and bodies of the requests to a collector.
    type Received = Arc<Mutex<Vec<(String, Bytes)>>>;

    /// A collector that accepts everything, and what it got.
    async fn collector() -> (String, Received) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let received = Received::default();
        let all = received.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let received = all.clone();
                let answer = service_fn(move |request: Request<Incoming>| {
                    let received = received.clone();
                    async move {
                        let path = request.uri().path().to_owned();
                        let body = request.into_body().collect().await?.to_bytes();
                        received.lock().unwrap().push((path, body));
                        let answer = Response::builder()
                            .header("content-type", "application/grpc")
                            .header("grpc-status", "0");
                        Ok::<_, hyper::Error>(answer.body(Empty::<Bytes>::new()).unwrap())
                    }
                });
                let serve = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(serve.serve_connection(TokioIo::new(stream), answer));
            }
        });
        (endpoint, received)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_span_with_its_fields_reaches_the_collector() {
        let (endpoint, received) = collector().await;
        let (layer, sending) = to(&endpoint, "svcdiag-controller", "1.2.3").unwrap();
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info_span!("reconcile", namespace = "shop", name = "hostnames").in_scope(|| {});
        });
        tokio::task::spawn_blocking(|| drop(sending)).await.unwrap();
        let received = received.lock().unwrap();
        let (path, body) = received.first().unwrap();
        assert_eq!(
            path,
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
        );
        // Strings of protobuf are what they are.
        for text in ["reconcile", "hostnames", "svcdiag-controller", "1.2.3"] {
            assert!(
                body.windows(text.len()).any(|found| found == text.as_bytes()),
                "{text}"
            );
        }
    }

    #[tokio::test]
    async fn an_endpoint_with_tls_is_refused_by_name() {
        let refused = to::<tracing_subscriber::Registry>("https://otel.example:4317", "svcdiag", "1");
        let why = refused.err().unwrap().to_string();
        assert!(
            why.contains("https://otel.example:4317") && why.contains("http://"),
            "{why}"
        );
    }

    /// Nobody waits for a collector that is not there.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_collector_that_is_away_stops_nobody() {
        let (layer, sending) = to("http://127.0.0.1:1", "svcdiag", "1").unwrap();
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info_span!("reconcile").in_scope(|| {});
        });
        tokio::task::spawn_blocking(|| drop(sending)).await.unwrap();
    }
}
