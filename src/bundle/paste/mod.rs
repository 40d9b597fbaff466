//! A paste as a bundle: objects and outputs of commands in one text, as people copy them from a terminal or an issue.
//!
//! [`sections`] cuts the text. Objects become files of a bundle, which is read like every other. Then, when it is known
//! which Nodes and Pods there are, outputs of commands are put to those on which they were typed; `session` says which.
//! [`Part`]s say of every line what it was taken for, or that it was not understood.

mod described_nodes;
mod descriptions;
mod events;
mod outputs;
mod session;
pub(super) mod tables;

use std::ops::RangeInclusive;

use jiff::Timestamp;
use serde_json::Value;

use self::session::Sessions;
use super::{
    Bundle, Files,
    documents::{self, Content},
    files::File,
    one_offs,
};
use crate::{
    api::printable::printable,
    formats::text::{
        continued::joined,
        corefile,
        paste::{Form, Section, sections},
    },
    objects::Object,
};

/// Most parts that are listed.
const MAX_PARTS: usize = 200;

/// Most blank lines that are put before objects so that messages name the lines of the paste, all together.
const MAX_PADDING: usize = 4 << 20;

/// Most documents of one part that are looked at for their names.
const MAX_NAMED: usize = 200;

/// How much of a line is shown of what was not understood, in characters.
const SHOWN: usize = 60;

/// The ConfigMap of cluster DNS, where only its content is known.
const CONFIG_MAP: &str = "coredns";

/// What some lines of a paste were taken for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The lines, from 1.
    pub lines: RangeInclusive<usize>,
    /// What they are, or how they begin.
    pub what: String,
    /// What became of them.
    pub fate: Fate,
}

/// What became of some lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// They count.
    #[default]
    Used,
    /// They were recognized, but do not count, and why.
    NotUsed(String),
    /// Nobody knows what they are.
    NotRecognized,
}

impl Part {
    /// The part as a line for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let (first, last) = (self.lines.start(), self.lines.end());
        let lines = match first == last {
            true => format!("line {first}"),
            false => format!("lines {first}-{last}"),
        };
        let what = printable(&self.what);
        match &self.fate {
            Fate::Used => format!("{lines}: {what}"),
            Fate::NotUsed(why) => format!("{lines}: {what}; not used: {}", printable(why)),
            Fate::NotRecognized => format!("{lines}: not recognized, not used: {what}"),
        }
    }
}

/// Reads a paste. Objects without a namespace are in `namespace`, or else in that of kubectl's defaults.
#[must_use]
pub fn read(text: &str, modified: Option<Timestamp>, namespace: Option<&str>) -> (Bundle, Vec<Part>) {
    let text = joined(text);
    let sections = sections(&text);
    let mut padding = MAX_PADDING;
    let is_object = |s: &&Section<'_>| matches!(s.form, Form::Yaml | Form::Json);
    let objects = sections.iter().filter(is_object);
    let files = objects.map(|section| File {
        path: path(section),
        text: padded(section, &mut padding),
        modified,
    });
    let files = Files {
        files: files.collect(),
        problems: Vec::new(),
    };
    // What kubectl writes straight into a pipe is a file of a bundle.
    let is_one_answer = matches!(sections.as_slice(), [only] if is_object(&only) && only.command.is_none());
    let mut bundle = match is_one_answer {
        true => Bundle::within(files, namespace),
        false => Bundle::pasted(files, namespace),
    };
    bundle.is_paste = true;
    let mut of_tables = read_tables(&mut bundle, &sections).into_iter();
    let unnamed = one_offs::namespace(&bundle, &sections);
    let mut sessions = Sessions::new(unnamed.as_deref());
    let mut parts: Vec<Part> = Vec::new();
    for section in &sections {
        let place = sessions.place(section);
        let (what, fate) = match section.form {
            Form::Yaml | Form::Json => objects_of(section),
            _ if is_table(section) => of_tables.next().unwrap_or_default(),
            _ if corefile::is_one(section.text) => corefile_of(&mut bundle, section.text),
            Form::Output => outputs::take(&mut bundle, section, place, modified),
            _ => (beginning(section.text), Fate::NotRecognized),
        };
        parts.push(Part {
            lines: section.first..=section.last,
            what,
            fate,
        });
    }
    (bundle, limited(parts))
}

/// Whether kubectl printed a section of what objects show, but not the objects.
fn is_table(section: &Section<'_>) -> bool {
    matches!(section.form, Form::Table | Form::Description) || events::is_bare_table(section)
}

/// Which lines of a table were not understood, as the end of what is said of it.
fn not_understood(mut lines: Vec<usize>) -> String {
    if lines.is_empty() {
        return String::new();
    }
    lines.sort_unstable();
    let named: Vec<String> = lines.iter().take(3).map(ToString::to_string).collect();
    let more = if lines.len() > named.len() { ", ..." } else { "" };
    format!(
        ", of which some were not understood (line {}{more})",
        named.join(", ")
    )
}

/// Takes tables and descriptions in, for what objects do not say. Says of each what it is and what became of it.
fn read_tables(bundle: &mut Bundle, sections: &[Section<'_>]) -> Vec<(String, Fate)> {
    let home = bundle.home().to_owned();
    let mut tables = std::mem::take(&mut bundle.tables);
    let of_section = |section: &Section<'_>| match section.form {
        Form::Description => tables.describe(section, &home),
        _ => tables.add(section, &home),
    };
    let found = sections.iter().filter(|s| is_table(s)).map(of_section).collect();
    for (key, service, has_targets) in tables.services() {
        if !bundle.inventory.has_service(&key.0, &key.1) {
            bundle.inventory.apply(service);
            if !has_targets {
                bundle.from_tables.insert(key.clone());
            }
        }
    }
    for node in tables.nodes() {
        if !bundle.inventory.node_labels().contains_key(node.name()) {
            bundle.inventory.apply(node);
        }
    }
    bundle.tables = tables;
    found
}

/// Takes tables and descriptions in that are files at the top of a bundle, where no node's or Pod's are.
pub(super) fn read_texts(bundle: &mut Bundle) {
    let files = std::mem::take(&mut bundle.files.files);
    let is_text = |file: &&File| {
        !file.path.contains('/')
            && [".txt", ".log", ".out"]
                .iter()
                .any(|end| file.path.ends_with(end))
    };
    for file in files.iter().filter(is_text) {
        if corefile::is_one(&file.text) {
            let _ = corefile_of(bundle, &file.text);
            bundle.read_as_tables.insert(file.path.clone());
            continue;
        }
        let found = read_tables(bundle, &sections(&file.text));
        if !found.is_empty() && found.iter().all(|(_, fate)| *fate == Fate::Used) {
            bundle.read_as_tables.insert(file.path.clone());
        }
    }
    bundle.files.files = files;
}

/// What is too much to list is still said.
fn limited(mut parts: Vec<Part>) -> Vec<Part> {
    if parts.len() > MAX_PARTS {
        let rest = parts.split_off(MAX_PARTS);
        let first = rest.first().map_or(0, |p| *p.lines.start());
        let last = rest.last().map_or(0, |p| *p.lines.end());
        let unknown = rest.iter().filter(|p| p.fate == Fate::NotRecognized).count();
        parts.push(Part {
            lines: first..=last,
            what: format!(
                "{} more parts, {unknown} of which were not recognized",
                rest.len()
            ),
            fate: Fate::Used,
        });
    }
    parts
}

/// The path of a file of objects, by which messages name it.
fn path(section: &Section<'_>) -> String {
    let ending = match section.form {
        Form::Json => "json",
        _ => "yaml",
    };
    format!("objects/lines-{}-{}.{ending}", section.first, section.last)
}

/// The text of a section behind as many lines as stand before it, so that messages name the right ones.
fn padded(section: &Section<'_>, left: &mut usize) -> String {
    let before = section.first.saturating_sub(1);
    let lines = if before <= *left { before } else { 0 };
    *left -= lines;
    let mut text = "\n".repeat(lines);
    text.push_str(section.text);
    text
}

/// The objects of a section, by kind and name.
fn objects_of(section: &Section<'_>) -> (String, Fate) {
    const NAMED: usize = 4;
    let mut names: Vec<String> = Vec::new();
    let mut broken = 0;
    let mut all = documents::of(section.text);
    for document in all.by_ref().take(MAX_NAMED) {
        match document.content {
            Ok(content) => names.extend(object(&content)),
            Err(_) => broken += 1,
        }
    }
    let format = match section.form {
        Form::Json => "JSON",
        _ => "YAML",
    };
    if names.is_empty() {
        let why = match broken {
            0 => "it holds no Kubernetes object",
            _ => "it could not be parsed",
        };
        return (
            format!("{format} ({})", beginning(section.text)),
            Fate::NotUsed(why.to_owned()),
        );
    }
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let mut what = names.join(", ");
    if all.next().is_some() {
        what.push_str(" and many more");
    } else if more > 0 {
        what.push_str(&format!(" and {more} more"));
    }
    (what, Fate::Used)
}

/// `Service web`, or a list and how long it is.
fn object(content: &Content<'_>) -> Option<String> {
    let text = |pointer: &str| content.head.pointer(pointer).and_then(Value::as_str);
    let kind = text("/kind")?;
    Some(match (&content.items, text("/metadata/name")) {
        (Some(items), _) => match items.len() {
            1 => format!("{kind} with 1 object"),
            n => format!("{kind} with {n} objects"),
        },
        (None, Some(name)) => format!("{kind} {name}"),
        (None, None) => kind.to_owned(),
    })
}

/// Takes the domain of the cluster's names out of a Corefile. The ConfigMap itself counts for more.
fn corefile_of(bundle: &mut Bundle, text: &str) -> (String, Fate) {
    match corefile::domain(text) {
        Some(domain) => {
            let known = || (CONFIG_MAP.to_owned(), domain.to_owned());
            bundle.dns_config.get_or_insert_with(known);
            (format!("a Corefile (cluster domain {domain})"), Fate::Used)
        }
        None => {
            let why = "its plugin kubernetes names no domain";
            ("a Corefile".to_owned(), Fate::NotUsed(why.to_owned()))
        }
    }
}

/// How a text begins.
fn beginning(text: &str) -> String {
    let line = text.lines().find(|line| !line.trim().is_empty());
    shortened(line.unwrap_or_default().trim())
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
