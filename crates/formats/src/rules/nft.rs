//! The output of `nft list ruleset` or `nft list table ip kube-proxy`.
//!
//! One pass notes where chains and maps begin and end; only those that are asked for are read. Tables of
//! iptables-nft show the names of their chains here, but not what their rules do: for those `iptables-save`
//! is needed, and every answer is a [`ReadError`] that says so.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, OnceLock},
};

use super::{
    ParseError, Wrong, chain_in_words, line_number,
    nft_keys::{Elements, Field, elements, unquoted},
    nft_rule,
};
use svcdiag_kube_proxy::{IpFamily, Layout, ReadError, Rule, Ruleset, Table, Verdict};

/// Beginnings of the names of chains that only other rules lead to: what they lead to is there.
const LED_TO: [&str; 5] = ["service-", "local-", "external-", "firewall-", "endpoint-"];

/// Listed rules of a node.
#[derive(Debug)]
pub struct NftList {
    text: String,
    scope: Scope,
    tables: HashMap<IpFamily, KubeProxy>,
}

/// What tables a text holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scope {
    /// Families with chains KUBE-SERVICES of iptables-nft.
    pub iptables: Vec<IpFamily>,
    /// Whether there are others than kube-proxy's, so that all were listed.
    pub is_ruleset: bool,
    /// Whether the text was cut within a table.
    pub is_cut: bool,
}

/// kube-proxy's table of one family.
#[derive(Debug, Default)]
struct KubeProxy {
    chains: HashMap<String, Body>,
    maps: HashMap<String, (Body, Known)>,
    is_closed: bool,
}

/// The elements of a map, once somebody has asked.
type Known = OnceLock<Result<Arc<Elements>, ReadError>>;

/// Where the lines of a chain or map are.
#[derive(Clone, Debug)]
struct Body {
    place: Range<usize>,
    is_closed: bool,
}

impl Scope {
    /// What the absence of kube-proxy's table of a family means.
    pub(super) fn absent<T>(&self, family: IpFamily) -> Result<Option<T>, ReadError> {
        let why = if self.iptables.contains(&family) {
            "the node has rules of iptables, which nft does not show in full; save `iptables-save`"
        } else if self.is_ruleset && !self.is_cut {
            return Ok(None);
        } else {
            "the listed rules do not contain it"
        };
        Err(ReadError {
            what: format!("table kube-proxy of {family}"),
            why: why.to_owned(),
        })
    }
}

/// Whether a chain that is not there must be: a rule leads to it.
pub(super) fn must_be_there(chain: &str) -> bool {
    LED_TO.iter().any(|start| chain.starts_with(start)) && chain.contains('/')
}

pub(super) fn not_there(chain: &str) -> ReadError {
    ReadError {
        what: chain_in_words(Table::KubeProxy.name(), chain),
        why: "a rule jumps to it, but it is not among the listed rules".to_owned(),
    }
}

/// What stands in the text behind the opening brace: the kind of block and its name.
fn block(line: &str) -> Option<(&str, &str)> {
    let mut line = line;
    // With -a: `chain services { # handle 12`
    if let Some((before, _)) = line.split_once(" # handle ") {
        line = before;
    }
    let head = line.trim_end().strip_suffix('{')?.trim_end();
    head.split_once(' ')
}

/// The family of a table and its name.
fn table(head: &str) -> (Option<IpFamily>, &str) {
    let (family, name) = head.split_once(' ').unwrap_or(("ip", head));
    let family = match family {
        "ip" => Some(IpFamily::V4),
        "ip6" => Some(IpFamily::V6),
        _ => None,
    };
    (family, unquoted(name))
}

impl NftList {
    /// Finds chains and maps; lines outside of tables are passed over.
    ///
    /// # Errors
    /// When there is no table in it, or kube-proxy's stands there twice.
    pub fn parse(text: String) -> Result<Self, ParseError> {
        let mut scope = Scope::default();
        let mut tables: HashMap<IpFamily, KubeProxy> = HashMap::new();
        let mut is_any = false;
        // The table and the block inside it that lines belong to.
        let mut open: Option<(Option<IpFamily>, &str)> = None;
        let mut inside: Option<(&str, &str, usize)> = None;
        // A list of elements that goes on over several lines.
        let mut is_list = false;
        let mut at = 0;
        for full in text.split_inclusive('\n') {
            let (start, line) = (at, full.trim());
            at += full.len();
            if let Some(("table", head)) = block(line).filter(|_| !full.starts_with(['\t', ' '])) {
                scope.is_cut |= open.is_some();
                let (family, name) = table(head);
                open = Some((family, name));
                (inside, is_list, is_any) = (None, false, true);
                scope.is_ruleset |= name != Table::KubeProxy.name();
                if let Some(family) = family.filter(|_| name == Table::KubeProxy.name())
                    && tables.insert(family, KubeProxy::default()).is_some()
                {
                    // They may be of two moments, or two nodes, or parts: nobody knows what holds.
                    let found = format!("table kube-proxy of {family} for the second time");
                    return Err(
                        Wrong::new(found, "the output of one nft list ruleset").at(line_number(&text, start))
                    );
                }
                continue;
            }
            let Some((family, name)) = open else { continue };
            if is_list || line.starts_with("elements = {") {
                is_list = !line.ends_with('}');
                continue;
            }
            let kube_proxy = family
                .filter(|_| name == Table::KubeProxy.name())
                .and_then(|family| tables.get_mut(&family));
            match (inside, kube_proxy) {
                (Some((kind, name, from)), kube_proxy) if line == "}" => {
                    if let Some(table) = kube_proxy {
                        table.add(kind, name, from..start, true);
                    }
                    inside = None;
                }
                (None, kube_proxy) if line == "}" => {
                    if let Some(table) = kube_proxy {
                        table.is_closed = true;
                    }
                    open = None;
                }
                (None, kube_proxy) => {
                    inside = block(line).map(|(kind, name)| (kind, unquoted(name), at));
                    let is_iptables = kube_proxy.is_none() && line.starts_with("chain KUBE-SERVICES ");
                    scope.iptables.extend(family.filter(|_| is_iptables));
                }
                // The rules of a block that was not closed belong to the table's next one.
                (Some((kind, name, from)), Some(table)) => {
                    let is_next = ["chain ", "set ", "map "].iter().any(|k| line.starts_with(k));
                    if let Some((next, head)) = block(line).filter(|_| is_next) {
                        table.add(kind, name, from..start, false);
                        inside = Some((next, unquoted(head), at));
                    }
                }
                (Some(_), None) => {}
            }
        }
        scope.is_cut |= open.is_some();
        if let (Some((kind, name, from)), Some((Some(family), "kube-proxy"))) = (inside, open)
            && let Some(table) = tables.get_mut(&family)
        {
            table.add(kind, name, from..text.len(), false);
        }
        if !is_any {
            return Err(ParseError::nothing(&text, "the output of nft list ruleset"));
        }
        Ok(Self { text, scope, tables })
    }

    /// Whether all of kube-proxy's table of a family is there, or all tables are, so that what is not
    /// there is missing on the node.
    #[must_use]
    pub fn is_whole(&self, family: IpFamily) -> bool {
        match self.tables.get(&family) {
            Some(table) => table.is_closed,
            None => self.scope.absent::<()>(family).is_ok(),
        }
    }

    /// The same, once it is known that kube-proxy writes no rules of iptables: those that are there are others'.
    #[must_use]
    pub fn in_nftables_mode(mut self) -> Self {
        self.scope.iptables.clear();
        self
    }

    /// Whether kube-proxy's table is there in any family.
    #[must_use]
    pub fn has_table(&self) -> bool {
        !self.tables.is_empty()
    }

    fn rules(&self, family: IpFamily, chain: &str, body: &Body) -> Result<Vec<Rule>, ReadError> {
        let lines = self.text.get(body.place.clone()).unwrap_or_default();
        let mut at = body.place.start;
        let mut rules = Vec::new();
        for line in lines.split_inclusive('\n') {
            let rule = nft_rule::read(line.trim(), family).map_err(|wrong| ReadError {
                what: format!("a rule of chain {chain}"),
                why: wrong.at(line_number(&self.text, at)).to_string(),
            })?;
            rules.extend(rule);
            at += line.len();
        }
        Ok(rules)
    }

    fn elements(&self, map: &str, body: &Body) -> Result<Arc<Elements>, ReadError> {
        let text = self.text.get(body.place.clone()).unwrap_or_default();
        let read = || -> Result<Elements, Wrong> {
            let Some(list) = text.split_once("elements = {").map(|(_, list)| list) else {
                return Ok(Elements::new());
            };
            // Where the text was cut nobody knows whether the last element is whole.
            let end = if body.is_closed { '}' } else { ',' };
            let list = list.rsplit_once(end).map_or("", |(list, _)| list);
            elements(&fields(text)?, list)
        };
        read().map(Arc::new).map_err(|wrong| ReadError {
            what: format!("map {map} of table kube-proxy"),
            why: wrong.at(line_number(&self.text, body.place.start)).to_string(),
        })
    }
}

/// The fields of the keys of a set or map: `type ipv4_addr . inet_proto . inet_service : verdict`.
fn fields(body: &str) -> Result<Vec<Field>, Wrong> {
    let declared = body.lines().map(str::trim).find_map(|line| {
        let (kind, fields) = line.split_once(' ')?;
        matches!(kind, "type" | "typeof").then_some(fields)
    });
    let declared = declared.unwrap_or_default();
    let declared = declared.split(" : ").next().unwrap_or_default();
    declared
        .split(" . ")
        .map(|field| {
            Field::of(field).ok_or_else(|| Wrong::word(field, "a type of addresses, protocols or ports"))
        })
        .collect()
}

impl KubeProxy {
    fn add(&mut self, kind: &str, name: &str, place: Range<usize>, is_closed: bool) {
        let body = Body { place, is_closed };
        match kind {
            "chain" => {
                self.chains.insert(name.to_owned(), body);
            }
            "set" | "map" => {
                self.maps.insert(name.to_owned(), (body, OnceLock::new()));
            }
            _ => {}
        }
    }
}

fn cut(what: String) -> ReadError {
    ReadError {
        what,
        why: "the listed rules are cut short there".to_owned(),
    }
}

impl Ruleset for NftList {
    fn layout(&self) -> Layout {
        Layout::Nftables
    }

    fn chain(&self, family: IpFamily, _: Table, chain: &str) -> Result<Option<Vec<Rule>>, ReadError> {
        let Some(table) = self.tables.get(&family) else {
            return self.scope.absent(family);
        };
        match table.chains.get(chain) {
            Some(body) if body.is_closed => self.rules(family, chain, body).map(Some),
            None if table.is_closed && must_be_there(chain) => Err(not_there(chain)),
            None if table.is_closed => Ok(None),
            _ => Err(cut(chain_in_words(Table::KubeProxy.name(), chain))),
        }
    }

    fn element(&self, family: IpFamily, map: &str, key: &[u8]) -> Result<Option<Verdict>, ReadError> {
        let Some(table) = self.tables.get(&family) else {
            return self.scope.absent(family);
        };
        let what = || format!("map {map} of table kube-proxy");
        match table.maps.get(map) {
            Some((body, known)) => {
                let elements = known.get_or_init(|| self.elements(map, body)).clone()?;
                match elements.get(key) {
                    None if !body.is_closed => Err(cut(what())),
                    found => Ok(found.cloned()),
                }
            }
            None if table.is_closed => Ok(None),
            None => Err(cut(what())),
        }
    }
}
