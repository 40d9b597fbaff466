//! The saved rules of a node, by what holds them. Of several files with the same, each is asked: they may be of two
//! moments, and nobody can tell which one holds.

use crate::{
    bundle::{
        Problem,
        evidence::{
            files::Form,
            saved_rules::{SavedRules, Source},
            text::{Parsed, Text},
        },
    },
    formats::rules::{
        agreed, ipset::IpSets, iptables_save::IptablesSave, ipvsadm::Listing, nft::NftList, nft_json::NftJson,
    },
    kube_proxy::{IpFamily, Layout, ProxyMode, ReadError, Rule, Ruleset, Table, Verdict},
};

/// What the files hold.
#[derive(Default)]
pub(super) struct Backends {
    pub iptables: Option<IptablesSave>,
    pub legacy: Option<IptablesSave>,
    /// Whether it is known that these are two backends: `iptables-save` alone may be either.
    pub are_two: bool,
    nft: Option<Lists>,
    nft_json: Option<NftJson>,
    pub servers: Option<Listing>,
    /// Whether only a part of the virtual servers was listed.
    pub are_servers_chosen: bool,
    pub sets: Option<IpSets>,
    /// Modes of kube-proxy that the files show rules of, for any Service.
    pub shown: Vec<ProxyMode>,
    /// Whether there are chains of userspace mode, be they empty.
    pub has_portals: bool,
    /// Whether iptables-save warns of rules in the other backend, which may be kube-proxy's.
    pub warns_of_legacy: bool,
}

impl Backends {
    /// Sorts the rules of files, given the mode that kube-proxy says it is in; with what contradicts each other.
    pub(super) fn of(files: Vec<Parsed<'_>>, mode: Option<&ProxyMode>) -> (Self, Option<Problem>) {
        let mut all = Self::default();
        let (mut v4, mut v6, mut nft, mut legacy) = (None, None, None, None);
        let mut lists = Vec::new();
        let mut listings = Vec::new();
        for file in files {
            match file.text {
                Text::Rules(rules) => {
                    let rules = all.note(*rules);
                    match (rules, file.form) {
                        (Source::Iptables(save), Form::Ip6tablesSave) => add(&mut v6, save),
                        (Source::Iptables(save), Form::NftSave) => add(&mut nft, save),
                        (Source::Iptables(save), Form::LegacySave) => add(&mut legacy, save),
                        (Source::Iptables(save), _) => add(&mut v4, save),
                        (Source::Nft(list), _) => lists.push((file.path.to_owned(), list)),
                        (Source::NftJson(json), _) if all.nft_json.is_none() && json.has_table() => {
                            all.nft_json = Some(json);
                        }
                        (Source::NftJson(_) | Source::None, _) => {}
                    }
                }
                Text::VirtualServers { listing, is_choice } => {
                    all.are_servers_chosen |= is_choice || file.is_cut;
                    listings.extend(listing.map(|listing| (file.path, listing)));
                }
                Text::IpSets(sets) => all.sets = Some(sets),
                _ => {}
            }
        }
        all.are_two = nft.is_some() && legacy.is_some();
        (all.iptables, all.legacy) = match (nft.or(v4), legacy, v6) {
            (Some(v4), legacy, Some(v6)) => (Some(v4.and(v6)), legacy),
            (None, Some(legacy), Some(v6)) => (None, Some(legacy.and(v6))),
            (None, None, v6) => (v6, None),
            (v4, legacy, None) => (v4, legacy),
        };
        all.nft = Lists::of(lists, mode == Some(&ProxyMode::Nftables));
        let problem = match same_servers(listings) {
            Ok(servers) => {
                all.servers = servers;
                None
            }
            Err(problem) => Some(problem),
        };
        (all, problem)
    }

    /// Notes what a file shows beside its rules, and gives these back.
    fn note(&mut self, rules: SavedRules) -> Source {
        self.shown.extend(rules.mode);
        self.has_portals |= rules.has_portals;
        self.warns_of_legacy |= rules.warns_of_legacy;
        rules.source
    }

    /// kube-proxy's table in nf_tables.
    pub(super) fn nftables(&self) -> Option<&dyn Ruleset> {
        let text = self.nft.as_ref().map(|rules| rules as &dyn Ruleset);
        text.or(self.nft_json.as_ref().map(|rules| rules as &dyn Ruleset))
    }
}

fn add(all: &mut Option<IptablesSave>, save: IptablesSave) {
    *all = Some(match all.take() {
        Some(before) => before.and(save),
        None => save,
    });
}

/// The virtual servers, where all lists of them are the same.
fn same_servers(listings: Vec<(&str, Listing)>) -> Result<Option<Listing>, Problem> {
    let mut known: Option<Listing> = None;
    for (path, listing) in listings {
        if known
            .as_ref()
            .is_some_and(|known| known.servers != listing.servers)
        {
            return Err(Problem {
                path: path.to_owned(),
                what: "it contradicts another list of virtual servers; keep the current one".to_owned(),
            });
        }
        known = Some(listing);
    }
    Ok(known)
}

/// Lists of rules in mode nftables, each with its file. Where their answers differ, there is none.
struct Lists(Vec<(String, NftList)>);

impl Lists {
    /// Where kube-proxy says that it is in this mode, also a listing without its table tells: there is none.
    fn of(lists: Vec<(String, NftList)>, is_mode: bool) -> Option<Self> {
        let lists = lists.into_iter().filter_map(|(path, list)| match is_mode {
            true => Some((path, list.in_nftables_mode())),
            false => Some((path, list)).filter(|(_, list)| list.has_table()),
        });
        let lists: Vec<_> = lists.collect();
        (!lists.is_empty()).then_some(Self(lists))
    }
}

impl Ruleset for Lists {
    fn layout(&self) -> Layout {
        Layout::Nftables
    }

    fn chain(&self, family: IpFamily, table: Table, chain: &str) -> Result<Option<Vec<Rule>>, ReadError> {
        let lists = self.0.iter();
        agreed(
            &format!("chain {chain} of table kube-proxy"),
            lists.map(|(path, list)| (path, list.chain(family, table, chain))),
        )
    }

    fn element(&self, family: IpFamily, map: &str, key: &[u8]) -> Result<Option<Verdict>, ReadError> {
        let lists = self.0.iter();
        agreed(
            &format!("map {map} of table kube-proxy"),
            lists.map(|(path, list)| (path, list.element(family, map, key))),
        )
    }
}
