//! nf_tables over netlink: a chain by its name, an element by its key.
//!
//! The kernel finds both by hashes, so that the time of an answer does not grow with the tables; asking
//! for a whole table would. It goes through all maps of a table, though, to find the one of a rule: those are kept
//! until the generation of the rules changes. Measured with 10,000 Services: see `benches/audit.rs`.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::expressions::{self, DATA_VALUE, LIST_ELEMENT, MapData, read_rule};
use crate::netlink::{self, Attributes, Family, Netlink, Request, attributes_of};
use svcdiag_kube_proxy::{IpFamily, Layout, ReadError, Rule, Ruleset, Table, Verdict};

/// NFNL_SUBSYS_NFTABLES.
pub(super) const SUBSYSTEM: u8 = 10;

pub(super) const GET_TABLE: u8 = 1;
pub(super) const GET_CHAIN: u8 = 4;
pub(super) const GET_RULE: u8 = 7;
pub(super) const GET_SET: u8 = 10;
pub(super) const GET_SET_ELEMENTS: u8 = 13;
const GET_GENERATION: u8 = 16;

/// Length of struct nfgenmsg.
pub(super) const HEADER: usize = 4;

/// The rules of a network namespace in nf_tables, laid out by kube-proxy itself or by iptables-nft.
#[derive(Debug)]
pub struct NfTables {
    netlink: Netlink,
    layout: Layout,
    /// The long chains of iptables mode, sorted by destination, and the generation they are of.
    sorted: Mutex<HashMap<(IpFamily, Table, String), Arc<Sorted>>>,
    /// The maps that belong to rules.
    maps: Mutex<Maps>,
}

/// Maps of one generation of the rules.
#[derive(Debug, Default)]
struct Maps {
    /// Its number, and when it was first seen.
    generation: Option<(u32, Instant)>,
    known: HashMap<(IpFamily, Table, String), MapData>,
}

/// So many maps are kept: one for each Service port that is looked at.
const MAX_MAPS: usize = 4096;

/// The kernel counts a generation a moment before it begins (nf_tables_commit): what is read within so much time
/// of its number may be of the one before, and is not kept.
const BEGINS_WITHIN: Duration = Duration::from_millis(10);

impl Maps {
    /// The maps of a generation; those of others are forgotten.
    fn of(&mut self, generation: u32) -> &mut Self {
        if self.generation.is_none_or(|(known, _)| known != generation) || self.known.len() > MAX_MAPS {
            *self = Self {
                generation: Some((generation, Instant::now())),
                known: HashMap::new(),
            };
        }
        self
    }

    fn has_begun(&self) -> bool {
        self.generation
            .is_some_and(|(_, seen)| seen.elapsed() >= BEGINS_WITHIN)
    }
}

/// A rule and its place in the chain.
type Placed = (usize, Rule);

/// A chain whose rules are found by destination.
#[derive(Debug)]
struct Sorted {
    generation: u32,
    /// Rules that name one address or no address but one port.
    by_destination: HashMap<(Option<IpAddr>, u16), Vec<Placed>>,
    /// All others.
    others: Vec<Placed>,
}

impl NfTables {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open(layout: Layout) -> io::Result<Self> {
        Ok(Self::on(Netlink::open(Family::Netfilter)?, layout))
    }

    /// The same in the namespace of a Pod, whose rules are as many as it likes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open_in_pod(layout: Layout) -> io::Result<Self> {
        Ok(Self::on(Netlink::open_in_pod(Family::Netfilter)?, layout))
    }

    fn on(netlink: Netlink, layout: Layout) -> Self {
        Self {
            netlink,
            layout,
            sorted: Mutex::default(),
            maps: Mutex::default(),
        }
    }

    /// Whether there is a table.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn has_table(&self, family: IpFamily, table: Table) -> Result<bool, ReadError> {
        let request = self.request(GET_TABLE, family).text(1, table.name());
        match self.netlink.get(&request) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(read_error(format!("table {}", table.name()), &error)),
        }
    }

    /// The number of the present generation of all rules; it grows with every change.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn generation(&self) -> Result<u32, ReadError> {
        let answer = self
            .netlink
            .get(&Request::netfilter(SUBSYSTEM, GET_GENERATION, 0))
            .map_err(|e| read_error("the generation of the rules".to_owned(), &e))?;
        answer
            .first()
            .and_then(|(_, body)| Attributes::behind(body, HEADER).be_u32(1))
            .ok_or_else(|| ReadError {
                what: "the generation of the rules".to_owned(),
                why: "the kernel's answer holds none".to_owned(),
            })
    }

    /// Whether a base chain drops what none of its rules takes; None if there is no such chain.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn drops_by_default(
        &self,
        family: IpFamily,
        table: Table,
        chain: &str,
    ) -> Result<Option<bool>, ReadError> {
        const POLICY: u16 = 5;
        let found = self.chain_itself(family, table, chain)?;
        Ok(found
            .and_then(|body| Attributes::behind(&body, HEADER).be_u32(POLICY))
            .map(|policy| policy == 0))
    }

    /// What the kernel says of a chain, without its rules; None if there is no such chain.
    fn chain_itself(
        &self,
        family: IpFamily,
        table: Table,
        chain: &str,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        let request = self
            .request(GET_CHAIN, family)
            .text(1, table.name())
            .text(3, chain);
        match self.netlink.get(&request) {
            Ok(messages) => Ok(messages.into_iter().next().map(|(_, body)| body)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(read_error(
                format!("chain {chain} of table {}", table.name()),
                &error,
            )),
        }
    }

    fn request(&self, message: u8, family: IpFamily) -> Request {
        Request::netfilter(SUBSYSTEM, message, nfproto(family))
    }

    /// The data of all elements of a map that belongs to one rule. While the rule stays so does the map.
    fn elements(&self, family: IpFamily, table: Table, map: &str) -> Result<MapData, ReadError> {
        let generation = self.generation()?;
        let key = (family, table, map.to_owned());
        let lock = || self.maps.lock();
        let (known, may_be_kept) = {
            let mut maps = lock();
            let maps = maps.of(generation);
            (maps.known.get(&key).cloned(), maps.has_begun())
        };
        if let Some(known) = known {
            return Ok(known);
        }
        let data = self.read_elements(family, table, map)?;
        if may_be_kept {
            lock().of(generation).known.insert(key, data.clone());
        }
        Ok(data)
    }

    fn read_elements(&self, family: IpFamily, table: Table, map: &str) -> Result<MapData, ReadError> {
        let what = || format!("map {map} of table {}", table.name());
        let request = self
            .request(GET_SET_ELEMENTS, family)
            .text(1, table.name())
            .text(2, map);
        let messages = self.netlink.dump(&request).map_err(|e| read_error(what(), &e))?;
        Ok(map_data(messages.iter().map(|(_, body)| body.as_slice())))
    }

    fn sorted(&self, family: IpFamily, table: Table, chain: &str) -> Result<Arc<Sorted>, ReadError> {
        let generation = self.generation()?;
        let key = (family, table, chain.to_owned());
        let known = {
            let sorted = self.sorted.lock();
            sorted.get(&key).filter(|s| s.generation == generation).cloned()
        };
        if let Some(known) = known {
            return Ok(known);
        }
        let rules = self.chain(family, table, chain)?.unwrap_or_default();
        let sorted = Arc::new(Sorted::of(generation, rules));
        self.sorted.lock().insert(key, sorted.clone());
        Ok(sorted)
    }
}

impl Sorted {
    fn of(generation: u32, rules: Vec<Rule>) -> Self {
        let mut sorted = Self {
            generation,
            by_destination: HashMap::new(),
            others: Vec::new(),
        };
        for (position, rule) in rules.into_iter().enumerate() {
            match rule.sole_destination() {
                Some(destination) => sorted
                    .by_destination
                    .entry(destination)
                    .or_default()
                    .push((position, rule)),
                None => sorted.others.push((position, rule)),
            }
        }
        sorted
    }
}

impl Ruleset for NfTables {
    fn layout(&self) -> Layout {
        self.layout
    }

    fn chain(&self, family: IpFamily, table: Table, chain: &str) -> Result<Option<Vec<Rule>>, ReadError> {
        let what = || format!("chain {chain} of table {}", table.name());
        let request = self
            .request(GET_RULE, family)
            .text(1, table.name())
            .text(2, chain);
        let messages = match self.netlink.dump(&request) {
            Ok(messages) => messages,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(read_error(what(), &error)),
        };
        let mut rules = Vec::with_capacity(messages.len());
        for (_, body) in &messages {
            let attributes = Attributes::behind(body, HEADER);
            // The kernel ends a dump for an unknown chain with rules of none, for an unknown table too.
            if attributes.text(2) != Some(chain) {
                continue;
            }
            rules.push(rule(attributes, family, |map| self.elements(family, table, map))?);
        }
        // A dump of what is not there is as empty as that of an empty chain.
        if rules.is_empty() && self.chain_itself(family, table, chain)?.is_none() {
            return Ok(None);
        }
        Ok(Some(rules))
    }

    fn rules_towards(
        &self,
        family: IpFamily,
        table: Table,
        chain: &str,
        destination: (Option<IpAddr>, u8, u16),
    ) -> Result<Vec<Rule>, ReadError> {
        let (address, protocol, port) = destination;
        let sorted = self.sorted(family, table, chain)?;
        let exact = sorted.by_destination.get(&(address, port));
        let any_address = address.and_then(|_| sorted.by_destination.get(&(None, port)));
        let mut rules: Vec<&Placed> = exact
            .into_iter()
            .chain(any_address)
            .flatten()
            .chain(&sorted.others)
            .filter(|(_, rule)| rule.can_take(address, protocol, port))
            .collect();
        rules.sort_by_key(|(position, _)| *position);
        Ok(rules.into_iter().map(|(_, rule)| rule.clone()).collect())
    }

    fn element(&self, family: IpFamily, map: &str, key: &[u8]) -> Result<Option<Verdict>, ReadError> {
        let value = attributes_of(&[(DATA_VALUE, key)]);
        let element = attributes_of(&[(netlink::nested(1), &value)]);
        let list = attributes_of(&[(netlink::nested(LIST_ELEMENT), &element)]);
        let request = self
            .request(GET_SET_ELEMENTS, family)
            .text(1, Table::KubeProxy.name())
            .text(2, map)
            .nested(3, &list);
        let messages = match self.netlink.get(&request) {
            Ok(messages) => messages,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(read_error(format!("map {map} of table kube-proxy"), &error)),
        };
        let found = messages.iter().find_map(|(_, body)| {
            let list = Attributes::behind(body, HEADER).nested(3)?;
            let element = list.nested(LIST_ELEMENT)?;
            Some(match element.nested(2) {
                Some(data) => expressions::read_verdict(data),
                None => Some(Verdict::Member),
            })
        });
        match found {
            None => Ok(None),
            Some(Some(verdict)) => Ok(Some(verdict)),
            Some(None) => Err(ReadError {
                what: format!("map {map} of table kube-proxy"),
                why: "its element holds no verdict that is known".to_owned(),
            }),
        }
    }
}

/// The rule in a message about one. `map` is asked for the elements of anonymous maps.
pub(crate) fn rule<E>(
    message: Attributes<'_>,
    family: IpFamily,
    map: impl FnMut(&str) -> Result<MapData, E>,
) -> Result<Rule, E> {
    read_rule(message.nested(4).unwrap_or_default(), family, map)
}

/// The data of the elements in messages about them.
pub(crate) fn map_data<'a>(bodies: impl Iterator<Item = &'a [u8]>) -> MapData {
    let (mut values, mut verdicts) = (Vec::new(), Vec::new());
    for body in bodies {
        let list = Attributes::behind(body, HEADER).nested(3).unwrap_or_default();
        for (_, element) in list.iter().filter(|(kind, _)| *kind == LIST_ELEMENT) {
            let data = Attributes(element).nested(2).unwrap_or_default();
            match data.get(DATA_VALUE) {
                Some(value) => values.push(value.to_vec()),
                None => verdicts.extend(expressions::read_verdict(data)),
            }
        }
    }
    if values.is_empty() {
        MapData::Verdicts(verdicts)
    } else {
        MapData::Values(values)
    }
}

/// NFPROTO_IPV4 and NFPROTO_IPV6.
fn nfproto(family: IpFamily) -> u8 {
    match family {
        IpFamily::V4 => 2,
        IpFamily::V6 => 10,
    }
}

fn read_error(what: String, error: &io::Error) -> ReadError {
    ReadError {
        what,
        why: error.to_string(),
    }
}
