//! The output of `iptables-save`, `ip6tables-save` and `iptables-legacy-save`, with counters or without.
//!
//! A text may hold several outputs, prompts and warnings. [`IptablesSave::is_whole`] tells whether a table
//! is all there. Of a table that was cut, and of lines that `grep` left, only what is there is known: a
//! question about the rest is answered with a [`ReadError`]. See `save_part` for what `grep` leaves.

use std::net::IpAddr;

use super::{
    ParseError, Wrong, save_part,
    save_text::{Extent, Text},
};
use crate::proxy::{IpFamily, Layout, ReadError, Rule, Ruleset, Table, Verdict};

/// Saved rules of a node.
#[derive(Debug, Default)]
pub struct IptablesSave {
    texts: Vec<Text>,
}

impl IptablesSave {
    /// Finds the chains of a text. Tables are of the given family unless the text itself says otherwise.
    ///
    /// # Errors
    /// When there is no rule and no table in it, and no `grep` that may have left none.
    pub fn parse(text: String, family: IpFamily) -> Result<Self, ParseError> {
        const EXPECTED: &str = "the output of iptables-save";
        if u32::try_from(text.len()).is_err() {
            return Err(Wrong::new("more than 4 GiB", EXPECTED).at(1));
        }
        let text = Text::of(text, family);
        // A `grep` that found nothing is an answer, too.
        if text.is_empty() && !save_part::is_chosen(&text.text) {
            let first = text.text.lines().find(|line| !line.trim().is_empty());
            return Err(Wrong::word(first.unwrap_or_default(), EXPECTED).at(1));
        }
        Ok(Self { texts: vec![text] })
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
                let mut texts = self.texts.iter();
                texts
                    .find(|text| text.has(extent, family, table))
                    .map(|text| (text, extent))
            })
            .or_else(|| {
                let is_answer = |text: &&Text| text.is_empty() && text.family == family;
                let text = self.texts.iter().find(is_answer)?;
                Some((text, Extent::Loose))
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
