//! Rules that a real kube-proxy wrote, with what the API said then.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::OnceLock,
};

use serde::Deserialize;
use svcdiag::netns::netfilter::{legacy::Legacy, nf_tables::NfTables};
use svcdiag::{
    kube_proxy::{ExpectedPort, Gap, IpFamily, Layout, Protocol, Ruleset, Traffic, Vantage, audit, expected},
    objects::{EndpointSlice, Object, Service},
};

use super::namespace::feed;

/// How the rules of a capture are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    IptablesNft,
    IptablesLegacy,
    Nftables,
}

/// A capture: what the API said and what kube-proxy had written.
pub(crate) struct Capture {
    pub backend: Backend,
    node: &'static str,
    services: Vec<Service>,
    slices: Vec<EndpointSlice>,
    /// Rules of IPv4, or of both families in nftables mode.
    pub rules: String,
    /// Rules of IPv6, where they were captured.
    pub rules_v6: Option<String>,
}

#[derive(Deserialize)]
struct List {
    items: Vec<serde_json::Value>,
}

impl Capture {
    pub(crate) fn load(name: &str, node: &'static str, backend: Backend) -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/captures")
            .join(name);
        let read = |file: &str| std::fs::read_to_string(directory.join(file));
        let api: List = serde_json::from_str(&read("api.json").unwrap()).unwrap();
        let of_kind = |kind: &'static str| api.items.iter().filter(move |i| i["kind"] == kind).cloned();
        let file = match backend {
            Backend::IptablesNft => "iptables-save.txt",
            Backend::IptablesLegacy => "iptables-legacy-save.txt",
            Backend::Nftables => "nft-list-ruleset.txt",
        };
        Self {
            backend,
            node,
            services: of_kind("Service")
                .map(|i| serde_json::from_value(i).unwrap())
                .collect(),
            slices: of_kind("EndpointSlice")
                .map(|i| serde_json::from_value(i).unwrap())
                .collect(),
            rules: without_accounting(&read(file).unwrap()),
            rules_v6: read("ip6tables-save.txt").ok().map(|r| without_accounting(&r)),
        }
    }

    /// Puts rules into the network namespace of the calling thread.
    pub(crate) fn apply(&self, rules: &str, family: IpFamily) {
        let command: &[&str] = match (self.backend, family) {
            (Backend::IptablesNft, IpFamily::V4) => &["iptables-nft-restore"],
            (Backend::IptablesNft, IpFamily::V6) => &["ip6tables-nft-restore"],
            (Backend::IptablesLegacy, IpFamily::V4) => &["iptables-legacy-restore"],
            (Backend::IptablesLegacy, IpFamily::V6) => &["ip6tables-legacy-restore"],
            (Backend::Nftables, _) => {
                return feed(&["nft", "-f", "-"], &format!("flush ruleset\n{rules}"));
            }
        };
        feed(command, rules);
    }

    pub(crate) fn apply_all(&self) {
        self.apply(&self.rules, IpFamily::V4);
        if let Some(rules) = &self.rules_v6 {
            self.apply(rules, IpFamily::V6);
        }
    }

    /// Opens the rules of the namespace of the calling thread.
    pub(crate) fn open(&self) -> Box<dyn Ruleset> {
        match self.backend {
            Backend::IptablesNft => Box::new(NfTables::open(Layout::Iptables).unwrap()),
            Backend::IptablesLegacy => Box::new(Legacy::open().unwrap()),
            Backend::Nftables => Box::new(NfTables::open(Layout::Nftables).unwrap()),
        }
    }

    /// What the node has to hold, by Service.
    pub(crate) fn expected(&self) -> Vec<(String, ExpectedPort)> {
        let has_v6 = self.backend == Backend::Nftables || self.rules_v6.is_some();
        let mut all = Vec::new();
        for service in &self.services {
            let name = format!("{}/{}", service.namespace(), service.name());
            let slices: Vec<&EndpointSlice> = self
                .slices
                .iter()
                .filter(|s| s.namespace() == service.namespace() && s.service() == Some(service.name()))
                .collect();
            let vantage = Vantage {
                node: self.node,
                zone: None,
            };
            for port in expected(service, &slices, vantage) {
                if port.family == IpFamily::V4 || has_v6 {
                    all.push((name.clone(), port));
                }
            }
        }
        all
    }
}

/// Without the match that only counts packets, which not every kernel has.
fn without_accounting(rules: &str) -> String {
    static COUNTERS: OnceLock<Vec<String>> = OnceLock::new();
    let counters = COUNTERS.get_or_init(|| {
        ["ct_state_invalid_dropped_pkts", "localhost_nps_accepted_pkts"]
            .into_iter()
            .map(|name| format!("-m nfacct --nfacct-name  {name} "))
            .collect()
    });
    counters
        .iter()
        .fold(rules.to_owned(), |rules, counter| rules.replace(counter, ""))
}

/// What is missing or too much, by Service.
pub(crate) fn gaps(rules: &dyn Ruleset, expected: &[(String, ExpectedPort)]) -> Vec<(String, Gap)> {
    expected
        .iter()
        .flat_map(|(service, port)| {
            audit(rules, port)
                .unwrap_or_else(|e| panic!("{service}: {e}"))
                .into_iter()
                .map(move |gap| (service.clone(), gap))
        })
        .collect()
}

/// Every Service address with an endpoint on the node behind it.
pub(crate) fn hairpins(capture: &Capture) -> Vec<((IpAddr, u16), Protocol, SocketAddr)> {
    let here: BTreeSet<IpAddr> = capture
        .slices
        .iter()
        .flat_map(|slice| &slice.endpoints)
        .filter(|e| e.node_name.as_deref() == Some(capture.node))
        .filter_map(|e| e.addresses.first()?.parse().ok())
        .collect();
    let mut all = Vec::new();
    for (_, port) in capture.expected() {
        let Some(destination) = port.destinations.first() else {
            continue;
        };
        if let (Some(address), Traffic::To(endpoints)) = (destination.address, &destination.inside) {
            let local = endpoints.iter().filter(|e| here.contains(&e.ip()));
            all.extend(local.map(|e| ((address, destination.port), port.protocol, *e)));
        }
    }
    all
}
