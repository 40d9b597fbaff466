//! Label selectors, as the API server evaluates them.

use serde::{Deserialize, Serialize};

use super::{Labels, null_is_default};

/// metav1.LabelSelector. An empty selector matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Labels that must be present with exactly these values.
    #[serde(deserialize_with = "null_is_default")]
    pub match_labels: Labels,
    /// Requirements that must all be met.
    #[serde(deserialize_with = "null_is_default")]
    pub match_expressions: Vec<Requirement>,
}

/// One requirement of a selector.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// How the label relates to the values.
    pub operator: Operator,
    /// Values for In and NotIn.
    #[serde(default, deserialize_with = "null_is_default")]
    pub values: Vec<String>,
}

/// Operator of a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Operator {
    /// The label is present with one of the values.
    In,
    /// The label is absent, or its value is none of the values.
    NotIn,
    /// The label is present.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether an object with these labels is selected.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        matches_labels(&self.match_labels, labels) && self.match_expressions.iter().all(|r| r.matches(labels))
    }

    /// Whether everything is selected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }
}

impl From<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector> for LabelSelector {
    /// A requirement with an operator that does not exist selects nothing, as no object could satisfy it.
    fn from(selector: &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector) -> Self {
        let requirement = |r: &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement| {
            let (operator, values) = match r.operator.as_str() {
                "NotIn" => (Operator::NotIn, r.values.clone().unwrap_or_default()),
                "Exists" => (Operator::Exists, Vec::new()),
                "DoesNotExist" => (Operator::DoesNotExist, Vec::new()),
                "In" => (Operator::In, r.values.clone().unwrap_or_default()),
                _ => (Operator::In, Vec::new()),
            };
            Requirement {
                key: r.key.clone(),
                operator,
                values,
            }
        };
        Self {
            match_labels: selector.match_labels.clone().unwrap_or_default(),
            match_expressions: selector
                .match_expressions
                .iter()
                .flatten()
                .map(requirement)
                .collect(),
        }
    }
}

impl Requirement {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Operator::In => value.is_some_and(|v| self.values.contains(v)),
            Operator::NotIn => value.is_none_or(|v| !self.values.contains(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl std::fmt::Display for LabelSelector {
    /// The form that `kubectl -l` takes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let labels = self.match_labels.iter().map(|(k, v)| format!("{k}={v}"));
        let requirements = self.match_expressions.iter().map(|r| match r.operator {
            Operator::In => format!("{} in ({})", r.key, r.values.join(",")),
            Operator::NotIn => format!("{} notin ({})", r.key, r.values.join(",")),
            Operator::Exists => r.key.clone(),
            Operator::DoesNotExist => format!("!{}", r.key),
        });
        f.write_str(&labels.chain(requirements).collect::<Vec<_>>().join(","))
    }
}

/// Whether `labels` has every pair of `selector`, the form of selector that a Service has.
#[must_use]
pub fn matches_labels(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
