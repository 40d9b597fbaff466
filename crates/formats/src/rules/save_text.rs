//! A text of saved rules, its chains and how much of a table it holds.

use std::fmt;

use super::{
    chain_in_words,
    chain_names::is_asked_by_name,
    line_number,
    save_index::{Index, Kind, Run, Section, slice, split_rule},
    xt_rule,
};
use svcdiag_kube_proxy::{IpFamily, ReadError, Rule, Table};

/// One text.
#[derive(Debug)]
pub(super) struct Text {
    /// The family of tables that do not say theirs.
    pub family: IpFamily,
    pub text: String,
    /// The file that it is from; empty where nobody said.
    pub file: String,
    /// Lines of the file before it.
    pub lines_before: usize,
    index: Index,
}

/// How much of a table is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it.
    Whole,
    /// What stands before the place where the text was cut.
    Cut,
    /// Lines that were chosen by what is in them.
    Loose,
}

impl Extent {
    fn is_of(self, section: &Section, family: IpFamily, table: Table) -> bool {
        section.family == family
            && match self {
                Self::Whole => section.kind == Kind::Of(table) && section.is_committed,
                Self::Cut => section.kind == Kind::Of(table),
                Self::Loose => section.kind == Kind::Loose,
            }
    }
}

impl fmt::Display for Text {
    /// Where it begins.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.lines_before + 1)?;
        match self.file.as_str() {
            "" => Ok(()),
            file => write!(f, " of {file}"),
        }
    }
}

impl Text {
    /// Finds the chains of a text of less than 4 GiB, which is behind so many lines of its file.
    pub(super) fn of(text: String, family: IpFamily, lines_before: usize) -> Self {
        Self {
            index: Index::of(&text, family),
            family,
            text,
            file: String::new(),
            lines_before,
        }
    }

    /// Whether there is no rule and no table in it.
    pub(super) fn is_empty(&self) -> bool {
        self.index.sections.is_empty()
    }

    /// The number in its file of the line that a place of the text is in.
    pub(super) fn line_number(&self, at: usize) -> usize {
        self.lines_before + line_number(&self.text, at)
    }

    /// Whether it holds so much of a table. That nothing was found is an answer for all tables of its family.
    pub(super) fn has(&self, extent: Extent, family: IpFamily, table: Table) -> bool {
        if self.is_empty() {
            return extent == Extent::Loose && self.family == family;
        }
        let mut sections = self.index.sections.iter();
        sections.any(|section| extent.is_of(section, family, table))
    }

    /// The runs of a chain, and why more of its rules may be missing in the text, if so.
    pub(super) fn runs(
        &self,
        family: IpFamily,
        table: Table,
        chain: &str,
        extent: Extent,
    ) -> (Vec<&Run>, Option<&'static str>) {
        let found = self
            .index
            .runs(&self.text, chain, |section| extent.is_of(section, family, table));
        let is_cut = match extent {
            Extent::Whole | Extent::Loose => false,
            Extent::Cut if found.is_empty() => self.may_follow(family, table, chain),
            Extent::Cut => found.iter().any(|(run, section)| run.end == section.end),
        };
        let why = if is_cut {
            Some("the saved rules are cut short there")
        } else if self.index.is_cut(&self.text, chain) {
            Some("a rule is cut short within the name of its chain")
        } else {
            None
        };
        (found.into_iter().map(|(run, _)| run).collect(), why)
    }

    /// Whether a chain without rules may have some behind the place where the table was cut.
    fn may_follow(&self, family: IpFamily, table: Table, chain: &str) -> bool {
        let mut sections = self.index.sections.iter();
        sections.any(|section| {
            Extent::Cut.is_of(section, family, table)
                && (section.end == section.declared.end || section.declares(&self.text, chain))
        })
    }

    /// The rules of a chain; None if there is no such chain.
    pub(super) fn chain(
        &self,
        family: IpFamily,
        table: Table,
        chain: &str,
        extent: Extent,
    ) -> Result<Option<Vec<Rule>>, ReadError> {
        let (runs, why) = self.runs(family, table, chain, extent);
        if let Some(why) = why {
            return Err(ReadError {
                what: chain_in_words(table.name(), chain),
                why: why.to_owned(),
            });
        }
        if !runs.is_empty() {
            return self.rules(&runs, family, chain).map(Some);
        }
        let mut sections = self.index.sections.iter();
        if sections.any(|s| extent.is_of(s, family, table) && s.declares(&self.text, chain)) {
            return Ok(Some(Vec::new()));
        }
        if is_asked_by_name(chain) {
            return Ok(None);
        }
        Err(ReadError {
            what: chain_in_words(table.name(), chain),
            why: "a rule jumps to it, but it is not among the saved rules".to_owned(),
        })
    }

    /// The rules of a chain in some runs.
    pub(super) fn rules(&self, runs: &[&Run], family: IpFamily, chain: &str) -> Result<Vec<Rule>, ReadError> {
        runs.iter()
            .flat_map(|run| slice(&self.text, &(run.start..run.end)).split('\n'))
            .filter_map(|line| self.rule(line, family, chain))
            .collect()
    }

    /// The rule of a line of the text; None if it is none of the chain's.
    pub(super) fn rule(&self, line: &str, family: IpFamily, chain: &str) -> Option<Result<Rule, ReadError>> {
        let (_, rest) = split_rule(line).filter(|(name, _)| *name == chain)?;
        Some(xt_rule::read(chain, rest, family).map_err(|wrong| {
            let at = (line.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
            ReadError {
                what: format!("a rule of chain {chain}"),
                why: wrong.at(self.line_number(at)).to_string(),
            }
        }))
    }
}
