//! A table of iptables-legacy as the kernel gives it: one blob of entries, of which only those that are asked for
//! become rules.

use std::{collections::HashMap, ops::Range};

use parking_lot::{Mutex, MutexGuard};

use super::{
    super::xt,
    entry::{Entry, head_before},
    kernel::HEAD,
};
use crate::bytes::u32_at;
use svcdiag_kube_proxy::{IpFamily, Rule, Target};

/// A table.
#[derive(Debug)]
pub(super) struct Blob {
    family: IpFamily,
    /// The kernel's answer: what it puts before them ([`HEAD`]), then the entries, one after the other.
    bytes: Vec<u8>,
    pub(super) hooks: Vec<Hook>,
    /// Where the first rules of chains are, as far as that has come out; None for a chain that there is not.
    begins: Mutex<HashMap<ChainName, Option<usize>>>,
}

/// The entries do not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damaged;

/// Where the rules of a built-in chain are, by the kernel's word.
pub(super) type Hook = (&'static str, Range<u32>);

/// The name of a chain, filled up with zeros: XT_FUNCTION_MAXNAMELEN bytes, so that it needs no memory of
/// its own.
type ChainName = [u8; 30];

fn chain_name(name: &[u8]) -> Option<ChainName> {
    let mut filled = [0; 30];
    filled.get_mut(..name.len())?.copy_from_slice(name);
    Some(filled)
}

/// The built-in chains by struct ipt_getinfo: which there are, where each begins, and where its policy is.
pub(super) fn hooks(info: &[u8]) -> Vec<Hook> {
    const NAMES: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
    let valid = u32_at(info, 32).unwrap_or_default();
    NAMES
        .into_iter()
        .enumerate()
        .filter(|(hook, _)| valid & (1 << hook) != 0)
        .filter_map(|(hook, name)| Some((name, u32_at(info, 36 + 4 * hook)?..u32_at(info, 56 + 4 * hook)?)))
        .collect()
}

impl Blob {
    /// A table as the kernel gives it, and its built-in chains.
    #[must_use]
    pub(super) fn of(family: IpFamily, bytes: Vec<u8>, hooks: Vec<Hook>) -> Self {
        Self {
            family,
            bytes,
            hooks,
            begins: Mutex::default(),
        }
    }

    /// Its length.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    fn entries(&self) -> &[u8] {
        self.bytes.get(HEAD..).unwrap_or_default()
    }

    pub(super) fn entry(&self, offset: usize) -> Result<Entry<'_>, Damaged> {
        Entry::at(self.entries(), offset, self.family).ok_or(Damaged)
    }

    /// The rules of a chain; None if there is no such chain.
    ///
    /// # Errors
    /// When they make no sense.
    pub(super) fn rules(&self, chain: &str) -> Result<Option<Vec<Rule>>, Damaged> {
        self.rules_of(chain, |_| true)
    }

    /// Where the rules of a chain begin and end. Behind them stands what happens at the end of the chain.
    pub(super) fn place(&self, chain: &str) -> Result<Option<Range<usize>>, Damaged> {
        if let Some((_, rules)) = self.hooks.iter().find(|(name, _)| *name == chain) {
            let at = |offset: u32| usize::try_from(offset).map_err(|_| Damaged);
            return Ok(Some(at(rules.start)?..at(rules.end)?));
        }
        let Some(name) = chain_name(chain.as_bytes()) else {
            return Ok(None);
        };
        let known = self.begins().get(&name).copied();
        let begin = match known {
            Some(begin) => begin,
            None => {
                let begin = self.search(chain)?;
                self.begins().insert(name, begin);
                begin
            }
        };
        begin.map(|begin| Ok(begin..self.last_of(begin)?)).transpose()
    }

    fn begins(&self) -> MutexGuard<'_, HashMap<ChainName, Option<usize>>> {
        self.begins.lock()
    }

    /// Goes through all entries for the head of a chain, and says where its first rule is.
    fn search(&self, chain: &str) -> Result<Option<usize>, Damaged> {
        let mut offset = 0;
        while offset < self.entries().len() {
            let entry = self.entry(offset)?;
            offset = entry.end;
            if entry.chain_head() == Some(chain) {
                return Ok(Some(offset));
            }
        }
        Ok(None)
    }

    /// The last entry of a chain: the one before the head of the next chain. The table ends with a head, too.
    fn last_of(&self, begin: usize) -> Result<usize, Damaged> {
        let (mut last, mut offset) = (begin, begin);
        loop {
            let entry = self.entry(offset)?;
            if entry.is_head() {
                return Ok(last);
            }
            last = offset;
            offset = entry.end;
        }
    }

    /// What becomes of packets that no rule of a chain takes.
    pub(super) fn policy(&self, chain: &str) -> Option<Target> {
        let place = self.place(chain).ok()??;
        self.target(&self.entry(place.end).ok()?)
    }

    /// The rules of a chain, of those entries that are wanted.
    pub(super) fn rules_of(
        &self,
        chain: &str,
        is_wanted: impl Fn(&Entry<'_>) -> bool,
    ) -> Result<Option<Vec<Rule>>, Damaged> {
        let Some(place) = self.place(chain)? else {
            return Ok(None);
        };
        let mut rules = Vec::new();
        let mut offset = place.start;
        while offset < place.end {
            let entry = self.entry(offset)?;
            if is_wanted(&entry) {
                rules.push(self.rule(&entry));
            }
            offset = entry.end;
        }
        Ok(Some(rules))
    }

    fn rule(&self, entry: &Entry<'_>) -> Rule {
        let mut matches = entry.addresses();
        for (name, revision, info) in entry.matches() {
            matches.push(xt::read_match(name, revision, info));
        }
        Rule {
            matches,
            target: self
                .target(entry)
                .unwrap_or_else(|| Target::Other("?".to_owned())),
        }
    }

    pub(super) fn target(&self, entry: &Entry<'_>) -> Option<Target> {
        let (name, revision, info) = entry.target()?;
        if !name.is_empty() {
            return Some(xt::read_target(name, revision, info, self.family));
        }
        // A standard target: a verdict, or where to go on.
        const DROP: i32 = -1;
        const ACCEPT: i32 = -2;
        const RETURN: i32 = -5;
        let verdict = i32::from_ne_bytes(*info.first_chunk::<4>()?);
        Some(match verdict {
            DROP => Target::Drop,
            ACCEPT => Target::Accept,
            RETURN => Target::Return,
            offset => {
                let offset = usize::try_from(offset).ok()?;
                // Without a target a rule leads to the one behind it.
                match self.chain_at(offset).filter(|_| offset != entry.end) {
                    Some(chain) => {
                        if let Some(name) = chain_name(chain.as_bytes()) {
                            self.begins().insert(name, Some(offset));
                        }
                        Target::Chain(chain.to_owned())
                    }
                    None => Target::Continue,
                }
            }
        })
    }

    /// Name of the chain whose first rule is at an offset: its head stands right before it, and is as
    /// long as every head.
    fn chain_at(&self, offset: usize) -> Option<&str> {
        let head = head_before(offset, self.family)?;
        Entry::at(self.entries(), head, self.family)?.chain_head()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::{
        super::{
            entry::{V4_ENTRY, XT_HEAD},
            kernel::copy_name,
        },
        *,
    };

    /// An entry with a standard target or the head of a chain.
    fn entry(destination: [u8; 4], target: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; V4_ENTRY.length];
        bytes[4..8].copy_from_slice(&destination);
        bytes[12..16].copy_from_slice(&[255; 4]);
        let size = (XT_HEAD + data.len()).next_multiple_of(8);
        let mut head = vec![0; size];
        head[..2].copy_from_slice(&u16::try_from(size).unwrap().to_ne_bytes());
        copy_name(&mut head[2..31], target);
        head[XT_HEAD..XT_HEAD + data.len()].copy_from_slice(data);
        bytes[88..90].copy_from_slice(&112_u16.to_ne_bytes());
        bytes[90..92].copy_from_slice(&u16::try_from(112 + size).unwrap().to_ne_bytes());
        bytes.extend(head);
        bytes
    }

    fn head(name: &str) -> Vec<u8> {
        let mut data = vec![0; 30];
        copy_name(&mut data, name);
        entry([0; 4], "ERROR", &data)
    }

    fn table() -> Vec<u8> {
        let policy = entry([0; 4], "", &(-2_i32).to_ne_bytes());
        let end = entry([0; 4], "", &(-5_i32).to_ne_bytes());
        [
            policy,
            head("KUBE-SERVICES"),
            entry([10, 96, 0, 1], "", &(-1_i32).to_ne_bytes()),
            end,
            head("ERROR"),
        ]
        .concat()
    }

    fn blob(family: IpFamily, entries: &[u8], hooks: Vec<Hook>) -> Blob {
        Blob::of(family, [&[0; HEAD], entries].concat(), hooks)
    }

    fn read_all(blob: &Blob) {
        for chain in [
            "PREROUTING",
            "OUTPUT",
            "KUBE-SERVICES",
            "KUBE-NODEPORTS",
            "ERROR",
            "",
        ] {
            let _ = blob.rules(chain);
            let _ = blob.policy(chain);
            let _ = blob.rules_of(chain, |entry| entry.may_take(Some(Ipv4Addr::LOCALHOST.into())));
            let _ = blob.rules_of(chain, |entry| entry.may_take(Some(Ipv6Addr::LOCALHOST.into())));
        }
    }

    #[test]
    fn a_chain_reaches_from_its_head_to_its_last_entry() {
        let blob = blob(IpFamily::V4, &table(), vec![("PREROUTING", 0..0)]);
        assert_eq!(blob.rules("PREROUTING"), Ok(Some(Vec::new())));
        assert_eq!(blob.rules("KUBE-NODEPORTS"), Ok(None));
        let rules = blob.rules("KUBE-SERVICES").unwrap().unwrap();
        assert_eq!(rules.len(), 1);
        assert_eq!(rules[0].target, Target::Drop);
        assert!(rules[0].can_take(Some([10, 96, 0, 1].into()), 6, 80));
    }

    #[test]
    fn a_chain_is_the_same_whether_a_jump_has_led_to_it_or_not() {
        let jump = |to: usize| entry([0; 4], "", &i32::try_from(to).unwrap().to_ne_bytes());
        let policy = entry([0; 4], "", &(-2_i32).to_ne_bytes());
        let first = jump(0).len() + policy.len() + head("A").len();
        let hooks = || vec![("OUTPUT", 0..u32::try_from(jump(0).len()).unwrap())];
        let entries = [
            jump(first),
            policy,
            head("A"),
            entry([10, 96, 0, 1], "", &(-1_i32).to_ne_bytes()),
            entry([0; 4], "", &(-5_i32).to_ne_bytes()),
            head("ERROR"),
        ]
        .concat();
        let met = blob(IpFamily::V4, &entries, hooks());
        let output = met.rules("OUTPUT").unwrap().unwrap();
        assert_eq!(output[0].leads_to(), Some("A"));
        assert_eq!(met.rules("A").unwrap().unwrap().len(), 1);
        assert_eq!(met.rules("A"), blob(IpFamily::V4, &entries, hooks()).rules("A"));
        assert_eq!(met.policy("OUTPUT"), Some(Target::Accept));
    }

    #[test]
    fn a_table_that_is_cut_off_is_not_one_without_the_chain() {
        let whole = table();
        let cut = blob(IpFamily::V4, &whole[..whole.len() - 8], Vec::new());
        assert_eq!(cut.rules("KUBE-NODEPORTS"), Err(Damaged));
    }

    proptest! {
        #[test]
        fn any_answer_about_a_table_is_survived(info in prop::collection::vec(any::<u8>(), 0..100), bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            read_all(&blob(IpFamily::V4, &bytes, hooks(&info)));
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..2048), v6: bool, hook in 0_u32..4096) {
            let family = if v6 { IpFamily::V6 } else { IpFamily::V4 };
            read_all(&blob(family, &bytes, vec![("OUTPUT", hook..hook + 300)]));
        }

        #[test]
        fn a_damaged_table_is_survived(at in 0_usize..800, value: u8, length in 0_u32..900) {
            let mut bytes = table();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            bytes.truncate(usize::try_from(length).unwrap());
            read_all(&blob(IpFamily::V4, &bytes, vec![("OUTPUT", 0..length)]));
        }
    }
}
