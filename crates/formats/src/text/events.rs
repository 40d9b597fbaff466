//! Events as kubectl prints them: the table of `kubectl get events` and of `kubectl events`, with its header or without, and
//! the last section of a description.
//!
//! Columns are often lost when people copy, and a grep takes the header away. So a line is read by what cannot be missed:
//! the word `Warning` or `Normal`, and the words around it.
//!
//! Sources: kubectl's pkg/describe (`DescribeEvents`) and pkg/cmd/events, Kubernetes' pkg/printers/internalversion
//! (`printEvent`), apimachinery's pkg/util/duration (`HumanDuration`).

use jiff::SignedDuration;

/// Most lines that are read: a paste of more is of a whole cluster.
const MAX_LINES: usize = 10_000;

/// Lines that are named as not understood.
const MAX_MISFITS: usize = 1000;

/// Longest age: what is older has no meaning, and seconds of it fit every type.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(100 * 365 * 24);

/// An Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLine<'a> {
    /// The namespace, in a table of all of them.
    pub namespace: Option<&'a str>,
    /// Kind, in the letters that were printed, and name of what it is about; None in a description, which is all about one
    /// object.
    pub object: Option<(&'a str, &'a str)>,
    /// Whether it is a Warning. Everything else that kubectl prints is Normal.
    pub is_warning: bool,
    /// Why, for programs.
    pub reason: &'a str,
    /// Why, for people.
    pub message: &'a str,
    /// How long before the command it was last seen, where kubectl knew.
    pub age: Option<SignedDuration>,
}

/// Events of a text, and the lines that are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Events<'a> {
    /// In the order of the text.
    pub events: Vec<EventLine<'a>>,
    /// Lines that were not understood, from 0.
    pub misfits: Vec<usize>,
}

/// Whether a line is the header of a table of Events.
#[must_use]
pub fn is_header(line: &str) -> bool {
    let mut words = line.split_whitespace().skip_while(|word| *word == "NAMESPACE");
    words.next() == Some("LAST") && words.next() == Some("SEEN") && line.contains("REASON")
}

/// Reads a table, with its header or without.
#[must_use]
pub fn table(text: &str) -> Events<'_> {
    let mut found = Events::default();
    // Only -o wide prints columns behind the message.
    let mut is_wide = false;
    for (number, line) in text.lines().enumerate().take(MAX_LINES) {
        if line.trim().is_empty() {
            continue;
        }
        if is_header(line) {
            is_wide = line.contains("SUBOBJECT");
            continue;
        }
        match row(line, is_wide) {
            Some(event) => found.events.push(event),
            None if found.misfits.len() < MAX_MISFITS => found.misfits.push(number),
            None => {}
        }
    }
    found
}

/// Reads the lines below `Events:` of a description.
#[must_use]
pub fn of_description<'a>(lines: &[&'a str]) -> Vec<EventLine<'a>> {
    let lines = lines.iter().take(MAX_LINES);
    lines.filter_map(|line| described(line)).collect()
}

/// `[NAMESPACE] LAST-SEEN TYPE REASON KIND/NAME MESSAGE`.
fn row(line: &str, is_wide: bool) -> Option<EventLine<'_>> {
    let mut rest = Words(line);
    let mut first = rest.next()?;
    let mut namespace = None;
    if age(first).is_none() {
        namespace = Some(first);
        first = rest.next()?;
    }
    let age = age(first)?;
    rest.skip_parentheses();
    let is_warning = is_warning(rest.next()?)?;
    let reason = rest.next().filter(|word| is_reason(word))?;
    let (kind, name) = rest.next()?.split_once('/')?;
    let message = match is_wide {
        true => message_of_wide(rest.0)?,
        false => rest.0.trim(),
    };
    Some(EventLine {
        namespace,
        object: Some((kind, name)).filter(|_| !kind.is_empty() && !name.is_empty()),
        is_warning,
        reason,
        message,
        age: age.known(),
    })
}

/// `SUBOBJECT SOURCE MESSAGE FIRST-SEEN COUNT NAME`, of which the first may be empty: counted from the end, by gaps as wide
/// as kubectl writes them.
fn message_of_wide(rest: &str) -> Option<&str> {
    let cells: Vec<&str> = rest
        .split("   ")
        .map(str::trim)
        .filter(|c| !c.is_empty())
        .collect();
    let at = cells.len().checked_sub(4)?;
    cells.get(at).copied()
}

/// `TYPE REASON AGE FROM MESSAGE`.
fn described(line: &str) -> Option<EventLine<'_>> {
    let mut rest = Words(line);
    let is_warning = is_warning(rest.next()?)?;
    let reason = rest.next().filter(|word| is_reason(word))?;
    let age = age(rest.next()?)?;
    rest.skip_parentheses();
    let rest = rest.0.trim();
    // Old versions name the node behind the component: `kubelet, node-a`.
    let message = match rest.split_once("  ") {
        Some((_, message)) => message,
        None => {
            let (from, message) = rest.split_once(' ').unwrap_or((rest, ""));
            match from.ends_with(',') {
                true => message.split_once(' ').unwrap_or_default().1,
                false => message,
            }
        }
    };
    Some(EventLine {
        namespace: None,
        object: None,
        is_warning,
        reason,
        message: message.trim(),
        age: age.known(),
    })
}

/// Words of a line, which leave what stands behind them as it is.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start();
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }

    /// `(x3 over 10m)`, how often and for how long.
    fn skip_parentheses(&mut self) {
        let text = self.0.trim_start();
        if let Some((_, rest)) = text.strip_prefix("(x").and_then(|inner| inner.split_once(')')) {
            self.0 = rest;
        }
    }
}

fn is_warning(word: &str) -> Option<bool> {
    match word {
        "Warning" => Some(true),
        "Normal" => Some(false),
        _ => None,
    }
}

/// Reasons are words in camel case.
fn is_reason(word: &str) -> bool {
    word.len() <= 128
        && word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// An age as kubectl prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    Known(SignedDuration),
    /// `<unknown>`, or `<invalid>` where the clocks differ.
    Unknown,
}

impl Age {
    fn known(self) -> Option<SignedDuration> {
        match self {
            Self::Known(age) => Some(age),
            Self::Unknown => None,
        }
    }
}

/// `65s`, `5m23s`, `3h20m`, `2d23h`, `2y34d`; None of what is no age.
fn age(word: &str) -> Option<Age> {
    if matches!(word, "<unknown>" | "<invalid>") {
        return Some(Age::Unknown);
    }
    let mut seconds: i64 = 0;
    let mut number: Option<i64> = None;
    for c in word.chars() {
        if let Some(digit) = c.to_digit(10) {
            number = Some(
                number
                    .unwrap_or(0)
                    .checked_mul(10)?
                    .checked_add(i64::from(digit))?,
            );
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 60 * 60,
            'd' => 24 * 60 * 60,
            'y' => 365 * 24 * 60 * 60,
            _ => return None,
        };
        seconds = seconds.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    let is_whole = number.is_none() && !word.is_empty();
    let age = SignedDuration::from_secs(seconds);
    (is_whole && age <= MAX_AGE).then_some(Age::Known(age))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn short<'a>(event: &EventLine<'a>) -> (Option<&'a str>, &'a str, &'a str, Option<i64>) {
        let name = event.object.map(|(_, name)| name);
        (name, event.reason, event.message, event.age.map(|a| a.as_secs()))
    }

    #[test]
    fn a_table_is_read_with_its_header_and_without() {
        let rows = "\
9m58s       Normal    Scheduled   pod/cart-6d5c7     Successfully assigned shop/cart-6d5c7 to w3
65s         Warning   Unhealthy   pod/cart-6d5c7     Readiness probe failed: Get \"http://10.244.7.3:8081/ready\": EOF
<unknown>   Warning   FailedCreate   replicaset/cart-6d   Error creating: pods \"cart-6d-\" is forbidden
";
        let text = format!("LAST SEEN   TYPE      REASON      OBJECT             MESSAGE\n{rows}...\n");
        let found = table(&text);
        assert_eq!(found.misfits, [4]);
        assert_eq!(found.events.len(), 3);
        assert_eq!(
            short(&found.events[1]),
            (
                Some("cart-6d5c7"),
                "Unhealthy",
                "Readiness probe failed: Get \"http://10.244.7.3:8081/ready\": EOF",
                Some(65)
            )
        );
        assert_eq!(
            (found.events[0].is_warning, found.events[1].is_warning),
            (false, true)
        );
        assert_eq!(found.events[2].age, None);
        assert_eq!(table(rows).events, found.events);
        // Where the columns were lost, too.
        let narrow = rows.split_whitespace().take(9).collect::<Vec<_>>().join(" ");
        assert_eq!(table(&narrow).events.len(), 1);
    }

    #[test]
    fn all_namespaces_wide_tables_and_counts_are_read() {
        let text = "NAMESPACE   LAST SEEN   TYPE      REASON    OBJECT        MESSAGE\n\
            shop        3m (x12 over 2h)   Warning   BackOff   Pod/cart-0    Back-off restarting failed container\n";
        let found = table(text);
        assert_eq!(found.events[0].namespace, Some("shop"));
        assert_eq!(
            short(&found.events[0]),
            (
                Some("cart-0"),
                "BackOff",
                "Back-off restarting failed container",
                Some(180)
            )
        );
        for sub in ["spec.containers{app}   ", "   "] {
            let text = format!(
                "LAST SEEN   TYPE   REASON   OBJECT   SUBOBJECT   SOURCE   MESSAGE   FIRST SEEN   COUNT   NAME\n\
                 24s         Warning   Unhealthy   pod/cart-0   {sub}kubelet, w3   Readiness probe failed: dial tcp   26s   1   cart-0.18\n"
            );
            assert_eq!(
                short(&table(&text).events[0]),
                (
                    Some("cart-0"),
                    "Unhealthy",
                    "Readiness probe failed: dial tcp",
                    Some(24)
                )
            );
        }
    }

    #[test]
    fn the_section_of_a_description_is_read_in_every_layout() {
        let lines = [
            "Type     Reason     Age                  From                 Message",
            "----     ------     ----                 ----                 -------",
            "Normal   Scheduled  8m                   default-scheduler    Successfully assigned shop/cart-0 to w3",
            "Warning  Unhealthy  86s (x250 over 2d23h)  kubelet, w3        Readiness probe failed: HTTP probe failed with statuscode: 503",
            "Warning Unhealthy 5m (x3 over 8m) kubelet Readiness probe failed: refused",
            "Warning Failed <invalid> kubelet, w3 Error: ImagePullBackOff",
        ];
        let found: Vec<_> = of_description(&lines).iter().map(|e| short(e)).collect();
        assert_eq!(
            found[1..],
            [
                (
                    None,
                    "Unhealthy",
                    "Readiness probe failed: HTTP probe failed with statuscode: 503",
                    Some(86)
                ),
                (None, "Unhealthy", "Readiness probe failed: refused", Some(300)),
                (None, "Failed", "Error: ImagePullBackOff", None),
            ]
        );
    }

    #[test]
    fn ages_are_those_that_kubectl_prints() {
        let seconds = |word| age(word).and_then(Age::known).map(|a| a.as_secs());
        for (word, expected) in [
            ("0s", Some(0)),
            ("5m23s", Some(323)),
            ("2d23h", Some(255_600)),
            ("2y34d", Some(66_009_600)),
            ("<unknown>", None),
            ("5", None),
            ("m", None),
            ("", None),
            ("-5s", None),
            ("99999999999999999999s", None),
            ("200y", None),
        ] {
            assert_eq!(seconds(word), expected, "{word}");
        }
        assert_eq!(age("shop"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(LAST SEEN|Warning|Normal|pod/a|5m|\\(x3 over|\\)| |   |\n|é|\\PC){0,40}") {
            let found = table(&text);
            prop_assert!(found.events.len() + found.misfits.len() <= text.lines().count());
            let lines: Vec<&str> = text.lines().collect();
            let _ = of_description(&lines);
        }
    }
}
