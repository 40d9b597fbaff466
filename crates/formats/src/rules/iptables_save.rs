//! The output of `iptables-save`, `ip6tables-save` and `iptables-legacy-save`, with counters or without.
//!
//! A text may hold several outputs, prompts and warnings. [`IptablesSave::is_whole`] tells whether a table
//! is all there. Of a table that was cut, and of lines that `grep` left, only what is there is known: a
//! question about the rest is answered with a [`ReadError`]. See `save_part` for what `grep` leaves.
//!
//! Of several outputs each is asked by itself: they may be of two moments, or of two nodes, and nobody can
//! tell which one holds. Where their answers differ, the answer is a [`ReadError`] that names both.

use std::net::IpAddr;

use super::{
    ParseError, Wrong, agreed, chain_in_words, save_outputs, save_part,
    save_text::{Extent, Text},
    save_towards::LongChains,
};
use svcdiag_kube_proxy::{IpFamily, Layout, ReadError, Rule, Ruleset, Table, Verdict};

/// Saved rules of a node.
#[derive(Debug, Default)]
pub struct IptablesSave {
    outputs: Vec<Output>,
}

/// One output.
#[derive(Debug)]
pub(super) struct Output {
    pub text: Text,
    long_chains: LongChains,
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
        let nothing = ParseError::nothing(&text, EXPECTED);
        let texts = save_outputs::split(text, family);
        // A `grep` that found nothing is an answer, too.
        let is_answer = |text: &Text| !text.is_empty() || save_part::is_chosen(&text.text);
        if !texts.iter().any(is_answer) {
            return Err(nothing);
        }
        let outputs = texts.into_iter().map(|text| Output {
            text,
            long_chains: LongChains::default(),
        });
        Ok(Self {
            outputs: outputs.collect(),
        })
    }

    /// The same, which names the file that it is from where its outputs contradict each other.
    #[must_use]
    pub fn of_file(mut self, path: &str) -> Self {
        for output in &mut self.outputs {
            path.clone_into(&mut output.text.file);
        }
        self
    }

    /// Both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.outputs.extend(other.outputs);
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
        let mut outputs = self.outputs.iter();
        outputs.any(|output| output.text.has(Extent::Whole, family, table))
    }

    /// Whether lines were chosen by a Service's name, `namespace/name`: the text shows the `grep` for it.
    #[must_use]
    pub fn is_chosen_for(&self, service: &str) -> bool {
        self.outputs
            .iter()
            .any(|output| save_part::is_chosen_for(&output.text.text, service))
    }

    /// The rules, for questions about one Service only. If lines were chosen by its name then what is not
    /// among them is missing on the node.
    #[must_use]
    pub fn of_service(&self, service: &str) -> ServiceRules<'_> {
        let is_chosen = |output: &Output| save_part::is_chosen_for(&output.text.text, service);
        ServiceRules {
            save: self,
            chosen: self.outputs.iter().map(is_chosen).collect(),
        }
    }

    /// The outputs to ask about a table, with their place among all: those that have the table, whole or
    /// cut, else those that have chosen lines.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn outputs(
        &self,
        family: IpFamily,
        table: Table,
    ) -> Result<Vec<(usize, &Output, Extent)>, ReadError> {
        let of = |extents: &[Extent]| {
            let outputs = self.outputs.iter().enumerate();
            let found = outputs.filter_map(|(n, output)| {
                let extent = extents.iter().find(|e| output.text.has(**e, family, table))?;
                Some((n, output, *extent))
            });
            found.collect::<Vec<_>>()
        };
        let tables = of(&[Extent::Whole, Extent::Cut]);
        let found = if tables.is_empty() {
            of(&[Extent::Loose])
        } else {
            tables
        };
        if found.is_empty() {
            return Err(ReadError {
                what: format!("table {} of {family}", table.name()),
                why: "the saved rules do not contain it".to_owned(),
            });
        }
        Ok(found)
    }

    fn chain_for(
        &self,
        family: IpFamily,
        table: Table,
        chain: &str,
        chosen: &[bool],
    ) -> Result<Option<Vec<Rule>>, ReadError> {
        let answer = |(n, output, extent): (usize, &Output, Extent)| match extent {
            Extent::Loose => save_part::chain(&output.text, family, table, chain, is_chosen(chosen, n)),
            _ => output.text.chain(family, table, chain, extent),
        };
        let outputs = self.outputs(family, table)?.into_iter();
        let answers = outputs.map(|o| (&o.1.text, answer(o)));
        agreed(&chain_in_words(table.name(), chain), answers)
    }

    fn rules_for(
        &self,
        family: IpFamily,
        table: Table,
        chain: &str,
        destination: (Option<IpAddr>, u8, u16),
        chosen: &[bool],
    ) -> Result<Vec<Rule>, ReadError> {
        let answer = |(n, output, extent): (usize, &Output, Extent)| {
            let rules = |table, chain| {
                let chain = (family, table, chain);
                output.long_chains.rules(&output.text, chain, extent, destination)
            };
            let found = rules(table, chain)?;
            if extent != Extent::Loose {
                return Ok(found);
            }
            // A destination without endpoints is only mentioned where it is refused.
            const REFUSALS: &str = "KUBE-EXTERNAL-SERVICES";
            let is_shown = is_chosen(chosen, n) || !rules(Table::Filter, REFUSALS)?.is_empty();
            save_part::rules_towards(found, table, chain, destination, is_shown)
        };
        let outputs = self.outputs(family, table)?.into_iter();
        let answers = outputs.map(|o| (&o.1.text, answer(o)));
        agreed(&chain_in_words(table.name(), chain), answers)
    }
}

fn is_chosen(chosen: &[bool], output: usize) -> bool {
    chosen.get(output).copied().unwrap_or(false)
}

impl Ruleset for IptablesSave {
    fn layout(&self) -> Layout {
        Layout::Iptables
    }

    fn chain(&self, family: IpFamily, table: Table, chain: &str) -> Result<Option<Vec<Rule>>, ReadError> {
        self.chain_for(family, table, chain, &[])
    }

    fn rules_towards(
        &self,
        family: IpFamily,
        table: Table,
        chain: &str,
        destination: (Option<IpAddr>, u8, u16),
    ) -> Result<Vec<Rule>, ReadError> {
        self.rules_for(family, table, chain, destination, &[])
    }

    fn element(&self, _: IpFamily, _: &str, _: &[u8]) -> Result<Option<Verdict>, ReadError> {
        Ok(None)
    }
}

/// Saved rules, asked about one Service.
#[derive(Clone, Debug)]
pub struct ServiceRules<'a> {
    save: &'a IptablesSave,
    /// Whether the lines of each output were chosen by the Service's name.
    chosen: Vec<bool>,
}

impl Ruleset for ServiceRules<'_> {
    fn layout(&self) -> Layout {
        Layout::Iptables
    }

    fn chain(&self, family: IpFamily, table: Table, chain: &str) -> Result<Option<Vec<Rule>>, ReadError> {
        self.save.chain_for(family, table, chain, &self.chosen)
    }

    fn rules_towards(
        &self,
        family: IpFamily,
        table: Table,
        chain: &str,
        destination: (Option<IpAddr>, u8, u16),
    ) -> Result<Vec<Rule>, ReadError> {
        self.save
            .rules_for(family, table, chain, destination, &self.chosen)
    }

    fn element(&self, _: IpFamily, _: &str, _: &[u8]) -> Result<Option<Verdict>, ReadError> {
        Ok(None)
    }
}
