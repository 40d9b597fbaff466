//! The verdict on a Service, as one value.

use std::borrow::Cow;

use jiff::Timestamp;

use crate::{Finding, Verdict};
use svcdiag_api::{
    ConditionStatus, ConditionType, LossyPath, Observation, Reason, RootCause, Summary, printable::printable,
};

/// The verdict on a Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnosis {
    /// The answer of every stage, in causal order.
    pub stages: Vec<(ConditionType, Finding)>,
    /// Whether the Service works.
    pub ready: Outcome,
    /// Whether the verdict is still being worked out, in words; absent otherwise.
    pub reconciling: Option<Outcome>,
    /// Whether the Service has been broken for long; absent otherwise.
    pub stalled: Option<Outcome>,
    /// What has to be mended first; present exactly while `ready` is False.
    pub root_cause: Option<RootCause>,
    /// Short strings for columns.
    pub summary: Summary,
    /// How the nodes that were looked at forward the Services' packets.
    pub proxy_mode: Option<String>,
    /// What was seen, failures first.
    pub observations: Vec<Observation>,
    /// What is lost at times, by node and path.
    pub losses: Vec<NodeLoss>,
    /// The earliest time at which the same Facts give another verdict, but for `silent_at`.
    pub recheck_at: Option<Timestamp>,
    /// When the first agent that was asked no longer counts as alive, unless it gives another sign until then. Agents give one
    /// all the time, so this is not worth a timer for each diagnosis.
    pub silent_at: Option<Timestamp>,
    /// When the Service's endpoints have come to rest, unless they change again.
    pub settled_at: Option<Timestamp>,
    /// Until when agents that are waited for may be about to answer.
    pub answered_at: Option<Timestamp>,
}

/// What the clients of a node, and the node itself, lose at times on a path.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeLoss {
    /// The node.
    pub node: String,
    /// The path.
    pub path: LossyPath,
    /// TCP connections made, or DNS questions asked.
    pub tries: u64,
    /// How many of them needed a second SYN, or got no answer.
    pub lost: u64,
}

/// A condition that sums up the stages.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The answer.
    pub status: ConditionStatus,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
}

impl Diagnosis {
    /// An answer without a judgement: every stage is Unknown, and so is Ready.
    #[must_use]
    pub fn unjudged(stages: Vec<(ConditionType, Finding)>, reason: Reason, message: String) -> Self {
        let unknown = || "?".to_owned();
        Self {
            stages,
            ready: Outcome {
                status: ConditionStatus::Unknown,
                reason,
                message,
            },
            reconciling: None,
            stalled: None,
            root_cause: None,
            summary: Summary {
                endpoints: unknown(),
                proxy: unknown(),
                dns: unknown(),
                hairpin: unknown(),
            },
            proxy_mode: None,
            observations: Vec::new(),
            recheck_at: None,
            silent_at: None,
            losses: Vec::new(),
            settled_at: None,
            answered_at: None,
        }
    }

    /// Makes every text one that a terminal shows as it is: names and messages of objects may come from files.
    pub(crate) fn clean(&mut self) {
        let Self {
            stages,
            ready,
            reconciling,
            stalled,
            root_cause,
            observations,
            ..
        } = self;
        let mut texts: Vec<&mut String> = Vec::new();
        for (_, finding) in stages {
            texts.push(&mut finding.message);
            if let Verdict::False { remediation, .. } = &mut finding.verdict {
                texts.push(remediation);
            }
        }
        let outcomes = [Some(ready), reconciling.as_mut(), stalled.as_mut()];
        texts.extend(outcomes.into_iter().flatten().map(|o| &mut o.message));
        if let Some(cause) = root_cause {
            texts.extend([&mut cause.message, &mut cause.remediation]);
        }
        for seen in observations {
            texts.push(&mut seen.result);
            texts.extend(
                [&mut seen.node, &mut seen.pod, &mut seen.target, &mut seen.detail]
                    .into_iter()
                    .flatten(),
            );
        }
        for text in texts {
            if let Cow::Owned(clean) = printable(text) {
                *text = clean;
            }
        }
    }

    /// Whether no fault is known, and nothing is left open that API objects decide.
    #[must_use]
    pub fn api_is_faultless(&self) -> bool {
        let is_faultless = |(condition, finding): &(ConditionType, Finding)| match finding.verdict {
            Verdict::False { .. } => false,
            _ if ConditionType::api_stages().contains(condition) => finding.is_satisfied(),
            _ => true,
        };
        self.ready.reason != Reason::Suspended && self.stages.iter().all(is_faultless)
    }

    /// Whether nobody has looked at the data path.
    #[must_use]
    pub fn is_of_api_alone(&self) -> bool {
        let mut of_data_path = self
            .stages
            .iter()
            .filter(|(condition, _)| !ConditionType::api_stages().contains(condition));
        of_data_path.all(|(_, finding)| {
            finding.status() == ConditionStatus::Unknown
                && (finding.is_satisfied() || finding.reason == Reason::NoVantagePoint)
        })
    }
}
