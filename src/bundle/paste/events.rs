//! Events of tables and descriptions: what went wrong with an object, and nothing of whether it still does.
//!
//! kubectl prints no UID. So an Event counts for a Pod that is known as an object only if it is not older than that Pod, which
//! may have had an earlier one's name.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::{Fate, tables::Tables};
use crate::{
    api::printable::foreign,
    bundle::objects::identity::is_subdomain,
    engine::{Facts, SavedEvent},
    formats::text::{
        events::{EventLine, Events, of_description, table},
        kubectl::Kubectl,
        paste::{Form, Section},
    },
    objects::{Event, InvolvedObject},
};

/// Most Events that are kept, of all tables together: some hundred Pods with several reasons each.
const MAX_EVENTS: usize = 2_000;

/// Most characters of a message that are kept.
const MAX_MESSAGE: usize = 240;

/// Kinds whose Events say something of a Service, as the API writes them.
const KINDS: [&str; 11] = [
    "Pod",
    "Service",
    "Endpoints",
    "EndpointSlice",
    "Node",
    "Deployment",
    "ReplicaSet",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "ReplicationController",
];

/// What an Event is about, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Topic {
    namespace: String,
    kind: &'static str,
    name: String,
    reason: String,
}

/// The last that was said of a topic.
#[derive(Clone, Debug)]
struct Last {
    age: Option<SignedDuration>,
    message: String,
}

/// The last Warning of each object and reason.
#[derive(Debug, Default)]
pub(super) struct SaidEvents(BTreeMap<Topic, Last>);

/// Whether a section holds Events of a command, without the header that would make a table of it.
pub(super) fn is_bare_table(section: &Section<'_>) -> bool {
    let asks_for_events = |command| {
        Kubectl::parse(command).is_some_and(|k| match k.verb {
            "events" => true,
            "get" => matches!(k.operands.first(), Some(&("events" | "event" | "ev"))),
            _ => false,
        })
    };
    section.form == Form::Output && section.command.is_some_and(asks_for_events)
}

/// The kind of a word of kubectl, `pod` or `Pod`.
fn kind(word: &str) -> Option<&'static str> {
    KINDS.into_iter().find(|kind| kind.eq_ignore_ascii_case(word))
}

impl Tables {
    /// Takes a table of Events in; says what it is and what became of it.
    pub(super) fn add_events(&mut self, section: &Section<'_>, home: &str) -> (String, Fate) {
        let Events { events, misfits } = table(section.text);
        let command = section.command.and_then(Kubectl::parse);
        let asked = command.as_ref().and_then(|c| c.namespace).unwrap_or(home);
        let is_of_all = command.is_some_and(|c| c.all_namespaces);
        let mut warnings = 0;
        let mut unplaced = 0;
        for event in events.iter().filter(|event| event.is_warning) {
            warnings += 1;
            match (event.namespace, event.object) {
                (None, _) if is_of_all => unplaced += 1,
                (namespace, Some((word, name))) => {
                    if let Some(kind) = kind(word) {
                        self.say_event(namespace.unwrap_or(asked), kind, name, event);
                    }
                }
                (_, None) => {}
            }
        }
        let misfits: Vec<usize> = misfits.iter().map(|line| section.first + line).collect();
        let what = format!(
            "a table of Events ({}, {}){}",
            count(events.len(), "row"),
            count(warnings, "Warning"),
            super::not_understood(misfits)
        );
        let fate = match warnings {
            0 => Fate::NotUsed("none of them is a Warning".to_owned()),
            _ if unplaced == warnings => {
                Fate::NotUsed("it is of all namespaces, but has no column NAMESPACE".to_owned())
            }
            _ => Fate::Used,
        };
        (what, fate)
    }

    /// Takes the Events of a description in; returns how many Warnings there are.
    pub(super) fn add_described_events(
        &mut self,
        namespace: &str,
        kind: &'static str,
        name: &str,
        lines: &[&str],
    ) -> usize {
        let events = of_description(lines);
        let warnings = events.iter().filter(|event| event.is_warning);
        warnings
            .inspect(|event| self.say_event(namespace, kind, name, event))
            .count()
    }

    fn say_event(&mut self, namespace: &str, kind: &'static str, name: &str, event: &EventLine<'_>) {
        // What stands in a message of ours is no more than a name may be.
        if !is_subdomain(name) || !is_subdomain(namespace) {
            return;
        }
        let topic = Topic {
            namespace: namespace.to_owned(),
            kind,
            name: name.to_owned(),
            reason: event.reason.to_owned(),
        };
        let events = &mut self.events.0;
        if events.len() >= MAX_EVENTS && !events.contains_key(&topic) {
            return;
        }
        let last = Last {
            age: event.age,
            message: foreign(event.message).chars().take(MAX_MESSAGE).collect(),
        };
        let is_later = |before: &Last| match (last.age, before.age) {
            (Some(age), Some(before)) => age <= before,
            (age, _) => age.is_some(),
        };
        if events.get(&topic).is_none_or(is_later) {
            events.insert(topic, last);
        }
    }

    /// Whether Events of a namespace are shown.
    pub(in crate::bundle) fn has_events(&self, namespace: &str) -> bool {
        self.events.0.keys().any(|topic| topic.namespace == namespace)
    }

    /// Gives the Events to what they are about: those of known Pods and workloads stand beside those that the API keeps, all
    /// others are only quoted.
    pub(in crate::bundle) fn add_events_to(&self, facts: &mut Facts) {
        for (topic, last) in &self.events.0 {
            if topic.namespace != facts.namespace && topic.kind != "Node" {
                continue;
            }
            let seen = last.age.and_then(|age| facts.now.checked_sub(age).ok());
            match of_known(facts, topic, seen) {
                Known::As(uid) => facts.events.push(Arc::new(event(topic, last, seen, uid))),
                Known::Not => facts.saved_objects.events.push(saved(topic, last)),
                Known::Earlier => {}
            }
        }
    }
}

/// What is known of the object that an Event is about.
enum Known {
    /// It is there, with this UID.
    As(Option<String>),
    /// It is there, but may have been made after the Event.
    Earlier,
    Not,
}

fn of_known(facts: &Facts, topic: &Topic, seen: Option<Timestamp>) -> Known {
    let metadata = match topic.kind {
        "Pod" => facts.pods.iter().map(|p| &p.metadata).find(|m| is(m, topic)),
        "ReplicaSet" => facts
            .replica_sets
            .iter()
            .map(|r| &r.metadata)
            .find(|m| is(m, topic)),
        "StatefulSet" => facts
            .stateful_sets
            .iter()
            .map(|s| &s.metadata)
            .find(|m| is(m, topic)),
        _ => None,
    };
    let Some(metadata) = metadata else {
        return Known::Not;
    };
    let created = metadata.creation_timestamp.as_ref().map(|at| at.0);
    match seen {
        Some(seen) if created.is_none_or(|created| created <= seen) => Known::As(metadata.uid.clone()),
        _ => Known::Earlier,
    }
}

fn is(metadata: &ObjectMeta, topic: &Topic) -> bool {
    metadata.name.as_deref() == Some(&topic.name)
}

fn saved(topic: &Topic, last: &Last) -> SavedEvent {
    SavedEvent {
        kind: topic.kind.to_owned(),
        name: topic.name.clone(),
        reason: topic.reason.clone(),
        message: last.message.clone(),
        seconds_ago: last.age.map(|age| age.as_secs()),
    }
}

/// The Event as the API would have it, but with its age in words: a reader has to know how old it is.
fn event(topic: &Topic, last: &Last, seen: Option<Timestamp>, uid: Option<String>) -> Event {
    let mut event = Event {
        involved_object: InvolvedObject {
            kind: topic.kind.to_owned(),
            name: topic.name.clone(),
            uid: uid.unwrap_or_default(),
        },
        type_: "Warning".to_owned(),
        reason: topic.reason.clone(),
        message: saved(topic, last).dated(),
        last_timestamp: seen.map(Time),
        ..Event::default()
    };
    event.metadata.namespace = Some(topic.namespace.clone());
    event
}

/// `1 Warning`, `3 Warnings`.
pub(super) fn count(n: usize, of: &str) -> String {
    match n {
        1 => format!("1 {of}"),
        n => format!("{n} {of}s"),
    }
}
