//! What kube-proxy wrote on a node, from what people and tools saved of it.
//!
//! Each module reads the output of one command and answers as the kernel does in `svcdiag_netns::netfilter`:
//! [`iptables_save`], [`nft`] and [`nft_json`] as a [`Ruleset`](svcdiag_kube_proxy::Ruleset), [`ipvsadm`] as
//! [`VirtualServers`](svcdiag_kube_proxy::VirtualServers). [`portals`] knows userspace mode, [`ipset`] what ipvs
//! mode masquerades, and [`forwarding`] what the node's firewall lets through.
//!
//! Such texts are often only a part: pasted, filtered by `grep`, cut at a limit. What is not in a text
//! that is a part is not known, which is something else than missing.

mod chain_names;
#[cfg(test)]
mod damage;
pub mod forwarding;
pub mod ipset;
pub mod iptables_save;
pub mod ipvsadm;
pub mod nft;
pub mod nft_json;
mod nft_keys;
mod nft_match;
mod nft_rule;
pub mod portals;
mod save_index;
mod save_outputs;
mod save_part;
mod save_text;
mod save_towards;
mod words;
mod xt_rule;
mod xt_values;

use std::fmt;

use svcdiag_kube_proxy::ReadError;

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: expected {expected}, found {found}")]
pub struct ParseError {
    /// Its number; the first one is 1.
    pub line: usize,
    /// What is wrong with it.
    pub found: String,
    /// What should be there.
    pub expected: &'static str,
}

impl ParseError {
    /// Nothing in a text is what it should be, beginning with its first line.
    fn nothing(text: &str, expected: &'static str) -> Self {
        let mut lines = text.lines().zip(1..);
        let (first, line) = lines.find(|(line, _)| !line.trim().is_empty()).unwrap_or(("", 1));
        Wrong::word(first, expected).at(line)
    }
}

/// What is wrong with a line whose number somebody else knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found}")]
pub(crate) struct Wrong {
    found: String,
    expected: &'static str,
}

impl Wrong {
    pub(crate) fn new(found: impl Into<String>, expected: &'static str) -> Self {
        Self {
            found: found.into(),
            expected,
        }
    }

    /// For a word, which may be long.
    pub(crate) fn word(word: &str, expected: &'static str) -> Self {
        const LONGEST: usize = 60;
        let shown: String = word.chars().take(LONGEST).collect();
        Self::new(format!("{shown:?}"), expected)
    }

    pub(crate) fn at(self, line: usize) -> ParseError {
        ParseError {
            line,
            found: self.found,
            expected: self.expected,
        }
    }
}

/// The number of the line that a place of a text is in.
fn line_number(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    1 + memchr::memchr_iter(b'\n', before).count()
}

/// What was asked of a chain, in words.
fn chain_in_words(table: &str, chain: &str) -> String {
    format!("chain {chain} of table {table}")
}

/// What all outputs that know an answer say, given with where they stand.
pub fn agreed<P: fmt::Display, T: PartialEq>(
    what: &str,
    answers: impl Iterator<Item = (P, Result<T, ReadError>)>,
) -> Result<T, ReadError> {
    let mut known: Option<(P, T)> = None;
    let mut unknown = None;
    for (place, answer) in answers {
        match (answer, &known) {
            (Ok(found), Some((first, before))) if found != *before => {
                return Err(contradiction(what, first, &place));
            }
            (Ok(found), None) => known = Some((place, found)),
            (Ok(_), Some(_)) => {}
            (Err(error), _) => unknown = unknown.or(Some(error)),
        }
    }
    let nothing = || ReadError {
        what: what.to_owned(),
        why: "the saved rules do not contain it".to_owned(),
    };
    match known {
        Some((_, answer)) => Ok(answer),
        None => Err(unknown.unwrap_or_else(nothing)),
    }
}

/// Nobody knows which one of two outputs holds, which may be of two moments or two nodes.
fn contradiction(what: &str, one: &dyn fmt::Display, other: &dyn fmt::Display) -> ReadError {
    ReadError {
        what: what.to_owned(),
        why: format!("the outputs at {one} and at {other} contradict each other; keep the current one"),
    }
}
