//! Rules of which every chain is read once, however many ways lead through it.

use std::{cell::RefCell, collections::BTreeMap, net::IpAddr};

use super::{IpFamily, Layout, ReadError, Rule, Ruleset, Table, Verdict};

/// A chain of a table, and its rules.
type Known = BTreeMap<(IpFamily, Table), BTreeMap<String, Option<Vec<Rule>>>>;

/// Rules that are looked at for one purpose at one moment.
pub(super) struct Once<'a> {
    rules: &'a dyn Ruleset,
    chains: RefCell<Known>,
}

impl<'a> Once<'a> {
    pub(crate) fn of(rules: &'a dyn Ruleset) -> Self {
        Self {
            rules,
            chains: RefCell::default(),
        }
    }
}

impl Ruleset for Once<'_> {
    fn layout(&self) -> Layout {
        self.rules.layout()
    }

    fn chain(&self, family: IpFamily, table: Table, chain: &str) -> Result<Option<Vec<Rule>>, ReadError> {
        let known = self
            .chains
            .borrow()
            .get(&(family, table))
            .and_then(|c| c.get(chain).cloned());
        if let Some(rules) = known {
            return Ok(rules);
        }
        let rules = self.rules.chain(family, table, chain)?;
        let mut chains = self.chains.borrow_mut();
        let of_table = chains.entry((family, table)).or_default();
        of_table.insert(chain.to_owned(), rules.clone());
        Ok(rules)
    }

    fn rules_towards(
        &self,
        family: IpFamily,
        table: Table,
        chain: &str,
        destination: (Option<IpAddr>, u8, u16),
    ) -> Result<Vec<Rule>, ReadError> {
        self.rules.rules_towards(family, table, chain, destination)
    }

    fn element(&self, family: IpFamily, map: &str, key: &[u8]) -> Result<Option<Verdict>, ReadError> {
        self.rules.element(family, map, key)
    }
}
