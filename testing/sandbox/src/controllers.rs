//! Stand-ins for the controllers, the scheduler and the kubelets of a cluster.
//!
//! Each is a plain kube-runtime `Controller`: a watch says that an object changed, `reconcile`
//! reads what it needs **live** from the API server and writes what is missing. Live reads see
//! our own writes, so nothing is made twice, and a local cluster is small enough to afford them.
//!
//! ```text
//! Deployment -> ReplicaSet -> Pod -> (scheduler: nodeName) -> (kubelet: status) -> EndpointSlice
//! StatefulSet -------------^
//! ```

mod deployment;
mod endpointslice;
mod endpointslice_layout;
mod garbage;
mod kubelet;
mod kubelet_addresses;
mod kubelet_process;
mod kubelet_status;
mod naming;
mod pods;
mod replicaset;
mod scheduler;
mod statefulset;

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::runtime::controller::{Action, Error as ControllerError};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Client, Resource};
use tokio::task::JoinSet;

use crate::error::{RequestError, chain};
use crate::kernel::Kernel;

/// The kubelet's annotations by which a test or a demo steers a Pod; `kubelet_status` obeys them.
pub mod annotations {
    /// `"false"` on a Pod: its containers fail their readiness probe.
    pub const READY: &str = "sandbox.svcdiag.dev/ready";
    /// `"false"` on a Pod: the Pod is not ready although its containers are, for no stated reason.
    pub const POD_READY: &str = "sandbox.svcdiag.dev/pod-ready";
    /// A number on a Pod: how often its containers were restarted before.
    pub const RESTARTS: &str = "sandbox.svcdiag.dev/restarts";
    /// A number on a Pod: how many seconds ago the last of these restarts was. Default: 0.
    pub const RESTARTED_SECONDS_AGO: &str = "sandbox.svcdiag.dev/restarted-seconds-ago";
    /// On a Node: what its kube-proxy does, such as `stopped` or `paused`; see the kernel's `kubeproxy`.
    pub const KUBE_PROXY: &str = "sandbox.svcdiag.dev/kube-proxy";
    /// On a Pod: where its process listens, as `tcp://0.0.0.0:9376,udp://[::]:53`; `$POD_IP` is its own address, and
    /// `tcp6` takes no IPv4. Default: on the declared ports.
    pub const LISTEN: &str = "sandbox.svcdiag.dev/listen";
    /// A number on a Pod: status of its process' HTTP answers. Default: 200.
    pub const HTTP_STATUS: &str = "sandbox.svcdiag.dev/http-status";
    /// A number on a Pod: milliseconds that its process waits before it takes a connection. Default: 0.
    pub const ACCEPT_DELAY: &str = "sandbox.svcdiag.dev/accept-delay-milliseconds";
    /// On a Pod: the C library that its process is seen with, `musl` or `glibc`.
    pub const LIBC: &str = "sandbox.svcdiag.dev/libc";
    /// On a Pod: its resolv.conf.
    pub const RESOLV_CONF: &str = "sandbox.svcdiag.dev/resolv-conf";
    /// `"true"` on a Pod: its process serves the cluster's names.
    pub const DNS: &str = "sandbox.svcdiag.dev/dns";
    /// `"none"` on a Pod: the kubelet starts no process for it, since something else stands for it.
    pub const PROCESS: &str = "sandbox.svcdiag.dev/process";
    /// A number on a Pod: how many seconds it takes to end. Default: by the pace.
    pub const STOP_SECONDS: &str = "sandbox.svcdiag.dev/stop-seconds";
    /// `"true"` on a Namespace: its EndpointSlices are no longer updated.
    pub const PAUSE_ENDPOINTS: &str = "sandbox.svcdiag.dev/pause-endpoints";
}

/// After a failed request. Conflicts with a colleague are the usual cause and gone at once.
const RETRY_AFTER: Duration = Duration::from_millis(150);

/// How quickly Pods live: long enough to be seen, short enough for tests.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// From being scheduled to running.
    pub start: Duration,
    /// From running to the first successful readiness probe.
    pub probe: Duration,
    /// From the request to delete to being gone.
    pub stop: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            start: Duration::from_millis(150),
            probe: Duration::from_millis(150),
            stop: Duration::from_millis(300),
        }
    }
}

/// What the controllers need to know.
#[derive(Clone)]
pub struct Options {
    /// How quickly Pods live.
    pub pace: Pace,
    /// Whether Pods get an IPv6 address as well.
    pub dual_stack: bool,
    /// Whether owned objects and namespaces have to be cleaned up here; the embedded server does it itself.
    pub collect_garbage: bool,
    /// Where the processes of Pods run; none do without it.
    pub kernel: Option<Arc<Kernel>>,
}

/// Sets all controllers going.
pub fn spawn(client: &Client, options: &Options, tasks: &mut JoinSet<()>) {
    tasks.spawn(deployment::run(client.clone()));
    tasks.spawn(replicaset::run(client.clone()));
    tasks.spawn(statefulset::run(client.clone()));
    tasks.spawn(scheduler::run(client.clone()));
    tasks.spawn(kubelet::run(client.clone(), options.clone()));
    tasks.spawn(endpointslice::run(client.clone()));
    if options.collect_garbage {
        tasks.spawn(garbage::run(client.clone()));
    }
}

/// What a reconciliation returns.
type Outcome = Result<Action, RequestError>;

/// Nothing to do until something changes.
fn done() -> Outcome {
    Ok(Action::await_change())
}

/// A failed reconciliation is tried again soon.
fn retry<K, C>(_object: Arc<K>, error: &RequestError, _context: Arc<C>) -> Action {
    if error.is_conflict() {
        tracing::trace!(error = %chain(error), "trying again");
    } else {
        tracing::debug!(error = %chain(error), "trying again");
    }
    Action::requeue(RETRY_AFTER)
}

/// Runs a controller's stream to its end, which comes with the task's.
async fn drain<K>(
    name: &'static str,
    stream: impl Stream<Item = Result<(ObjectRef<K>, Action), ControllerError<RequestError, watcher::Error>>>,
) where
    K: Resource + Debug,
    K::DynamicType: Debug + Eq + Hash + Clone,
{
    let mut stream = std::pin::pin!(stream);
    while let Some(result) = stream.next().await {
        if let Err(ControllerError::QueueError(error)) = result {
            tracing::debug!(controller = name, error = %chain(&error), "a watch was interrupted");
        }
    }
}

/// All objects of the kinds we watch.
fn everything() -> watcher::Config {
    watcher::Config::default()
}
