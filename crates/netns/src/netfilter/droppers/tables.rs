//! Tables of nf_tables as far as they can drop packets: their base chains, and the rules that these lead to.

use std::collections::HashMap;

use svcdiag_api::{FilterFamily, FilterHook, FilterTool};
use svcdiag_kube_proxy::IpFamily;

use crate::netlink::Attributes;

/// The name of a table, a chain or a set: any bytes.
pub(super) type Name = Vec<u8>;

/// A table that is in force.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub family: FilterFamily,
    pub name: Name,
    pub base_chains: Vec<BaseChain>,
    /// The rules that end the way of packets, of every chain that a base chain leads to.
    pub chains: HashMap<Name, Vec<Rule>>,
    /// The maps of verdicts in these rules, and the sets of states.
    pub sets: HashMap<Name, Vec<Element>>,
}

/// A chain by which packets come.
#[derive(Clone, Debug)]
pub(super) struct BaseChain {
    pub name: Name,
    pub hook: FilterHook,
    pub priority: i32,
    /// Whether it drops what no rule decides.
    pub drops: bool,
    /// How often it has dropped so; none if that is not counted.
    pub packets: Option<u64>,
}

/// A rule, with its expressions as the kernel has them.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub handle: u64,
    pub expressions: Vec<u8>,
}

impl Rule {
    pub(super) fn expressions(&self) -> Attributes<'_> {
        Attributes(&self.expressions)
    }
}

/// An element of a set, or of a map of verdicts.
#[derive(Clone, Debug)]
pub(super) struct Element {
    pub key: Vec<u8>,
    /// The kernel's description of the verdict.
    pub data: Vec<u8>,
}

impl Element {
    /// The key as a state of connection tracking.
    pub(super) fn state(&self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.key.as_slice().try_into().ok()?))
    }
}

/// The family of a number of nf_tables; none for ARP, which no dial is lost by here.
pub(super) fn family(number: u8) -> Option<FilterFamily> {
    Some(match number {
        1 => FilterFamily::Inet,
        2 => FilterFamily::Ip,
        5 => FilterFamily::Netdev,
        7 => FilterFamily::Bridge,
        10 => FilterFamily::Ip6,
        _ => return None,
    })
}

/// The number of a family.
pub(super) fn number(family: FilterFamily) -> u8 {
    match family {
        FilterFamily::Inet => 1,
        FilterFamily::Ip => 2,
        FilterFamily::Netdev => 5,
        FilterFamily::Bridge => 7,
        FilterFamily::Ip6 => 10,
    }
}

/// The hook of a number, which is another one for each kind of family.
pub(super) fn hook(family: FilterFamily, number: u32) -> Option<FilterHook> {
    Some(match (family, number) {
        (FilterFamily::Netdev, 0) => FilterHook::Ingress,
        (FilterFamily::Netdev, 1) => FilterHook::Egress,
        (FilterFamily::Netdev, _) => return None,
        (_, 0) => FilterHook::Prerouting,
        (_, 1) => FilterHook::Input,
        (_, 2) => FilterHook::Forward,
        (_, 3) => FilterHook::Output,
        (_, 4) => FilterHook::Postrouting,
        (FilterFamily::Inet, 5) => FilterHook::Ingress,
        _ => return None,
    })
}

impl Table {
    /// Whether it sees packets of an IP family.
    pub(super) fn sees(&self, packets: IpFamily) -> bool {
        match self.family {
            FilterFamily::Ip => packets == IpFamily::V4,
            FilterFamily::Ip6 => packets == IpFamily::V6,
            FilterFamily::Inet | FilterFamily::Bridge | FilterFamily::Netdev => true,
        }
    }

    /// Whether it sees IP packets as such.
    pub(super) fn is_ip(&self) -> bool {
        !matches!(self.family, FilterFamily::Bridge | FilterFamily::Netdev)
    }

    /// Whether packets on their way by some hooks come by a base chain. Bridges have hooks of their own, whatever becomes of
    /// the packets later.
    pub(super) fn is_on_the_way(&self, base: &BaseChain, hooks: &[FilterHook]) -> bool {
        self.family == FilterFamily::Bridge || hooks.contains(&base.hook)
    }

    /// Whether connection tracking has looked at packets before they come by a base chain. Before it has, all are invalid to
    /// it (NF_IP_PRI_CONNTRACK is -200), and for bridges and interfaces nobody knows.
    pub(super) fn is_tracked(&self, base: &BaseChain) -> bool {
        const CONNTRACK: i32 = -200;
        let is_early = match base.hook {
            FilterHook::Ingress | FilterHook::Egress => true,
            FilterHook::Prerouting | FilterHook::Output => base.priority <= CONNTRACK,
            FilterHook::Input | FilterHook::Forward | FilterHook::Postrouting => false,
        };
        self.is_ip() && !is_early
    }

    /// What writes a chain: iptables has tables and base chains of certain names.
    pub(super) fn tool(&self, base: &BaseChain) -> FilterTool {
        let is_family = matches!(self.family, FilterFamily::Ip | FilterFamily::Ip6);
        let tables: [&[u8]; 5] = [b"filter", b"nat", b"mangle", b"raw", b"security"];
        let built_in: &[u8] = match base.hook {
            FilterHook::Prerouting => b"PREROUTING",
            FilterHook::Input => b"INPUT",
            FilterHook::Forward => b"FORWARD",
            FilterHook::Output => b"OUTPUT",
            FilterHook::Postrouting => b"POSTROUTING",
            FilterHook::Ingress | FilterHook::Egress => return FilterTool::Nftables,
        };
        match is_family && tables.contains(&self.name.as_slice()) && base.name == built_in {
            true => FilterTool::IptablesNft,
            false => FilterTool::Nftables,
        }
    }

    /// All states in an anonymous set of such.
    pub(super) fn states(&self, set: &[u8]) -> Option<u32> {
        let elements = self.sets.get(set)?;
        elements
            .iter()
            .try_fold(0, |states, element| Some(states | element.state()?))
    }
}
