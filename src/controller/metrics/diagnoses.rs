//! What is known of each diagnosis, as series that exist for as long as the diagnosis does.
//!
//! Series are made when somebody asks, from what was noted last, so that none outlives what it is about. A diagnosis whose
//! Service works has four; those of conditions and dials that are not well come and go.

use std::{collections::BTreeMap, fmt, sync::Arc};

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};

use crate::{
    api::{Answer, ConditionStatus, NodeFacts},
    engine::{Diagnosis, NodeLoss},
    inventory::DiagnosisKey,
};

/// What was seen last of one diagnosis.
#[derive(Debug)]
struct Seen {
    service: String,
    ready: (ConditionStatus, &'static str),
    /// Stages that are False or Unknown.
    conditions: Vec<(&'static str, ConditionStatus)>,
    losses: Vec<NodeLoss>,
    dials: BTreeMap<&'static str, u64>,
    drops: BTreeMap<&'static str, u64>,
}

/// What agents reported, in numbers.
#[derive(Debug, Default, PartialEq)]
pub(in crate::controller) struct Reported {
    /// Dials by how they ended.
    dials: BTreeMap<&'static str, u64>,
    /// Dropped packets by why.
    drops: BTreeMap<&'static str, u64>,
}

impl Reported {
    /// The sums of what some agents report.
    pub(in crate::controller) fn of<'a>(reports: impl Iterator<Item = &'a NodeFacts>) -> Self {
        let mut all = Self::default();
        for facts in reports {
            for count in &facts.dials {
                let reached = count.made.saturating_sub(count.failed);
                if reached > 0 {
                    *all.dials.entry(Answer::Accepted.as_str()).or_default() += u64::from(reached);
                }
            }
            for failure in &facts.failures {
                *all.dials.entry(failure.outcome().as_str()).or_default() += 1;
            }
            for drop in &facts.drops {
                *all.drops.entry(drop.cause.as_str()).or_default() += u64::from(drop.packets);
            }
        }
        all
    }
}

/// What was seen last of every diagnosis.
#[derive(Clone, Debug, Default)]
pub(super) struct Diagnoses(Arc<Mutex<BTreeMap<DiagnosisKey, Seen>>>);

impl Diagnoses {
    pub(super) fn note(&self, key: DiagnosisKey, service: &str, verdict: &Diagnosis, reported: Reported) {
        let stages = verdict.stages.iter();
        let stages = stages.map(|(stage, finding)| (stage.as_str(), finding.status()));
        let seen = Seen {
            service: service.to_owned(),
            ready: (verdict.ready.status, verdict.ready.reason.as_str()),
            conditions: stages
                .filter(|(_, status)| *status != ConditionStatus::True)
                .collect(),
            losses: verdict.losses.clone(),
            dials: reported.dials,
            drops: reported.drops,
        };
        self.0.lock().insert(key, seen);
    }

    pub(super) fn forget(&self, key: &DiagnosisKey) {
        self.0.lock().remove(key);
    }
}

/// Labels beside those of the diagnosis.
type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Writes a family: of each diagnosis some series.
fn family<'a, N: EncodeGaugeValue + 'a, S: IntoIterator<Item = (Labels<'a>, N)>>(
    encoder: &mut DescriptorEncoder<'_>,
    all: &'a BTreeMap<DiagnosisKey, Seen>,
    (name, help): (&str, &str),
    series: impl Fn(&'a Seen) -> S,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for ((namespace, name), seen) in all {
        for (more, value) in series(seen) {
            let mut labels: Labels<'_> = vec![("namespace", namespace), ("name", name)];
            labels.extend(more);
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

impl Collector for Diagnoses {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let all = &*self.0.lock();
        let to = &mut encoder;
        family(
            to,
            all,
            (
                "ready",
                "Whether the Service of a ServiceDiagnosis works: 1 if Ready is True, otherwise 0; reason is the reason of Ready",
            ),
            |seen| {
                let (status, reason) = seen.ready;
                [(
                    vec![("reason", reason)],
                    i64::from(status == ConditionStatus::True),
                )]
            },
        )?;
        family(
            to,
            all,
            (
                "condition",
                "The conditions of a ServiceDiagnosis: always 1; status is False or Unknown, for Ready also True; absent for stages that are True",
            ),
            |seen| {
                let ready = ("Ready", seen.ready.0);
                let conditions = [ready].into_iter().chain(seen.conditions.iter().copied());
                let labels = |(of, status): (&'static str, ConditionStatus)| {
                    vec![("condition", of), ("status", status.as_str())]
                };
                conditions.map(move |one| (labels(one), 1_i64))
            },
        )?;
        family(
            to,
            all,
            (
                "diagnosis_info",
                "The Service that a ServiceDiagnosis is about: always 1",
            ),
            |seen| [(vec![("service", seen.service.as_str())], 1_i64)],
        )?;
        family(
            to,
            all,
            (
                "dials",
                "Dials in the last reports of the agents, by how they ended: Accepted, or why they failed",
            ),
            |seen| counts(&seen.dials, "answer"),
        )?;
        family(
            to,
            all,
            (
                "dropped_packets",
                "Packets of failed dials that kernels dropped, in the last reports of the agents, by cause",
            ),
            |seen| counts(&seen.drops, "cause"),
        )?;
        family(
            to,
            all,
            (
                "path_loss_ratio",
                "Share of TCP connections that needed a second SYN (path SameNode, OtherNode, Service) or of DNS questions without an answer (path DNS), of those clients of a node (Pods, or the node itself) that lose packets, when its agent last reported; absent where less than one of fifty is lost",
            ),
            |seen| {
                seen.losses.iter().map(|loss| {
                    let labels = vec![("node", loss.node.as_str()), ("path", loss.path.as_str())];
                    (labels, ratio(loss))
                })
            },
        )
    }
}

fn counts<'a>(
    of: &'a BTreeMap<&'static str, u64>,
    label: &'static str,
) -> impl Iterator<Item = (Labels<'a>, i64)> {
    let number = |count: &u64| i64::try_from(*count).unwrap_or(i64::MAX);
    of.iter()
        .map(move |(value, count)| (vec![(label, *value)], number(count)))
}

fn ratio(loss: &NodeLoss) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of a few thousand at most")]
    let ratio = loss.lost as f64 / loss.tries.max(1) as f64;
    ratio
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text::encode, registry::Registry};

    use super::*;
    use crate::{api::LossyPath, controller::limits};

    fn loss(node: &str, path: LossyPath, lost: u64) -> NodeLoss {
        NodeLoss {
            node: node.to_owned(),
            path,
            tries: 240,
            lost,
        }
    }

    /// The series, without the descriptions.
    fn series(diagnoses: &Diagnoses) -> Vec<String> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(diagnoses.clone()));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    }

    fn note(diagnoses: &Diagnoses, name: &str, losses: &[NodeLoss], reported: Reported) {
        let mut verdict = limits::beyond(3);
        verdict.losses = losses.to_vec();
        diagnoses.note(("shop".to_owned(), name.to_owned()), "web", &verdict, reported);
    }

    #[test]
    fn series_are_those_of_what_was_seen_last() {
        let diagnoses = Diagnoses::default();
        assert_eq!(series(&diagnoses), [""; 0]);
        let two = [
            loss("n1", LossyPath::DNS, 12),
            loss("n2", LossyPath::OtherNode, 60),
        ];
        note(&diagnoses, "web", &two, Reported::default());
        note(&diagnoses, "db", &two[..1], Reported::default());
        let losses = || -> Vec<String> {
            let all = series(&diagnoses).into_iter();
            all.filter_map(|line| line.strip_prefix("path_loss_ratio").map(str::to_owned))
                .collect()
        };
        let db = "{namespace=\"shop\",name=\"db\",node=\"n1\",path=\"DNS\"} 0.05";
        let expected = [
            db,
            "{namespace=\"shop\",name=\"web\",node=\"n1\",path=\"DNS\"} 0.05",
            "{namespace=\"shop\",name=\"web\",node=\"n2\",path=\"OtherNode\"} 0.25",
        ];
        assert_eq!(losses(), expected);
        note(&diagnoses, "web", &[], Reported::default());
        assert_eq!(losses(), [db]);
        for name in ["web", "db"] {
            diagnoses.forget(&("shop".to_owned(), name.to_owned()));
        }
        assert_eq!(series(&diagnoses), [""; 0]);
    }

    #[test]
    fn dials_and_drops_of_all_agents_are_summed_up() {
        let facts: NodeFacts = serde_json::from_value(serde_json::json!({
            "dials": [{ "path": "Service", "port": "80/TCP", "family": "IPv4", "made": 5, "failed": 1 }],
            "failures": [{ "path": "Service", "port": "80/TCP", "target": "10.96.0.7:80", "answer": "TimedOut" }],
            "probesFailed": 1,
            "drops": [{ "target": "10.96.0.7:80", "cause": "Firewall", "place": "Node", "reason": "NETFILTER_DROP", "packets": 3 }],
        }))
        .unwrap();
        let diagnoses = Diagnoses::default();
        let reported = Reported::of([&facts, &facts].into_iter());
        note(&diagnoses, "web", &[], reported);
        let all = series(&diagnoses).join("\n");
        for line in [
            "dials{namespace=\"shop\",name=\"web\",answer=\"Accepted\"} 8",
            "dials{namespace=\"shop\",name=\"web\",answer=\"TimedOut\"} 2",
            "dropped_packets{namespace=\"shop\",name=\"web\",cause=\"Firewall\"} 6",
            "diagnosis_info{namespace=\"shop\",name=\"web\",service=\"web\"} 1",
            "condition{namespace=\"shop\",name=\"web\",condition=\"Ready\",status=\"Unknown\"} 1",
        ] {
            assert!(all.contains(line), "{line}\n{all}");
        }
    }
}
