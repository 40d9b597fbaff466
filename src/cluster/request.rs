//! Single requests to the API server: with timeouts, page by page, and with errors that name the missing permission.

use std::{fmt::Debug, time::Duration};

use kube::{Api, Client, Resource, api::ListParams, core::NamespaceResourceScope};
use serde::de::DeserializeOwned;

use crate::{
    client::{is_not_served, is_outage},
    objects::trim_metadata,
};

/// Timeout of a request to the API server where --request-timeout sets no other.
const TIMEOUT: Duration = Duration::from_secs(30);

tokio::task_local! {
    /// That of the command that runs: an argument of the user, needed for each of many requests.
    static OF_COMMAND: Duration;
}

/// Runs a command whose requests have a timeout; 0 is none.
pub(super) async fn with_timeout<T>(timeout: Duration, command: impl Future<Output = T>) -> T {
    OF_COMMAND.scope(timeout, command).await
}

/// Page size of a list, the same as kubectl's.
const PAGE: u32 = 500;

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// A permission is missing.
    #[error("not allowed to {what}; ask for that permission, or check with: kubectl auth can-i {command}")]
    Forbidden {
        /// Verb, resource and place, in words.
        what: String,
        /// The same as arguments of `kubectl auth can-i`.
        command: String,
    },
    /// The API server did not answer.
    #[error("could not {what}: no answer within {} seconds (--request-timeout)", timeout.as_secs_f64())]
    Timeout {
        /// Verb, resource and place, in words.
        what: String,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// The cluster does not serve the kind.
    #[error("could not {what}: the API server does not serve this kind")]
    NotServed {
        /// Verb, resource and place, in words.
        what: String,
    },
    /// There is no such namespace.
    #[error("namespace {0} does not exist")]
    NoNamespace(String),
    /// Nothing selects a Pod without labels.
    #[error(
        "Pod {1} in namespace {0} has no labels, so it cannot be selected as a client; add one, for example with: kubectl -n {0} label pod {1} svcdiag.dev/client=true"
    )]
    NoLabels(String, String),
    /// There is no such Pod.
    #[error("there is no Pod {1} in namespace {0}; the namespace of clients is --client-namespace")]
    NoPod(String, String),
    /// Anything else.
    #[error("could not {what}: {source}")]
    Api {
        /// Verb, resource and place, in words.
        what: String,
        /// The error of the client.
        #[source]
        source: Box<kube::Error>,
    },
}

impl RequestError {
    /// Whether the same request may be answered later, as in an outage of the API server.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Timeout { .. } => true,
            Self::Api { source, .. } => is_outage(source),
            _ => false,
        }
    }

    /// What an error of the client means for a request.
    pub(crate) fn of(error: kube::Error, Request { what, command }: Request) -> Self {
        match error {
            kube::Error::Api(status) if status.is_forbidden() => Self::Forbidden { what, command },
            error if is_not_served(&error) => Self::NotServed { what },
            error => Self::Api {
                what,
                source: Box::new(error),
            },
        }
    }
}

/// A namespaced kind that can be listed.
pub(crate) trait Listable:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug
{
}

impl<K> Listable for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug
{
}

/// The listed objects; none if the user may not list them or the cluster does not serve the kind.
pub(crate) fn optional<T>(listed: Result<Vec<T>, RequestError>) -> Result<Vec<T>, RequestError> {
    match listed {
        Err(RequestError::Forbidden { .. } | RequestError::NotServed { .. }) => Ok(Vec::new()),
        other => other,
    }
}

/// All objects of a kind in a namespace, page by page.
pub(crate) async fn list<K: Listable>(
    client: &Client,
    namespace: &str,
    labels: Option<&str>,
) -> Result<Vec<K>, RequestError> {
    list_in(client, Some(namespace), labels).await
}

/// All objects of a kind in a namespace, or in all of them, page by page.
pub(crate) async fn list_in<K: Listable>(
    client: &Client,
    namespace: Option<&str>,
    labels: Option<&str>,
) -> Result<Vec<K>, RequestError> {
    let params = ListParams {
        label_selector: labels.map(str::to_owned),
        ..ListParams::default()
    };
    pages(&api_in(client, namespace), params, || {
        Request::list::<K>(namespace)
    })
    .await
}

/// A kind in a namespace, or in all of them.
pub(crate) fn api_in<K: Listable>(client: &Client, namespace: Option<&str>) -> Api<K> {
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// All objects that an Api lists, page by page, with no more metadata than a diagnosis needs.
pub(crate) async fn pages<K>(
    api: &Api<K>,
    params: ListParams,
    request: impl Fn() -> Request,
) -> Result<Vec<K>, RequestError>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let mut objects = Vec::new();
    each(api, params, request, |mut object: K| {
        trim_metadata(object.meta_mut());
        objects.push(object);
    })
    .await?;
    Ok(objects)
}

/// Passes on each object that an Api lists; at most one page of them is in memory.
pub(crate) async fn each<K>(
    api: &Api<K>,
    params: ListParams,
    request: impl Fn() -> Request,
    mut take: impl FnMut(K),
) -> Result<(), RequestError>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let mut params = params.limit(PAGE);
    loop {
        let page = ask(api.list(&params), &request).await?;
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        page.items.into_iter().for_each(&mut take);
        if params.continue_token.is_none() {
            return Ok(());
        }
    }
}

/// A request for messages: in words, and as arguments of `kubectl auth can-i`.
pub(crate) struct Request {
    what: String,
    command: String,
}

impl Request {
    pub(crate) fn version() -> Self {
        Self {
            what: "get the version of the API server".to_owned(),
            command: "get /version".to_owned(),
        }
    }

    pub(crate) fn api_groups() -> Self {
        Self {
            what: "find out which kinds of policies the API server serves".to_owned(),
            command: "get /apis".to_owned(),
        }
    }

    pub(crate) fn list<K: Resource<DynamicType = ()>>(namespace: Option<&str>) -> Self {
        Self::of_all::<K>("list", namespace)
    }

    /// About all objects of a kind in a namespace, or in all of them.
    fn of_all<K: Resource<DynamicType = ()>>(verb: &str, namespace: Option<&str>) -> Self {
        let place = namespace.map_or_else(|| "in all namespaces".to_owned(), |n| format!("in namespace {n}"));
        let flag = namespace.map_or_else(|| "-A".to_owned(), |n| format!("-n {n}"));
        Self {
            what: format!("{verb} {} {place}", K::plural(&())),
            command: format!("{verb} {} {flag}", resource::<K>()),
        }
    }

    pub(crate) fn watch<K: Resource<DynamicType = ()>>(namespace: Option<&str>) -> Self {
        Self::of_all::<K>("watch", namespace)
    }

    pub(crate) fn create<K: Resource<DynamicType = ()>>(namespace: &str) -> Self {
        Self {
            what: format!("create a {} in namespace {namespace}", K::kind(&())),
            command: format!("create {} -n {namespace}", resource::<K>()),
        }
    }

    pub(crate) fn delete<K: Resource<DynamicType = ()>>(namespace: &str, name: &str) -> Self {
        Self {
            what: format!("delete {} {name}", K::kind(&())),
            command: format!("delete {}/{name} -n {namespace}", resource::<K>()),
        }
    }

    pub(crate) fn get<K: Resource<DynamicType = ()>>(name: &str) -> Self {
        Self {
            what: format!("get {} {name}", K::kind(&())),
            command: format!("get {}/{name}", resource::<K>()),
        }
    }
}

fn resource<K: Resource<DynamicType = ()>>() -> String {
    match K::group(&()).as_ref() {
        "" => K::plural(&()).into_owned(),
        group => format!("{}.{group}", K::plural(&())),
    }
}

/// Awaits an answer of the API server, with a timeout. "Not found" means the kind: a request for a single object returns
/// `None` if only the object is missing.
pub(crate) async fn ask<T>(
    answer: impl Future<Output = kube::Result<T>>,
    request: impl Fn() -> Request,
) -> Result<T, RequestError> {
    let timeout = OF_COMMAND.try_with(|timeout| *timeout).unwrap_or(TIMEOUT);
    let answer = match timeout.is_zero() {
        true => answer.await,
        false => tokio::time::timeout(timeout, answer)
            .await
            .map_err(|_| RequestError::Timeout {
                what: request().what,
                timeout,
            })?,
    };
    answer.map_err(|error| RequestError::of(error, request()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_has_the_timeout_of_its_command() {
        let said = async || {
            let never = std::future::pending::<kube::Result<()>>();
            ask(never, Request::version).await.unwrap_err().to_string()
        };
        let of = |seconds| {
            format!(
                "could not get the version of the API server: no answer within {seconds} seconds (--request-timeout)"
            )
        };
        assert_eq!(said().await, of("30"));
        assert_eq!(with_timeout(Duration::from_millis(500), said()).await, of("0.5"));
        let patient = with_timeout(Duration::ZERO, said());
        assert!(
            tokio::time::timeout(TIMEOUT * 100, patient).await.is_err(),
            "0 is no timeout"
        );
    }
}
