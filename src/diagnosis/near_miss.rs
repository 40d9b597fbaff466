//! A selector that matches no Pod: which Pods were probably meant.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Facts, words};
use crate::objects::{Labels, Object, Pod};

/// Pods that a selector misses by one or two labels.
pub(super) struct NearMiss {
    /// What differs, in words.
    pub told: String,
    /// The merge patch of the Service that would make the selector match them.
    pub patch: String,
}

/// What one pair of the selector would have to become.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Change {
    key: String,
    value: String,
    instead_key: String,
    instead_value: String,
}

/// A selector as `kubectl -l` takes it.
pub(super) fn selector(pairs: &Labels) -> String {
    pairs
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect::<Vec<_>>()
        .join(",")
}

/// The Pods that the fewest and smallest changes of the selector would match.
///
/// A pair may differ in its value by a typing error, in its value altogether where the other pairs
/// match, or in its key where a label has the wanted value.
pub(super) fn find(facts: &Facts, wanted: &Labels) -> Option<NearMiss> {
    let mut candidates: BTreeMap<(usize, Vec<Change>), Vec<&str>> = BTreeMap::new();
    for pod in facts
        .pods
        .iter()
        .filter(|p| !p.has_ended() && !p.is_terminating())
    {
        if let Some((cost, changes)) = changes(wanted, pod) {
            candidates.entry((cost, changes)).or_default().push(pod.name());
        }
    }
    // Of equally near ones, those with more Pods were more probably meant.
    let ((_, changes), mut pods) = candidates
        .into_iter()
        .min_by_key(|((cost, _), pods)| (*cost, usize::MAX - pods.len()))?;
    pods.sort_unstable();
    let differences: Vec<String> = changes
        .iter()
        .map(|c| {
            format!(
                "{}={} where the selector wants {}={}",
                c.instead_key, c.instead_value, c.key, c.value
            )
        })
        .collect();
    let have = if pods.len() == 1 { "has" } else { "have" };
    let mut patch = serde_json::Map::new();
    for change in &changes {
        if change.key != change.instead_key {
            patch.insert(change.key.clone(), serde_json::Value::Null);
        }
        patch.insert(change.instead_key.clone(), change.instead_value.clone().into());
    }
    Some(NearMiss {
        told: format!("{} {have} {}", words::list(&pods), differences.join(", ")),
        patch: json!({ "spec": { "selector": patch } }).to_string(),
    })
}

/// How the selector would have to change to match a Pod, and how unlikely that was meant.
fn changes(wanted: &Labels, pod: &Pod) -> Option<(usize, Vec<Change>)> {
    let labels = pod.labels();
    let matching = wanted.iter().filter(|(k, v)| labels.get(*k) == Some(*v)).count();
    let mut cost = 0;
    let mut changes = Vec::new();
    for (key, value) in wanted.iter().filter(|(k, v)| labels.get(*k) != Some(*v)) {
        let other_key = labels
            .iter()
            .find(|(k, v)| *v == value && !wanted.contains_key(*k));
        let (instead_key, instead_value) = match labels.get(key) {
            Some(found) if is_typing_error(value, found) => {
                cost += 1;
                (key, found)
            }
            _ if other_key.is_some() => {
                cost += 2;
                other_key?
            }
            Some(found) if matching > 0 => {
                cost += 3;
                (key, found)
            }
            _ => return None,
        };
        changes.push(Change {
            key: key.clone(),
            value: value.clone(),
            instead_key: instead_key.clone(),
            instead_value: instead_value.clone(),
        });
    }
    (!changes.is_empty()).then_some((cost, changes))
}

fn is_typing_error(wanted: &str, found: &str) -> bool {
    let near = words::distance(&wanted.to_lowercase(), &found.to_lowercase());
    near <= (wanted.chars().count() / 3).min(2)
}
