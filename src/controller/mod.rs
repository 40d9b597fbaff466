//! The controller: keeps the status of every ServiceDiagnosis up to date.
//!
//! Data flow: `watch` puts a change into the [`Inventory`], which names the diagnoses that it affects. These are queued.
//! `reconcile` builds the Facts of one and diagnoses them, and `status` writes the result if more than times has changed.
//! `schedule` decides when to reconcile again, `lapses` notices agents that fall silent, `probes` applies the planned
//! NodeProbes, and `apiserver` publishes the addresses of the API server for the agents and for the controller's own client.
//! `pod_events` and `policy_kinds` gather what is not needed as whole objects. `events`, `open_reports`, `metrics` and `server`
//! report to the outside; `auto` creates diagnoses for labelled Namespaces. `election` decides which of several controllers
//! works, and lets no other one write.

mod apiserver;
mod auto;
mod changes;
mod election;
mod events;
mod lapses;
mod limits;
mod metrics;
mod open_reports;
mod pod_events;
mod policy_kinds;
mod presence;
mod probes;
mod queue;
mod readers;
mod reconcile;
mod schedule;
mod schemas;
mod server;
mod serving;
mod slots;
mod status;
mod watch;

use std::{future::Future, net::SocketAddr, sync::Arc};

use clap::Args;
use futures::{FutureExt, StreamExt};
use kube::{
    Client,
    runtime::{
        controller::{self, Action},
        reflector::{self, ObjectRef, Store},
    },
};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::Notify;

use crate::{
    api::{DataPath, ServiceDiagnosis},
    client::routes::{self, Fallbacks, Routes},
    inventory::{DiagnosisKey, Inventory},
    objects::Object,
};
use metrics::Metrics;

/// Flags of `svcdiag controller`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
Examples:
  # In the cluster, or against the cluster of the current kubeconfig
  svcdiag controller

  # Agents in another namespace (the admission policies of config/agent name it as well)
  svcdiag controller --agent-namespace diagnostics

  # For a single namespace, with metrics on loopback
  svcdiag controller --namespace shop --listen 127.0.0.1:8080")]
pub struct Options {
    /// Address of /healthz and /readyz, and of /metrics unless --metrics-listen is set
    #[arg(long, env = "SVCDIAG_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,

    /// Address of /metrics [default: that of --listen]
    #[arg(long, env = "SVCDIAG_METRICS_LISTEN", value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,

    /// Serve /metrics only to clients that the API server authorizes (TokenReview, SubjectAccessReview)
    #[arg(long, env = "SVCDIAG_METRICS_AUTH")]
    metrics_auth: bool,

    /// Watch only this namespace [default: all]
    #[arg(short, long, env = "SVCDIAG_NAMESPACE")]
    namespace: Option<String>,

    /// Namespace of the agents: of their Leases, and of the ConfigMap with the addresses of the API server
    #[arg(
        long,
        env = "SVCDIAG_AGENT_NAMESPACE",
        default_value = "svcdiag-system",
        value_name = "NAMESPACE"
    )]
    agent_namespace: String,

    /// Number of diagnoses that are reconciled concurrently
    #[arg(long, env = "SVCDIAG_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: u16,

    /// Minimum pause between two rounds of probes; a smaller spec.intervalSeconds is raised to it
    #[arg(
        long,
        env = "SVCDIAG_MIN_INTERVAL",
        value_name = "SECONDS",
        default_value_t = 10
    )]
    min_interval: u32,

    /// Minimum pause between changes of what agents are asked for a diagnosis because its endpoints, spec or
    /// svcdiag.dev/refresh changed, after the first three changes; 0 for none
    #[arg(
        long,
        env = "SVCDIAG_MIN_PROBE_INTERVAL",
        value_name = "SECONDS",
        default_value_t = 10
    )]
    min_probe_interval: u32,

    /// Maximum number of nodes in the sample; a larger spec.nodes.maxNodes is reduced to it
    #[arg(long, env = "SVCDIAG_MAX_NODES", default_value_t = 10)]
    max_nodes: u32,

    /// Maximum number of diagnoses per namespace, oldest first; 0 for no limit
    #[arg(long, env = "SVCDIAG_MAX_DIAGNOSES_PER_NAMESPACE", default_value_t = 200)]
    max_diagnoses_per_namespace: usize,

    /// Maximum number of NodeProbes for all diagnoses of a namespace; 0 for no limit
    #[arg(long, env = "SVCDIAG_MAX_NODE_PROBES_PER_NAMESPACE", default_value_t = 500)]
    max_node_probes_per_namespace: usize,

    /// Maximum duration of a dial including all attempts; a larger spec.probe is reduced to it; 0 for no limit
    #[arg(
        long,
        env = "SVCDIAG_MAX_PROBE_SECONDS",
        value_name = "SECONDS",
        default_value_t = 30
    )]
    max_probe_seconds: u32,

    /// Elect a leader among several controllers, which alone writes; the others stand by. The Lease svcdiag-controller is in
    /// the namespace of the Pod, or else of the kubeconfig's context
    #[arg(long, env = "SVCDIAG_LEADER_ELECT")]
    leader_elect: bool,

    /// What Ready needs of node agents where spec.dataPath does not say: Required, IfAvailable or Ignore
    #[arg(
        long,
        env = "SVCDIAG_DATA_PATH",
        value_name = "MODE",
        default_value_t = DataPath::Required,
        value_parser = data_path
    )]
    data_path: DataPath,

    /// Name objects of other namespaces in messages: a Service of the same name, Pods that the selector would match,
    /// or the Service whose address is an endpoint
    #[arg(long, env = "SVCDIAG_NAME_OTHER_NAMESPACES")]
    name_other_namespaces: bool,

    /// Write each verdict as a Report of OpenReports (openreports.io/v1alpha1) as well. Needs its CRDs, and the permission
    /// to write Reports
    #[arg(long, env = "SVCDIAG_OPEN_REPORTS")]
    open_reports: bool,
}

fn data_path(argument: &str) -> Result<DataPath, String> {
    let names: Vec<&str> = DataPath::ALL.iter().map(|mode| mode.as_str()).collect();
    argument
        .parse()
        .map_err(|_| format!("use one of {}", names.join(", ")))
}

/// Why the controller could not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client could not be made from the configuration.
    #[error("could not create a client for the cluster: {0}")]
    Client(#[source] Box<kube::Error>),
    /// This controller may not write.
    #[error(transparent)]
    Election(#[from] election::Error),
    /// The HTTP server cannot listen on its address.
    #[error("could not listen on {address}: {source}; choose another address with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error of the system.
        #[source]
        source: std::io::Error,
    },
}

/// State that all parts share.
struct Context {
    client: Client,
    /// Whether this controller is the leader.
    claim: Arc<election::Claim>,
    options: Options,
    inventory: RwLock<Inventory>,
    metrics: Metrics,
    diagnoses: Store<ServiceDiagnosis>,
    slots: slots::Slots,
    readiness: queue::Readiness,
    crowd: queue::Crowd,
    written: status::Statuses,
    reports: open_reports::Reports,
    failures: schedule::Failures,
    unanswered: schedule::Unanswered,
    /// Rate limits for changes of NodeProbes.
    questions: limits::Questions,
    /// What agents are asked to look at again.
    second_looks: limits::Questions,
    readers: readers::Readers,
    allowance: limits::Allowance,
    installed: schemas::Installed,
    events: events::Events,
    /// Wakes `auto` when Services, Namespaces or diagnoses have changed.
    auto: Notify,
    /// Wakes `watch` when an agent appears or disappears, or its node has changed.
    agents: Notify,
}

impl Context {
    /// Reads the inventory. A writer that panicked has at worst left an old object.
    fn inventory(&self) -> RwLockReadGuard<'_, Inventory> {
        self.inventory.read()
    }

    /// The same for a change that is observed now.
    fn inventory_mut(&self) -> RwLockWriteGuard<'_, Inventory> {
        let mut inventory = self.inventory.write();
        inventory.observe_at(crate::clock::now());
        inventory
    }
}

/// Diagnoses waiting for a reconciliation. The scheduler behind it takes them at once and deduplicates them, so a short
/// queue is enough; a full one slows the watches down, which is intended.
const QUEUE: usize = 1024;

type Queue = futures::channel::mpsc::Sender<ObjectRef<ServiceDiagnosis>>;

/// Runs until `shutdown`, then finishes what is in progress.
///
/// # Errors
/// When the HTTP server cannot be started, or another controller is or becomes the leader.
pub async fn run(
    options: Options,
    config: kube::Config,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let elects = options.leader_elect;
    let claim = Arc::new(match elects {
        true => election::Claim::default(),
        false => election::Claim::unlimited(),
    });
    let metrics = Metrics::new();
    let (clients, keep_open) = clients(config, &claim, metrics.requests())?;
    let Clients {
        fenced: client,
        mut candidate,
        addresses,
    } = clients;
    let (queue, requests) = futures::channel::mpsc::channel(QUEUE);
    let (store, writer) = reflector::store::<ServiceDiagnosis>();
    let context = Arc::new(Context {
        events: events::Events::new(client.clone()),
        client,
        claim,
        slots: slots::Slots::new(options.concurrency),
        options,
        diagnoses: store.clone(),
        inventory: RwLock::default(),
        metrics,
        readiness: queue::Readiness::default(),
        crowd: queue::Crowd::default(),
        written: status::Statuses::default(),
        reports: open_reports::Reports::default(),
        failures: schedule::Failures::default(),
        unanswered: schedule::Unanswered::default(),
        questions: limits::Questions::default(),
        second_looks: limits::Questions::default(),
        readers: readers::Readers::default(),
        allowance: limits::Allowance::default(),
        installed: schemas::Installed::default(),
        auto: Notify::new(),
        agents: Notify::new(),
    });
    let server = server::bind(context.clone()).await?;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(server);
    tasks.spawn(keep_open);
    let shutdown = shutdown.shared();
    if elects {
        tokio::select! {
            acquired = candidate.acquire() => acquired?,
            () = shutdown.clone() => return stopped(),
        }
    } else {
        tokio::select! {
            alone = candidate.refuse_beside_another() => alone?,
            () = shutdown.clone() => return stopped(),
        }
    }
    tasks.spawn(auto::run(context.clone()));
    tasks.spawn(apiserver::run(context.clone(), addresses));
    tasks.spawn(policy_kinds::run(context.clone(), queue.clone()));
    tasks.spawn(schemas::run(context.clone(), queue.clone()));
    tasks.spawn(lapses::run(context.clone(), queue.clone()));
    tasks.spawn(queue::admit_crowd(context.clone(), queue.clone()));
    watch::spawn(&mut tasks, &context, &queue, writer);
    drop(queue);

    let stopping = context.clone();
    let requests = requests
        .map(Ok::<_, std::convert::Infallible>)
        .take_until(async move {
            shutdown.await;
            stopping.slots.close();
        });
    tracing::info!("The controller is starting.");
    let work = controller::applier(
        |diagnosis, context| Box::pin(reconcile::in_turn(diagnosis, context)),
        |diagnosis: Arc<ServiceDiagnosis>, error: &reconcile::Error, context: Arc<Context>| {
            let uid = diagnosis.metadata.uid.as_deref().unwrap_or_default();
            if let Some(refusal) = error.api() {
                context.installed.doubt(refusal);
            }
            let wait = context.failures.next(uid, error.is_outage());
            tracing::warn!(
                namespace = diagnosis.namespace(),
                name = diagnosis.name(),
                wait_seconds = wait.as_secs(),
                "Could not update a diagnosis, will retry: {error}."
            );
            Action::requeue(wait)
        },
        context,
        store,
        requests,
        // `slots` limits how many run at once.
        controller::Config::default(),
    )
    .for_each(|result| async move {
        // Errors of a diagnosis have been logged; a deleted diagnosis is not an error.
        if let Err(error) = result {
            tracing::debug!(%error, "A reconciliation ended early.");
        }
    });
    tokio::select! {
        () = work => {}
        // What is in progress is dropped: it could not write any more.
        lost = candidate.hold(), if elects => return Err(lost.into()),
    }
    tasks.shutdown().await;
    if elects {
        candidate.release().await;
    }
    stopped()
}

fn stopped() -> Result<(), Error> {
    tracing::info!("The controller has stopped.");
    Ok(())
}

/// What the controller reaches the API server with.
struct Clients {
    /// Writes only while the claim holds.
    fenced: Client,
    candidate: election::Candidate,
    /// Takes the API server's own addresses, for when its Service does not work on this node.
    addresses: tokio::sync::watch::Sender<String>,
}

/// The clients, and the task that keeps looking for a working route.
fn clients(
    config: kube::Config,
    claim: &Arc<election::Claim>,
    requests: &metrics::Requests,
) -> Result<(Clients, impl Future<Output = ()> + Send + use<>), Error> {
    let namespace = config.default_namespace.clone();
    let (addresses, learned) = tokio::sync::watch::channel(String::new());
    let host = std::env::var("KUBERNETES_SERVICE_HOST").ok();
    let fallbacks = match apiserver::is_its_service(&config.cluster_url, host.as_deref()) {
        true => Fallbacks::Learned(learned),
        false => Fallbacks::None,
    };
    let routes = Routes::new(config, fallbacks);
    let opened = routes::access(routes, routes::Pace::default());
    let (access, keep_open) = opened.map_err(|e| Error::Client(Box::new(e)))?;
    let counted = || metrics::counted(access.switching(&namespace), requests);
    let of_election = counted().build();
    let clients = Clients {
        fenced: election::fenced(counted(), claim),
        candidate: election::Candidate::new(of_election, &namespace, election::identity(), claim.clone()),
        addresses,
    };
    Ok((clients, keep_open))
}

/// A reference by which a diagnosis is queued.
fn reference(key: &DiagnosisKey) -> ObjectRef<ServiceDiagnosis> {
    ObjectRef::new(&key.1).within(&key.0)
}
