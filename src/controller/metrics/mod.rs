//! Metrics for Prometheus.

mod diagnoses;
#[cfg(target_os = "linux")]
mod process;
mod requests;

use std::{
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

pub(super) use self::{
    diagnoses::Reported,
    requests::{Requests, counted},
};
use crate::{engine::Diagnosis, version::Build};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfKind {
    kind: String,
}

impl OfKind {
    fn new(kind: &str) -> Self {
        Self {
            kind: kind.to_owned(),
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfOutcome {
    outcome: Outcome,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfBuild {
    version: String,
    git_commit: String,
    build_date: String,
    rust_version: String,
    platform: String,
}

impl From<Build> for OfBuild {
    fn from(build: Build) -> Self {
        Self {
            version: build.version,
            git_commit: build.git_commit,
            build_date: build.build_date,
            rust_version: build.rust_version,
            platform: build.platform,
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfAgents {
    state: &'static str,
}

/// Outcome of a reconciliation.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub(super) enum Outcome {
    /// A status was written.
    Written,
    /// There was nothing new to write.
    Unchanged,
    /// The status could not be written.
    Failed,
}

/// All metrics.
pub(super) struct Metrics {
    registry: Registry,
    seen: diagnoses::Diagnoses,
    agents: Family<OfAgents, Gauge>,
    requests: Requests,
    waiting: Gauge<i64>,
    waited: Histogram,
    reconciles: Family<OfOutcome, Counter>,
    duration: Histogram,
    verdict_duration: Histogram,
    writes: Counter,
    unparsable: Family<OfKind, Counter>,
    watch_errors: Family<OfKind, Counter>,
    watch_denied: Family<OfKind, Gauge>,
    probe_writes: Counter,
    diagnoses: Gauge<i64>,
    fields_missing: Gauge<i64>,
    leader: Gauge<i64>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut all = Registry::default();
        #[cfg(target_os = "linux")]
        all.sub_registry_with_prefix("process")
            .register_collector(Box::new(process::Process));
        let registry = all.sub_registry_with_prefix("svcdiag");
        let build = Info::new(OfBuild::from(Build::this()));
        registry.register(
            "build",
            "Which build of svcdiag this is, as `svcdiag version` prints it",
            build,
        );
        let seen = diagnoses::Diagnoses::default();
        registry.register_collector(Box::new(seen.clone()));
        let agents = Family::default();
        registry.register(
            "agents",
            "Node agents with a Lease, by state: Reporting, or Silent if the Lease has lapsed; 0 for a standby",
            agents.clone(),
        );
        let requests = Requests::default();
        registry.register(
            "api_requests",
            "Requests to the API server, by verb (GET is also a list) and code; code <error> is no answer",
            requests.clone(),
        );
        let waiting = Gauge::default();
        registry.register(
            "queue_depth",
            "Diagnoses that wait for a reconciliation",
            waiting.clone(),
        );
        // From a millisecond to some minutes, the time that a slow API server makes thousands wait.
        let waited = Histogram::new(exponential_buckets(0.001, 4.0, 10));
        registry.register_with_unit(
            "queue_wait",
            "How long a diagnosis waited for its reconciliation",
            Unit::Seconds,
            waited.clone(),
        );
        let reconciles = Family::<OfOutcome, Counter>::default();
        registry.register("reconciles", "Reconciliations, by outcome", reconciles.clone());
        // From the start, so that the first failure is an increase.
        for outcome in [Outcome::Written, Outcome::Unchanged, Outcome::Failed] {
            drop(reconciles.get_or_create(&OfOutcome { outcome }));
        }
        // From a tenth of a millisecond, the time of a diagnosis, to some seconds, the time of a slow API server.
        let duration = Histogram::new(exponential_buckets(0.0001, 4.0, 9));
        registry.register_with_unit(
            "reconcile_duration",
            "Duration of a reconciliation",
            Unit::Seconds,
            duration.clone(),
        );
        // From a tenth of a millisecond to that of a Namespace with thousands of Pods.
        let verdict_duration = Histogram::new(exponential_buckets(0.0001, 2.0, 10));
        registry.register_with_unit(
            "verdict_duration",
            "Duration of a verdict: facts, questions to the agents and diagnosis, without requests to the API server",
            Unit::Seconds,
            verdict_duration.clone(),
        );
        let writes = Counter::<u64, AtomicU64>::default();
        registry.register("status_writes", "Writes of a status", writes.clone());
        let unparsable = Family::<OfKind, Counter>::default();
        registry.register(
            "unparsable_objects",
            "Objects that could not be parsed, by kind",
            unparsable.clone(),
        );
        let watch_errors = Family::<OfKind, Counter>::default();
        registry.register(
            "watch_errors",
            "Interrupted watches, by kind",
            watch_errors.clone(),
        );
        let watch_denied = Family::default();
        registry.register(
            "watch_denied",
            "Whether an optional kind cannot be watched, because the permission is missing or the kind is not served, by kind: 1 if so; without Node, Lease or NodeProbe the data path is not checked",
            watch_denied.clone(),
        );
        let probe_writes = Counter::<u64, AtomicU64>::default();
        registry.register(
            "node_probe_writes",
            "NodeProbes written and deleted",
            probe_writes.clone(),
        );
        let diagnoses = Gauge::default();
        registry.register("diagnoses", "ServiceDiagnosis objects", diagnoses.clone());
        let fields_missing = Gauge::default();
        registry.register(
            "crd_fields_missing",
            "Fields and values that the installed CRDs lack and that are therefore omitted from what is written",
            fields_missing.clone(),
        );
        let leader = Gauge::default();
        registry.register(
            "leader",
            "Whether this controller is the leader, which alone writes: 1 if so, and without --leader-elect",
            leader.clone(),
        );
        Self {
            registry: all,
            seen,
            agents,
            requests,
            waiting,
            waited,
            reconciles,
            duration,
            verdict_duration,
            writes,
            unparsable,
            watch_errors,
            watch_denied,
            probe_writes,
            diagnoses,
            fields_missing,
            leader,
        }
    }

    pub(super) fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// All metrics in the text format of OpenMetrics.
    pub(super) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    pub(super) fn reconciled(&self, outcome: Outcome, took: Duration) {
        self.reconciles.get_or_create(&OfOutcome { outcome }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    pub(super) fn verdict_took(&self, time: Duration) {
        self.verdict_duration.observe(time.as_secs_f64());
    }

    /// What was seen of a diagnosis.
    pub(super) fn judged(
        &self,
        namespace: &str,
        name: &str,
        service: &str,
        verdict: &Diagnosis,
        reported: Reported,
    ) {
        let key = (namespace.to_owned(), name.to_owned());
        self.seen.note(key, service, verdict, reported);
    }

    /// Removes the series of a deleted diagnosis.
    pub(super) fn forget(&self, namespace: &str, name: &str) {
        self.seen.forget(&(namespace.to_owned(), name.to_owned()));
    }

    /// The counter of the client's requests.
    pub(super) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// A diagnosis waits for its reconciliation from now on, until what is returned is dropped.
    pub(super) fn waits(&self) -> Waiting {
        self.waiting.inc();
        Waiting {
            since: Instant::now(),
            depth: self.waiting.clone(),
            waited: self.waited.clone(),
        }
    }

    /// How many agents report, and how many have fallen silent.
    pub(super) fn agents(&self, reporting: usize, silent: usize) {
        for (state, count) in [("Reporting", reporting), ("Silent", silent)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.agents.get_or_create(&OfAgents { state }).set(count);
        }
    }

    pub(super) fn status_written(&self) {
        self.writes.inc();
    }

    /// A kind is watched from now on: its counters are there before anything happens.
    pub(super) fn watches(&self, kind: &str) {
        let kind = OfKind::new(kind);
        drop(self.watch_errors.get_or_create(&kind));
        drop(self.unparsable.get_or_create(&kind));
    }

    pub(super) fn unparsable(&self, kind: &str) {
        self.unparsable.get_or_create(&OfKind::new(kind)).inc();
    }

    pub(super) fn watch_error(&self, kind: &str) {
        self.watch_errors.get_or_create(&OfKind::new(kind)).inc();
    }

    pub(super) fn watch_denied(&self, kind: &str, is_denied: bool) {
        let denied = self.watch_denied.get_or_create(&OfKind::new(kind));
        denied.set(i64::from(is_denied));
    }

    pub(super) fn node_probe_written(&self) {
        self.probe_writes.inc();
    }

    pub(super) fn diagnoses(&self, count: usize) {
        self.diagnoses.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(super) fn fields_missing(&self, count: usize) {
        self.fields_missing.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// A diagnosis that waits.
pub(super) struct Waiting {
    since: Instant,
    depth: Gauge<i64>,
    waited: Histogram,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.depth.dec();
        self.waited.observe(self.since.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_happened_yet_is_0_and_who_waits_is_counted_until_it_does_not() {
        let metrics = Metrics::new();
        let has = |line: &str| {
            let text = metrics.text().unwrap();
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        };
        has("svcdiag_reconciles_total{outcome=\"Failed\"} 0");
        has("svcdiag_queue_depth 0");
        let waiting = metrics.waits();
        has("svcdiag_queue_depth 1");
        drop(waiting);
        has("svcdiag_queue_depth 0");
        has("svcdiag_queue_wait_seconds_count 1");
        metrics.agents(3, 1);
        has("svcdiag_agents{state=\"Silent\"} 1");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_process_has_the_usual_names() {
        let text = Metrics::new().text().unwrap();
        for name in [
            "process_cpu_seconds_total",
            "process_start_time_seconds",
            "process_resident_memory_bytes",
            "process_virtual_memory_bytes",
            "process_threads",
            "process_open_fds",
            "process_max_fds",
        ] {
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(&format!("{name} ")));
            let value: f64 = value.unwrap_or_else(|| panic!("{name}\n{text}")).parse().unwrap();
            assert!(
                value > 0.0 || name == "process_cpu_seconds_total",
                "{name} {value}"
            );
        }
    }

    #[test]
    fn the_build_is_what_version_prints() {
        let Build {
            version,
            git_commit,
            build_date,
            rust_version,
            platform,
        } = Build::this();
        let line = format!(
            "svcdiag_build_info{{version=\"{version}\",git_commit=\"{git_commit}\",build_date=\"{build_date}\",rust_version=\"{rust_version}\",platform=\"{platform}\"}} 1\n"
        );
        let text = Metrics::new().text().unwrap();
        assert!(text.contains(&line), "{line}{text}");
    }
}
