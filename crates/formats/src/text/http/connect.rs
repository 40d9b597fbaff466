//! Connections without a request: `nc -zv HOST PORT`, `ncat`, `telnet HOST PORT`.
//!
//! Sources: OpenBSD's netcat.c, busybox's nc and telnet, ncat's ncat_connect.c, netkit's telnet.

use super::{Outcome, Request, message};
use crate::text::prompt::Piece;
use svcdiag_api::Answer;

/// Programs that connect, and send what is typed.
pub(super) const PROGRAMS: [&str; 3] = ["nc", "ncat", "telnet"];

/// Options that are followed by a value.
const WITH_VALUE: [&str; 8] = ["-w", "-i", "-p", "-s", "-X", "-x", "-O", "-T"];

/// Reads what came of a call; None where it listens, or sends datagrams, of which nothing is heard.
pub(super) fn read(piece: &Piece<'_>, arguments: &[&str]) -> Option<Request> {
    let has = |flag: char| {
        let mut flags = arguments
            .iter()
            .filter(|word| word.starts_with('-') && !word.starts_with("--"));
        flags.any(|word| word.contains(flag))
    };
    if has('l') || has('u') {
        return None;
    }
    let mut is_value = false;
    let mut places = arguments.iter().copied().filter(|word| {
        let was_value = std::mem::replace(&mut is_value, WITH_VALUE.contains(word));
        !was_value && !word.starts_with('-')
    });
    let (host, port) = (places.next()?, places.next()?);
    let _: u16 = port.parse().ok()?;
    let target = match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    let ends = || {
        piece
            .output
            .iter()
            .filter_map(|(_, line)| Some((end(line.trim())?, line.trim())))
    };
    let accepted = ends().find(|(outcome, _)| *outcome == Outcome::Answer(Answer::Accepted));
    let (outcome, detail) = match accepted.or_else(|| ends().next_back()) {
        Some((outcome, line)) => (outcome, Some(line.to_owned())),
        None => (Outcome::Silent, None),
    };
    Some(Request {
        line: piece.line,
        target: Some(target),
        tried: None,
        outcome,
        status: None,
        body: None,
        detail,
        took: None,
    })
}

fn end(line: &str) -> Option<Outcome> {
    const UNKNOWN: [&str; 4] = ["could not resolve", "not known", "bad address", "name resolution"];
    let lower = line.to_lowercase();
    let is_open = lower.ends_with(" open") || lower.ends_with("succeeded!");
    let is_connected = ["connected to ", "ncat: connected to "]
        .iter()
        .any(|start| lower.starts_with(start));
    if is_open || is_connected {
        return Some(Outcome::Answer(Answer::Accepted));
    }
    if UNKNOWN.iter().any(|words| lower.contains(words)) {
        return Some(Outcome::NotResolved);
    }
    if lower.contains("operation now in progress") || lower == "ncat: timeout." {
        return Some(Outcome::Answer(Answer::TimedOut));
    }
    message::dial(line).map(Outcome::Answer)
}
