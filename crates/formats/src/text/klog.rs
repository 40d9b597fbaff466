//! Lines of Kubernetes' components: klog's header and message, whatever stands before them, and klog's JSON.
//!
//! Source: k8s.io/klog (`header` in klog.go), k8s.io/component-base/logs/json.

use std::{borrow::Cow, fmt};

use serde_json::{Map, Value};

use super::ParseError;

/// A time in a log. klog writes no year: which of two lines came later is told by their order in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogTime {
    /// 1 to 12.
    pub month: i8,
    /// 1 to 31.
    pub day: i8,
    /// Time of day, in the node's time zone; in UTC for JSON.
    pub time: jiff::civil::Time,
}

impl fmt::Display for LogTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}-{:02} {:.0}", self.month, self.day, self.time)
    }
}

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// When; None for lines without klog's header.
    pub(super) at: Option<LogTime>,
    /// The message; for structured ones with its keys and values.
    pub(super) message: Cow<'a, str>,
    /// Whether the program ended with this line (klog's severity F).
    pub(super) is_fatal: bool,
}

/// Reads the lines of a log with their numbers; `read` says whether a line told something.
///
/// # Errors
/// When no line looks like one of a log, nor told anything.
pub(super) fn read_all(
    text: &str,
    what: &str,
    mut read: impl FnMut(usize, &Entry<'_>) -> bool,
) -> Result<(), ParseError> {
    let mut understood = false;
    for (index, line) in text.lines().enumerate() {
        let entry = Entry::parse(line);
        understood |= read(index + 1, &entry) || entry.at.is_some();
    }
    if understood {
        Ok(())
    } else {
        Err(ParseError::nothing(text, what))
    }
}

impl<'a> Entry<'a> {
    /// Reads a line. Without a header, all of it is the message.
    pub(super) fn parse(line: &'a str) -> Self {
        if let Some(entry) = line.trim_start().strip_prefix('{').and_then(|_| json(line)) {
            return entry;
        }
        match headed(line) {
            Some((at, message, severity)) => Self {
                at: Some(at),
                message: Cow::Borrowed(message),
                is_fatal: severity == 'F',
            },
            None => Self {
                at: None,
                message: Cow::Borrowed(line.trim()),
                is_fatal: false,
            },
        }
    }

    /// The value behind `key=` in a structured message, without its quotes.
    pub(super) fn value(&self, key: &str) -> Option<&str> {
        let (_, rest) = self.message.split_once(&format!(" {key}="))?;
        match rest.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next(),
            None => rest.split_whitespace().next(),
        }
    }
}

/// Time, message and severity behind klog's header, wherever on the line it stands: journald, kubectl and grep write
/// prefixes. `I1027 22:14:53.995134    5063 server.go:200] message`.
fn headed(line: &str) -> Option<(LogTime, &str, char)> {
    let mut from = 0;
    while let Some(found) = line.get(from..)?.find(['I', 'W', 'E', 'F']) {
        let start = from + found;
        if let Some((at, message)) = header(line.get(start..)?) {
            return Some((at, message, line.get(start..)?.chars().next()?));
        }
        from = start + 1;
    }
    None
}

fn header(text: &str) -> Option<(LogTime, &str)> {
    let (head, message) = text.split_once(']')?;
    let mut words = head.split_whitespace();
    let (date, time) = (words.next()?.get(1..)?, words.next()?);
    if date.len() != 4 || !date.bytes().all(|b| b.is_ascii_digit()) || words.count() != 2 {
        return None;
    }
    let at = LogTime {
        month: date.get(..2)?.parse().ok()?,
        day: date.get(2..)?.parse().ok()?,
        time: time.parse().ok()?,
    };
    Some((at, message.trim()))
}

/// A line of a JSON log: of klog, or of Docker, which wraps what the program wrote.
fn json(line: &str) -> Option<Entry<'static>> {
    let object: Map<String, Value> = serde_json::from_str(line.trim()).ok()?;
    if let Some(wrapped) = object.get("log").and_then(Value::as_str) {
        let entry = Entry::parse(wrapped.trim());
        return Some(Entry {
            at: entry.at,
            message: Cow::Owned(entry.message.into_owned()),
            is_fatal: entry.is_fatal,
        });
    }
    let mut message = object.get("msg")?.as_str()?.to_owned();
    for (key, value) in object
        .iter()
        .filter(|(key, _)| !matches!(key.as_str(), "msg" | "ts"))
    {
        message.push_str(&format!(" {key}={value}"));
    }
    Some(Entry {
        at: object.get("ts").and_then(Value::as_f64).and_then(milliseconds),
        message: Cow::Owned(message),
        is_fatal: false,
    })
}

fn milliseconds(since_1970: f64) -> Option<LogTime> {
    let whole = since_1970.is_finite().then_some(since_1970 as i64)?;
    let at = jiff::Timestamp::from_millisecond(whole).ok()?;
    let at = at.to_zoned(jiff::tz::TimeZone::UTC);
    Some(LogTime {
        month: at.month(),
        day: at.day(),
        time: at.time(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(line: &str) -> (Option<String>, String) {
        let entry = Entry::parse(line);
        (entry.at.map(|at| at.to_string()), entry.message.into_owned())
    }

    #[test]
    fn headers_are_found_behind_prefixes() {
        let klog = "I1027 22:14:53.998163    5063 server.go:247] Using iptables Proxier.";
        let expected = (
            Some("10-27 22:14:53".to_owned()),
            "Using iptables Proxier.".to_owned(),
        );
        for prefix in [
            "",
            "Oct 27 22:14:53 WE1-node kube-proxy[5063]: ",
            "2024-09-03T13:18:56.208350327Z stderr F ",
            "kube-proxy.log:77:",
        ] {
            assert_eq!(read(&format!("{prefix}{klog}")), expected, "{prefix}");
        }
        let docker =
            format!("{{\"log\":\"{klog}\\n\",\"stream\":\"stderr\",\"time\":\"2022-04-24T05:20:06Z\"}}");
        assert_eq!(read(&docker), expected);
    }

    #[test]
    fn json_reads_like_text() {
        let line =
            r#"{"ts":1580306777045.723,"caller":"app/x.go:1","msg":"Setting it","v":3,"portName":"a/b:c"}"#;
        let entry = Entry::parse(line);
        assert_eq!(entry.at.unwrap().to_string(), "01-29 14:06:17");
        assert!(entry.message.starts_with("Setting it "));
        assert_eq!(entry.value("portName"), Some("a/b:c"));
    }

    #[test]
    fn lines_without_a_header_are_all_message() {
        for line in [
            "Setting endpoints for x to []",
            "It was so",
            "{broken",
            "I1027",
            "E9999 99:99:99 1 a.go:1] x",
        ] {
            assert_eq!(read(line), (None, line.to_owned()));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,200}") {
            let _ = Entry::parse(&text).value("k");
        }

        #[test]
        fn any_header_is_survived(date in "[IWEFé][0-9é]{3,5}", rest in "[ 0-9:.é\\]a]{0,40}") {
            let _ = Entry::parse(&format!("{date} {rest}")).value("k");
        }
    }
}
