//! The output of `iptables-save`, `ip6tables-save` and `iptables-legacy-save`, with counters or without.
//!
//! A text may hold several outputs, prompts and warnings. [`IptablesSave::is_whole`] tells whether a table
//! is all there. Of a table that was cut, and of lines that `grep` left, only what is there is known: a
//! question about the rest is answered with a [`ReadError`]. See `save_part` for what `grep` leaves.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    ParseError, Wrong, chain_in_words, line_number,
    save_index::{Index, Kind, Run, Section, slice, split_rule},
    save_part,
    save_towards::Towards,
    xt_rule::{self, is_asked_by_name},
};
use crate::proxy::{IpFamily, Layout, ReadError, Rule, Ruleset, Table, Verdict};

/// Saved rules of a node.
#[derive(Debug, Default)]
pub struct IptablesSave {
    texts: Vec<Text>,
}

/// One text.
#[derive(Debug)]
pub(super) struct Text {
    pub text: String,
    pub index: Index,
    /// The long chains, by the destinations of their rules.
    towards: Mutex<HashMap<(IpFamily, Table, String), Arc<Towards>>>,
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

impl IptablesSave {
    /// Finds the chains of a text. Tables are of the given family unless the text itself says otherwise.
    ///
    /// # Errors
    /// When there is no rule and no table in it.
    pub fn parse(text: String, family: IpFamily) -> Result<Self, ParseError> {
        const EXPECTED: &str = "the output of iptables-save";
        if u32::try_from(text.len()).is_err() {
            return Err(Wrong::new("more than 4 GiB", EXPECTED).at(1));
        }
        let index = Index::of(&text, family);
        if index.sections.is_empty() {
            let first = text.lines().find(|line| !line.trim().is_empty());
            return Err(Wrong::word(first.unwrap_or_default(), EXPECTED).at(1));
        }
        Ok(Self {
            texts: vec![Text {
                text,
                index,
                towards: Mutex::default(),
            }],
        })
    }

    /// Both: of a table that is in both texts, the one of which there is more counts.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.texts.extend(other.texts);
        self
    }

    /// Whether all rules of the table nat are there, so that what is not there is missing on the node.
    #[must_use]
    pub fn is_whole(&self, family: IpFamily) -> bool {
        self.has_whole(family, Table::Nat)
    }

    /// Whether all rules of a table are there.
    #[must_use]
    pub fn has_whole(&self, family: IpFamily, table: Table) -> bool {
        matches!(self.find(family, table), Some((_, Extent::Whole)))
    }

    /// Whether lines were chosen by a Service's name, `namespace/name`: the text shows the `grep` for it.
    #[must_use]
    pub fn is_chosen_for(&self, service: &str) -> bool {
        self.texts
            .iter()
            .any(|text| save_part::is_chosen_for(&text.text, service))
    }

    /// The rules, for questions about one Service only. If lines were chosen by its name then what is not
    /// among them is missing on the node.
    #[must_use]
    pub fn of_service(&self, service: &str) -> ServiceRules<'_> {
        ServiceRules {
            save: self,
            is_chosen: self.is_chosen_for(service),
        }
    }

    /// The text that has most of a table.
    fn find(&self, family: IpFamily, table: Table) -> Option<(&Text, Extent)> {
        [Extent::Whole, Extent::Cut, Extent::Loose]
            .into_iter()
            .find_map(|extent| {
                let has = |text: &&Text| {
                    let mut sections = text.index.sections.iter();
                    sections.any(|section| extent.is_of(section, family, table))
                };
                self.texts.iter().find(has).map(|text| (text, extent))
            })
    }

    pub(super) fn text_of(&self, family: IpFamily, table: Table) -> Result<(&Text, Extent), ReadError> {
        self.find(family, table).ok_or_else(|| ReadError {
            what: format!("table {} of {family}", table.name()),
            why: "the saved rules do not hold it".to_owned(),
        })
    }

    fn chain_for(
        &self,
        family: IpFamily,
        table: Table,
        chain: &str,
        is_chosen: bool,
    ) -> Result<Option<Vec<Rule>>, ReadError> {
        let (text, extent) = self.text_of(family, table)?;
        match extent {
            Extent::Loose => save_part::chain(text, family, table, chain, is_chosen),
            _ => text.chain(family, table, chain, extent),
        }
    }

    fn rules_for(
        &self,
        family: IpFamily,
        table: Table,
        chain: &str,
        destination: (Option<IpAddr>, u8, u16),
        is_chosen: bool,
    ) -> Result<Vec<Rule>, ReadError> {
        let (text, extent) = self.text_of(family, table)?;
        let towards = text.towards(family, table, chain, extent);
        let found = towards.rules(text, family, chain, destination)?;
        if extent != Extent::Loose {
            return Ok(found);
        }
        // A destination without endpoints is only mentioned where it is refused.
        const REFUSALS: &str = "KUBE-EXTERNAL-SERVICES";
        let refusals = text.towards(family, Table::Filter, REFUSALS, extent);
        let is_shown = is_chosen || !refusals.rules(text, family, REFUSALS, destination)?.is_empty();
        save_part::rules_towards(found, table, chain, destination, is_shown)
    }
}

impl Extent {
    pub(super) fn is_of(self, section: &Section, family: IpFamily, table: Table) -> bool {
        section.family == family
            && match self {
                Self::Whole => section.kind == Kind::Of(table) && section.is_committed,
                Self::Cut => section.kind == Kind::Of(table),
                Self::Loose => section.kind == Kind::Loose,
            }
    }
}

impl Text {
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
            Some("the saved rules were cut there")
        } else if self.index.is_cut(&self.text, chain) {
            Some("a rule was cut within the name of its chain")
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

    fn chain(
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
            why: "a rule leads to it, but it is not among the saved rules".to_owned(),
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
                why: wrong.at(line_number(&self.text, at)).to_string(),
            }
        }))
    }

    fn towards(&self, family: IpFamily, table: Table, chain: &str, extent: Extent) -> Arc<Towards> {
        let key = (family, table, chain.to_owned());
        let mut all = self.towards.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all
            .entry(key)
            .or_insert_with(|| Arc::new(Towards::of(self, family, table, chain, extent)));
        known.clone()
    }
}

impl Ruleset for IptablesSave {
    fn layout(&self) -> Layout {
        Layout::Iptables
    }

    fn chain(&self, family: IpFamily, table: Table, chain: &str) -> Result<Option<Vec<Rule>>, ReadError> {
        self.chain_for(family, table, chain, false)
    }

    fn rules_towards(
        &self,
        family: IpFamily,
        table: Table,
        chain: &str,
        destination: (Option<IpAddr>, u8, u16),
    ) -> Result<Vec<Rule>, ReadError> {
        self.rules_for(family, table, chain, destination, false)
    }

    fn element(&self, _: IpFamily, _: &str, _: &[u8]) -> Result<Option<Verdict>, ReadError> {
        Ok(None)
    }
}

/// Saved rules, asked about one Service.
#[derive(Clone, Copy, Debug)]
pub struct ServiceRules<'a> {
    save: &'a IptablesSave,
    is_chosen: bool,
}

impl Ruleset for ServiceRules<'_> {
    fn layout(&self) -> Layout {
        Layout::Iptables
    }

    fn chain(&self, family: IpFamily, table: Table, chain: &str) -> Result<Option<Vec<Rule>>, ReadError> {
        self.save.chain_for(family, table, chain, self.is_chosen)
    }

    fn rules_towards(
        &self,
        family: IpFamily,
        table: Table,
        chain: &str,
        destination: (Option<IpAddr>, u8, u16),
    ) -> Result<Vec<Rule>, ReadError> {
        self.save
            .rules_for(family, table, chain, destination, self.is_chosen)
    }

    fn element(&self, _: IpFamily, _: &str, _: &[u8]) -> Result<Option<Verdict>, ReadError> {
        Ok(None)
    }
}
