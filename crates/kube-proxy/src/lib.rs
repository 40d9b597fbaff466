//! What kube-proxy must hold on a node for a Service, and whether the rules there hold it.
//!
//! [`expected`] turns a Service and its EndpointSlices into the destinations that a node has to
//! serve, as kube-proxy chooses them. [`Ruleset`] is what can be asked of a node's rules: a chain by
//! its name, an element of a map by its key.
//! [`audit`] follows the rules from every destination to the endpoints and tells the differences.
//! All of it is pure; the rules come from the kernel (`svcdiag_netns::netfilter`) or from a file.

#![forbid(unsafe_code)]

mod address;
mod audit;
mod dead_end;
mod expected;
mod iptables;
mod ipvs;
mod mode;
mod nftables;
mod once;
mod rules;
mod walk;

pub use address::{is_host, is_translated, tunnel_ends};
pub use audit::{Gap, RuleFault, audit, hairpin_is_masqueraded, holds, serves_node_ports_at};
pub use dead_end::{DeadEnd, dead_end};
pub use expected::{Destination, ExpectedPort, Purpose, Traffic, Vantage, destinations, expected};
pub use ipvs::{VirtualServer, VirtualServers};
pub use mode::{Backend, ProxyMode};
pub use rules::{Layout, Match, ReadError, Rule, Ruleset, Table, Target, Verdict};
pub use svcdiag_objects::{IpFamily, Protocol};

/// Label of a Service that another proxy than kube-proxy handles.
pub const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// Label of a Service that proxies are to take for headless.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
