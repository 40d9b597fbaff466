//! Which of several controllers writes: the holder of a Lease, as in client-go's leaderelection and in kubert.
//!
//! Clocks of different machines are never compared: a Lease has lapsed once this process itself has seen it unchanged for
//! its whole duration. Every write to it carries the resourceVersion, so that of two candidates one fails. And because a
//! process may be stopped for any time between a look at the clock and a write, what may be written is decided for each
//! request, right before it is sent ([`Claim::fence`]). What remains: a machine that is suspended as a whole (its clock stands
//! still, too) believes in its claim until it next looks at the Lease, at most two seconds later, and a request that was
//! sent may arrive late; a status carries the resourceVersion that it is based on, so that such a write fails.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Method, Request};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
    client::{Body, ClientBuilder},
};
use parking_lot::Mutex;
use tower::filter::FilterLayer;

use crate::client::routes::Switching;

/// Name of the Lease.
const NAME: &str = "svcdiag-controller";

/// How long a Lease lasts that is not renewed. Others take over within this time and one [`RETRY`].
const LEASE: Duration = Duration::from_secs(10);

/// How long a renewal allows to write: shorter than the Lease, since nobody knows how long a request is on its way.
const VALID: Duration = Duration::from_secs(7);

/// Between two attempts to acquire or to renew.
const RETRY: Duration = Duration::from_secs(2);

/// The same after a renewal has failed while the claim holds, which need not end for one request that took too long.
const RETRY_SOON: Duration = Duration::from_millis(500);

/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(3);

/// Until when this process may write.
#[derive(Debug, Default)]
pub(super) struct Claim(Mutex<Standing>);

#[derive(Clone, Copy, Debug, Default)]
enum Standing {
    #[default]
    None,
    Until(Instant),
    /// There is no election.
    Always,
}

impl Claim {
    /// Without an election.
    pub(super) fn unlimited() -> Self {
        Self(Mutex::new(Standing::Always))
    }

    /// Whether this process may write now.
    pub(super) fn holds(&self) -> bool {
        match *self.0.lock() {
            Standing::None => false,
            Standing::Until(end) => Instant::now() < end,
            Standing::Always => true,
        }
    }

    fn set(&self, standing: Standing) {
        *self.0.lock() = standing;
    }

    /// Lets a request pass unless it would write without a claim.
    pub(super) fn fence(&self, request: Request<Body>) -> Result<Request<Body>, NotLeader> {
        if reads(&request) || self.holds() {
            Ok(request)
        } else {
            Err(NotLeader)
        }
    }
}

/// Whether a request changes nothing: reviews of tokens and access are POSTs that leave no object.
fn reads(request: &Request<Body>) -> bool {
    let path = request.uri().path();
    let is_review = ["/apis/authentication.k8s.io/", "/apis/authorization.k8s.io/"]
        .iter()
        .any(|group| path.starts_with(group));
    *request.method() == Method::GET || is_review
}

/// A write was held back.
#[derive(Debug, thiserror::Error)]
#[error("this controller is not the leader at the moment, so it writes nothing")]
pub(super) struct NotLeader;

/// Why an election ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another controller has taken over.
    #[error("Lease {namespace}/{NAME} was taken over by {holder}, so this controller ends")]
    Lost {
        /// Namespace of the Lease.
        namespace: String,
        /// Who holds it now.
        holder: String,
    },
    /// Somebody has deleted the Lease, so that anybody may have it.
    #[error("Lease {namespace}/{NAME} of the leader was deleted, so this controller ends")]
    Deleted {
        /// Namespace of the Lease.
        namespace: String,
    },
    /// A controller without election found one that runs.
    #[error(
        "another controller is running: {holder} renews Lease {namespace}/{NAME}. Start this one with --leader-elect, too, or stop the other"
    )]
    Another {
        /// Namespace of the Lease.
        namespace: String,
        /// Who holds it.
        holder: String,
    },
    /// The Lease cannot be read or written.
    #[error("could not use Lease {namespace}/{NAME}: {source}")]
    Lease {
        /// Its namespace.
        namespace: String,
        /// The answer.
        #[source]
        source: Box<kube::Error>,
    },
}

/// One candidate.
pub(super) struct Candidate {
    api: Api<Lease>,
    namespace: String,
    identity: String,
    claim: Arc<Claim>,
    /// What the Lease said when it last changed, and when this process saw that.
    seen: Option<(LeaseSpec, Instant)>,
}

/// Whose the Lease is after an attempt.
#[derive(Debug, PartialEq, Eq)]
enum Attempt {
    Ours,
    Theirs(String),
    /// There is none, and this process may not make one.
    Nobodys,
}

impl Candidate {
    /// A candidate with a client that is not fenced.
    pub(super) fn new(client: Client, namespace: &str, identity: String, claim: Arc<Claim>) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            identity,
            claim,
            seen: None,
        }
    }

    /// Waits until the Lease is ours.
    ///
    /// # Errors
    /// When the API server refuses.
    pub(super) async fn acquire(&mut self) -> Result<(), Error> {
        let mut told = None;
        loop {
            match self.attempt(true).await {
                Ok(Attempt::Ours) => {
                    tracing::info!(
                        lease = NAME,
                        identity = self.identity,
                        "This controller is the leader."
                    );
                    return Ok(());
                }
                Ok(Attempt::Nobodys) => {}
                Ok(Attempt::Theirs(holder)) => {
                    if told.as_ref() != Some(&holder) {
                        tracing::info!(
                            lease = NAME,
                            holder,
                            "Another controller is the leader. Standing by."
                        );
                        told = Some(holder);
                    }
                }
                Err(source) => self.may_pass(source)?,
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Renews the Lease until another controller has it. While it cannot be renewed, nothing is written, and as long as
    /// nobody else has taken it, work goes on afterwards.
    pub(super) async fn hold(&mut self) -> Error {
        let mut pause = RETRY;
        loop {
            tokio::time::sleep(std::mem::replace(&mut pause, RETRY)).await;
            let namespace = self.namespace.clone();
            let lost = match self.attempt(false).await {
                Ok(Attempt::Ours) => continue,
                Ok(Attempt::Theirs(holder)) => Error::Lost { namespace, holder },
                Ok(Attempt::Nobodys) => Error::Deleted { namespace },
                Err(error) => {
                    tracing::warn!(%error, "Could not renew the Lease of the leader.");
                    if self.claim.holds() {
                        pause = RETRY_SOON;
                    }
                    continue;
                }
            };
            self.claim.set(Standing::None);
            return lost;
        }
    }

    /// Gives the Lease up, so that nobody has to wait for its end.
    pub(super) async fn release(&mut self) {
        self.claim.set(Standing::None);
        let Ok(Some(mut lease)) = self.get().await else {
            return;
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_ref() == Some(&self.identity) {
            spec.holder_identity = Some(String::new());
            let _ = timely(self.api.replace(NAME, &PostParams::default(), &lease)).await;
        }
    }

    /// Makes sure that no controller with election runs: who renews the Lease is seen within its duration.
    ///
    /// # Errors
    /// When one does.
    pub(super) async fn refuse_beside_another(&mut self) -> Result<(), Error> {
        let first = match self.get().await {
            Ok(lease) => lease.and_then(|lease| lease.spec),
            Err(error) => {
                tracing::warn!(%error, "Could not find out whether another controller runs.");
                None
            }
        };
        let Some(holder) = first.as_ref().and_then(holder) else {
            return Ok(());
        };
        let start = Instant::now();
        while start.elapsed() < LEASE {
            tokio::time::sleep(RETRY).await;
            let now = self.get().await.ok().flatten().and_then(|lease| lease.spec);
            if now.as_ref().is_some_and(|now| holder_of(now) == holder) && now != first {
                return Err(Error::Another {
                    namespace: self.namespace.clone(),
                    holder,
                });
            }
        }
        Ok(())
    }

    /// An outage or a conflict passes; a refusal is told at once.
    fn may_pass(&self, source: kube::Error) -> Result<(), Error> {
        match &source {
            kube::Error::Api(status) if matches!(status.code, 401 | 403) => Err(Error::Lease {
                namespace: self.namespace.clone(),
                source: Box::new(source),
            }),
            _ => {
                tracing::warn!(error = %source, "Could not use the Lease of the leader, will retry.");
                Ok(())
            }
        }
    }

    async fn get(&self) -> kube::Result<Option<Lease>> {
        timely(self.api.get_opt(NAME)).await
    }

    /// Takes or renews the Lease if that is allowed. Only who `may_take` takes one that is not theirs.
    async fn attempt(&mut self, may_take: bool) -> kube::Result<Attempt> {
        let started = Instant::now();
        let found = self.get().await?;
        let Some(mut lease) = found else {
            if !may_take {
                return Ok(Attempt::Nobodys);
            }
            let new = Lease {
                metadata: ObjectMeta {
                    name: Some(NAME.to_owned()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.renewed(None)),
            };
            let created = timely(self.api.create(&PostParams::default(), &new)).await;
            return self.settle(created, started);
        };
        let spec = lease.spec.take().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(before, _)| *before != spec) {
            self.seen = Some((spec.clone(), Instant::now()));
        }
        let is_ours = holder(&spec).as_ref() == Some(&self.identity);
        let has_lapsed = self.seen.as_ref().is_some_and(|(_, at)| at.elapsed() > LEASE);
        let is_free = holder(&spec).is_none() || has_lapsed;
        let may_write = is_ours || may_take && is_free;
        if !may_write {
            return Ok(Attempt::Theirs(holder_of(&spec)));
        }
        lease.spec = Some(self.renewed(Some(&spec)));
        let replaced = timely(self.api.replace(NAME, &PostParams::default(), &lease)).await;
        self.settle(replaced, started)
    }

    /// After a write: a conflict means that somebody else was faster.
    fn settle(&mut self, written: kube::Result<Lease>, started: Instant) -> kube::Result<Attempt> {
        match written {
            Ok(lease) => {
                self.seen = lease.spec.map(|spec| (spec, Instant::now()));
                // Before it was sent: how long the answer took says nothing of when it took effect.
                self.claim.set(Standing::Until(started + VALID));
                Ok(Attempt::Ours)
            }
            Err(error) => Err(error),
        }
    }

    fn renewed(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(crate::clock::now());
        let goes_on = before.is_some_and(|spec| holder(spec).as_ref() == Some(&self.identity));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE.as_secs()).ok(),
            renew_time: Some(now.clone()),
            acquire_time: match before.and_then(|spec| spec.acquire_time.clone()) {
                Some(time) if goes_on => Some(time),
                _ => Some(now),
            },
            lease_transitions: Some(if goes_on || before.is_none() {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..LeaseSpec::default()
        }
    }
}

/// A client that writes only while the claim holds.
pub(super) fn fenced(builder: ClientBuilder<Switching>, claim: &Arc<Claim>) -> Client {
    let claim = claim.clone();
    let fence = FilterLayer::new(move |request| claim.fence(request));
    builder.with_layer(&fence).build()
}

/// The name by which this process is a candidate: that of its Pod, which outlives restarts of the container, or else of the
/// machine and the process.
pub(super) fn identity() -> String {
    std::env::var("POD_NAME").unwrap_or_else(|_| outside_of_a_pod())
}

fn outside_of_a_pod() -> String {
    let host = hostname::get().unwrap_or_default();
    format!("{}_{}", host.display(), std::process::id())
}

/// Who holds a Lease; nobody once it was released.
fn holder(spec: &LeaseSpec) -> Option<String> {
    spec.holder_identity.clone().filter(|holder| !holder.is_empty())
}

fn holder_of(spec: &LeaseSpec) -> String {
    holder(spec).unwrap_or_else(|| "nobody".to_owned())
}

/// A request that is given up after some seconds.
async fn timely<T>(request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(answer) => answer,
        Err(elapsed) => Err(kube::Error::Service(Box::new(elapsed))),
    }
}

#[cfg(test)]
mod tests;
