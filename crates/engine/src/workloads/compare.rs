//! How a selector differs from the labels of a workload's Pods.

use crate::workloads::{Workload, is_of_revision};
use svcdiag_objects::Labels;

/// What is between a selector and a workload.
pub(crate) enum Difference<'a> {
    /// All that does not match are labels of a revision.
    Revision(Vec<&'a String>),
    /// Pairs that would have to become others.
    Labels(Vec<Change<'a>>),
    /// Pairs of which the Pod template knows nothing; the others match.
    RunTime(Vec<(&'a String, &'a String)>),
}

/// What one pair of the selector would have to become.
pub(crate) struct Change<'a> {
    pub wanted: (&'a String, &'a String),
    pub instead: (&'a String, &'a String),
    nearness: Nearness,
}

/// How probably one pair was written for the other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Nearness {
    /// The key or the value has a typing error.
    TypingError,
    /// The value stands under another key.
    MovedKey,
    /// The value is another one altogether.
    OtherValue,
}

impl Change<'_> {
    /// Whether somebody slipped: a typing error, or the right value under the wrong key.
    pub(crate) fn is_slip(&self) -> bool {
        self.nearness != Nearness::OtherValue
    }
}

impl Difference<'_> {
    /// How far it is; the nearest workload was meant most probably.
    pub(super) fn rank(&self) -> usize {
        match self {
            Self::Revision(_) => 0,
            Self::Labels(changes) => changes.iter().map(|c| c.nearness as usize + 1).sum(),
            Self::RunTime(_) => Nearness::MovedKey as usize + 1,
        }
    }

    /// Whether the workload was meant though another Service selects its Pods, too. A value that is another one
    /// altogether says that it is the other Service's.
    pub(crate) fn is_telling(&self) -> bool {
        match self {
            Self::Revision(_) | Self::RunTime(_) => true,
            Self::Labels(changes) => changes.iter().all(Change::is_slip),
        }
    }
}

/// Labels that several applications share: to have one in common says nothing.
pub(crate) fn is_shared(key: &str) -> bool {
    matches!(
        key,
        "app.kubernetes.io/part-of"
            | "app.kubernetes.io/managed-by"
            | "app.kubernetes.io/created-by"
            | "app.kubernetes.io/version"
            | "app.kubernetes.io/component"
            | "app.kubernetes.io/instance"
            | "helm.sh/chart"
            | "chart"
            | "heritage"
            | "environment"
            | "env"
            | "tier"
            | "team"
            | "project"
            | "version"
            | "release"
            | "role"
            | "component"
    )
}

/// How the selector differs from the labels of a workload's Pods; None where they have too little in common.
pub(crate) fn compare<'a>(wanted: &'a Labels, workload: &'a Workload<'_>) -> Option<Difference<'a>> {
    let labels = &workload.labels;
    let missing: Vec<(&String, &String)> = wanted
        .iter()
        .filter(|(k, v)| labels.get(*k) != Some(*v))
        .collect();
    let matching = || wanted.iter().filter(|(k, v)| labels.get(*k) == Some(*v));
    let belongs = matching().any(|(key, _)| !is_shared(key));
    if missing.is_empty() {
        return None;
    }
    if missing.iter().all(|(key, _)| is_of_revision(key)) {
        let some_match = matching().next().is_some();
        return some_match.then(|| Difference::Revision(missing.iter().map(|(key, _)| *key).collect()));
    }
    let changes: Option<Vec<Change<'_>>> = missing
        .iter()
        .map(|pair| change(*pair, wanted, labels, belongs))
        .collect();
    let is_set = |key: &String| workload.has_template && labels.contains_key(key);
    let at_run_time = belongs && !workload.pods.is_empty() && !missing.iter().any(|(key, _)| is_set(key));
    match changes {
        // What the template sets is no label of the run time; without a template any label may be.
        Some(changes) if !at_run_time || changes.iter().any(Change::is_slip) => {
            Some(Difference::Labels(changes))
        }
        _ => at_run_time.then_some(Difference::RunTime(missing)),
    }
}

fn change<'a>(
    wanted: (&'a String, &'a String),
    selector: &Labels,
    labels: &'a Labels,
    belongs: bool,
) -> Option<Change<'a>> {
    let (key, value) = wanted;
    let as_change = |instead, nearness| Change {
        wanted,
        instead,
        nearness,
    };
    let same_key = labels.get_key_value(key);
    if let Some(found) = same_key.filter(|(_, found)| is_typing_error(value, found)) {
        return Some(as_change(found, Nearness::TypingError));
    }
    let mut same_value = labels
        .iter()
        .filter(|(k, v)| *v == value && !selector.contains_key(*k));
    // Under two other keys, or as a value that labels of all kinds have, it says nothing.
    if let (Some(found), None) = (same_value.next(), same_value.next())
        && is_name(value)
    {
        if is_typing_error(key, found.0) {
            return Some(as_change(found, Nearness::TypingError));
        }
        if !is_shared(found.0) {
            return Some(as_change(found, Nearness::MovedKey));
        }
    }
    let found = same_key.filter(|_| belongs)?;
    Some(as_change(found, Nearness::OtherValue))
}

/// Whether a value can be the name of something, and is no switch or number.
fn is_name(value: &str) -> bool {
    let switches = [
        "true",
        "false",
        "yes",
        "no",
        "on",
        "off",
        "enabled",
        "disabled",
        "none",
        "default",
        "main",
        "master",
        "primary",
        "replica",
        "leader",
        "active",
        "server",
        "backend",
        "frontend",
        "production",
        "staging",
    ];
    value.chars().count() > 1
        && value.chars().any(char::is_alphabetic)
        && !switches.contains(&value.to_lowercase().as_str())
}

/// Whether one text is the other with a letter wrong, missing, too many or in the wrong place. Names that differ in
/// their digits are those of different things.
fn is_typing_error(wanted: &str, found: &str) -> bool {
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let near = strsim::levenshtein(&wanted.to_lowercase(), &found.to_lowercase());
    near <= (wanted.chars().count() / 3).min(2) && digits(wanted) == digits(found)
}
