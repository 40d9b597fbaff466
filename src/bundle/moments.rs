//! Whether Pods and EndpointSlices are of one moment.
//!
//! Whoever saves them by hand runs one command after the other. A Pod that became ready in between, or was deleted, stands in
//! one list and not in the other, as if the controller that writes the slices lagged behind. Live, slices are read directly
//! before the Pods, and what has just changed has 30 seconds; of files neither is sure. So of each Pod it is asked whether it
//! may have changed between the lists:
//!
//! - by versions, which count up with every change in the cluster: that of a list is of the moment of the list;
//! - else by the times at which the files were written;
//! - else, as nothing says when either was saved, by a span that people need for it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Bundle;
use crate::{
    engine::Facts,
    objects::{Object, Pod},
};

/// How long the controller may take, as the engine has it.
const GRACE: SignedDuration = SignedDuration::from_secs(30);

/// Files that were written that close to one another are of one copy, whose time says nothing, or of one script.
const ONE_COPY: SignedDuration = SignedDuration::from_secs(5);

/// How long people take to save all they are asked for, where nothing says it.
const ONE_SITTING: SignedDuration = SignedDuration::from_mins(10);

/// Kind and namespace.
type Key = (Kind, String);

/// What was listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Pods,
    /// EndpointSlices, or Endpoints, of which slices are made.
    Slices,
}

/// When a list was made, as far as anything says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// The list's resourceVersion, which lists of kubectl do not have.
    pub version: Option<u64>,
    /// When its file was written.
    pub written: Option<Timestamp>,
    /// Where the list is: file and document.
    pub place: String,
}

/// When the lists were made; None where there are several.
#[derive(Debug, Default)]
pub(super) struct Moments(BTreeMap<Key, Option<Moment>>);

impl Moments {
    pub(super) fn note(&mut self, kind: Kind, namespace: &str, moment: &Moment) {
        let known = self
            .0
            .entry((kind, namespace.to_owned()))
            .or_insert_with(|| Some(moment.clone()));
        if known.as_ref() != Some(moment) {
            *known = None;
        }
    }

    fn of(&self, kind: Kind, namespace: &str) -> Option<&Moment> {
        let known = |namespace: &str| self.0.get(&(kind, namespace.to_owned()));
        known(namespace).or_else(|| known(""))?.as_ref()
    }
}

/// Pods of the Service that may have changed between the list of the Pods and that of the EndpointSlices.
pub(super) fn apart(bundle: &Bundle, facts: &Facts) -> Vec<String> {
    // `svcdiag collect` reads them as it does live.
    if bundle.manifest.version.is_some() {
        return Vec::new();
    }
    let of = |kind| bundle.moments.of(kind, &facts.namespace);
    let (pods, slices) = (of(Kind::Pods), of(Kind::Slices));
    let is_one_answer = pods.is_some_and(|p| slices.is_some_and(|s| s.place == p.place));
    if is_one_answer {
        return Vec::new();
    }
    let lists = Lists {
        facts,
        pods,
        slices,
        newest_slice: facts
            .slices
            .iter()
            .filter_map(|slice| version(&slice.metadata))
            .max(),
    };
    let selected = facts.selected_pods().into_iter();
    selected
        .filter(|pod| lists.changed_before_the_pods(pod) || lists.changed_before_the_slices(pod))
        .map(|pod| pod.name().to_owned())
        .collect()
}

struct Lists<'a> {
    facts: &'a Facts,
    pods: Option<&'a Moment>,
    slices: Option<&'a Moment>,
    /// The highest version of an EndpointSlice of the Service.
    newest_slice: Option<u64>,
}

impl Lists<'_> {
    /// Whether the slices may have been listed first, and the Pod become ready then.
    fn changed_before_the_pods(&self, pod: &Pod) -> bool {
        let listed = self.slices.and_then(|slices| slices.version);
        if let (Some(listed), Some(changed)) = (listed, version(&pod.metadata)) {
            return changed > listed;
        }
        let ready = pod.condition("Ready").and_then(|c| c.last_transition_time);
        let Some(changed) = ready.into_iter().chain(pod.changed_at()).max() else {
            return false;
        };
        let saved = match (self.written(self.slices), self.written(self.pods)) {
            (Some(slices), Some(pods)) if slices.duration_until(pods).abs() > ONE_COPY => slices,
            _ => self.facts.now.checked_sub(ONE_SITTING).unwrap_or(Timestamp::MIN),
        };
        changed.checked_add(GRACE).is_ok_and(|due| due > saved)
    }

    /// Whether the Pods may have been listed first, and this one been deleted then. The slices would have changed by that.
    fn changed_before_the_slices(&self, pod: &Pod) -> bool {
        // At least of this version are the Pods as they were listed.
        let listed = self.pods.and_then(|pods| pods.version).or(version(&pod.metadata));
        if let (Some(listed), Some(changed)) = (listed, self.newest_slice) {
            return changed > listed;
        }
        match (self.written(self.pods), self.written(self.slices)) {
            (Some(pods), Some(slices)) => pods.duration_until(slices) > GRACE,
            _ => false,
        }
    }

    /// When a list was written; not later than the bundle was made, as by somebody who unpacked it.
    fn written(&self, moment: Option<&Moment>) -> Option<Timestamp> {
        moment?.written.filter(|written| *written <= self.facts.now)
    }
}

fn version(meta: &ObjectMeta) -> Option<u64> {
    meta.resource_version.as_ref()?.parse().ok()
}
