//! CoreDNS's log: why it ends, or does not know the cluster.
//!
//! Each trouble has the last line that tells of it. That one is over is seldom logged, so that a line says what was wrong and
//! never what is.
//!
//! Sources: CoreDNS' plugin/loop, plugin/kubernetes, plugin/ready, plugin/errors and core/dnsserver, and client-go's
//! tools/cache/reflector.go.

use std::collections::BTreeMap;

use super::{ParseError, api_errors, api_errors::ApiErrorKind, klog::Entry};

/// Longest part of a line that is kept, in characters.
const MAX_WORDS: usize = 200;

/// What CoreDNS complains about, what explains most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// It cannot start: its configuration is wrong.
    BadCorefile,
    /// What it forwards comes back to it. It ends by that.
    Loop,
    /// The API server does not allow it to read what it has to know.
    Denied,
    /// It does not reach the API server.
    NoApi,
    /// It has not read the cluster's Services yet.
    NotSynced,
    /// Name servers outside of the cluster do not answer it.
    NoUpstream,
}

impl Trouble {
    /// What the log says, as it stands behind "that".
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::BadCorefile => "CoreDNS could not read its Corefile",
            Self::Loop => {
                "what CoreDNS forwards came back to it, as it does where the node's resolv.conf names a resolver of the node itself"
            }
            Self::Denied => "the API server did not allow CoreDNS to read what it answers with",
            Self::NoApi => {
                "CoreDNS did not reach the API server, without which it knows no Services that are new"
            }
            Self::NotSynced => "CoreDNS had not read the Services yet",
            Self::NoUpstream => {
                "name servers outside of the cluster did not answer CoreDNS, which matters to names outside of the cluster only"
            }
        }
    }
}

/// What a log says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CorednsLog {
    /// Each trouble with its last line, from 1, and the words of that.
    pub troubles: BTreeMap<Trouble, (usize, String)>,
    /// How many lines there are.
    pub lines: usize,
}

impl CorednsLog {
    /// Reads a log.
    ///
    /// # Errors
    /// When no line looks like one of CoreDNS.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut log = Self::default();
        let mut is_understood = false;
        for (index, line) in text.lines().enumerate() {
            log.lines = index + 1;
            is_understood |= is_its(line);
            if let Some(trouble) = trouble(line) {
                let words = words(line).chars().take(MAX_WORDS).collect();
                log.troubles.insert(trouble, (index + 1, words));
            }
        }
        match is_understood {
            true => Ok(log),
            false => Err(ParseError::nothing(text, "a log of CoreDNS")),
        }
    }
}

/// Whether CoreDNS writes such a line.
fn is_its(line: &str) -> bool {
    const SIGNS: [&str; 6] = [
        "plugin/",
        "CoreDNS-",
        "[INFO] ",
        "[ERROR] ",
        "[WARNING] ",
        "[FATAL] ",
    ];
    SIGNS.iter().any(|sign| line.contains(sign)) || trouble(line).is_some()
}

fn trouble(line: &str) -> Option<Trouble> {
    let has = |words: &str| line.contains(words);
    if has("plugin/loop") && (has("Loop (") || has("loop detected")) {
        return Some(Trouble::Loop);
    }
    if has("Error during parsing") || has("Unknown directive") {
        return Some(Trouble::BadCorefile);
    }
    if has("plugin/ready") && (has("waiting on: \"kubernetes\"") || has("not ready: \"kubernetes\""))
        || has("starting server with unsynced Kubernetes API")
    {
        return Some(Trouble::NotSynced);
    }
    if has("plugin/errors") && (has("i/o timeout") || has("unreachable backend") || has("connection refused"))
    {
        return Some(Trouble::NoUpstream);
    }
    match api_errors::api_error(line)? {
        ApiErrorKind::Forbidden | ApiErrorKind::Unauthorized => Some(Trouble::Denied),
        _ => Some(Trouble::NoApi),
    }
}

/// What is said, without the times and the place in the source.
fn words(line: &str) -> String {
    let message = Entry::parse(line).message.into_owned();
    let levels = ["[INFO] ", "[ERROR] ", "[WARNING] ", "[FATAL] "];
    let end = levels
        .iter()
        .find_map(|level| message.find(level).map(|at| at + level.len()));
    let message = message.get(end.unwrap_or(0)..).unwrap_or_default();
    // `pkg/mod/k8s.io/client-go/tools/cache/reflector.go:229: `
    let behind_place = message
        .split_once(".go:")
        .and_then(|(_, behind)| behind.split_once(": "));
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    match behind_place.filter(|(number, _)| is_number(number)) {
        Some((_, message)) => message.trim().to_owned(),
        None => message.trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(text: &str) -> Vec<(Trouble, usize)> {
        let log = CorednsLog::parse(text).unwrap();
        log.troubles
            .into_iter()
            .map(|(trouble, (line, _))| (trouble, line))
            .collect()
    }

    #[test]
    fn every_trouble_is_told_with_its_last_line() {
        let text = "\
.:53
CoreDNS-1.12.0
2026-11-30T10:00:00.000Z [FATAL] plugin/loop: Loop (127.0.0.1:40123 -> :53) detected for zone \".\", see https://coredns.io/plugins/loop#troubleshooting
E1130 10:00:01.000001       1 reflector.go:158] \"Unhandled Error\" err=\"failed to list *v1.Service: Get \\\"https://10.96.0.1:443/api/v1/services\\\": dial tcp 10.96.0.1:443: i/o timeout\"
[INFO] plugin/kubernetes: pkg/mod/k8s.io/client-go/tools/cache/reflector.go:167: failed to list *v1.EndpointSlice: endpointslices.discovery.k8s.io is forbidden: User \"x\" cannot list
[INFO] plugin/ready: Still waiting on: \"kubernetes\"
[INFO] plugin/ready: Plugins not ready: \"kubernetes\"
[ERROR] plugin/errors: 2 example.com. A: read udp 10.244.7.2:41231->192.0.2.53:53: i/o timeout
/etc/coredns/Corefile:7 - Error during parsing: Unknown directive 'forwardd'
";
        assert_eq!(
            told(text),
            [
                (Trouble::BadCorefile, 9),
                (Trouble::Loop, 3),
                (Trouble::Denied, 5),
                (Trouble::NoApi, 4),
                (Trouble::NotSynced, 7),
                (Trouble::NoUpstream, 8),
            ]
        );
        let log = CorednsLog::parse(text).unwrap();
        assert!(
            log.troubles[&Trouble::Loop]
                .1
                .starts_with("plugin/loop: Loop (127.0.0.1")
        );
        assert!(
            log.troubles[&Trouble::Denied]
                .1
                .starts_with("failed to list *v1.EndpointSlice")
        );
    }

    #[test]
    fn a_log_of_a_healthy_coredns_tells_of_no_trouble() {
        let text = "\
[INFO] plugin/kubernetes: waiting for Kubernetes API before starting server
.:53
[INFO] plugin/reload: Running configuration SHA512 = 591cf328
CoreDNS-1.11.1
linux/amd64, go1.20.7, ae2bbc2
[INFO] 10.244.7.9:40123 - 5123 \"A IN cart.shop.svc.cluster.local. udp 44 false 512\" NXDOMAIN qr,aa,rd 137 0.0002s
";
        assert_eq!(told(text), []);
    }

    #[test]
    fn the_log_of_something_else_is_an_error() {
        assert!(CorednsLog::parse("listening on :8080\nGET / 200\n").is_err());
        assert!(CorednsLog::parse("").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(plugin/loop|Loop \\(|\\[ERROR\\] |failed to list|i/o timeout|\n|é|\\PC){0,30}") {
            if let Ok(log) = CorednsLog::parse(&text) {
                prop_assert!(log.troubles.values().all(|(line, _)| *line <= log.lines));
            }
        }
    }
}
