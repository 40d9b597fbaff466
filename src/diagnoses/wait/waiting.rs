//! The diagnoses that are waited for, as they were last seen.

use std::collections::{BTreeMap, BTreeSet};

use kube::{ResourceExt, runtime::watcher::Event};

use super::{
    super::full_name,
    wanted::{Standing, Wanted},
};
use crate::api::ServiceDiagnosis;

/// Namespace and name.
type Key = (String, String);

/// The diagnoses that were there when the wait began. Later ones are not waited for, as by kubectl.
pub(super) struct Waiting {
    pub(super) wanted: Wanted,
    /// As last seen; `None` after a deletion.
    seen: BTreeMap<Key, Option<ServiceDiagnosis>>,
    /// Those that a relist has had so far.
    listed: BTreeSet<Key>,
}

/// How far the wait is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// All have the condition.
    Met,
    /// Some do not have it yet.
    Open,
    /// One was deleted: it will not have it any more.
    Deleted,
}

impl Waiting {
    pub(super) fn new(wanted: Wanted, found: Vec<ServiceDiagnosis>) -> Self {
        let seen = found.into_iter().map(|d| (key(&d), Some(d))).collect();
        Self {
            wanted,
            seen,
            listed: BTreeSet::new(),
        }
    }

    /// Takes in what a watch delivers.
    pub(super) fn note(&mut self, event: Event<ServiceDiagnosis>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(diagnosis) => {
                self.listed.insert(key(&diagnosis));
                self.put(key(&diagnosis), Some(diagnosis));
            }
            Event::InitDone => {
                // Deleted while nobody watched.
                for (key, seen) in &mut self.seen {
                    if !self.listed.contains(key) {
                        *seen = None;
                    }
                }
            }
            Event::Apply(diagnosis) => self.put(key(&diagnosis), Some(diagnosis)),
            Event::Delete(diagnosis) => self.put(key(&diagnosis), None),
        }
    }

    fn put(&mut self, key: Key, diagnosis: Option<ServiceDiagnosis>) {
        if let Some(seen) = self.seen.get_mut(&key) {
            *seen = diagnosis;
        }
    }

    pub(super) fn progress(&self) -> Progress {
        let is_met = |d: &ServiceDiagnosis| self.wanted.standing(d) == Standing::Met;
        if self.seen.values().any(Option::is_none) {
            return Progress::Deleted;
        }
        match self.seen.values().flatten().all(is_met) {
            true => Progress::Met,
            false => Progress::Open,
        }
    }

    /// Namespace, name and last sight of each.
    pub(super) fn each(&self) -> impl Iterator<Item = (&str, &str, Option<&ServiceDiagnosis>)> {
        let seen = self.seen.iter();
        seen.map(|((namespace, name), seen)| (namespace.as_str(), name.as_str(), seen.as_ref()))
    }

    /// What kubectl prints for each that has the condition.
    pub(super) fn met(&self, with_namespace: bool) -> String {
        let line = |(namespace, name, _)| match with_namespace {
            true => format!("{} condition met (namespace {namespace})\n", full_name(name)),
            false => format!("{} condition met\n", full_name(name)),
        };
        self.each().map(line).collect()
    }
}

fn key(diagnosis: &ServiceDiagnosis) -> Key {
    (diagnosis.namespace().unwrap_or_default(), diagnosis.name_any())
}
