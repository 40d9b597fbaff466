//! What conditions have in common: their status, and what the table of stages says of them.

use super::{ConditionType, PAGE, Reason, STAGES, Stage, macros::string_enum};

string_enum! {
    /// Status of a condition.
    ConditionStatus {
        /// The answer is yes.
        True,
        /// The answer is no.
        False,
        /// There is no answer; the reason says why.
        Unknown,
    }
}

/// Stages that objects of the API decide. They stand first.
const OF_OBJECTS: usize = {
    let mut n = 0;
    while n < STAGES.len() && STAGES[n].is_decided_by_objects {
        n += 1;
    }
    n
};

impl ConditionType {
    /// The stages of the decision tree, in causal order.
    #[must_use]
    pub fn stages() -> &'static [Self] {
        &Self::ALL[..STAGES.len()]
    }

    /// The stages that API objects decide; the others need probes of the data path.
    #[must_use]
    pub fn api_stages() -> &'static [Self] {
        &Self::ALL[..OF_OBJECTS]
    }

    /// Reasons for this stage to be False, in order of precedence; none for conditions that sum up.
    #[must_use]
    pub fn faults(self) -> &'static [Reason] {
        self.row().map_or(&[], |stage| stage.faults)
    }

    /// Stages that must pass before this one means anything.
    #[must_use]
    pub fn needs(self) -> &'static [Self] {
        self.row().map_or(&[], |stage| stage.needs)
    }

    /// Where to read more: the section of the page that asks the question of this stage.
    #[must_use]
    pub fn link(self) -> String {
        self.row()
            .map_or_else(|| PAGE.to_owned(), |stage| format!("{PAGE}#{}", stage.section))
    }

    fn row(self) -> Option<&'static Stage> {
        STAGES.iter().find(|stage| stage.condition == self)
    }
}

/// The pages of reasons.
const REASONS: &str = "https://github.com/svcdiag/svcdiag/blob/main/docs/reasons";

impl Reason {
    /// Where to read more of a reason for which a stage is False: its page, which leads on to the section of the stage.
    #[must_use]
    pub fn link(self) -> String {
        format!("{REASONS}/{}.md", self.as_str())
    }

    /// Whether a stage that is Unknown for this reason leaves nothing open, so that Ready may be True.
    #[must_use]
    pub const fn is_satisfied(self) -> bool {
        matches!(
            self,
            Self::NotApplicable
                | Self::Skipped
                | Self::ProxyReplaced
                | Self::HandledByAnotherProxy
                | Self::InterceptedByMesh
                | Self::NoClientPods
                | Self::OtherPoliciesApply
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_objects_decide_stands_before_what_agents_see() {
        let later = &STAGES[OF_OBJECTS..];
        assert!(OF_OBJECTS > 0 && later.iter().all(|stage| !stage.is_decided_by_objects));
    }
}
