//! Routes to the API server, for when the node's own network is what is broken.
//!
//! The usual route leads through the `kubernetes` Service, and so through the kube-proxy that svcdiag judges. The controller
//! knows the addresses behind that Service, and keeps them in a ConfigMap, which the kubelet mounts as a file for the agents.
//! When a request gets no answer, it is reported; then each route is tried in turn, the usual one first, and a client for the
//! first that answers is handed out. Whoever is on a fallback route checks from time to time whether the usual one works
//! again.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyStream, StreamBody, combinators::UnsyncBoxBody};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tower::{BoxError, service_fn, util::BoxCloneService};

use crate::{for_long_runs, is_outage};

/// Name in the API server's certificate in every cluster; the addresses need not be in it.
const TLS_SERVER_NAME: &str = "kubernetes.default.svc";

/// More addresses than any control plane has; a file is not trusted to be short.
const MAX_ADDRESSES: usize = 16;

/// An API server that takes longer to report its version counts as unreachable.
const PATIENCE: Duration = Duration::from_secs(3);

/// Pauses between two attempts.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// While nothing answers.
    pub retry: Duration,
    /// On a fallback route.
    pub come_back: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            retry: Duration::from_secs(2),
            come_back: Duration::from_secs(60),
        }
    }
}

/// Where the addresses of the fallback routes are found, each time that they are needed.
#[derive(Clone, Debug)]
pub enum Fallbacks {
    /// There are none.
    None,
    /// A file with addresses, separated by commas or line breaks. It need not exist, and may change at any time.
    File(PathBuf),
    /// What was last sent there, in the form of such a file.
    Learned(watch::Receiver<String>),
}

impl Fallbacks {
    async fn text(&self) -> String {
        match self {
            Self::None => String::new(),
            Self::File(path) => tokio::fs::read_to_string(path).await.unwrap_or_default(),
            Self::Learned(addresses) => addresses.borrow().clone(),
        }
    }
}

/// The known routes.
#[derive(Clone, Debug)]
pub struct Routes {
    /// The usual one.
    usual: Config,
    fallbacks: Fallbacks,
}

/// A route, identified by its address.
struct Route {
    config: Config,
    address: String,
}

impl From<Config> for Route {
    fn from(config: Config) -> Self {
        Self {
            address: config.cluster_url.to_string(),
            config,
        }
    }
}

impl Routes {
    /// The route of a configuration, and others for when it is closed.
    #[must_use]
    pub fn new(usual: Config, fallbacks: Fallbacks) -> Self {
        // The connect timeout is shorter than any caller's timeout, which distinguishes a dead address from a slow
        // answer.
        let usual = for_long_runs(usual);
        Self { usual, fallbacks }
    }

    /// All routes, the usual one first.
    async fn all(&self) -> Vec<Route> {
        let mut routes = vec![Route::from(self.usual.clone())];
        let text = self.fallbacks.text().await;
        let addresses = text.split([',', '\n']).map(str::trim).filter(|a| !a.is_empty());
        routes.extend(addresses.take(MAX_ADDRESSES).filter_map(|a| self.direct(a)));
        routes
    }

    /// The route to an address, with the credentials of the usual route.
    fn direct(&self, address: &str) -> Option<Route> {
        let scheme = self.usual.cluster_url.scheme_str().unwrap_or("https");
        let mut config = self.usual.clone();
        config.cluster_url = format!("{scheme}://{address}").parse().ok()?;
        config.tls_server_name = Some(TLS_SERVER_NAME.to_owned());
        // The proxy was configured for the usual route.
        config.proxy_url = None;
        Some(config.into())
    }
}

/// A client for the route that worked last.
#[derive(Clone)]
pub struct Access {
    client: watch::Receiver<Client>,
    trouble: Arc<Notify>,
}

impl From<Client> for Access {
    /// A single route.
    fn from(client: Client) -> Self {
        Self {
            client: watch::channel(client).1,
            trouble: Arc::default(),
        }
    }
}

impl Access {
    /// The client.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.borrow().clone()
    }

    /// The current client; `changed` waits for the next.
    pub fn latest(&mut self) -> Client {
        self.client.borrow_and_update().clone()
    }

    /// Waits until the client changes.
    pub async fn changed(&mut self) {
        if self.client.changed().await.is_err() {
            // There is only one route.
            std::future::pending().await
        }
    }

    /// A client whose requests each take the route that works by then, for those who keep one client. A request without an
    /// answer is reported, one that was given up included; and a watch ends when the route changes, as on a dead route it
    /// would be silent for minutes.
    #[must_use]
    pub fn switching(&self, namespace: &str) -> ClientBuilder<Switching> {
        let access = self.clone();
        let service = BoxCloneService::new(service_fn(move |request| access.clone().send(request)));
        ClientBuilder::new(service, namespace)
    }

    async fn send(mut self, request: Request<Body>) -> Result<Response<SwitchedBody>, BoxError> {
        let client = self.latest();
        let unanswered = Unanswered(Some(self.trouble.clone()));
        let answer = client.send(request).await;
        if !matches!(&answer, Err(error) if is_unreachable(error)) {
            unanswered.answered();
        }
        let (parts, body) = answer?.into_parts();
        let frames = BodyStream::new(body).take_until(Box::pin(async move { self.changed().await }));
        Ok(Response::from_parts(
            parts,
            UnsyncBoxBody::new(StreamBody::new(frames)),
        ))
    }

    /// Reports that the client got no answer.
    pub fn is_in_trouble(&self) {
        self.trouble.notify_one();
    }
}

/// The service of a client that switches between routes.
pub type Switching = BoxCloneService<Request<Body>, Response<SwitchedBody>, BoxError>;

/// A body that ends when the route changes.
pub type SwitchedBody = UnsyncBoxBody<Bytes, kube::Error>;

/// A request on its way. That it is dropped without an answer is a sign of a dead route.
struct Unanswered(Option<Arc<Notify>>);

impl Unanswered {
    fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(trouble) = &self.0 {
            trouble.notify_one();
        }
    }
}

/// Whether an error means that a route is dead: a busy API server was reached.
#[must_use]
pub fn is_unreachable(error: &kube::Error) -> bool {
    is_outage(error) && !matches!(error, kube::Error::Api(_))
}

/// The access, and the task that keeps looking for a working route.
///
/// # Errors
/// When no client can be made from the configuration.
pub fn access(routes: Routes, pace: Pace) -> Result<(Access, impl Future<Output = ()> + Send), kube::Error> {
    let (sender, receiver) = watch::channel(Client::try_from(routes.usual.clone())?);
    let access = Access {
        client: receiver,
        trouble: Arc::default(),
    };
    let trouble = access.trouble.clone();
    Ok((access, keep_open(routes, pace, sender, trouble)))
}

async fn keep_open(routes: Routes, pace: Pace, clients: watch::Sender<Client>, trouble: Arc<Notify>) {
    let usual = routes.usual.cluster_url.to_string();
    let mut present = usual.clone();
    loop {
        let found = first_open(routes.all().await).await;
        let is_open = found.is_some();
        if let Some((address, client)) = found.filter(|(address, _)| *address != present) {
            if address == usual {
                tracing::info!("The API server answers at {address} again.");
            } else {
                tracing::warn!("The API server does not answer at {present}. Switching to {address}.");
            }
            present = address;
            // The holders of the other end outlive this task.
            let _ = clients.send(client);
        }
        if is_open {
            let detour = present != usual;
            tokio::select! {
                () = trouble.notified() => {}
                () = tokio::time::sleep(pace.come_back), if detour => continue,
            }
        }
        // Failures come in bursts, and a restarting API server needs a moment.
        tokio::time::sleep(pace.retry).await;
    }
}

/// The first route on which the API server answers a request for its version; a denial counts as well.
async fn first_open(routes: Vec<Route>) -> Option<(String, Client)> {
    for route in routes {
        let Ok(client) = Client::try_from(route.config) else {
            continue;
        };
        match timeout(PATIENCE, client.apiserver_version()).await {
            Ok(Err(error)) if is_unreachable(&error) => {
                tracing::debug!(
                    "The API server could not be reached at {}: {error}.",
                    route.address
                );
            }
            Ok(_) => return Some((route.address, client)),
            Err(_) => tracing::debug!("The API server did not answer at {}.", route.address),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Instant};

    use axum::{Json, Router, routing::get};
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;

    const PACE: Pace = Pace {
        retry: Duration::from_millis(10),
        come_back: Duration::from_millis(20),
    };

    fn config(url: &str) -> Config {
        Config::new(url.parse().unwrap())
    }

    /// A minimal API server that reports its version and its name.
    async fn serve(listener: TcpListener, name: &'static str) {
        let version = json!({ "major": "1", "minor": "36", "gitVersion": name, "gitCommit": "", "buildDate": "",
            "gitTreeState": "", "goVersion": "", "compiler": "", "platform": "" });
        let app = Router::new().route("/version", get(move || async { Json(version) }));
        axum::serve(listener, app).await.unwrap();
    }

    async fn listen(address: &str) -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    async fn name(client: &Client) -> String {
        client.apiserver_version().await.unwrap().git_version
    }

    #[tokio::test]
    async fn a_dead_way_is_left_and_taken_again_when_it_is_open() {
        // Nothing listens there for now.
        let (gone, usual) = listen("127.0.0.1:0").await;
        drop(gone);
        let (listener, direct) = listen("127.0.0.1:0").await;
        let other = tokio::spawn(serve(listener, "direct"));
        let file = tempfile::NamedTempFile::new().unwrap();
        let routes = Routes::new(
            config(&format!("http://{usual}")),
            Fallbacks::File(file.path().to_owned()),
        );
        let (mut access, open) = access(routes, PACE).unwrap();
        let task = tokio::spawn(open);
        // The ConfigMap appears late.
        std::fs::write(file.path(), format!("192.0.2.999,\n{direct}\n")).unwrap();
        access.changed().await;
        assert_eq!(name(&access.latest()).await, "direct");
        let (listener, _) = listen(&usual.to_string()).await;
        let first = tokio::spawn(serve(listener, "usual"));
        access.changed().await;
        assert_eq!(name(&access.latest()).await, "usual");
        // Nothing is tried until a request fails.
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        assert!(timeout(PACE.come_back * 5, access.changed()).await.is_err());
        access.is_in_trouble();
        access.changed().await;
        assert_eq!(name(&access.latest()).await, "direct");
        other.abort();
        task.abort();
    }

    #[tokio::test]
    async fn a_client_that_switches_goes_on_where_a_request_got_no_answer() {
        // It takes connections and says nothing.
        let (listener, usual) = listen("127.0.0.1:0").await;
        let silent = tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok(connection) = listener.accept().await {
                held.push(connection);
            }
        });
        let (listener, direct) = listen("127.0.0.1:0").await;
        let other = tokio::spawn(serve(listener, "direct"));
        let (addresses, learned) = watch::channel(String::new());
        let routes = Routes::new(config(&format!("http://{usual}")), Fallbacks::Learned(learned));
        let (access, open) = access(routes, PACE).unwrap();
        let client = access.switching("default").build();
        let task = tokio::spawn(open);
        // Of no use before anything was learned.
        let given_up = timeout(PACE.come_back, client.apiserver_version()).await;
        assert!(given_up.is_err());
        addresses.send_replace(format!("{direct}\n"));
        let start = Instant::now();
        while timeout(PACE.come_back, name(&client)).await.as_deref() != Ok("direct") {
            assert!(start.elapsed() < Duration::from_secs(60));
        }
        for one in [silent, other, task] {
            one.abort();
        }
    }

    #[tokio::test]
    async fn a_watch_ends_when_the_route_changes() {
        // The head of an answer, and then silence.
        let (listener, usual) = listen("127.0.0.1:0").await;
        let endless =
            || async { axum::body::Body::from_stream(futures::stream::pending::<Result<Bytes, BoxError>>()) };
        let app = Router::new().fallback(endless);
        let server = tokio::spawn(async move { axum::serve(listener, app).await });
        let client = Client::try_from(config(&format!("http://{usual}"))).unwrap();
        let (sender, receiver) = watch::channel(client.clone());
        let access = Access {
            client: receiver,
            trouble: Arc::default(),
        };
        let answer = access.switching("default").build();
        let request = Request::get("/").body(Body::empty()).unwrap();
        let body = answer.send(request).await.unwrap().into_body();
        let mut read = Box::pin(body.collect_bytes());
        assert!(timeout(Duration::from_millis(50), &mut read).await.is_err());
        sender.send_replace(client);
        assert!(read.await.unwrap().is_empty());
        server.abort();
    }

    #[tokio::test]
    async fn a_direct_way_keeps_the_credentials_and_asks_for_the_name_in_the_certificate() {
        let mut usual = config("https://10.96.0.1:443");
        usual.auth_info.token_file = Some("/token".to_owned());
        usual.proxy_url = Some("http://proxy.example:3128".parse().unwrap());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "192.0.2.1:6443\n[fd00::1]:6443\nnot an address\n").unwrap();
        let routes = Routes::new(usual, Fallbacks::File(file.path().to_owned()))
            .all()
            .await;
        let told: Vec<&str> = routes.iter().map(|w| w.address.as_str()).collect();
        assert_eq!(
            told,
            [
                "https://10.96.0.1:443/",
                "https://192.0.2.1:6443/",
                "https://[fd00::1]:6443/"
            ]
        );
        assert_eq!(routes[0].config.tls_server_name, None);
        for route in &routes[1..] {
            assert_eq!(
                route.config.tls_server_name.as_deref(),
                Some("kubernetes.default.svc")
            );
            assert_eq!(route.config.auth_info.token_file.as_deref(), Some("/token"));
            assert!(route.config.proxy_url.is_none());
        }
    }

    #[tokio::test]
    async fn without_a_file_there_is_the_usual_way_only() {
        let missing = Fallbacks::File(PathBuf::from("/nowhere/addresses"));
        assert_eq!(
            Routes::new(config("http://127.0.0.1:1"), missing)
                .all()
                .await
                .len(),
            1
        );
        let mut fixed = Access::from(Client::try_from(config("http://127.0.0.1:1")).unwrap());
        fixed.is_in_trouble();
        assert!(timeout(Duration::from_millis(20), fixed.changed()).await.is_err());
    }
}
