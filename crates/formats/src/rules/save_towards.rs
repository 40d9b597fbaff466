//! The long chains of `iptables-save` by the destinations of their rules.
//!
//! KUBE-SERVICES has a rule for every address of a Service. Of each only the address is read, and the rule
//! itself when somebody asks for that address.

use std::{collections::HashMap, net::IpAddr, ops::Range, sync::Arc};

use parking_lot::Mutex;

use super::{
    chain_in_words,
    save_index::{slice, split_rule},
    save_text::{Extent, Text},
};
use svcdiag_kube_proxy::{IpFamily, ReadError, Rule, Table};

/// Where a line is.
type Place = Range<u32>;

/// The long chains of one text that were asked about, each read once.
#[derive(Debug, Default)]
pub(super) struct LongChains(Mutex<HashMap<(IpFamily, Table, String), Arc<Towards>>>);

impl LongChains {
    /// The rules of a chain that packets to a destination can take; the text is the same for every question.
    pub(super) fn rules(
        &self,
        text: &Text,
        (family, table, chain): (IpFamily, Table, &str),
        extent: Extent,
        destination: (Option<IpAddr>, u8, u16),
    ) -> Result<Vec<Rule>, ReadError> {
        let towards = {
            let mut all = self.0.lock();
            let known = all
                .entry((family, table, chain.to_owned()))
                .or_insert_with(|| Arc::new(Towards::of(text, family, table, chain, extent)));
            known.clone()
        };
        towards.rules(text, family, chain, destination)
    }
}

/// A chain, by destination.
#[derive(Debug, Default)]
struct Towards {
    /// Rules that name one address, sorted.
    addresses: Vec<(IpAddr, Place)>,
    /// Rules that name one port and no address, sorted.
    ports: Vec<(u16, Place)>,
    /// All others.
    others: Vec<Place>,
    /// Why rules may be missing here, if so.
    gap: Option<ReadError>,
}

impl Towards {
    fn of(text: &Text, family: IpFamily, table: Table, chain: &str, extent: Extent) -> Self {
        let (runs, why) = text.runs(family, table, chain, extent);
        let mut towards = Self {
            gap: why.map(|why| ReadError {
                what: chain_in_words(table.name(), chain),
                why: why.to_owned(),
            }),
            ..Self::default()
        };
        for run in runs {
            let mut start = run.start;
            for line in slice(&text.text, &(run.start..run.end)).split('\n') {
                let end = start.saturating_add(u32::try_from(line.len()).unwrap_or(u32::MAX));
                towards.add(text, line, start..end, family, chain);
                start = end.saturating_add(1);
            }
        }
        // Stable: rules of one destination stay in their order.
        towards.addresses.sort_by_key(|(address, _)| *address);
        towards.ports.sort_by_key(|(port, _)| *port);
        towards
    }

    fn add(&mut self, text: &Text, line: &str, place: Place, family: IpFamily, chain: &str) {
        let Some((_, rest)) = split_rule(line).filter(|(name, _)| *name == chain) else {
            return;
        };
        if let Some(address) = sole_address(rest) {
            return self.addresses.push((address, place));
        }
        match text.rule(line, family, chain) {
            Some(Ok(rule)) => match rule.sole_destination() {
                Some((Some(address), _)) => self.addresses.push((address, place)),
                Some((None, port)) => self.ports.push((port, place)),
                None => self.others.push(place),
            },
            Some(Err(error)) => {
                self.gap.get_or_insert(error);
            }
            None => {}
        }
    }

    /// The rules that packets to a destination can take.
    fn rules(
        &self,
        text: &Text,
        family: IpFamily,
        chain: &str,
        destination: (Option<IpAddr>, u8, u16),
    ) -> Result<Vec<Rule>, ReadError> {
        let (address, protocol, port) = destination;
        let of_address = address.map(|a| equal(&self.addresses, &a));
        let mut places: Vec<&Place> = of_address
            .into_iter()
            .flatten()
            .map(|(_, place)| place)
            .chain(equal(&self.ports, &port).iter().map(|(_, place)| place))
            .chain(&self.others)
            .collect();
        places.sort_by_key(|place| place.start);
        let mut rules = Vec::new();
        for place in places {
            if let Some(rule) = text.rule(slice(&text.text, place), family, chain) {
                rules.push(rule?);
            }
        }
        rules.retain(|rule| rule.can_take(address, protocol, port));
        // A rule for all destinations does not show that there is no other one for this.
        let is_found = rules
            .iter()
            .any(|rule| address.is_none() || rule.sole_destination().is_some());
        match &self.gap {
            Some(error) if !is_found => Err(error.clone()),
            _ => Ok(rules),
        }
    }
}

/// The address of a rule that begins with the condition that the destination is this one address.
fn sole_address(rule: &str) -> Option<IpAddr> {
    let (net, _) = rule.strip_prefix("-d ")?.split_once(' ')?;
    if let Some(address) = net.strip_suffix("/32") {
        return address.parse().ok().map(IpAddr::V4);
    }
    let address = net.strip_suffix("/128")?;
    address.parse().ok().map(IpAddr::V6)
}

/// The entries of a sorted list with a key.
fn equal<'a, K: Ord>(sorted: &'a [(K, Place)], key: &K) -> &'a [(K, Place)] {
    let begin = sorted.partition_point(|(k, _)| k < key);
    let end = sorted.partition_point(|(k, _)| k <= key);
    sorted.get(begin..end).unwrap_or_default()
}
