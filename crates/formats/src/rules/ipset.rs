//! Sets of addresses as `ipset list` and `ipset save` write them.
//!
//! In ipvs mode kube-proxy keeps in sets what its few rules ask for. [`IpSets::holds_hairpin`] is about
//! KUBE-LOOP-BACK: endpoints of the node whose packets to themselves are masqueraded. Source: `ipset.go` of
//! kube-proxy's ipvs proxier and the manual page ipset(8).
//!
//! ```text
//! Name: KUBE-LOOP-BACK
//! Type: hash:ip,port,ip
//! Members:
//! 10.244.0.5,tcp:9376,10.244.0.5
//!
//! create KUBE-LOOP-BACK hash:ip,port,ip family inet hashsize 1024 maxelem 65536
//! add KUBE-LOOP-BACK 10.244.0.5,tcp:9376,10.244.0.5
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use super::{ParseError, Wrong};
use svcdiag_kube_proxy::Protocol;

/// Sets and their members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpSets {
    sets: BTreeMap<String, BTreeSet<String>>,
    /// How many members a set has, where the text says it.
    numbers: BTreeMap<String, usize>,
}

/// Reads a list of sets; other lines are passed over.
///
/// # Errors
/// When there is no set in it, or a line of a set was cut.
pub fn parse(text: &str) -> Result<IpSets, ParseError> {
    let mut sets = IpSets::default();
    // The set whose members follow.
    let mut open: Option<(&str, bool)> = None;
    for (number, line) in text.lines().enumerate() {
        read(line.trim(), &mut sets, &mut open).map_err(|wrong| wrong.at(number + 1))?;
    }
    if sets.sets.is_empty() {
        return Err(ParseError::nothing(
            text,
            "the output of ipset list or ipset save",
        ));
    }
    Ok(sets)
}

fn read<'a>(line: &'a str, sets: &mut IpSets, open: &mut Option<(&'a str, bool)>) -> Result<(), Wrong> {
    let mut words = line.split_whitespace();
    match words.next() {
        Some("Name:") => {
            let name = words
                .next()
                .ok_or_else(|| Wrong::new("the end of the line", "the name of a set"))?;
            *open = Some((name, false));
        }
        Some("Number") => {
            let number = line
                .strip_prefix("Number of entries: ")
                .and_then(|n| n.trim().parse().ok());
            if let (Some((name, _)), Some(number)) = (open, number) {
                sets.numbers.insert((*name).to_owned(), number);
            }
        }
        Some("Members:") => {
            // Before that line nobody knows whether its members are listed.
            if let Some((name, are_members)) = open {
                *are_members = true;
                sets.sets.entry((*name).to_owned()).or_default();
            }
        }
        Some("create") => {
            *open = None;
            let name = words
                .next()
                .ok_or_else(|| Wrong::new("the end of the line", "the name of a set"))?;
            sets.sets.entry(name.to_owned()).or_default();
        }
        Some("add") => {
            const EXPECTED: &str = "a set and a member";
            let (Some(set), Some(member)) = (words.next(), words.next()) else {
                return Err(Wrong::new("the end of the line", EXPECTED));
            };
            sets.add(set, member)?;
        }
        Some(member) => {
            let is_member = member.starts_with(|c: char| c.is_ascii_hexdigit());
            if let Some((name, _)) = open.filter(|(_, are_members)| *are_members && is_member) {
                sets.add(name, member)?;
            }
        }
        None => {}
    }
    Ok(())
}

impl IpSets {
    /// The members of a set, as they are written; None if there is no such set in the text.
    #[must_use]
    pub fn members(&self, set: &str) -> Option<&BTreeSet<String>> {
        self.sets.get(set)
    }

    /// Whether packets of an endpoint to itself are masqueraded by KUBE-LOOP-BACK; None if the text does
    /// not say, as it does not hold that set or not all of it.
    #[must_use]
    pub fn holds_hairpin(&self, protocol: Protocol, endpoint: SocketAddr) -> Option<bool> {
        let (ip, port) = (endpoint.ip(), endpoint.port());
        let set = match ip {
            IpAddr::V4(_) => "KUBE-LOOP-BACK",
            IpAddr::V6(_) => "KUBE-6-LOOP-BACK",
        };
        let member = format!("{ip},{}:{port},{ip}", protocol.lower_case());
        let members = self.members(set)?;
        // Where the text was cut, what is not among the members may have been behind.
        let are_all = self
            .numbers
            .get(set)
            .is_none_or(|number| *number <= members.len());
        let is_there = members.contains(&member);
        (is_there || are_all).then_some(is_there)
    }

    fn add(&mut self, set: &str, member: &str) -> Result<(), Wrong> {
        let is_triple = member.contains("tcp:") || member.contains("udp:") || member.contains("sctp:");
        let parts: Vec<&str> = member.split(',').collect();
        let is_loop_back = set.ends_with("-LOOP-BACK");
        let addresses_fit = || {
            let address = |at: usize| parts.get(at).is_some_and(|part| part.parse::<IpAddr>().is_ok());
            is_triple && parts.len() == 3 && address(0) && address(2)
        };
        if is_loop_back && !addresses_fit() {
            return Err(Wrong::word(member, "ADDRESS,PROTOCOL:PORT,ADDRESS"));
        }
        self.sets
            .entry(set.to_owned())
            .or_default()
            .insert(member.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::{super::damage::damaged_word, *};

    const LIST: &str = "\
Name: KUBE-LOOP-BACK
Type: hash:ip,port,ip
Revision: 6
Header: family inet hashsize 1024 maxelem 65536 bucketsize 12 initval 0x12345678
Size in memory: 440
References: 1
Number of entries: 2
Members:
10.244.0.5,tcp:9376,10.244.0.5
10.244.0.3,udp:53,10.244.0.3

Name: KUBE-6-LOOP-BACK
Type: hash:ip,port,ip
Members:
";

    const SAVED: &str = "\
create KUBE-LOOP-BACK hash:ip,port,ip family inet hashsize 1024 maxelem 65536
add KUBE-LOOP-BACK 10.244.0.5,tcp:9376,10.244.0.5
add KUBE-LOOP-BACK 10.244.0.3,udp:53,10.244.0.3
create KUBE-6-LOOP-BACK hash:ip,port,ip family inet6 hashsize 1024 maxelem 65536
";

    #[test]
    fn both_forms_tell_who_is_masqueraded() {
        let sets = parse(LIST).unwrap();
        assert_eq!(parse(SAVED).unwrap().sets, sets.sets);
        let holds = |protocol, endpoint: &str| sets.holds_hairpin(protocol, endpoint.parse().unwrap());
        assert_eq!(holds(Protocol::Tcp, "10.244.0.5:9376"), Some(true));
        assert_eq!(holds(Protocol::Udp, "10.244.0.5:9376"), Some(false));
        assert_eq!(holds(Protocol::Tcp, "10.244.0.6:9376"), Some(false));
        assert_eq!(holds(Protocol::Tcp, "[fd00::1]:9376"), Some(false));
    }

    #[test]
    fn what_is_not_there_is_not_known() {
        let other = parse("create KUBE-CLUSTER-IP hash:ip,port family inet\n").unwrap();
        let endpoint = "10.244.0.5:9376".parse().unwrap();
        assert_eq!(other.holds_hairpin(Protocol::Tcp, endpoint), None);
        let cut = parse(&LIST.replace("10.244.0.3,udp:53,10.244.0.3\n", "")).unwrap();
        assert_eq!(cut.holds_hairpin(Protocol::Tcp, endpoint), Some(true));
        let other = "10.244.0.6:9376".parse().unwrap();
        assert_eq!(cut.holds_hairpin(Protocol::Tcp, other), None);
        // With -t, or where the text was cut, members are not listed.
        let head = LIST.split("Members:").next().unwrap();
        assert!(parse(head).is_err());
        assert_eq!(
            parse(&SAVED.replace(
                "add KUBE-LOOP-BACK 10.244.0.3,udp:53,10.244.0.3",
                "add KUBE-LOOP-BACK 10.2"
            ))
            .unwrap_err()
            .to_string(),
            "line 3: expected ADDRESS,PROTOCOL:PORT,ADDRESS, found \"10.2\""
        );
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "((Name:|Members:|create|add)? ?[A-Z0-9., :-]{0,30}\\PC{0,5}\n){0,20}") {
            let _ = parse(&text);
        }

        #[test]
        fn a_damaged_list_is_survived(text in damaged_word(&[LIST, SAVED])) {
            let _ = parse(&text);
        }
    }
}
