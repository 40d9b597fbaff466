//! What a real kube-apiserver was asked, and what it answered: `contract.jsonl`, one record a line.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

/// A request and its answer.
#[derive(Deserialize)]
pub(crate) struct Record {
    pub name: String,
    pub topic: String,
    pub method: String,
    pub path: String,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body as JSON; its text is what was sent.
    pub body: Option<Box<RawValue>>,
    /// A body that is not JSON, byte for byte.
    pub raw: Option<String>,
    pub response: Answer,
    #[serde(default)]
    pub compare: Compare,
    /// Seconds within which the answer comes about, by what controllers do in the background.
    #[serde(default)]
    pub poll: u64,
    /// What has to be done first; `compact` forgets the history.
    pub before: Option<String>,
    /// What the stand-in leaves out on purpose: users and rights, admission policies, protobuf.
    pub scope: Option<String>,
}

/// An answer.
#[derive(Deserialize)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: Headers,
    pub body: Option<Value>,
    pub text: Option<String>,
    pub events: Option<Vec<Value>>,
    #[serde(default)]
    pub omitted: bool,
}

/// The headers that clients act on.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Headers {
    pub content_type: Option<String>,
    #[serde(default)]
    pub warning: Vec<String>,
    pub content_encoding: Option<String>,
    pub retry_after: Option<String>,
}

/// How much of an answer counts.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Compare {
    pub mode: Mode,
    /// Paths that do not count, with `*` for one step.
    pub ignore: Vec<String>,
    #[serde(rename = "managedFields")]
    pub managed_fields: bool,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    #[default]
    Exact,
    /// The answer may have more.
    Contains,
    /// Status and headers only.
    Head,
}

/// All records, in the order in which they were made.
pub(crate) fn records() -> Vec<Record> {
    include_str!("contract.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
