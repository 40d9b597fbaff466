//! What svcdiag must say about a fault, and reading what it said.

use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;

/// The CRD, which lists the stages of the decision tree in causal order as what a diagnosis may skip. `Ready`,
/// `Reconciling` and `Stalled` are conditions too, but sum up instead of judging.
const CRD: &str = include_str!("../../../../crds/svcdiag.dev_servicediagnoses.yaml");

static STAGES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let crd: Value = serde_saphyr::from_str(CRD).unwrap_or_default();
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    let stages = crd.pointer(&format!("{spec}/properties/skip/items/enum"));
    let stages = stages.and_then(Value::as_array).into_iter().flatten();
    stages.filter_map(Value::as_str).map(str::to_owned).collect()
});

/// What svcdiag must say.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Expected {
    /// Ready is False with this root cause.
    RootCause {
        /// The stage that is False.
        condition: String,
        /// Its reason.
        reason: String,
        /// Its reason where the kernel does not say who drops packets, if that is another one.
        #[serde(default)]
        unwatched: Option<String>,
        /// What its message has to contain where the kernel says who drops packets.
        #[serde(default)]
        says: String,
    },
    /// Ready is not False, and these conditions say so.
    NotFalse(Vec<ExpectedCondition>),
}

/// Whether the kernel of this machine says who drops packets. Only root of the machine itself, and not of a user namespace,
/// may ask it, and only one that describes its types.
static TELLS: LazyLock<bool> = LazyLock::new(|| {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let is_whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
    is_whole && std::path::Path::new("/sys/kernel/btf/vmlinux").exists()
});

/// The reason that is expected on this machine.
fn here<'a>(reason: &'a str, unwatched: Option<&'a String>) -> &'a str {
    match unwatched {
        Some(unwatched) if !*TELLS => unwatched,
        _ => reason,
    }
}

/// A condition of a diagnosis.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ExpectedCondition {
    /// `PodsHealthy`, `Ready`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// True, False or Unknown.
    pub status: String,
    /// Its reason.
    pub reason: String,
    /// What its message has to contain.
    #[serde(default)]
    pub says: String,
}

/// A ServiceDiagnosis' status, read without svcdiag's types.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    conditions: Vec<ExpectedCondition>,
    root_cause: Option<(String, String)>,
    current: bool,
}

impl Verdict {
    /// Reads a ServiceDiagnosis.
    pub fn read(diagnosis: &Value) -> Self {
        let status = &diagnosis["status"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let root_cause = status.get("rootCause").filter(|cause| cause.is_object());
        let generation = diagnosis["metadata"]["generation"].as_i64();
        Self {
            conditions: conditions
                .map(|condition| ExpectedCondition {
                    kind: text(&condition["type"]),
                    status: text(&condition["status"]),
                    reason: text(&condition["reason"]),
                    says: text(&condition["message"]),
                })
                .collect(),
            root_cause: root_cause.map(|cause| (text(&cause["condition"]), text(&cause["reason"]))),
            current: generation.is_some() && status["observedGeneration"].as_i64() == generation,
        }
    }

    /// All conditions, in the order of the status.
    pub fn conditions(&self) -> &[ExpectedCondition] {
        &self.conditions
    }

    /// The condition of this type.
    pub fn condition(&self, kind: &str) -> Option<&ExpectedCondition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }

    /// Stages that are False, in causal order.
    pub fn broken_stages(&self) -> Vec<&str> {
        let stages = STAGES.iter().map(String::as_str);
        stages.filter(|stage| self.is(stage, "False")).collect()
    }

    /// Whether nothing is False and the API-level questions are answered with yes.
    pub fn is_healthy(&self) -> bool {
        self.current
            && self.broken_stages().is_empty()
            && !self.is("Ready", "False")
            && [
                "ServiceExists",
                "DefinitionValid",
                "PodsHealthy",
                "EndpointsPopulated",
                "NetworkPolicyAllows",
            ]
            .into_iter()
            .all(|stage| self.is(stage, "True"))
    }

    /// Whether everything was checked and nothing is wrong.
    pub fn works(&self) -> bool {
        self.is_healthy() && self.is("Ready", "True")
    }

    fn is(&self, kind: &str, status: &str) -> bool {
        self.condition(kind)
            .is_some_and(|condition| condition.status == status)
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.root_cause, self.condition("Ready")) {
            (Some((condition, reason)), _) => write!(formatter, "{condition}/{reason}"),
            (None, Some(ready)) => write!(formatter, "Ready {}/{}", ready.status, ready.reason),
            (None, None) => write!(formatter, "no verdict yet"),
        }
    }
}

impl Expected {
    /// Whether the verdict is the expected one, with nothing False before the root cause.
    pub fn is_met_by(&self, verdict: &Verdict) -> bool {
        verdict.current
            && match self {
                Self::RootCause {
                    condition,
                    reason,
                    unwatched,
                    says,
                } => {
                    let reason = here(reason, unwatched.as_ref());
                    verdict.is("Ready", "False")
                        && verdict
                            .root_cause
                            .as_ref()
                            .is_some_and(|(a, b)| a == condition && b == reason)
                        && verdict.broken_stages().first() == Some(&condition.as_str())
                        && (!*TELLS
                            || verdict
                                .condition(condition)
                                .is_some_and(|c| c.says.contains(says.as_str())))
                }
                Self::NotFalse(conditions) => {
                    !verdict.is("Ready", "False")
                        && conditions.iter().all(|wanted| {
                            verdict
                                .condition(&wanted.kind)
                                .is_some_and(|c| wanted.is_met_by(c))
                        })
                }
            }
    }

    /// What the verdict says about the matter, to be shown beside [`Expected`].
    pub fn found_in(&self, verdict: &Verdict) -> String {
        match self {
            Self::NotFalse(conditions) if !verdict.is("Ready", "False") => conditions
                .iter()
                .map(|wanted| {
                    verdict
                        .condition(&wanted.kind)
                        .map_or_else(|| "nothing".to_owned(), ToString::to_string)
                })
                .collect::<Vec<_>>()
                .join(", "),
            _ => verdict.to_string(),
        }
    }
}

impl std::fmt::Display for Expected {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::RootCause {
                condition,
                reason,
                unwatched,
                says: _,
            } => write!(formatter, "{condition}/{}", here(reason, unwatched.as_ref())),
            Self::NotFalse(conditions) => {
                let texts: Vec<String> = conditions.iter().map(ToString::to_string).collect();
                formatter.write_str(&texts.join(", "))
            }
        }
    }
}

impl ExpectedCondition {
    fn is_met_by(&self, condition: &Self) -> bool {
        (&self.kind, &self.status, &self.reason) == (&condition.kind, &condition.status, &condition.reason)
            && condition.says.contains(&self.says)
    }
}

impl std::fmt::Display for ExpectedCondition {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}/{}", self.kind, self.status, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn diagnosis(observed: i64) -> Value {
        json!({
            "metadata": { "generation": 2 },
            "status": {
                "observedGeneration": observed,
                "conditions": [
                    { "type": "Ready", "status": "False", "reason": "ScaledToZero" },
                    { "type": "EndpointsPopulated", "status": "False", "reason": "ScaledToZero" },
                ],
                "rootCause": { "condition": "EndpointsPopulated", "reason": "ScaledToZero" },
            },
        })
    }

    fn scaled_to_zero() -> Expected {
        Expected::RootCause {
            condition: "EndpointsPopulated".into(),
            reason: "ScaledToZero".into(),
            unwatched: None,
            says: String::new(),
        }
    }

    #[test]
    fn the_stages_are_in_causal_order() {
        assert_eq!(STAGES.first().map(String::as_str), Some("ServiceExists"));
        assert_eq!(STAGES.last().map(String::as_str), Some("HairpinOK"));
        assert!(STAGES.len() > 10, "{STAGES:?}");
    }

    #[test]
    fn the_expected_root_cause_is_recognised() {
        assert!(scaled_to_zero().is_met_by(&Verdict::read(&diagnosis(2))));
    }

    #[test]
    fn a_verdict_on_an_older_generation_does_not_count() {
        assert!(!scaled_to_zero().is_met_by(&Verdict::read(&diagnosis(1))));
    }
}
