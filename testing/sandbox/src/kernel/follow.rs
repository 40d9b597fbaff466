//! Keeps kube-proxy's rules and the zones of cluster DNS in step with the API's objects.
//!
//! Whatever changes, everything is read again and compared with what was written last: a local cluster
//! is small. Changes that come together are taken together, as kube-proxy does. A change is noted as pending as soon as
//! it comes in, even while earlier ones are being written: kube-proxy's metrics say so, too, and agents wait for it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{ConfigMap, Node as NodeObject, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::ListParams,
    runtime::{WatchStreamExt, watcher},
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use super::{Error, Kernel, Node, daemon, kubeproxy::Conduct, zone};
use crate::{
    controllers::annotations,
    error::chain,
    proxy::{self, Cluster, NodeView},
};

/// Changes within this time are taken together.
const TOGETHER: Duration = Duration::from_millis(30);

/// How often what goes wrong by itself goes on doing so.
const TICK: Duration = Duration::from_secs(1);

/// What cannot be read or written is tried again so much later.
const RETRY: Duration = Duration::from_millis(300);

/// Namespace of cluster DNS.
const DNS_NAMESPACE: &str = "kube-system";

/// A watch may have to begin anew on a busy machine, and be silent meanwhile: everything is read again after this time.
const AGAIN: Duration = Duration::from_secs(5);

/// How far rules and zones are behind the objects.
#[derive(Debug)]
pub(super) struct Lag(Mutex<Times>);

#[derive(Debug)]
struct Times {
    /// When the objects were read that everything written follows.
    read: Instant,
    /// The longest time for which nothing newer was written, since it was last asked for.
    longest: Duration,
}

impl Default for Lag {
    fn default() -> Self {
        Self(Mutex::new(Times {
            read: Instant::now(),
            longest: Duration::ZERO,
        }))
    }
}

impl Lag {
    /// Everything follows the objects as they were read at this time.
    fn wrote(&self, read: Instant) {
        let mut times = self.0.lock();
        times.longest = times.longest.max(times.read.elapsed());
        times.read = read;
    }

    fn now(&self) -> Duration {
        self.0.lock().read.elapsed()
    }

    /// The longest that it was since this was last asked for.
    pub(super) fn take(&self) -> Duration {
        let mut times = self.0.lock();
        std::mem::take(&mut times.longest).max(times.read.elapsed())
    }
}

/// Runs until dropped.
pub(crate) async fn run(client: Client, kernel: Arc<Kernel>) {
    let changed = Notify::new();
    tokio::join!(
        hear(&client, &kernel, &changed),
        write(&client, &kernel, &changed)
    );
}

/// What has changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    /// A Service or a slice: kube-proxy has to write its rules.
    Rules,
    Other,
}

/// Tells of changes as they come in.
async fn hear(client: &Client, kernel: &Kernel, changed: &Notify) {
    /// Changes that have come in together are noted once.
    const AT_ONCE: usize = 256;
    let changes = [
        of(Api::<Service>::all(client.clone()), Change::Rules),
        of(Api::<EndpointSlice>::all(client.clone()), Change::Rules),
        of(Api::<NodeObject>::all(client.clone()), Change::Other),
        of(
            Api::<Pod>::namespaced(client.clone(), DNS_NAMESPACE),
            Change::Other,
        ),
        of(Api::<ConfigMap>::all(client.clone()), Change::Other),
    ];
    let mut changes = stream::select_all(changes).ready_chunks(AT_ONCE);
    while let Some(changes) = changes.next().await {
        let at = Timestamp::now();
        if changes.contains(&Change::Rules) {
            for node in kernel.nodes() {
                told(node.kube_proxy.lock().await.queued(at));
            }
        }
        changed.notify_one();
    }
}

/// Writes what has changed.
async fn write(client: &Client, kernel: &Kernel, changed: &Notify) {
    let mut tick = tokio::time::interval(TICK);
    let mut pending = true;
    loop {
        tokio::select! {
            _ = tick.tick() => {
                for node in kernel.nodes() {
                    told(node.kube_proxy.lock().await.tick());
                }
                let is_due = pending || kernel.lag.now() > AGAIN;
                if !is_due && !zone::is_missing(&kernel.dns_roots().await) {
                    continue;
                }
            }
            () = changed.notified() => {}
        }
        tokio::time::sleep(TOGETHER).await;
        let _ = changed.notified().now_or_never();
        let read = Instant::now();
        let synced = sync(client, kernel).await;
        pending = synced.is_err();
        match synced {
            Ok(()) => kernel.lag.wrote(read),
            Err(error) => {
                tracing::debug!(error, "rules and zones will be written again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// That something of a kind has changed.
fn of<K>(api: Api<K>, change: Change) -> stream::BoxStream<'static, Change>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let events = watcher(api, watcher::Config::default()).default_backoff();
    events
        .filter_map(move |event| async move { event.ok().map(|_| change) })
        .boxed()
}

fn told(result: Result<(), Error>) {
    if let Err(error) = result {
        tracing::warn!(error = chain(&error), "kube-proxy of the local cluster");
    }
}

async fn sync(client: &Client, kernel: &Kernel) -> Result<(), String> {
    let read = Timestamp::now();
    let failed = |error: kube::Error| error.to_string();
    let everything = ListParams::default();
    let cluster = Cluster {
        services: Api::<Service>::all(client.clone())
            .list(&everything)
            .await
            .map_err(failed)?
            .items,
        slices: Api::<EndpointSlice>::all(client.clone())
            .list(&everything)
            .await
            .map_err(failed)?
            .items,
    };
    let switches = ListParams::default().fields(&format!("metadata.name={}", zone::SWITCHES));
    let switches = Api::<ConfigMap>::all(client.clone())
        .list(&switches)
        .await
        .map_err(failed)?
        .items;
    let servers = kernel.dns_roots().await;
    zone::write(servers, &cluster.services, &cluster.slices, &switches).map_err(|error| chain(&error))?;
    let proxies = daemon::sync(client, kernel).await.map_err(failed)?;
    let nodes = Api::<NodeObject>::all(client.clone())
        .list(&everything)
        .await
        .map_err(failed)?
        .items;
    for object in &nodes {
        if let Some(node) = kernel.node(&object.name_any()) {
            let pod = proxies.get(node.name()).map(String::as_str).unwrap_or_default();
            write_rules(kernel, node, object, &cluster, read, pod)
                .await
                .map_err(|error| chain(&error))?;
        }
    }
    Ok(())
}

/// Writes what the kube-proxy of a node, in a Pod of this UID, would write for the objects as they were `read`.
async fn write_rules(
    kernel: &Kernel,
    node: &Node,
    object: &NodeObject,
    cluster: &Cluster,
    read: Timestamp,
    pod: &str,
) -> Result<(), Error> {
    let conduct = object
        .annotations()
        .get(annotations::KUBE_PROXY)
        .map(|value| value.parse::<Conduct>())
        .transpose()
        .map_err(|what| Error::Missing { what })?
        .unwrap_or_default();
    let view = NodeView {
        name: object.name_any(),
        zone: object.labels().get("topology.kubernetes.io/zone").cloned(),
        ips: node.addresses(),
        pod_cidrs: networks(&["10.244.0.0/16", "fd00:10:244::/48"]),
        service_cidrs: networks(&["10.96.0.0/16", "fd00:10:96::/112"]),
    };
    let scripts = proxy::rules(node.data_path().proxy, cluster, &view);
    let text: String = scripts.iter().map(|script| script.wanted.as_str()).collect();
    let mut kube_proxy = node.kube_proxy.lock().await;
    kube_proxy.behave(node, conduct).await?;
    if let Some(pid) = kube_proxy.moves_to(pod).filter(|_| !pod.is_empty()) {
        kernel.pods.adopt(pod, pid)?;
    }
    let is_new = kube_proxy.is_new(pod);
    // A process that has just started writes once, as one does that is not broken yet.
    if conduct.writes() || is_new {
        if kube_proxy.written.as_ref() != Some(&text) {
            node.write(&scripts).await?;
        }
        kube_proxy.applied(read, Some(text))
    } else if conduct == Conduct::Paused {
        kube_proxy.applied(read, None)
    } else {
        Ok(())
    }
}

/// Networks of Services, or of all Pods.
fn networks(texts: &[&str]) -> Vec<ipnet::IpNet> {
    texts.iter().filter_map(|net| net.parse().ok()).collect()
}
