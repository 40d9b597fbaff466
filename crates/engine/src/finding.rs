//! The answer of one stage.

use jiff::Timestamp;

use svcdiag_api::{ConditionStatus, ConditionType, Impact, Observation, Reason};

/// The answer of one stage, with its reason and the evidence in words.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Yes, no, or neither.
    pub verdict: Verdict,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, with the evidence, for people.
    pub message: String,
    /// Single observations behind the answer.
    pub observations: Vec<Observation>,
    /// The earliest time at which the same Facts give another answer.
    pub recheck_at: Option<Timestamp>,
    /// Whether this is what was said before the endpoints changed, until the agents have looked again.
    pub is_kept: bool,
}

/// Yes, no, or neither.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// As it should be.
    True,
    /// Broken.
    False {
        /// How much of the Service the fault takes away.
        impact: Impact,
        /// What to do, with the command to type.
        remediation: String,
    },
    /// Not known.
    Unknown,
}

impl Finding {
    fn new(verdict: Verdict, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            verdict,
            reason,
            message: message.into(),
            observations: Vec::new(),
            recheck_at: None,
            is_kept: false,
        }
    }

    /// As it should be.
    #[must_use]
    pub fn yes(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Verdict::True, reason, message)
    }

    /// Nothing works for this reason.
    #[must_use]
    pub fn nothing_works(reason: Reason, message: impl Into<String>, remediation: impl Into<String>) -> Self {
        Self::fault(Impact::All, reason, message, remediation)
    }

    /// Part of the Service fails for this reason.
    #[must_use]
    pub fn part_fails(reason: Reason, message: impl Into<String>, remediation: impl Into<String>) -> Self {
        Self::fault(Impact::Some, reason, message, remediation)
    }

    /// So much fails for this reason.
    #[must_use]
    pub fn fault(
        impact: Impact,
        reason: Reason,
        message: impl Into<String>,
        remediation: impl Into<String>,
    ) -> Self {
        let remediation = remediation.into();
        Self::new(Verdict::False { impact, remediation }, reason, message)
    }

    /// Not known for this reason.
    #[must_use]
    pub fn unknown(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(Verdict::Unknown, reason, message)
    }

    /// The question does not arise for this Service.
    #[must_use]
    pub fn not_applicable(message: impl Into<String>) -> Self {
        Self::unknown(Reason::NotApplicable, message)
    }

    /// The stage waits for an earlier one.
    #[must_use]
    pub fn blocked(by: ConditionType) -> Self {
        Self::unknown(Reason::Blocked, format!("Waiting for {by}."))
    }

    /// The same answer, which may change at `time` though the Facts do not.
    #[must_use]
    pub fn recheck_at(mut self, time: Option<Timestamp>) -> Self {
        self.recheck_at = time;
        self
    }

    /// The status of the stage's condition.
    #[must_use]
    pub fn status(&self) -> ConditionStatus {
        match self.verdict {
            Verdict::True => ConditionStatus::True,
            Verdict::False { .. } => ConditionStatus::False,
            Verdict::Unknown => ConditionStatus::Unknown,
        }
    }

    /// Whether a fault was found, and one that leaves nothing working.
    #[must_use]
    pub fn leaves_nothing(&self) -> bool {
        matches!(
            self.verdict,
            Verdict::False {
                impact: Impact::All,
                ..
            }
        )
    }

    /// Whether Ready may be True with this answer.
    #[must_use]
    pub fn is_satisfied(&self) -> bool {
        match self.verdict {
            Verdict::True => true,
            Verdict::False { .. } => false,
            Verdict::Unknown => self.reason.is_satisfied(),
        }
    }
}
