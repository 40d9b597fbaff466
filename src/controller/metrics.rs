//! Metrics for Prometheus.

use std::{collections::HashMap, sync::atomic::AtomicU64, time::Duration};

use parking_lot::Mutex;
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

use crate::{api::Reason, engine::NodeLoss, inventory::DiagnosisKey, version::Build};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfDiagnosis {
    namespace: String,
    name: String,
    reason: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfPath {
    namespace: String,
    name: String,
    node: String,
    path: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfKind {
    kind: String,
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
    ready: Family<OfDiagnosis, Gauge>,
    /// The series of each diagnosis, to be removed when its reason changes or it is deleted.
    series: Mutex<HashMap<DiagnosisKey, OfDiagnosis>>,
    path_loss: Family<OfPath, Gauge<f64, AtomicU64>>,
    /// The series of the paths of each diagnosis, of which only those with losses have one.
    lossy_paths: Mutex<HashMap<DiagnosisKey, Vec<OfPath>>>,
    reconciles: Family<OfOutcome, Counter>,
    duration: Histogram,
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
        let mut registry = Registry::with_prefix("svcdiag");
        let build = Info::new(OfBuild::from(Build::this()));
        registry.register(
            "build",
            "Which build of svcdiag this is, as `svcdiag version` prints it",
            build,
        );
        let ready = Family::default();
        registry.register("ready", "Whether the Service of a ServiceDiagnosis works: 1 if Ready is True, otherwise 0; reason is the reason of Ready", ready.clone());
        let path_loss = Family::default();
        registry.register("path_loss_ratio", "Share of TCP connections that needed a second SYN (path SameNode, OtherNode, Service) or of DNS questions without an answer (path DNS), of those clients of a node (Pods, or the node itself) that lose packets, when its agent last reported; absent where less than one of fifty is lost", path_loss.clone());
        let reconciles = Family::default();
        registry.register("reconciles", "Reconciliations, by outcome", reconciles.clone());
        // From a tenth of a millisecond, the time of a diagnosis, to some seconds, the time of a slow API server.
        let duration = Histogram::new(exponential_buckets(0.0001, 4.0, 9));
        registry.register_with_unit(
            "reconcile_duration",
            "Duration of a reconciliation",
            Unit::Seconds,
            duration.clone(),
        );
        let writes = Counter::<u64, AtomicU64>::default();
        registry.register("status_writes", "Writes of a status", writes.clone());
        let unparsable = Family::default();
        registry.register(
            "unparsable_objects",
            "Objects that could not be parsed, by kind",
            unparsable.clone(),
        );
        let watch_errors = Family::default();
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
            registry,
            ready,
            series: Mutex::default(),
            path_loss,
            lossy_paths: Mutex::default(),
            reconciles,
            duration,
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

    pub(super) fn ready(&self, namespace: &str, name: &str, is_true: bool, reason: Reason) {
        let labels = OfDiagnosis {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            reason: reason.to_string(),
        };
        let key = (namespace.to_owned(), name.to_owned());
        let mut series = self.series.lock();
        if let Some(old) = series.insert(key, labels.clone()).filter(|old| *old != labels) {
            self.ready.remove(&old);
        }
        self.ready.get_or_create(&labels).set(i64::from(is_true));
    }

    /// Notes what is lost at times for a diagnosis; series of paths that lose nothing any more are removed.
    pub(super) fn path_losses(&self, namespace: &str, name: &str, losses: &[NodeLoss]) {
        let labels = |loss: &NodeLoss| OfPath {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            node: loss.node.clone(),
            path: loss.path.as_str(),
        };
        let key = (namespace.to_owned(), name.to_owned());
        let now: Vec<OfPath> = losses.iter().map(labels).collect();
        let mut series = self.lossy_paths.lock();
        for old in series.remove(&key).unwrap_or_default() {
            if !now.contains(&old) {
                self.path_loss.remove(&old);
            }
        }
        for (labels, loss) in now.iter().zip(losses) {
            self.path_loss.get_or_create(labels).set(ratio(loss));
        }
        if !now.is_empty() {
            series.insert(key, now);
        }
    }

    /// Removes the series of a deleted diagnosis.
    pub(super) fn forget(&self, namespace: &str, name: &str) {
        self.path_losses(namespace, name, &[]);
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(old) = self.series.lock().remove(&key) {
            self.ready.remove(&old);
        }
    }

    pub(super) fn status_written(&self) {
        self.writes.inc();
    }

    pub(super) fn unparsable(&self, kind: &str) {
        self.unparsable
            .get_or_create(&OfKind {
                kind: kind.to_owned(),
            })
            .inc();
    }

    pub(super) fn watch_error(&self, kind: &str) {
        self.watch_errors
            .get_or_create(&OfKind {
                kind: kind.to_owned(),
            })
            .inc();
    }

    pub(super) fn watch_denied(&self, kind: &str, is_denied: bool) {
        let kind = OfKind {
            kind: kind.to_owned(),
        };
        self.watch_denied.get_or_create(&kind).set(i64::from(is_denied));
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

fn ratio(loss: &NodeLoss) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of a few thousand at most")]
    let ratio = loss.lost as f64 / loss.tries.max(1) as f64;
    ratio
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::LossyPath;

    /// The series of lossy paths.
    fn path_losses(metrics: &Metrics) -> Vec<String> {
        let text = metrics.text().unwrap();
        let lines = text
            .lines()
            .filter(|line| line.starts_with("svcdiag_path_loss_ratio{"));
        let mut lines: Vec<String> = lines.map(str::to_owned).collect();
        lines.sort();
        lines
    }

    #[test]
    fn only_paths_that_lose_packets_have_a_series_until_they_lose_none() {
        let loss = |node: &str, path, lost| NodeLoss {
            node: node.to_owned(),
            path,
            tries: 240,
            lost,
        };
        let metrics = Metrics::new();
        assert_eq!(path_losses(&metrics), [""; 0]);
        let two = [
            loss("n1", LossyPath::DNS, 12),
            loss("n2", LossyPath::OtherNode, 60),
        ];
        metrics.path_losses("shop", "web", &two);
        metrics.path_losses("shop", "db", &two[..1]);
        let of = |name: &str, node: &str, path: &str, ratio: &str| {
            format!(
                "svcdiag_path_loss_ratio{{namespace=\"shop\",name=\"{name}\",node=\"{node}\",path=\"{path}\"}} {ratio}"
            )
        };
        let db = of("db", "n1", "DNS", "0.05");
        let expected = [
            db.clone(),
            of("web", "n1", "DNS", "0.05"),
            of("web", "n2", "OtherNode", "0.25"),
        ];
        assert_eq!(path_losses(&metrics), expected);
        metrics.path_losses("shop", "web", &[loss("n2", LossyPath::OtherNode, 120)]);
        assert_eq!(
            path_losses(&metrics),
            [db.clone(), of("web", "n2", "OtherNode", "0.5")]
        );
        metrics.forget("shop", "web");
        assert_eq!(path_losses(&metrics), [db]);
        metrics.path_losses("shop", "db", &[]);
        assert_eq!(path_losses(&metrics), [""; 0]);
        assert!(metrics.lossy_paths.lock().is_empty());
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
