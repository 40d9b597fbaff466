//! Requests by hand: `curl` and `wget` (GNU's and busybox's), quiet or verbose; and connections by `nc` and `telnet`.
//!
//! Bodies have no form of their own: without a prompt that shows the command, only messages of curl or wget
//! make a text one of theirs.
//!
//! Sources: curl's lib/strerror.c and lib/connect.c, GNU wget's src/{http,connect,host}.c, busybox's
//! networking/wget.c and libbb/xconnect.c.

mod connect;
mod message;

use std::net::IpAddr;

use self::message::{Message, message};
use super::{
    ParseError,
    prompt::{Piece, invocation, pieces_of},
};
use svcdiag_api::Answer;

/// What arrives at most, in bytes, where all packets but the small ones of an answer are lost.
pub const FEW_PACKETS: u64 = 4096;

/// A request and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The line of its command, else of its first output, from 1.
    pub line: usize,
    /// What was asked for, as it was written: a URL, or host and port. None where neither a command nor a
    /// message shows it.
    pub target: Option<String>,
    /// The address that was tried last, where it is shown.
    pub tried: Option<IpAddr>,
    /// How it ended.
    pub outcome: Outcome,
    /// The HTTP status, where it is shown.
    pub status: Option<u16>,
    /// The body, where there is one.
    pub body: Option<String>,
    /// The message that tells why it failed.
    pub detail: Option<String>,
    /// How long it took, in milliseconds, where a clock shows it.
    pub took: Option<u32>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As a dial ends. Accepted: there was a body, or a status below 400. Unexpected: another status, or an
    /// end without any.
    Answer(Answer),
    /// The name of the host was not found.
    NotResolved,
    /// There was no connection; the program does not say why. curl since 7.84 does so without -v.
    NotConnected,
    /// Somebody took the connection and closed it without a word, as a server does that speaks something else.
    Closed,
    /// A proxy on the way (Envoy) answered that it does not reach whom it is to pass the request on to.
    ByProxy,
    /// No status came; -s hides why. There may have been a connection.
    Unsaid,
    /// It went to a forward proxy, which says nothing of the way from here.
    ViaProxy,
    /// Nothing was printed: an empty body, or a failure that -s or -q hid.
    Silent,
}

impl Request {
    /// How much of an answer of known size came before the time ran out.
    #[must_use]
    pub fn cut_short(&self) -> Option<(u64, u64)> {
        message::cut_short(self.detail.as_deref()?)
    }
}

/// Programs that make requests.
const PROGRAMS: [&str; 5] = ["curl", "wget", "nc", "ncat", "telnet"];

/// Reads requests.
///
/// # Errors
/// When there is none.
pub fn parse(text: &str) -> Result<Vec<Request>, ParseError> {
    let pieces = pieces_of(text, &PROGRAMS);
    let requests: Vec<Request> = pieces.iter().flat_map(read).collect();
    if requests.is_empty() {
        return Err(ParseError::nothing(
            text,
            "a command line with curl, wget, nc or telnet, or messages of curl or wget,",
        ));
    }
    Ok(requests)
}

/// The requests of a piece: one, or several of a loop.
fn read(piece: &Piece<'_>) -> Vec<Request> {
    let is_loop = piece.command.is_some_and(|command| command.contains("; do "));
    let is_told = piece.output.iter().any(|(_, line)| line.starts_with("* "));
    if is_loop && !is_told {
        // Of a loop each line is a request: bodies of many lines make the failures fewer than they are.
        let each = piece.output.iter().filter(|(_, line)| !line.trim().is_empty());
        let each = each.filter_map(|line| {
            one(&Piece {
                output: vec![*line],
                ..piece.clone()
            })
        });
        let all: Vec<Request> = each
            .filter(|request| request.outcome != Outcome::Silent)
            .collect();
        if all.iter().any(|r| r.body.is_none()) && all.iter().any(|r| r.body.is_some()) {
            return all;
        }
    }
    one(piece).into_iter().collect()
}

fn one(piece: &Piece<'_>) -> Option<Request> {
    let call = piece.command.and_then(|command| invocation(command, &PROGRAMS));
    // What another command printed is not looked at.
    if piece.command.is_some() && call.is_none() {
        return None;
    }
    if let Some((program, arguments)) = &call
        && connect::PROGRAMS.contains(program)
    {
        return connect::read(piece, arguments);
    }
    let mut seen = Seen::default();
    for (number, line) in &piece.output {
        // A meter is written over itself, and what follows it may stand on its line.
        for part in line.split('\r') {
            seen.read(*number, part);
        }
    }
    if call.is_none() && !seen.is_told {
        return None;
    }
    if let (Some(command), Some((program, _))) = (piece.command, &call) {
        seen.take_exit_code(command, program, piece);
    }
    if piece.command.is_some_and(|command| command.contains("http_code")) {
        seen.take_code();
    }
    let body = Some(seen.body.join("\n").trim().to_owned()).filter(|body| !body.is_empty());
    let target = call
        .as_ref()
        .and_then(|(_, arguments)| target(arguments))
        .map(str::to_owned);
    let by_proxy = body.as_deref().and_then(message::of_proxy).map(str::to_owned);
    let outcome = match by_proxy {
        Some(_) => Outcome::ByProxy,
        None => seen.outcome(body.is_some()),
    };
    Some(Request {
        line: if call.is_some() {
            piece.line
        } else {
            seen.first.unwrap_or(piece.line)
        },
        target: target.or(seen.target),
        tried: seen.tried,
        outcome,
        status: seen.status,
        body,
        detail: by_proxy.or(seen.failure.map(|(_, detail)| detail)),
        took: seen.took,
    })
}

/// The first argument that is neither an option nor the value of one.
fn target<'a>(arguments: &[&'a str]) -> Option<&'a str> {
    const WITH_VALUE: &str = " -m -o -w -H -X -d -u -A -e -T -t -O -b -c -x --connect-timeout --max-time --header \
        --request --data --output --write-out --user-agent --resolve --retry --interface --timeout --tries --user \
        --cacert --cert --key --proxy --url ";
    let mut is_value = false;
    arguments.iter().copied().find(|word| {
        let was_value = std::mem::replace(&mut is_value, WITH_VALUE.contains(&format!(" {word} ")));
        // --url is followed by the target itself. In `-O- x` the value is in the word.
        let is_url = *word == "--url";
        is_value &= !is_url;
        !was_value && !word.starts_with('-') && !word.is_empty()
    })
}

/// What is known of a request while its output is read.
#[derive(Default)]
struct Seen {
    /// Whether a line is there that only curl or wget write.
    is_told: bool,
    first: Option<usize>,
    target: Option<String>,
    tried: Option<IpAddr>,
    status: Option<u16>,
    connected: bool,
    /// The last failure, and the words for it.
    failure: Option<(Outcome, String)>,
    /// Why an address could not be reached; another one may have been.
    attempt: Option<Answer>,
    via_proxy: bool,
    took: Option<u32>,
    body: Vec<String>,
}

impl Seen {
    fn read(&mut self, number: usize, line: &str) {
        let line = message::behind_meter(message::before_deletion(line));
        self.tried = message::tried(line).or(self.tried);
        let Some(message) = message(line) else {
            self.body.push(line.to_owned());
            return;
        };
        self.first.get_or_insert(number);
        self.is_told |= !matches!(message, Message::Noise | Message::Took(_));
        match message {
            Message::Noise => {}
            Message::ViaProxy => self.via_proxy = true,
            Message::Took(took) => self.took = Some(took),
            Message::Target(target) => {
                self.target.get_or_insert_with(|| target.to_owned());
            }
            Message::Connected => {
                self.connected = true;
                self.failure = None;
            }
            // What is asked first of all may be told to go on or elsewhere.
            Message::Status(status) if status < 200 => {}
            Message::Status(status) => self.status = Some(status),
            Message::Attempt(answer) => self.attempt = Some(answer),
            Message::Failure(outcome) => {
                if let Some(target) = message::target(line) {
                    self.target.get_or_insert_with(|| target.to_owned());
                }
                self.failure = Some((outcome, line.trim().to_owned()));
            }
        }
    }

    /// Takes the status that `-w %{http_code}` wrote behind the body; 000 is none.
    fn take_code(&mut self) {
        let Some(last) = self.body.iter_mut().rev().find(|line| !line.trim().is_empty()) else {
            return;
        };
        let is_code = |word: &&str| word.len() == 3 && word.bytes().all(|b| b.is_ascii_digit());
        let Some(code) = last.split_whitespace().last().filter(is_code).map(str::to_owned) else {
            return;
        };
        *last = last.trim_end().trim_end_matches(&code).to_owned();
        match code.parse() {
            Ok(status) if status >= 100 => self.status = Some(status),
            _ if self.failure.is_none() => self.failure = Some((Outcome::Unsaid, code)),
            _ => {}
        }
    }

    /// Takes the exit code of a program that said nothing itself: what `echo $?` wrote behind the body, or
    /// kubectl exec.
    fn take_exit_code(&mut self, command: &str, program: &str, piece: &Piece<'_>) {
        let behind = command.split_once(program).map_or(command, |(_, behind)| behind);
        let is_piped = behind.replace("||", "").contains('|');
        let by_kubectl = piece.output.iter().find_map(|(_, line)| {
            let (_, code) = line.trim().split_once("command terminated with exit code ")?;
            code.parse().ok()
        });
        let is_told = self.failure.is_some() || self.status.is_some() || self.attempt.is_some();
        if is_piped || is_told {
            return;
        }
        let code = if behind.contains("$?") {
            self.last_number()
        } else {
            by_kubectl
        };
        let Some(code) = code else { return };
        match message::of_exit_code(program, code) {
            // The status tells more.
            Some(Outcome::Answer(Answer::Accepted)) => self.connected = true,
            Some(outcome) => self.failure = Some((outcome, format!("exit code {code}"))),
            None => {}
        }
    }

    /// Takes the number at the end of the body, which stands behind its last line if that has no end.
    fn last_number(&mut self) -> Option<u8> {
        let last = self.body.iter_mut().rev().find(|line| !line.trim().is_empty())?;
        let text = last.trim_end().to_owned();
        let rest = text.trim_end_matches(|c: char| c.is_ascii_digit());
        let code: u8 = text.get(rest.len()..)?.parse().ok()?;
        *last = rest.to_owned();
        Some(code)
    }

    fn outcome(&self, has_body: bool) -> Outcome {
        if self.via_proxy {
            return Outcome::ViaProxy;
        }
        match (&self.failure, self.status, self.attempt) {
            (Some((Outcome::NotConnected, _)), None, Some(answer)) => Outcome::Answer(answer),
            // What stopped in the midst of an answer had begun; of a large one, more may come than there is time for.
            (
                Some((Outcome::Answer(Answer::NoAnswer | Answer::Reset) | Outcome::Closed, detail)),
                Some(200..=399),
                _,
            ) if message::cut_short(detail).is_none_or(|(came, _)| came >= FEW_PACKETS) => {
                Outcome::Answer(Answer::Accepted)
            }
            // The time ran out behind the connection, in TLS for one.
            (Some((Outcome::Answer(Answer::TimedOut), _)), _, _) if self.connected => {
                Outcome::Answer(Answer::NoAnswer)
            }
            (Some((outcome, _)), _, _) => *outcome,
            (None, Some(200..=399), _) => Outcome::Answer(Answer::Accepted),
            (None, Some(_), _) => Outcome::Answer(Answer::Unexpected),
            (None, None, _) if has_body || self.connected => Outcome::Answer(Answer::Accepted),
            (None, None, Some(answer)) => Outcome::Answer(answer),
            (None, None, None) => Outcome::Silent,
        }
    }
}

#[cfg(test)]
mod tests;
