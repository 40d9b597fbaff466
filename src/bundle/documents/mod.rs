//! YAML and JSON documents of a file. One that is broken does not hide the others.
//!
//! The list of all Pods of a cluster has some hundred MiB, and several times as much as values. So a list is only
//! divided here, into the texts of its items; each is parsed when its turn comes, and is gone before the next one.

mod json;
mod yaml;

use serde_json::Value;

/// Most objects of one list.
pub(super) const MAX_ITEMS: usize = 200_000;

/// A document of a file.
pub(super) struct Document<'a> {
    /// Where it stands in its file, for people: empty if it is the only one.
    pub place: String,
    /// Its content, or why it could not be read.
    pub content: Result<Content<'a>, String>,
}

/// What is in a document.
pub(super) struct Content<'a> {
    /// All of it; of a list all but the items.
    pub head: Value,
    /// The items, if it has a list of them.
    pub items: Option<Vec<Item<'a>>>,
}

/// An item of a list.
pub(super) enum Item<'a> {
    /// A text that is valid JSON.
    Json(&'a str),
    /// A text that is or is not YAML, and the number of its first line.
    Yaml(usize, &'a str),
    /// Of a list that was parsed as a whole.
    Parsed(Value),
}

impl Item<'_> {
    /// # Errors
    /// Why it could not be read.
    pub(super) fn parse(self) -> Result<Value, String> {
        match self {
            Self::Json(text) => json::value(text),
            Self::Yaml(line, text) => yaml::item(text, line),
            Self::Parsed(value) => Ok(value),
        }
    }
}

impl Content<'_> {
    /// Of a document that was parsed as a whole.
    fn of(mut head: Value) -> Self {
        let items = head.get_mut("items").filter(|items| items.is_array());
        let items = match items.map(Value::take) {
            Some(Value::Array(items)) => Some(items.into_iter().map(Item::Parsed).collect()),
            _ => None,
        };
        Self { head, items }
    }
}

/// The documents of a file, each read when it is asked for.
pub(super) fn of(text: &str) -> Box<dyn Iterator<Item = Document<'_>> + '_> {
    match text.trim_start().starts_with(['{', '[']) {
        true => Box::new(json::documents(text)),
        false => Box::new(yaml::documents(text)),
    }
}

/// Why a list of so many items is not read.
fn too_many(items: usize) -> String {
    format!("left out: a list of {items} objects; at most {MAX_ITEMS} are read")
}

#[cfg(test)]
mod tests;
