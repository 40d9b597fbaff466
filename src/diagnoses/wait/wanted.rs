//! The condition that is waited for, and how a diagnosis stands to it.

use std::{fmt, str::FromStr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::{ConditionStatus, ConditionType, ServiceDiagnosis};

/// A condition and its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    condition: ConditionType,
    status: ConditionStatus,
}

/// How a diagnosis stands to what is wanted.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Standing<'a> {
    /// It has the condition.
    Met,
    /// The condition has another status.
    Other(&'a Condition),
    /// The verdict does not have the condition at all: Stalled, for example, is there only while it is True.
    Absent,
    /// The last verdict is on an older generation.
    Outdated {
        /// The generation that it is on.
        observed: i64,
        /// The present one.
        generation: i64,
    },
    /// There is no verdict yet.
    NoVerdict,
}

impl Wanted {
    pub(super) fn standing(self, diagnosis: &ServiceDiagnosis) -> Standing<'_> {
        let Some(status) = diagnosis.current_status() else {
            let observed = diagnosis.status.as_ref().and_then(|s| s.observed_generation);
            let generation = diagnosis.metadata.generation.unwrap_or_default();
            // A new object has -1.
            return match observed.filter(|observed| *observed >= 0) {
                Some(observed) => Standing::Outdated { observed, generation },
                None => Standing::NoVerdict,
            };
        };
        match status.condition(self.condition) {
            Some(found) if found.status == self.status.as_str() => Standing::Met,
            Some(found) => Standing::Other(found),
            None => Standing::Absent,
        }
    }

    /// The type of the condition.
    pub(super) const fn condition(self) -> ConditionType {
        self.condition
    }
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            condition: ConditionType::Ready,
            status: ConditionStatus::True,
        }
    }
}

/// As it is typed.
impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "condition={}={}", self.condition, self.status)
    }
}

/// Upper and lower case are the same, as for kubectl.
impl FromStr for Wanted {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, Self::Err> {
        let form = || {
            format!(
                "use condition=TYPE or condition=TYPE=STATUS, for example {}",
                Self::default()
            )
        };
        let condition = typed.strip_prefix("condition=").ok_or_else(form)?;
        let (type_, status) = condition.split_once('=').unwrap_or((condition, "True"));
        let condition = ConditionType::ALL
            .iter()
            .find(|c| c.as_str().eq_ignore_ascii_case(type_));
        let status = ConditionStatus::ALL
            .iter()
            .find(|s| s.as_str().eq_ignore_ascii_case(status));
        Ok(Self {
            condition: *condition.ok_or_else(|| {
                let known: Vec<&str> = ConditionType::ALL.iter().map(|c| c.as_str()).collect();
                format!(
                    "no ServiceDiagnosis has a condition {type_:?}; its conditions are {}",
                    known.join(", ")
                )
            })?,
            status: *status.ok_or_else(|| "STATUS is True, False or Unknown".to_owned())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_parsed_as_kubectl_parses_it() {
        let of = |typed: &str| typed.parse::<Wanted>().map(|w| w.to_string());
        assert_eq!(of("condition=Ready"), Ok("condition=Ready=True".to_owned()));
        assert_eq!(
            of("condition=ready=unknown"),
            Ok("condition=Ready=Unknown".to_owned())
        );
        assert_eq!(
            of("condition=HairpinOK=False"),
            Ok("condition=HairpinOK=False".to_owned())
        );
        assert_eq!(
            of(&Wanted::default().to_string()),
            Ok("condition=Ready=True".to_owned())
        );
    }

    #[test]
    fn what_cannot_be_waited_for_is_refused_with_what_can() {
        let refused = |typed: &str| typed.parse::<Wanted>().unwrap_err();
        for typed in ["delete", "jsonpath={.status}", "Ready"] {
            assert!(refused(typed).contains("use condition=TYPE"), "{typed}");
        }
        let unknown = refused("condition=Available");
        assert!(
            unknown.contains("\"Available\"") && unknown.contains("EndpointsPopulated"),
            "{unknown}"
        );
        assert_eq!(refused("condition=Ready=Yes"), "STATUS is True, False or Unknown");
    }
}
