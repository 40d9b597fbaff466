//! Saved rules of a node, as one file holds them.

use std::{fmt::Display, net::IpAddr};

use super::files::{Form, TextFile};
use crate::{
    formats::rules::{
        forwarding::{self, Forwarding},
        iptables_save::IptablesSave,
        nft::NftList,
        nft_json::NftJson,
    },
    kube_proxy::{IpFamily, ProxyMode},
};

/// The rules, by how they were saved.
pub(super) enum Source {
    Iptables(IptablesSave),
    Nft(NftList),
    NftJson(NftJson),
    /// None that can be compared: not understood, or cut somewhere.
    None,
}

/// What a file of rules says.
pub(super) struct SavedRules {
    pub source: Source,
    /// What the node does with packets that it forwards; None where the file does not show it whole.
    pub forwarding: Option<Forwarding>,
    /// The mode of kube-proxy that the file shows rules of, for any Service.
    pub mode: Option<ProxyMode>,
    /// Whether there are chains of userspace mode, be they empty.
    pub has_portals: bool,
    /// Whether iptables-save warns of rules in the other backend.
    pub warns_of_legacy: bool,
}

impl SavedRules {
    /// Reads a file; and why its rules were not understood, if so.
    pub(super) fn parse(file: &TextFile<'_>, endpoints: &[IpAddr]) -> (Self, Option<String>) {
        let text = file.text;
        let has = |part: &str| text.contains(part);
        // It needs much memory for a moment, so that it comes before the rules, which stay.
        let forwarding = (!file.is_cut).then(|| forwarding(file, endpoints)).flatten();
        let is_nft = matches!(file.form, Form::Nft | Form::NftJson);
        let mode = match is_nft {
            true => (has("service-ips") && has("goto")).then_some(ProxyMode::Nftables),
            false => has("-A KUBE-SVC-").then_some(ProxyMode::Iptables),
        };
        let (source, why) = source(file);
        let rules = Self {
            source,
            forwarding,
            mode,
            has_portals: file.form == Form::IptablesSave && has("KUBE-PORTALS-"),
            warns_of_legacy: !is_nft && has("-legacy tables present"),
        };
        (rules, why)
    }
}

fn source(file: &TextFile<'_>) -> (Source, Option<String>) {
    let save = |family| {
        // Of chosen lines nobody can tell how many are missing; the end of a table shows that it is whole.
        if file.is_cut && !file.text.contains("\nCOMMIT") {
            return (Source::None, None);
        }
        let saved = IptablesSave::parse(file.text.to_owned(), family);
        read(saved, |save| Source::Iptables(save.of_file(file.path)))
    };
    match file.form {
        Form::IptablesSave | Form::NftSave | Form::LegacySave => save(IpFamily::V4),
        Form::Ip6tablesSave => save(IpFamily::V6),
        Form::Nft => read(NftList::parse(file.text.to_owned()), Source::Nft),
        Form::NftJson => read(NftJson::parse(file.text), Source::NftJson),
        _ => (Source::None, None),
    }
}

fn read<T, E: Display>(parsed: Result<T, E>, source: impl FnOnce(T) -> Source) -> (Source, Option<String>) {
    match parsed {
        Ok(rules) => (source(rules), None),
        Err(error) => (Source::None, Some(error.to_string())),
    }
}

fn forwarding(file: &TextFile<'_>, endpoints: &[IpAddr]) -> Option<Forwarding> {
    match file.form {
        Form::IptablesSave | Form::NftSave | Form::LegacySave => {
            Some(forwarding::of_iptables(file.text, endpoints))
        }
        Form::Nft => Some(forwarding::of_nft(file.text, endpoints)),
        _ => None,
    }
}
