//! Look-ups of names: `nslookup` (of busybox, old and new, and of bind), `dig`, `host` and `getent hosts`.
//!
//! A text may hold many, each behind its prompt; without prompts they are told apart by how they begin.
//!
//! Sources: busybox's networking/nslookup.c (since 1.29 it asks for A and AAAA by itself and tries every
//! suffix), bind's bin/dig/{nslookup,dighost,host}.c, getent(1).

mod dig;
mod host;
mod nslookup;
mod seen;

use std::net::IpAddr;

use self::seen::Seen;
use super::{
    ParseError,
    prompt::{Piece, invocation, pieces_of},
};
use svcdiag_api::LookupResult;

/// A program that looks up names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// nslookup.
    Nslookup,
    /// dig. It looks up names as they are, unless told to search.
    Dig,
    /// host.
    Host,
    /// getent, which asks as other programs of the image do, /etc/hosts too.
    Getent,
}

/// A look-up and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameLookup {
    /// The line of its command, else of its first output, from 1.
    pub line: usize,
    /// What looked it up.
    pub tool: Tool,
    /// The name as it was asked for, where a command shows it; else as the output has it, which may be with
    /// a suffix; None where it is not shown at all.
    pub name: Option<String>,
    /// The server that was asked.
    pub server: Option<IpAddr>,
    /// How it ended.
    pub result: LookupResult,
    /// Why no server could answer, as the servers say it.
    pub code: Option<String>,
    /// The addresses found.
    pub addresses: Vec<IpAddr>,
    /// The name that they are of, with the suffix that led there; behind an alias its end.
    pub found_as: Option<String>,
    /// Names that do not exist, as the output has them: with the suffixes that were tried.
    pub denied: Vec<String>,
    /// Names that the name is an alias for, where the last of them does not exist.
    pub dead_ends: Vec<String>,
    /// Whether the search list was used, as clients do.
    pub searches: bool,
    /// Whether the program said why it found nothing. Old busybox says the same whether there is no such
    /// name or no server, and getent and `dig +short` say nothing at all: then the result is NotFound, and
    /// it may be otherwise.
    pub explained: bool,
}

/// Programs that look names up.
const TOOLS: [&str; 4] = ["nslookup", "dig", "host", "getent"];

/// Reads look-ups.
///
/// # Errors
/// When there is none.
pub fn parse(text: &str) -> Result<Vec<NameLookup>, ParseError> {
    let mut lookups = Vec::new();
    for piece in pieces_of(text, &TOOLS) {
        let call = piece.command.and_then(Call::parse);
        // What another command printed is not looked at.
        if piece.command.is_none() || call.is_some() {
            lookups.extend(
                chunks(&piece)
                    .iter()
                    .enumerate()
                    .filter_map(|(index, chunk)| read(call.as_ref(), chunk, index == 0)),
            );
        }
    }
    if lookups.is_empty() {
        return Err(ParseError::nothing(
            text,
            "output of nslookup, dig, host or getent",
        ));
    }
    Ok(lookups)
}

/// How a program was called.
struct Call<'a> {
    tool: Tool,
    arguments: Vec<&'a str>,
}

impl<'a> Call<'a> {
    fn parse(command: &'a str) -> Option<Self> {
        let (program, arguments) = invocation(command, &TOOLS)?;
        let tool = match program {
            "nslookup" => Tool::Nslookup,
            "dig" => Tool::Dig,
            "host" => Tool::Host,
            _ => Tool::Getent,
        };
        Some(Self { tool, arguments })
    }

    fn has(&self, option: &str) -> bool {
        self.arguments.contains(&option)
    }

    /// Arguments that are no options, nor types of records, nor values of either.
    fn positional(&self) -> impl Iterator<Item = &'a str> {
        let mut is_value = false;
        self.arguments.iter().copied().filter(move |word| {
            let was_value = std::mem::replace(
                &mut is_value,
                matches!(*word, "-t" | "-p" | "-b" | "-c" | "-k" | "-W"),
            );
            let is_type = ["A", "AAAA", "ANY", "CNAME", "IN", "PTR", "SRV"]
                .contains(&word.to_ascii_uppercase().as_str());
            !(was_value || is_type || word.starts_with(['-', '+', '@']))
        })
    }

    /// Whether it asks for something else than the addresses of IPv4.
    fn is_typed(&self) -> bool {
        let is_type = |word: &&str| {
            let word = word.to_ascii_lowercase();
            let named = ["-type=", "-query=", "-q=", "-querytype="]
                .iter()
                .any(|t| word.starts_with(t));
            (named && !word.ends_with("=a"))
                || ["aaaa", "srv", "ptr", "cname", "any", "mx"].contains(&word.as_str())
        };
        self.arguments.iter().any(is_type)
    }

    fn name(&self) -> Option<&'a str> {
        // `getent hosts NAME`: the first one is the database.
        self.positional().nth(usize::from(self.tool == Tool::Getent))
    }

    fn server(&self) -> Option<IpAddr> {
        let at = self.arguments.iter().find_map(|word| word.strip_prefix('@'));
        let second = || {
            self.positional()
                .nth(1)
                .filter(|_| matches!(self.tool, Tool::Nslookup | Tool::Host))
        };
        at.or_else(second).and_then(address)
    }
}

/// The output of a piece, cut where another look-up begins.
fn chunks<'a>(piece: &Piece<'a>) -> Vec<Piece<'a>> {
    let mut chunks = vec![Piece {
        output: Vec::new(),
        ..piece.clone()
    }];
    for (number, line) in &piece.output {
        let begins = chunks.last().is_some_and(|chunk| begins(line, &chunk.output));
        if begins {
            chunks.push(Piece {
                command: piece.command,
                line: *number,
                output: Vec::new(),
            });
        }
        if let Some(chunk) = chunks.last_mut() {
            chunk.output.push((*number, line));
        }
    }
    chunks
}

/// Whether a line begins another look-up than the one of the lines before it.
fn begins(line: &str, before: &[(usize, &str)]) -> bool {
    let has = |what: &str| before.iter().any(|(_, line)| line.trim_start().starts_with(what));
    let is_other_host = || {
        let (name, _) = line.split_once(" has ")?;
        let (other, _) = before
            .iter()
            .rev()
            .find_map(|(_, line)| line.split_once(" has "))?;
        Some(name != other)
    };
    (line.starts_with("Server:") && has("Server:"))
        || (line.starts_with("; <<>> DiG") && before.iter().any(|(_, line)| !line.trim().is_empty()))
        || is_other_host() == Some(true)
}

/// Reads a look-up; a command line names the first one of its own only.
fn read(call: Option<&Call<'_>>, chunk: &Piece<'_>, is_first: bool) -> Option<NameLookup> {
    let has = |what: &str| chunk.output.iter().any(|(_, line)| line.contains(what));
    let tool = match call {
        Some(call) => call.tool,
        None if has("; <<>> DiG") || has("->>HEADER<<-") => Tool::Dig,
        None if has(" has address ") || has(" has IPv6 address ") || has("not found: ") => Tool::Host,
        None => Tool::Nslookup,
    };
    let mut seen = Seen::default();
    // busybox since 1.29 has a resolver of its own and shows the port like this. It never searches for names
    // with a dot, and up to 1.32 for none.
    let is_busybox = tool == Tool::Nslookup && has(":53") && !has("#53");
    let is_partial = |name: &str| name.trim_end_matches('.').matches('.').count() < 3;
    for (_, line) in &chunk.output {
        match tool {
            Tool::Nslookup => nslookup::read(&mut seen, line),
            Tool::Dig => dig::read(&mut seen, line),
            Tool::Host => host::read(&mut seen, line),
            Tool::Getent => host::read_getent(&mut seen, line),
        }
    }
    let is_silent = chunk.output.iter().all(|(_, line)| line.trim().is_empty());
    let says_little = call.is_some_and(|call| tool == Tool::Getent || call.has("+short"));
    if is_silent && says_little {
        seen.unexplained = true;
    }
    let named = call.filter(|_| is_first).and_then(Call::name).map(str::to_owned);
    let name = named.or(seen.name.clone());
    let mut result = seen.result()?;
    // An answer without addresses to a question for another kind says nothing of the name.
    if call.is_some_and(Call::is_typed) && result != LookupResult::Found {
        return None;
    }
    let only_as_it_is = |name: &str| is_partial(name) && seen.denied.iter().all(|denied| denied == name);
    if is_busybox && result == LookupResult::NotFound && name.as_deref().is_some_and(only_as_it_is) {
        result = LookupResult::Unclear;
    }
    Some(NameLookup {
        line: match call {
            Some(_) => chunk.line,
            None => chunk.output.iter().find(|(_, line)| !line.trim().is_empty())?.0,
        },
        tool,
        explained: result == LookupResult::Found || !seen.only_unexplained(),
        name,
        server: seen.server.or_else(|| call.and_then(Call::server)),
        result,
        code: seen.code.filter(|_| result == LookupResult::Failed),
        found_as: seen.found_as.filter(|_| result == LookupResult::Found),
        addresses: seen.addresses,
        denied: seen.denied,
        dead_ends: if result == LookupResult::NotFound && seen.is_denied {
            seen.aliases
        } else {
            Vec::new()
        },
        searches: tool != Tool::Dig || call.is_some_and(|call| call.has("+search")),
    })
}

/// An address, with or without a port behind it: `10.0.0.10#53`, `10.0.0.10:53`, `[fd00::a]:53`.
fn address(word: &str) -> Option<IpAddr> {
    let word = word.split(['#', '(']).next()?;
    let plain = word.trim_start_matches('[').split(']').next()?;
    let without_port = || {
        plain
            .rsplit_once(':')?
            .0
            .parse::<IpAddr>()
            .ok()
            .filter(IpAddr::is_ipv4)
    };
    plain.parse().ok().or_else(without_port)
}

#[cfg(test)]
mod tests;
