//! One rule as `nft list` writes it.
//!
//! What comes out is what `svcdiag_netns::netfilter::expressions` makes of the same rule in the kernel. Source: the
//! manual page nft(8).

use std::net::SocketAddr;

use super::{
    Wrong,
    nft_keys::{protocol, unquoted, words},
    nft_match::{Operand, Selector, conditions, endpoint},
};
use svcdiag_kube_proxy::{IpFamily, Rule, Target};

/// Reads a line of a chain; None if it is no rule but says what the chain is.
pub(super) fn read(line: &str, family: IpFamily) -> Result<Option<Rule>, Wrong> {
    let words = words(line)?;
    let is_property = matches!(
        words.first(),
        Some(&("type" | "policy" | "comment" | "flags" | "devices"))
    );
    if words.is_empty() || is_property {
        return Ok(None);
    }
    let mut reader = Reader {
        family,
        rest: &words,
        rule: Rule::default(),
        does_something: false,
    };
    while let Some(word) = reader.next() {
        reader.read(word)?;
    }
    if !reader.does_something {
        return Err(Wrong::new("the end of the rule", "what becomes of the packets"));
    }
    Ok(Some(reader.rule))
}

struct Reader<'a, 'b> {
    family: IpFamily,
    rest: &'b [&'a str],
    rule: Rule,
    does_something: bool,
}

impl<'a> Reader<'a, '_> {
    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn value(&mut self, expected: &'static str) -> Result<&'a str, Wrong> {
        self.next()
            .ok_or_else(|| Wrong::new("the end of the rule", expected))
    }

    fn take(&mut self, word: &str) -> bool {
        let is_next = self.rest.first() == Some(&word);
        if is_next {
            self.next();
        }
        is_next
    }

    fn read(&mut self, word: &'a str) -> Result<(), Wrong> {
        match word {
            "comment" => {
                self.value("a comment")?;
                return Ok(());
            }
            // With -a the rule's number stands last.
            "#" => {
                self.rest = &[];
                return Ok(());
            }
            "counter" => {
                if self.take("packets") {
                    self.value("a number of packets")?;
                    self.value("bytes")?;
                    self.value("a number of bytes")?;
                }
                self.does_something = true;
                return Ok(());
            }
            // Remembers the client of a Service with affinity.
            "update" | "add" => {
                self.value("a set")?;
                self.group()?;
                self.does_something = true;
                return Ok(());
            }
            _ => {}
        }
        let target = match word {
            "jump" | "goto" => Target::Chain(unquoted(self.value("a chain")?).to_owned()),
            "accept" => Target::Accept,
            "drop" => Target::Drop,
            "return" => Target::Return,
            "continue" => Target::Continue,
            "reject" => Target::Reject,
            "masquerade" => Target::Masquerade,
            "dnat" => Target::Dnat(self.dnat()?),
            "snat" | "redirect" => Target::Other("nat".to_owned()),
            "numgen" => {
                self.until("vmap")?;
                self.map()?
            }
            "log" | "limit" | "notrack" | "queue" | "tproxy" => Target::Other(word.to_owned()),
            _ => return self.compare(word),
        };
        // How it is done does not matter: `reject with ...`, `masquerade fully-random`.
        let is_last = matches!(
            word,
            "reject" | "masquerade" | "snat" | "redirect" | "log" | "queue"
        );
        if is_last {
            while self
                .rest
                .first()
                .is_some_and(|next| *next != "comment" && *next != "#")
            {
                self.next();
            }
        }
        self.rule.target = target;
        self.does_something = true;
        Ok(())
    }

    /// A selector, perhaps several, and what is asked of it.
    fn compare(&mut self, word: &'a str) -> Result<(), Wrong> {
        let mut selector = self.selector(word)?;
        while self.take(".") {
            let next = self.value("what is looked at")?;
            self.selector(next)?;
            selector = Selector::Other;
        }
        if selector == Selector::Mark && self.take("set") {
            // What it is set to: `meta mark | 0x4000`.
            self.rule.target = Target::Other("mark".to_owned());
            self.does_something = true;
            while self.rest.first().is_some_and(|next| !is_statement(next)) {
                self.next();
            }
            return Ok(());
        }
        if self.take("vmap") {
            self.rule.target = self.map()?;
            self.does_something = true;
            return Ok(());
        }
        // `meta mark & 0x4000 != 0`: a mask before what is compared.
        let mut is_masked = false;
        while self.take("&") || self.take("|") || self.take("^") {
            self.operand()?;
            is_masked = true;
        }
        let not = self.take("!=");
        self.take("==");
        let mut operand = self.operand()?;
        if is_masked {
            operand = Operand::Several;
        }
        self.rule
            .matches
            .extend(conditions(selector, &operand, not, self.family)?);
        Ok(())
    }

    fn selector(&mut self, word: &'a str) -> Result<Selector, Wrong> {
        const EXPECTED: &str = "a part of packets";
        let part = self.value(EXPECTED)?;
        Ok(match (word, part) {
            ("ip" | "ip6", "saddr") => Selector::Source,
            ("ip" | "ip6", "daddr") => Selector::Destination,
            ("meta", "l4proto") | ("ip", "protocol") | ("ip6", "nexthdr") => Selector::Protocol,
            ("meta", "mark") => Selector::Mark,
            ("th", "dport") => Selector::Port(None),
            ("tcp" | "udp" | "sctp", "dport") => Selector::Port(protocol(word)),
            ("ct", _) => Selector::Connection,
            ("fib", of) => {
                self.until("type")?;
                match of {
                    "saddr" => Selector::SourceType,
                    "daddr" => Selector::DestinationType,
                    _ => Selector::Other,
                }
            }
            ("meta" | "tcp" | "udp" | "sctp" | "th" | "ip" | "ip6" | "icmp" | "icmpv6" | "socket", _) => {
                Selector::Other
            }
            _ => return Err(Wrong::word(word, "something that kube-proxy writes")),
        })
    }

    fn operand(&mut self) -> Result<Operand<'a>, Wrong> {
        let word = self.value("a value")?;
        if let Some(set) = word.strip_prefix('@') {
            return Ok(Operand::Set(unquoted(set)));
        }
        let mut operand = Operand::Value(word);
        if word == "{" {
            self.behind_brace()?;
            operand = Operand::Several;
        }
        // `ct state established,related`
        while self.take(",") {
            self.value("a value")?;
            operand = Operand::Several;
        }
        Ok(operand)
    }

    /// `@NAME` or `{ 0 : goto CHAIN, ... }`
    fn map(&mut self) -> Result<Target, Wrong> {
        if let Some(name) = self.rest.first().and_then(|word| word.strip_prefix('@')) {
            self.next();
            return Ok(Target::Map(unquoted(name).to_owned()));
        }
        let elements = self.group()?;
        let mut chains = Vec::new();
        for element in elements.split(|word| *word == ",") {
            match element {
                [.., ":", "goto" | "jump", chain] => chains.push(unquoted(chain).to_owned()),
                [.., ":", "drop" | "accept" | "return" | "continue"] => {}
                other => return Err(Wrong::word(&other.join(" "), "NUMBER : goto CHAIN")),
            }
        }
        Ok(Target::OneOf(chains))
    }

    /// `to ADDRESS:PORT` or `to numgen random mod N map { 0 : ADDRESS . PORT, ... }`
    fn dnat(&mut self) -> Result<Vec<SocketAddr>, Wrong> {
        self.until("to")?;
        if !self.take("numgen") {
            let address = self.value("an endpoint")?;
            let port = if self.take(".") { self.next() } else { None };
            return Ok(vec![endpoint(address, port, self.family)?]);
        }
        self.until("map")?;
        let elements = self.group()?;
        let family = self.family;
        elements
            .split(|word| *word == ",")
            .map(|element| match element {
                [_, ":", address, ".", port] => endpoint(address, Some(port), family),
                [_, ":", address] => endpoint(address, None, family),
                other => Err(Wrong::word(&other.join(" "), "NUMBER : ADDRESS . PORT")),
            })
            .collect()
    }

    fn until(&mut self, word: &'static str) -> Result<(), Wrong> {
        while self.value(word)? != word {}
        Ok(())
    }

    /// The words between braces.
    fn group(&mut self) -> Result<Vec<&'a str>, Wrong> {
        const EXPECTED: &str = "words in braces";
        let brace = self.value(EXPECTED)?;
        if brace != "{" {
            return Err(Wrong::word(brace, EXPECTED));
        }
        self.behind_brace()
    }

    fn behind_brace(&mut self) -> Result<Vec<&'a str>, Wrong> {
        let mut words = Vec::new();
        loop {
            match self.value("a closing brace")? {
                "}" => return Ok(words),
                word => words.push(word),
            }
        }
    }
}

/// Whether a word begins something that a rule does, behind what it set the mark to.
fn is_statement(word: &str) -> bool {
    matches!(
        word,
        "comment"
            | "#"
            | "counter"
            | "jump"
            | "goto"
            | "accept"
            | "drop"
            | "return"
            | "reject"
            | "masquerade"
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_cut_is_no_rule() {
        for text in [
            "ip saddr 10.244.0.0/16",
            "meta l4proto tcp dnat to",
            "meta l4proto tcp dnat to 10.244.0.10",
            "meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.244.0.2 . 53, 1 :",
            "numgen random mod 2 vmap { 0 : goto endpoint-a, 1 : goto",
            "goto",
            "ip daddr . meta l4proto . th",
            "something else",
        ] {
            assert!(read(text, IpFamily::V4).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_words_are_survived(
            words in prop::collection::vec(prop::sample::select(vec![
                "ip", "ip6", "saddr", "daddr", ".", "meta", "l4proto", "mark", "set", "th", "dport", "vmap", "map",
                "@a", "{", "}", "0", ":", ",", "goto", "jump", "numgen", "dnat", "to", "10.0.0.1", "1.2.3.4:5",
                "::/0", "!=", "&", "fib", "type", "local", "counter", "packets", "comment", "\"a b\"", "\"", "#",
                "reject", "update", "masquerade", "tcp", "80", "1-2", "-",
            ]), 0..14),
            noise in "\\PC{0,10}",
        ) {
            let text = format!("{} {noise}", words.join(" "));
            let _ = read(&text, IpFamily::V4);
            let _ = read(&text, IpFamily::V6);
        }
    }
}
