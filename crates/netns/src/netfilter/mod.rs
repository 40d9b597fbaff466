//! Reading what kube-proxy wrote, from the kernel and without touching it.
//!
//! [`ipvs`] reads what there is of ipvs mode. Of the others [`nf_tables`] asks over netlink, for kube-proxy's own table as for iptables-nft's; [`legacy`] asks
//! with the getsockopt of iptables-legacy; [`xt`] knows the matches and targets that both of iptables'
//! backends use. All answer as a [`Ruleset`](svcdiag_kube_proxy::Ruleset); [`rulesets`] keeps them open for a node.
//! [`droppers`] finds what can drop packets, whoever wrote it.

pub mod conntrack;
pub mod droppers;
mod expressions;
pub mod ipvs;
pub mod legacy;
pub mod nf_tables;
pub mod rulesets;
pub mod xt;
