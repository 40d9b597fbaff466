//! The kernel's log: `dmesg`, with or without `-T`, `journalctl -k`, kern.log.
//!
//! Sources: the kernel's net/netfilter/nf_conntrack_core.c, net/ipv4/route.c and net/core/neighbour.c.

use jiff::{Timestamp, civil::Date, tz::TimeZone};

/// What the log tells of lost packets, each with its line, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelLog {
    /// The table of tracked connections was full.
    pub table_full: Option<usize>,
    /// Packets came in by another way than their answers would leave.
    pub martian: Option<usize>,
    /// The table of neighbours was full.
    pub neighbours_full: Option<usize>,
}

impl KernelLog {
    /// Reads a log at a time. What is dated and older than a day is past.
    #[must_use]
    pub fn parse(text: &str, now: Timestamp) -> Self {
        let today = now.to_zoned(TimeZone::UTC).date();
        let mut log = Self::default();
        for (index, line) in text.lines().enumerate() {
            if date(line, today).is_some_and(|date| !is_recent(date, today)) {
                continue;
            }
            let line = line.to_ascii_lowercase();
            let of_table = line.contains("conntrack") && line.contains("table full");
            for (is_told, place) in [
                (of_table, &mut log.table_full),
                (line.contains("martian source"), &mut log.martian),
                (
                    line.contains("neighbor table overflow") || line.contains("neighbour table overflow"),
                    &mut log.neighbours_full,
                ),
            ] {
                if is_told {
                    *place = Some(index + 1);
                }
            }
        }
        log
    }
}

fn is_recent(date: Date, today: Date) -> bool {
    date == today || date.tomorrow().is_ok_and(|next| next == today)
}

/// The day of a line: `[Mon Oct 26 09:30:22 2026]`, `Nov 27 09:30:22 node-a`, `2026-11-27T09:30:22`; without a year
/// the one before today.
fn date(line: &str, today: Date) -> Option<Date> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let line = line.trim_start_matches('[').trim_start();
    if let Some(date) = line.get(..10).and_then(|text| text.parse().ok()) {
        return Some(date);
    }
    let words: Vec<&str> = line.split_whitespace().take(5).collect();
    let at = words.iter().take(2).position(|word| MONTHS.contains(word))?;
    let month = MONTHS
        .iter()
        .position(|name| name == words.get(at).unwrap_or(&""))?;
    let month = i8::try_from(month + 1).ok()?;
    let day = words.get(at + 1)?.parse().ok()?;
    let year = words
        .get(at + 3)
        .and_then(|word| word.trim_end_matches(']').parse::<i16>().ok());
    let year = year.filter(|year| *year > 1999).unwrap_or(today.year());
    Date::new(year, month, day).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-27T10:00:00Z".parse().unwrap()
    }

    #[test]
    fn what_the_kernel_tells_is_read_unless_it_is_past() {
        let told = |text: &str| KernelLog::parse(text, now()).table_full;
        for line in [
            "[ 1234.567] ip_conntrack: table full, dropping packet.",
            "Nov 27 09:30:22 node-a kernel: [123.4] nf_conntrack: nf_conntrack: table full, dropping packet",
            "[Thu Nov 26 23:59:59 2026] nf_conntrack: table full, dropping packet",
            "2026-11-27T09:30:22,1+00:00 nf_conntrack: table full, dropping packet",
        ] {
            assert_eq!(
                told(&format!("[ 0.0] Linux version\n{line}\n")),
                Some(2),
                "{line}"
            );
        }
        for line in [
            "[Mon Oct 26 09:30:22 2026] nf_conntrack: table full, dropping packet",
            "Nov  2 09:30:22 node-a kernel: nf_conntrack: table full, dropping packet",
            "[ 1.0] nf_conntrack version 0.5.0 (65536 buckets, 262144 max)",
        ] {
            assert_eq!(told(line), None, "{line}");
        }
        let log = KernelLog::parse(
            "[ 1.5] IPv4: martian source 10.244.2.7 from 10.244.1.5, on dev eth0\n[ 2.5] neighbour: arp_cache: neighbor table overflow!\n",
            now(),
        );
        assert_eq!((log.martian, log.neighbours_full), (Some(1), Some(2)));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(?s).{0,200}") {
            let _ = KernelLog::parse(&text, now());
        }
    }
}
