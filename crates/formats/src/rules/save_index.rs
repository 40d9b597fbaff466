//! Where the chains are in a text of `iptables-save`.
//!
//! A node with 10,000 Services has 15 MB of it. So the text stays as it is, one pass over its lines notes
//! where each chain begins and ends, and only chains that are asked for become rules. Rules of a chain
//! follow each other, and chains are mostly sorted, so that a sorted list of places costs little to make.

use std::ops::Range;

use memchr::{memchr, memmem};

use super::chain_names;
use svcdiag_kube_proxy::{IpFamily, Table};

/// What a part of the text holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A table.
    Of(Table),
    /// Lines without the head of a table, as `grep` leaves them.
    Loose,
    /// A table that no Service depends on.
    Other,
}

/// A table of the text, from its `*name` to its `COMMIT`, or loose lines.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub family: IpFamily,
    pub kind: Kind,
    /// Where its chains are declared, or where the section ends if it has no rule.
    pub declared: Range<u32>,
    /// Whether its `COMMIT` is there.
    pub is_committed: bool,
    /// Where its last rule ends.
    pub end: u32,
}

/// Rules of one chain that follow each other.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub section: u32,
    name_length: u16,
    name: u32,
    pub start: u32,
    pub end: u32,
}

/// The sections and chains of a text.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    pub sections: Vec<Section>,
    /// Sorted by name.
    runs: Vec<Run>,
    /// Names that were cut, of the only rules whose chains are not known.
    cut: Vec<Range<u32>>,
}

impl Index {
    /// Looks through a text of less than 4 GiB; tables are of the family unless a head says otherwise.
    pub(super) fn of(text: &str, family: IpFamily) -> Self {
        let mut scan = Scan {
            text,
            family,
            open: None,
            prefix: 0..0,
            index: Self::default(),
        };
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let rest = bytes.get(at..).unwrap_or_default();
            let length = memchr(b'\n', rest).unwrap_or(rest.len());
            scan.line(at, at + length);
            at += length + 1;
        }
        let mut index = scan.index;
        // Stable, so that parts of a chain stay in their order; quick where they are sorted already.
        index.runs.sort_by(|a, b| name(text, a).cmp(name(text, b)));
        index
    }

    /// The runs of a chain in the sections that are wanted, in their order.
    pub(super) fn runs(
        &self,
        text: &str,
        chain: &str,
        is_wanted: impl Fn(&Section) -> bool,
    ) -> Vec<(&Run, &Section)> {
        let begin = self.runs.partition_point(|run| name(text, run) < chain);
        let of_chain = self
            .runs
            .iter()
            .skip(begin)
            .take_while(|run| name(text, run) == chain);
        of_chain
            .filter_map(|run| Some((run, self.section(run.section)?)))
            .filter(|(_, section)| is_wanted(section))
            .collect()
    }

    fn section(&self, number: u32) -> Option<&Section> {
        self.sections.get(usize::try_from(number).ok()?)
    }

    /// Whether a rule may be the chain's whose name was cut.
    pub(super) fn is_cut(&self, text: &str, chain: &str) -> bool {
        self.cut.iter().any(|place| chain.starts_with(slice(text, place)))
    }
}

impl Section {
    /// Whether a chain is declared.
    pub(super) fn declares(&self, text: &str, chain: &str) -> bool {
        let declared = slice(text, &self.declared).as_bytes();
        memmem::find_iter(declared, chain.as_bytes()).any(|at| {
            let before = at.checked_sub(1).and_then(|b| declared.get(b));
            let behind = declared.get(at + chain.len());
            before == Some(&b':') && behind == Some(&b' ')
        })
    }
}

/// The text at a place.
pub(super) fn slice<'a>(text: &'a str, place: &Range<u32>) -> &'a str {
    usize::try_from(place.start)
        .ok()
        .zip(usize::try_from(place.end).ok())
        .and_then(|(start, end)| text.get(start..end))
        .unwrap_or_default()
}

fn name<'a>(text: &'a str, run: &Run) -> &'a str {
    slice(
        text,
        &(run.name..run.name.saturating_add(u32::from(run.name_length))),
    )
}

/// Splits a rule into its chain and what stands behind; None for any other line.
pub(super) fn split_rule(line: &str) -> Option<(&str, &str)> {
    let mut line = line.trim_ascii();
    // With -c the counters stand first.
    if line.starts_with('[') {
        line = line.split_once("] ")?.1;
    }
    let rule = line.strip_prefix("-A ")?;
    Some(rule.split_once(' ').unwrap_or((rule, "")))
}

struct Scan<'a> {
    text: &'a str,
    family: IpFamily,
    /// The section that lines belong to.
    open: Option<u32>,
    /// How the last rule begins: most lines begin like the one before.
    prefix: Range<usize>,
    index: Index,
}

impl Scan<'_> {
    fn line(&mut self, start: usize, end: usize) {
        let bytes = self.text.as_bytes();
        let line = bytes.get(start..end).unwrap_or_default();
        let prefix = bytes.get(self.prefix.clone()).unwrap_or_default();
        if !prefix.is_empty() && line.starts_with(prefix) {
            return self.extend(end);
        }
        let Some(line) = self.text.get(start..end) else {
            return;
        };
        let trimmed = line.trim_ascii();
        match trimmed.as_bytes().first() {
            Some(b'-' | b'[') => self.rule(start, end, trimmed),
            Some(b':') => self.declare(end),
            Some(b'*') => self.open(trimmed.get(1..).unwrap_or_default(), end),
            Some(b'#') => self.remark(trimmed),
            Some(b'C') if trimmed == "COMMIT" => self.commit(),
            _ => {}
        }
    }

    fn rule(&mut self, start: usize, end: usize, line: &str) {
        let Some((chain, rest)) = split_rule(line) else {
            return;
        };
        let section = match self.open {
            Some(section) => section,
            None => self.begin(Kind::Loose, start),
        };
        if self.section().is_none_or(|section| section.kind == Kind::Other) {
            return;
        }
        let name = chain.as_ptr() as usize - self.text.as_ptr() as usize;
        let name = short(name)..short(name + chain.len());
        if rest.is_empty() || chain_names::is_cut(chain) {
            self.index.cut.push(name);
            return;
        }
        let is_next = self
            .index
            .runs
            .last()
            .is_some_and(|run| run.section == section && self::name(self.text, run) == chain);
        if is_next {
            return self.extend(end);
        }
        let Ok(name_length) = u16::try_from(chain.len()) else {
            return;
        };
        self.index.runs.push(Run {
            section,
            name_length,
            name: name.start,
            start: short(start),
            end: short(end),
        });
        // With counters no two lines begin alike.
        let begins = line.starts_with("-A ") && self.text.get(start..).is_some_and(|t| t.starts_with("-A "));
        self.prefix = if begins {
            start..start + 3 + chain.len() + 1
        } else {
            0..0
        };
        self.extend(end);
    }

    /// The last run goes on to here.
    fn extend(&mut self, end: usize) {
        let end = short(end);
        if let Some(run) = self.index.runs.last_mut() {
            run.end = end;
        }
        if let Some(section) = self.section() {
            section.end = end;
        }
    }

    fn declare(&mut self, end: usize) {
        if let Some(section) = self.section() {
            section.declared.end = short(end);
            section.end = short(end);
        }
    }

    fn open(&mut self, table: &str, at: usize) {
        let known = [Table::Nat, Table::Filter]
            .into_iter()
            .find(|t| t.name() == table);
        self.begin(known.map_or(Kind::Other, Kind::Of), at);
    }

    fn begin(&mut self, kind: Kind, at: usize) -> u32 {
        let number = short(self.index.sections.len());
        self.index.sections.push(Section {
            family: self.family,
            kind,
            declared: short(at)..short(at),
            is_committed: false,
            end: short(at),
        });
        self.open = Some(number);
        self.prefix = 0..0;
        number
    }

    /// The head that the commands write names them, and so the family.
    fn remark(&mut self, line: &str) {
        let Some(command) = line.strip_prefix("# Generated by ") else {
            return;
        };
        self.family = if command.starts_with("ip6tables") {
            IpFamily::V6
        } else {
            IpFamily::V4
        };
        self.close();
    }

    fn commit(&mut self) {
        if let Some(section) = self.section() {
            section.is_committed = section.kind != Kind::Loose;
        }
        self.close();
    }

    fn close(&mut self) {
        self.open = None;
        self.prefix = 0..0;
    }

    fn section(&mut self) -> Option<&mut Section> {
        self.index.sections.get_mut(usize::try_from(self.open?).ok()?)
    }
}

/// A place in a text of less than 4 GiB.
fn short(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}
