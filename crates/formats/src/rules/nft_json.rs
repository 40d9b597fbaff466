//! The output of `nft -j list ruleset` or `nft -j list table ip kube-proxy`.
//!
//! Source: the manual page libnftables-json(5). What is not complete is no JSON, so that there are no parts
//! here; else answers are those of [`nft`](super::nft).

use std::collections::HashMap;

use serde_json::Value;

use super::{
    ParseError, Wrong, chain_in_words,
    nft::{Scope, must_be_there, not_there},
    nft_keys::{Elements, Field, key},
    nft_match::{Operand, Selector, conditions, endpoint},
};
use svcdiag_kube_proxy::{IpFamily, Layout, ReadError, Rule, Ruleset, Table, Target, Verdict};

/// Listed rules of a node.
#[derive(Debug, Default)]
pub struct NftJson {
    scope: Scope,
    tables: HashMap<IpFamily, KubeProxy>,
}

/// kube-proxy's table of one family. Rules stay JSON until somebody asks for their chain.
#[derive(Debug, Default)]
struct KubeProxy {
    chains: HashMap<String, Vec<Value>>,
    maps: HashMap<String, Result<Elements, Wrong>>,
}

/// Most lists and maps of a file: each takes some 700 bytes of memory, and as little as three in the file.
const MAX_VALUES: usize = 300_000;

impl NftJson {
    /// Reads the list.
    ///
    /// # Errors
    /// When it is no such list.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        #[derive(serde::Deserialize)]
        struct List {
            nftables: Vec<Value>,
        }
        const EXPECTED: &str = "the output of nft -j list ruleset";
        // A prompt may stand before it.
        let begin = text.find('{').unwrap_or_default();
        let first = super::line_number(text, begin);
        if text.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count() > MAX_VALUES {
            let found = format!("a list of more than {MAX_VALUES} values");
            return Err(Wrong::new(
                found,
                "a smaller one; nft list ruleset without -j is read whatever its size",
            )
            .at(first));
        }
        let mut documents =
            serde_json::Deserializer::from_str(text.get(begin..).unwrap_or_default()).into_iter::<List>();
        let list = documents
            .next()
            .ok_or_else(|| Wrong::new("nothing", EXPECTED).at(1))?
            .map_err(|error| {
                Wrong::new(error.to_string(), EXPECTED).at(first + error.line().saturating_sub(1))
            })?;
        let mut read = Self::default();
        for object in list.nftables {
            read.add(object);
        }
        Ok(read)
    }

    /// Whether kube-proxy's table of a family is there, or all tables are.
    #[must_use]
    pub fn is_whole(&self, family: IpFamily) -> bool {
        self.tables.contains_key(&family) || self.scope.absent::<()>(family).is_ok()
    }

    /// Whether kube-proxy's table is there in any family.
    #[must_use]
    pub fn has_table(&self) -> bool {
        !self.tables.is_empty()
    }

    fn add(&mut self, mut object: Value) {
        let Some((kind, value)) = object.as_object_mut().and_then(|o| o.iter_mut().next()) else {
            return;
        };
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
        let family = match text("family") {
            "ip" => Some(IpFamily::V4),
            "ip6" => Some(IpFamily::V6),
            _ => None,
        };
        let table = text(if kind == "table" { "name" } else { "table" });
        if table != Table::KubeProxy.name() {
            self.scope.is_ruleset |= kind == "table";
            let is_iptables = kind == "chain" && text("name") == "KUBE-SERVICES";
            self.scope.iptables.extend(family.filter(|_| is_iptables));
            return;
        }
        let Some(family) = family else { return };
        let tables = self.tables.entry(family).or_default();
        let name = text("name").to_owned();
        match kind.as_str() {
            "chain" => {
                tables.chains.entry(name).or_default();
            }
            "rule" => {
                let chain = text("chain").to_owned();
                let expressions = value.get_mut("expr").map(Value::take).unwrap_or_default();
                tables.chains.entry(chain).or_default().push(expressions);
            }
            "set" | "map" => {
                tables.maps.insert(name, elements(value));
            }
            _ => {}
        }
    }
}

/// The elements of a set or map.
fn elements(set: &Value) -> Result<Elements, Wrong> {
    let list = set
        .get("elem")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    if list.is_empty() {
        return Ok(Elements::new());
    }
    let is_map = set.get("map").is_some();
    let fields = match set.get("type") {
        Some(Value::String(one)) => vec![Field::of(one)],
        Some(Value::Array(all)) => all
            .iter()
            .map(|f| Field::of(f.as_str().unwrap_or_default()))
            .collect(),
        _ => Vec::new(),
    };
    let fields: Option<Vec<Field>> = fields.into_iter().collect();
    let fields = fields.ok_or_else(|| Wrong::new("a key", "addresses, protocols and ports"))?;
    list.iter()
        .map(|element| {
            let (key, verdict) = match element {
                Value::Array(pair) if is_map => (pair.first(), pair.get(1)),
                key => (Some(key), None),
            };
            let key = key.map(plain_key).unwrap_or(&Value::Null);
            let values = scalars(key);
            let key = self::key(&fields, values.iter().map(String::as_str))?;
            let verdict = match verdict {
                Some(verdict) => verdict_of(verdict)?,
                None => Verdict::Member,
            };
            Ok((key, verdict))
        })
        .collect()
}

/// The key inside `{"elem": {"val": KEY, "comment": ...}}`.
fn plain_key(key: &Value) -> &Value {
    key.pointer("/elem/val").unwrap_or(key)
}

/// The values of a concatenation, or the one value.
fn scalars(value: &Value) -> Vec<String> {
    let one = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match value.get("concat").and_then(Value::as_array) {
        Some(all) => all.iter().map(one).collect(),
        None => vec![one(value)],
    }
}

/// The chain of `{"goto": {"target": CHAIN}}` or of jump.
fn chain_of(verdict: &Value) -> Option<&str> {
    let way = verdict.get("goto").or_else(|| verdict.get("jump"))?;
    way.get("target")?.as_str()
}

fn verdict_of(verdict: &Value) -> Result<Verdict, Wrong> {
    match chain_of(verdict) {
        Some(chain) => Ok(Verdict::Chain(chain.to_owned())),
        None if verdict.get("drop").is_some() => Ok(Verdict::Drop),
        None if verdict.get("accept").is_some() => Ok(Verdict::Accept),
        None => Err(Wrong::word(
            &verdict.to_string(),
            "goto and a chain, drop or accept",
        )),
    }
}

fn read_rule(expressions: &Value, family: IpFamily) -> Result<Rule, Wrong> {
    let mut rule = Rule::default();
    let list = expressions
        .as_array()
        .ok_or_else(|| Wrong::new("something else", "expressions"))?;
    for expression in list {
        let Some((name, value)) = expression.as_object().and_then(|o| o.iter().next()) else {
            return Err(Wrong::word(&expression.to_string(), "an expression"));
        };
        match name.as_str() {
            "match" => rule.matches.extend(read_match(value, family)?),
            "counter" | "set" | "comment" => {}
            _ => rule.target = target(name, value, expression, family)?,
        }
    }
    Ok(rule)
}

fn target(name: &str, value: &Value, expression: &Value, family: IpFamily) -> Result<Target, Wrong> {
    let wrong = |expected| Wrong::word(&expression.to_string(), expected);
    Ok(match name {
        "jump" | "goto" => Target::Chain(chain_of(expression).ok_or_else(|| wrong("a chain"))?.to_owned()),
        "accept" => Target::Accept,
        "drop" => Target::Drop,
        "return" => Target::Return,
        "continue" => Target::Continue,
        "reject" => Target::Reject,
        "masquerade" => Target::Masquerade,
        "dnat" => Target::Dnat(endpoints(value, family)?),
        "snat" | "redirect" => Target::Other("nat".to_owned()),
        "mangle" => Target::Other("mark".to_owned()),
        "vmap" => match value.get("data") {
            Some(Value::String(map)) => Target::Map(map.trim_start_matches('@').to_owned()),
            Some(data) => {
                let pairs = data
                    .get("set")
                    .and_then(Value::as_array)
                    .ok_or_else(|| wrong("a map"))?;
                let chains = pairs.iter().filter_map(|pair| chain_of(pair.get(1)?));
                Target::OneOf(chains.map(str::to_owned).collect())
            }
            None => return Err(wrong("a map")),
        },
        "log" | "limit" | "notrack" | "queue" | "tproxy" => Target::Other(name.to_owned()),
        _ => return Err(wrong("something that kube-proxy writes")),
    })
}

fn read_match(value: &Value, family: IpFamily) -> Result<Vec<svcdiag_kube_proxy::Match>, Wrong> {
    let part = |name: &str| value.get(name).unwrap_or(&Value::Null);
    let not = part("op") == "!=";
    let prefix = |p: &Value| {
        let (address, length) = (p.get("addr")?.as_str()?, p.get("len")?.as_u64()?);
        Some(format!("{address}/{length}"))
    };
    let right = part("right");
    let word = match right {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        other => other.get("prefix").and_then(prefix).unwrap_or_default(),
    };
    let operand = match word.strip_prefix('@') {
        Some(set) => Operand::Set(set),
        None if word.is_empty() => Operand::Several,
        None => Operand::Value(&word),
    };
    conditions(selector(part("left")), &operand, not, family)
}

fn selector(left: &Value) -> Selector {
    let text = |path: &str| left.pointer(path).and_then(Value::as_str);
    if let (Some(protocol), Some(field)) = (text("/payload/protocol"), text("/payload/field")) {
        return match (protocol, field) {
            ("ip" | "ip6", "saddr") => Selector::Source,
            ("ip" | "ip6", "daddr") => Selector::Destination,
            ("th", "dport") => Selector::Port(None),
            ("tcp" | "udp" | "sctp", "dport") => Selector::Port(super::nft_keys::protocol(protocol)),
            ("ip", "protocol") | ("ip6", "nexthdr") => Selector::Protocol,
            _ => Selector::Other,
        };
    }
    match (text("/meta/key"), text("/fib/flags/0")) {
        (Some("l4proto"), _) => Selector::Protocol,
        (Some("mark"), _) => Selector::Mark,
        (_, Some("saddr")) if text("/fib/result") == Some("type") => Selector::SourceType,
        (_, Some("daddr")) if text("/fib/result") == Some("type") => Selector::DestinationType,
        _ if left.get("ct").is_some() => Selector::Connection,
        _ => Selector::Other,
    }
}

fn endpoints(dnat: &Value, family: IpFamily) -> Result<Vec<std::net::SocketAddr>, Wrong> {
    const EXPECTED: &str = "endpoints";
    let wrong = || Wrong::word(&dnat.to_string(), EXPECTED);
    let address = dnat.get("addr").ok_or_else(wrong)?;
    if let Some(address) = address.as_str() {
        let port = dnat.get("port").map(Value::to_string).ok_or_else(wrong)?;
        return Ok(vec![endpoint(address, Some(&port), family)?]);
    }
    let pairs = address
        .pointer("/map/data/set")
        .and_then(Value::as_array)
        .ok_or_else(wrong)?;
    pairs
        .iter()
        .map(
            |pair| match scalars(pair.get(1).unwrap_or(&Value::Null)).as_slice() {
                [address, port] => endpoint(address, Some(port), family),
                _ => Err(wrong()),
            },
        )
        .collect()
}

impl Ruleset for NftJson {
    fn layout(&self) -> Layout {
        Layout::Nftables
    }

    fn chain(&self, family: IpFamily, _: Table, chain: &str) -> Result<Option<Vec<Rule>>, ReadError> {
        let Some(table) = self.tables.get(&family) else {
            return self.scope.absent(family);
        };
        let Some(rules) = table.chains.get(chain) else {
            return if must_be_there(chain) {
                Err(not_there(chain))
            } else {
                Ok(None)
            };
        };
        let read: Result<Vec<Rule>, Wrong> = rules.iter().map(|rule| read_rule(rule, family)).collect();
        read.map(Some).map_err(|wrong| ReadError {
            what: chain_in_words(Table::KubeProxy.name(), chain),
            why: wrong.to_string(),
        })
    }

    fn element(&self, family: IpFamily, map: &str, key: &[u8]) -> Result<Option<Verdict>, ReadError> {
        let Some(table) = self.tables.get(&family) else {
            return self.scope.absent(family);
        };
        match table.maps.get(map) {
            None => Ok(None),
            Some(Ok(elements)) => Ok(elements.get(key).cloned()),
            Some(Err(wrong)) => Err(ReadError {
                what: format!("map {map} of table kube-proxy"),
                why: wrong.to_string(),
            }),
        }
    }
}
