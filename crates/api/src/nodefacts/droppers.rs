//! Rules and policies of netfilter that dropped packets, or may have.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{bounds, macros::string_enum};

string_enum! {
    /// What writes rules of a kind, and shows them.
    FilterTool {
        /// nft, or another program that writes tables of its own into nf_tables.
        Nftables,
        /// iptables with its nf_tables backend.
        IptablesNft,
        /// iptables with its legacy backend.
        IptablesLegacy,
    }
}

string_enum! {
    /// Family of a table; iptables-legacy has Ip and Ip6.
    FilterFamily {
        /// IPv4.
        Ip,
        /// IPv6.
        Ip6,
        /// IPv4 and IPv6.
        Inet,
        /// What bridges pass on.
        Bridge,
        /// What comes in or goes out by an interface.
        Netdev,
    }
}

string_enum! {
    /// Where on their way packets come by a base chain.
    FilterHook {
        /// They come in by an interface.
        Ingress,
        /// They have come in.
        Prerouting,
        /// They are for the network namespace itself.
        Input,
        /// They are on their way through it.
        Forward,
        /// They were sent from it.
        Output,
        /// They are about to leave.
        Postrouting,
        /// They go out by an interface.
        Egress,
    }
}

string_enum! {
    /// How it is known what dropped packets.
    DropperEvidence {
        /// Its counter rose by at least as many packets while the dial was repeated, and nothing else that can drop them did.
        Counted,
        /// Nothing else in that network namespace can drop these packets without an answer. It has no counter.
        Only,
        /// It may have dropped them; so may others.
        Candidate,
    }
}

/// A rule or the policy of a base chain that dropped packets, or may have.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct Dropper {
    /// How it is known.
    pub evidence: DropperEvidence,
    /// What shows it.
    pub tool: FilterTool,
    /// Family of its table.
    pub family: FilterFamily,
    /// Its table; characters that are rare in such names are replaced with ?.
    #[schemars(length(max = 64), regex(pattern = bounds::FILTER_NAME))]
    pub table: String,
    /// The chain that it is in, written like the table.
    #[schemars(length(max = 64), regex(pattern = bounds::FILTER_NAME))]
    pub chain: String,
    /// The base chain by which packets get there.
    #[schemars(length(max = 64), regex(pattern = bounds::FILTER_NAME))]
    pub base_chain: String,
    /// The hook of the base chain.
    pub hook: FilterHook,
    /// The priority of the base chain: lower ones come first.
    pub priority: i32,
    /// Whether it is the policy of the base chain; otherwise it is a rule.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_policy: bool,
    /// The handle of the rule, or its number in the chain (iptables-legacy).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<u32>,
    /// The rule, about as nft writes it; absent if parts of it are not understood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 160), regex(pattern = bounds::FILTER_RULE))]
    pub text: Option<String>,
    /// By how many packets its counter rose while dials were repeated; absent if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rose: Option<u32>,
}
