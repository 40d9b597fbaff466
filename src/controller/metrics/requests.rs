//! Requests to the API server, counted on their way.

use http::{Method, Request, Response};
use kube::client::{Body, ClientBuilder};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use tower::{Service, ServiceExt, layer::layer_fn, service_fn, util::BoxCloneService};

use crate::client::routes::Switching;

/// By what was asked and what was answered.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(in crate::controller) struct OfRequest {
    verb: &'static str,
    code: String,
}

/// How many requests there were.
pub(in crate::controller) type Requests = Family<OfRequest, Counter>;

/// The code of a request without an answer, as in client-go's metrics.
const NO_ANSWER: &str = "<error>";

/// Counts the requests of a client that is built from this.
pub(in crate::controller) fn counted(
    builder: ClientBuilder<Switching>,
    requests: &Requests,
) -> ClientBuilder<Switching> {
    let requests = requests.clone();
    let layer = layer_fn(move |inner: Switching| {
        let requests = requests.clone();
        BoxCloneService::new(service_fn(move |request: Request<Body>| {
            let (mut inner, requests) = (inner.clone(), requests.clone());
            async move {
                let verb = verb(&request);
                let answer = inner.ready().await?.call(request).await;
                let code = answer.as_ref().map(Response::status);
                let code = code.map_or(NO_ANSWER.to_owned(), |code| code.as_str().to_owned());
                requests.get_or_create(&OfRequest { verb, code }).inc();
                answer
            }
        }))
    });
    builder.with_layer(&layer)
}

/// As the API server's own metrics call it, but that they tell a list from a get.
fn verb(request: &Request<Body>) -> &'static str {
    let is_watch = |query: &str| {
        query
            .split('&')
            .any(|one| matches!(one, "watch=true" | "watch=1"))
    };
    match *request.method() {
        Method::GET if request.uri().query().is_some_and(is_watch) => "WATCH",
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_told_from_a_list() {
        let get = |uri: &str| verb(&Request::get(uri).body(Body::empty()).unwrap());
        assert_eq!(get("/api/v1/pods?&watch=true&timeoutSeconds=290"), "WATCH");
        assert_eq!(get("/api/v1/pods?limit=500"), "GET");
        assert_eq!(get("/api/v1/namespaces/watch=true/pods"), "GET");
    }
}
