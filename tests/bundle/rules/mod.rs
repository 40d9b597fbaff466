//! Rules of kube-proxy from texts.

mod ipvs;
mod kernel;
mod nftables;
mod parts;
mod saved;
mod walkthrough;

use svcdiag::formats::rules::{iptables_save::IptablesSave, nft::NftList};
use svcdiag::kube_proxy::IpFamily;

use super::captures::{Backend, Capture};

/// The captures of iptables mode: directory, node, backend, ports of Services.
const IPTABLES: [(&str, &str, Backend, usize); 4] = [
    ("iptables", "lab-1", Backend::IptablesNft, 34),
    ("iptables-large", "lab-2", Backend::IptablesNft, 35),
    ("iptables-legacy", "lab-2", Backend::IptablesLegacy, 34),
    ("lab-2-iptables", "lab-2", Backend::IptablesNft, 32),
];

/// Those of nftables mode.
const NFTABLES: [(&str, &str, usize); 2] = [("nftables", "lab-1", 34), ("lab-2-nftables", "lab-2", 34)];

fn saved(v4: &str, v6: Option<&str>) -> IptablesSave {
    let parse = |text: &str, family| IptablesSave::parse(text.to_owned(), family).unwrap();
    let saved = parse(v4, IpFamily::V4);
    match v6 {
        Some(v6) => saved.and(parse(v6, IpFamily::V6)),
        None => saved,
    }
}

fn saved_of(capture: &Capture) -> IptablesSave {
    saved(&capture.rules, capture.rules_v6.as_deref())
}

fn listed(text: &str) -> NftList {
    NftList::parse(text.to_owned()).unwrap()
}

/// A file of a capture.
fn file(capture: &str, name: &str) -> String {
    let path = format!("{}/tests/captures/{capture}/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}
