//! Wording that several messages share.

use crate::UNKNOWN_NODE;

/// How many items a list names, and how many sentences of one kind a message has.
pub(crate) const SHOWN: usize = 3;

/// `1 Pod`, `3 Pods`.
pub(crate) fn count(n: usize, noun: &str) -> String {
    match n {
        1 => format!("1 {noun}"),
        _ => format!("{n} {noun}s"),
    }
}

/// `a`, `a and b`, `a, b, c and 7 more`: enough to recognise, short enough for a message.
pub(crate) fn list<S: AsRef<str>>(items: &[S]) -> String {
    let shown: Vec<&str> = items.iter().take(SHOWN).map(AsRef::as_ref).collect();
    match (items.len(), shown.split_last()) {
        (_, None) => String::new(),
        (n, _) if n > SHOWN => format!("{} and {} more", shown.join(", "), n - SHOWN),
        (_, Some((only, []))) => (*only).to_owned(),
        (_, Some((last, rest))) => format!("{} and {last}", rest.join(", ")),
    }
}

/// As [`list`], with what the rest are: `a, b, c and 7 more sources`.
pub(crate) fn list_of<S: AsRef<str>>(items: &[S], noun: &str) -> String {
    let said = list(items);
    match items.len() {
        0..=SHOWN => said,
        n if n == SHOWN + 1 => format!("{said} {noun}"),
        _ => format!("{said} {noun}s"),
    }
}

/// `node n1`, `nodes n1 and n2`; `an unknown node`, where no other is known.
pub(crate) fn nodes<S: AsRef<str>>(names: &[S]) -> String {
    let known: Vec<&str> = names
        .iter()
        .map(AsRef::as_ref)
        .filter(|name| *name != UNKNOWN_NODE)
        .collect();
    match known.len() {
        0 if !names.is_empty() => "an unknown node".to_owned(),
        1 => format!("node {}", list(&known)),
        _ => format!("nodes {}", list(&known)),
    }
}

/// `none of the 3`, and of two `neither of the 2`.
pub(crate) fn none_of(n: usize) -> String {
    match n {
        2 => "neither of the 2".to_owned(),
        _ => format!("none of the {n}"),
    }
}

/// The first letter as at the beginning of a sentence.
pub(crate) fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// The first letter as in the middle of a sentence.
pub(crate) fn uncapitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// A word as one argument of a shell command: in quotes, unless it is plain.
pub(crate) fn quoted(argument: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':');
    if !argument.is_empty() && !argument.starts_with('-') && argument.chars().all(is_plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}
