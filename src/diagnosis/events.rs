//! What the components of the cluster said about an object, cut down to what a message can carry.

use super::Facts;
use crate::objects::{Event, Object, Pod};

/// Most characters of somebody else's text in a message of ours.
const MAX_QUOTED: usize = 300;

/// Shortest run of hexadecimal digits that is taken for the ID of a container or sandbox.
const ID_LENGTH: usize = 32;

/// The last Warning about a Pod that matters.
pub(super) fn last_about_pod<'a>(
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

/// An Event in words: `FailedMount: MountVolume.SetUp failed for volume "x"`.
pub(super) fn describe(event: &Event) -> String {
    match event.message.trim() {
        "" => event.reason.clone(),
        message => format!("{}: {}", event.reason, one_line(message)),
    }
}

/// Somebody else's text as a part of one of our sentences: on one line, of bounded length, without a full stop, and
/// without the IDs of sandboxes, which change with every try and would rewrite the status each time.
pub(super) fn one_line(text: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
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
    use super::one_line;

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
    fn long_texts_are_cut() {
        let short = one_line(&"é".repeat(400));
        assert_eq!(short.chars().count(), 301);
    }
}
