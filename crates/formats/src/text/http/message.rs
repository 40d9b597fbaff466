//! Lines that curl and wget write themselves.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::Outcome;
use svcdiag_api::Answer;

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// Nothing of importance.
    Noise,
    /// What is asked for.
    Target(&'a str),
    /// Somebody took the connection.
    Connected,
    /// An HTTP status.
    Status(u16),
    /// An address could not be reached; others may be tried.
    Attempt(Answer),
    /// The request failed.
    Failure(Outcome),
    /// It is sent to a forward proxy.
    ViaProxy,
    /// How long the request took, in milliseconds.
    Took(u32),
}

/// What stands behind curl's meter, which ends no line. Without a meter: all of the line.
pub(super) fn behind_meter(line: &str) -> &str {
    let is_meter = |head: &str| {
        !head.trim().is_empty()
            && head
                .bytes()
                .all(|b| b.is_ascii_digit() || b" -:.kMG".contains(&b))
    };
    match line.rsplit_once("--:--:--") {
        Some((head, rest)) if is_meter(head) => {
            let speed = |c: char| c.is_ascii_digit() || c == 'k' || c == 'M' || c == '.';
            rest.trim_start().trim_start_matches(speed)
        }
        _ => line,
    }
}

/// What stands before the words with which kubectl ends a Pod that it ran: they follow the output on its last line, if that
/// has no end.
pub(super) fn before_deletion(line: &str) -> &str {
    let end = line.trim_end();
    let deleted = || {
        let at = end
            .rfind("pod \"")
            .filter(|_| end.ends_with("deleted") || end.ends_with(" namespace"))?;
        end.get(at..)?.contains("\" deleted").then_some(at)
    };
    let terminated = || {
        let at = end.rfind("pod ").filter(|_| end.ends_with(')'))?;
        end.get(at..)?.contains(" terminated (").then_some(at)
    };
    deleted()
        .or_else(terminated)
        .map_or(line, |at| end.get(..at).unwrap_or_default())
}

/// Reads a line; None for one of the body.
pub(super) fn message(line: &str) -> Option<Message<'_>> {
    let line = line.trim();
    // Behind a meter, or what ends no line, curl's error stands on the same line. In quotes it is somebody else's.
    if let Some(at) = line
        .find("curl: (")
        .filter(|at| !line[..*at].contains(['"', '\'']))
    {
        return Some(curl_error(line.get(at..)?));
    }
    if let Some(error) = line.strip_prefix("wget: ") {
        return Some(wget_error(error));
    }
    let headers = line.strip_prefix("< ").unwrap_or(line);
    if let Some(status) = status(headers) {
        return Some(Message::Status(status));
    }
    if let Some(told) = line.strip_prefix("* ") {
        return Some(curl_told(told.trim()));
    }
    if let Some(took) = took(line) {
        return Some(Message::Took(took));
    }
    gnu_wget(line).or_else(|| (is_noise(line) || is_of_the_shell(line)).then_some(Message::Noise))
}

/// The address that a name stood for: `Trying 10.0.1.175:80...`, `Connecting to hostnames (10.0.1.175:80)`,
/// `Connecting to hostnames (hostnames)|10.0.1.175|:80...`, `can't connect to remote host (10.0.1.175)`.
pub(super) fn tried(line: &str) -> Option<IpAddr> {
    let line = line.trim();
    let told = line.strip_prefix("* ").unwrap_or(line).trim_start();
    let word = if let Some(rest) = told.strip_prefix("Trying ") {
        rest.split("...").next()?
    } else if let Some(rest) = told.strip_prefix("Connecting to ") {
        rest.split('|').nth(1).or_else(|| rest.split(['(', ')']).nth(1))?
    } else {
        let (_, rest) = told.split_once("remote host (")?;
        rest.split(')').next()?
    };
    let address = word.parse::<SocketAddr>().map(|a| a.ip());
    address.or_else(|_| word.trim_matches(['[', ']']).parse()).ok()
}

/// Address and port of `Failed to connect to HOST port 80`.
pub(super) fn target(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("Failed to connect to ")?;
    // Ends with the number of the port.
    let (host, behind) = rest.split_once(" port ")?;
    let port = behind.split(|c: char| !c.is_ascii_digit()).next()?;
    rest.get(..host.len() + " port ".len() + port.len())
}

/// `curl: (7) Failed to connect to 10.0.1.175 port 80 after 0 ms: Couldn't connect to server`.
fn curl_error(line: &str) -> Message<'_> {
    let code = line
        .split(['(', ')'])
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0_u16);
    if line.contains(" proxy") {
        return Message::Failure(Outcome::ViaProxy);
    }
    Message::Failure(match code {
        5 | 6 => Outcome::NotResolved,
        7 => dial(line)
            .or_else(|| is_slow(line).then_some(Answer::Unreachable))
            .map_or(Outcome::NotConnected, Outcome::Answer),
        22 => {
            return line.rsplit(' ').next().and_then(|s| s.parse().ok()).map_or(
                Message::Failure(Outcome::Answer(Answer::Unexpected)),
                Message::Status,
            );
        }
        28 if line.contains("Resolving timed out") => Outcome::NotResolved,
        // The time ran out behind the connection.
        28 if line.contains("bytes received") || line.contains("SSL connection timeout") => {
            Outcome::Answer(Answer::NoAnswer)
        }
        28 => Outcome::Answer(Answer::TimedOut),
        52 => Outcome::Closed,
        35 if dial(line).is_none() && (line.contains("SYSCALL") || line.contains("unexpected eof")) => {
            Outcome::Closed
        }
        // Somebody took the connection, and answered something that is no HTTP, or no TLS.
        _ => Outcome::Answer(dial(line).unwrap_or(Answer::Unexpected)),
    })
}

/// The time of a clock: `real 1m3.271s` of bash and busybox, `... 1:03.27 total` of zsh.
fn took(line: &str) -> Option<u32> {
    let time = line
        .strip_prefix("real")
        .filter(|rest| rest.starts_with(char::is_whitespace));
    let (minutes, seconds) = match time {
        Some(time) => time.trim().strip_suffix('s')?.split_once('m')?,
        None => {
            let (_, time) = line.strip_suffix(" total")?.rsplit_once("cpu ")?;
            time.split_once(':').unwrap_or(("0", time))
        }
    };
    let minutes: u32 = minutes.trim().parse().ok()?;
    let seconds: f64 = seconds.trim().replace(',', ".").parse().ok()?;
    let seconds = Duration::try_from_secs_f64(seconds).ok()? + Duration::from_secs(u64::from(minutes) * 60);
    u32::try_from(seconds.as_millis()).ok()
}

/// How a request ended, by the exit code of its program; None where the code tells nothing.
pub(super) fn of_exit_code(program: &str, code: u8) -> Option<Outcome> {
    Some(match (program, code) {
        (_, 0) => Outcome::Answer(Answer::Accepted),
        ("curl", 6) => Outcome::NotResolved,
        ("curl", 7) | ("wget", 4) => Outcome::NotConnected,
        ("curl", 28) => Outcome::Answer(Answer::TimedOut),
        ("curl", 52) => Outcome::Closed,
        ("curl", 56) => Outcome::Answer(Answer::Reset),
        ("curl", 22 | 35 | 60) | ("wget", 8) => Outcome::Answer(Answer::Unexpected),
        _ => return None,
    })
}

/// Whether the failure took longer than a refusal does, which comes at once: nobody has the address, as ARP
/// finds out in some seconds.
fn is_slow(line: &str) -> bool {
    let after = line
        .split_once(" after ")
        .and_then(|(_, rest)| rest.split_once(" ms"));
    after.is_some_and(|(time, _)| time.parse::<u32>().is_ok_and(|ms| ms >= 1000))
}

/// What curl -v tells on its way.
fn curl_told(line: &str) -> Message<'_> {
    if line.starts_with("Uses proxy env variable ")
        && !line.contains("no_proxy")
        && !line.contains("NO_PROXY")
    {
        Message::ViaProxy
    } else if line.starts_with("Connected to ") || line.starts_with("Established connection to ") {
        Message::Connected
    } else if line.contains("connect to ") && line.contains("failed: ") || line.starts_with("connect to ") {
        dial(line).map_or(Message::Noise, Message::Attempt)
    } else {
        Message::Noise
    }
}

/// `wget: can't connect to remote host (10.0.1.175): Connection refused`.
fn wget_error(error: &str) -> Message<'_> {
    let lower = error.to_lowercase();
    if lower.starts_with("bad address") || lower.contains("unable to resolve") {
        return Message::Failure(Outcome::NotResolved);
    }
    if let Some((_, told)) = error.split_once("server returned error: ") {
        return status(told).map_or(
            Message::Failure(Outcome::Answer(Answer::Unexpected)),
            Message::Status,
        );
    }
    Message::Failure(match dial(error) {
        Some(answer) => Outcome::Answer(answer),
        None if lower.contains("can't connect") => Outcome::NotConnected,
        None if lower.starts_with("error getting response") => Outcome::Closed,
        None => Outcome::Answer(Answer::Unexpected),
    })
}

fn gnu_wget(line: &str) -> Option<Message<'_>> {
    if line.starts_with("--") && line.contains("--  ") {
        return line
            .split_once("--  ")
            .map(|(_, target)| Message::Target(target.trim()));
    }
    if let Some(rest) = line
        .strip_prefix("Resolving ")
        .filter(|rest| rest.contains("... "))
    {
        let is_lost = rest.contains("failed: ");
        return Some(if is_lost {
            Message::Failure(Outcome::NotResolved)
        } else {
            Message::Noise
        });
    }
    if let Some(rest) = line.strip_prefix("Connecting to ") {
        return Some(match rest.split_once("failed: ") {
            Some((_, why)) => Message::Failure(dial(why).map_or(Outcome::NotConnected, Outcome::Answer)),
            None if rest.contains("... connected") => Message::Connected,
            None => Message::Noise,
        });
    }
    if let Some((_, told)) = line.split_once("awaiting response... ") {
        let number = told.split_whitespace().next().and_then(|word| word.parse().ok());
        let failure = || match dial(told) {
            _ if told.starts_with("No data received") => Outcome::Closed,
            // It waits for the answer: the connection is there.
            Some(Answer::TimedOut) => Outcome::Answer(Answer::NoAnswer),
            answer => Outcome::Answer(answer.unwrap_or(Answer::Unexpected)),
        };
        return Some(number.map_or_else(|| Message::Failure(failure()), Message::Status));
    }
    None
}

/// The first line of what Envoy answers in the place of whom it does not reach.
pub(super) fn of_proxy(body: &str) -> Option<&str> {
    const WORDS: [&str; 3] = [
        "upstream connect error or disconnect/reset before headers",
        "no healthy upstream",
        "upstream request timeout",
    ];
    let first = body.lines().next()?.trim();
    WORDS
        .iter()
        .any(|words| first.starts_with(words))
        .then_some(first)
}

/// How much of an answer of known size came before the time ran out: `with 1388 out of 20480 bytes received`.
pub(super) fn cut_short(detail: &str) -> Option<(u64, u64)> {
    let (before, rest) = detail.split_once(" out of ")?;
    let came = before.rsplit(' ').next()?.parse().ok()?;
    let all = rest.split_once(" bytes received")?.0.parse().ok()?;
    (came < all).then_some((came, all))
}

/// How a dial ended, in the words of the C library.
pub(super) fn dial(text: &str) -> Option<Answer> {
    const REASONS: [(&str, Answer); 9] = [
        ("connection reset", Answer::Reset),
        ("connection refused", Answer::Refused),
        ("no route to host", Answer::Unreachable),
        ("host is unreachable", Answer::Unreachable),
        ("network is unreachable", Answer::Unreachable),
        ("network unreachable", Answer::Unreachable),
        ("timed out", Answer::TimedOut),
        ("timeout was reached", Answer::TimedOut),
        // iptables' REJECT with one of icmp's prohibitions.
        ("permission denied", Answer::Rejected),
    ];
    let lower = text.to_lowercase();
    REASONS
        .iter()
        .find(|(words, _)| lower.contains(words))
        .map(|(_, answer)| *answer)
}

/// `HTTP/1.1 503 Service Unavailable`.
fn status(line: &str) -> Option<u16> {
    let (_, rest) = line.strip_prefix("HTTP/")?.split_once(' ')?;
    let number = rest.split_whitespace().next()?;
    number.parse().ok().filter(|status| (100..=599).contains(status))
}

/// Words of the shell, of kubectl and of the runtime, which are no answer of anybody's.
fn is_of_the_shell(line: &str) -> bool {
    let starts = [
        "^C",
        "Terminated",
        "Killed",
        "OCI runtime",
        "error: ",
        "Error from server",
        "Defaulted container",
        "Defaulting debug container name",
        "Targeting container",
        "Creating debugging pod",
        "All commands and output from this session",
        "If you don't see a command prompt",
        "warning: couldn't attach to pod/",
        "Warning: ",
        "Unable to use a TTY",
        "--profile=",
        "command terminated with exit code",
    ];
    let ends = ["not found", "No such file or directory", "Permission denied"];
    let is_by_shell = |line: &str| line.contains(": ") && ends.iter().any(|end| line.ends_with(end));
    let is_creation = line.starts_with("pod/") && line.ends_with(" created");
    starts.iter().any(|start| line.starts_with(start)) || is_by_shell(line) || is_creation
}

fn is_noise(line: &str) -> bool {
    let starts = [
        "> ",
        "< ",
        "{ [",
        "} [",
        "% Total",
        "Dload  Upload",
        "Length: ",
        "Saving to: ",
        "Retrying.",
        "Giving up.",
        "written to stdout",
        "writing to stdout",
        "saving to '",
        "HTTP request sent",
        "- 100% |",
        "-                    100%",
        "remote file exists",
        "command terminated with exit code",
    ];
    let is_time = |word: &str| {
        let rest = line
            .strip_prefix(word)
            .filter(|rest| rest.starts_with(char::is_whitespace));
        rest.is_some_and(|rest| rest.ends_with('s') && rest.contains('m'))
    };
    matches!(line, ">" | "<" | "*")
        || is_time("user")
        || is_time("sys")
        || starts.iter().any(|start| line.starts_with(start))
        || line.contains(" written to stdout [")
        || (line.starts_with('-') && line.contains("100%"))
}
