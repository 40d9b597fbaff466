//! The rules in a node's files, by layout. Of several files with the same, each is asked: they may be of two
//! moments, and nobody can tell which one holds.

use super::{
    super::Problem,
    files::{Form, TextFile},
    parse,
};
use crate::formats::rules::{
    agreed,
    ipset::{self, IpSets},
    iptables_save::IptablesSave,
    ipvsadm::{self, Listing},
    nft::NftList,
    nft_json::NftJson,
};

use crate::proxy::{IpFamily, Layout, ProxyMode, ReadError, Rule, Ruleset, Table, Verdict};

/// What the files hold, by layout.
#[derive(Default)]
pub(super) struct Texts {
    pub iptables: Option<IptablesSave>,
    pub legacy: Option<IptablesSave>,
    /// Whether it is known that these are two backends: `iptables-save` alone may be either.
    pub are_two: bool,
    pub nft: Option<Lists>,
    pub nft_json: Option<NftJson>,
    pub servers: Option<Listing>,
    pub sets: Option<IpSets>,
}

impl Texts {
    pub(super) fn of(files: &[TextFile<'_>], mode: Option<&ProxyMode>, problems: &mut Vec<Problem>) -> Self {
        let files = &with_whole_saves(files)[..];
        let mut save = |form, family| {
            let mut all: Option<IptablesSave> = None;
            for file in files.iter().filter(|f| f.form == form) {
                let parser = |text: &str| IptablesSave::parse(text.to_owned(), family);
                for saved in parse(std::slice::from_ref(file), form, problems, parser) {
                    let saved = saved.of_file(file.path);
                    all = Some(match all.take() {
                        Some(before) => before.and(saved),
                        None => saved,
                    });
                }
            }
            all
        };
        let v4 = save(Form::IptablesSave, IpFamily::V4);
        let v6 = save(Form::Ip6tablesSave, IpFamily::V6);
        let nft = save(Form::NftSave, IpFamily::V4);
        let legacy = save(Form::LegacySave, IpFamily::V4);
        let are_two = nft.is_some() && legacy.is_some();
        let (iptables, legacy) = match (nft.or(v4), legacy, v6) {
            (Some(v4), legacy, Some(v6)) => (Some(v4.and(v6)), legacy),
            (None, Some(legacy), Some(v6)) => (None, Some(legacy.and(v6))),
            (None, None, v6) => (v6, None),
            (v4, legacy, None) => (v4, legacy),
        };
        Self {
            iptables,
            legacy,
            are_two,
            nft: Lists::of(files, mode == Some(&ProxyMode::Nftables), problems),
            nft_json: parse(files, Form::NftJson, problems, NftJson::parse)
                .into_iter()
                .find(NftJson::has_table),
            servers: virtual_servers(files, problems),
            sets: parse(files, Form::IpSets, problems, ipset::parse).pop(),
        }
    }

    /// kube-proxy's table in nf_tables.
    pub(super) fn nftables(&self) -> Option<&dyn Ruleset> {
        let text = self.nft.as_ref().map(|rules| rules as &dyn Ruleset);
        text.or(self.nft_json.as_ref().map(|rules| rules as &dyn Ruleset))
    }
}

/// Lists of rules in mode nftables, each with its file. Where their answers differ, there is none.
pub(super) struct Lists(Vec<(String, NftList)>);

impl Lists {
    /// Where kube-proxy says that it is in this mode, also a listing without its table tells: there is none.
    fn of(files: &[TextFile<'_>], is_mode: bool, problems: &mut Vec<Problem>) -> Option<Self> {
        let mut lists = Vec::new();
        for file in files {
            let file = std::slice::from_ref(file);
            let read = parse(file, Form::Nft, problems, |text| NftList::parse(text.to_owned()));
            let read = read.into_iter().map(|list| match is_mode {
                true => list.in_nftables_mode(),
                false => list,
            });
            let read = read.filter(|list| list.has_table() || is_mode);
            lists.extend(read.zip(file).map(|(list, file)| (file.path.to_owned(), list)));
        }
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

/// The virtual servers, where all lists of them are the same.
fn virtual_servers(files: &[TextFile<'_>], problems: &mut Vec<Problem>) -> Option<Listing> {
    let mut known: Option<Listing> = None;
    for file in files {
        let read = parse(
            std::slice::from_ref(file),
            Form::VirtualServers,
            problems,
            ipvsadm::parse,
        );
        for list in read {
            if known.as_ref().is_some_and(|known| known.servers != list.servers) {
                problems.push(
                    file.problem("it contradicts another list of virtual servers; keep the one that holds"),
                );
                return None;
            }
            known = Some(list);
        }
    }
    known
}

/// Files without those of saved rules that were cut, unless the end of a table shows that it is whole: of
/// chosen lines nobody can tell how many are missing.
fn with_whole_saves<'a>(files: &[TextFile<'a>]) -> Vec<TextFile<'a>> {
    let is_save = |form| {
        matches!(
            form,
            Form::IptablesSave | Form::Ip6tablesSave | Form::NftSave | Form::LegacySave
        )
    };
    let is_usable = |f: &&TextFile<'_>| !f.is_cut || !is_save(f.form) || f.text.contains("\nCOMMIT");
    let is_whole_set = |f: &&TextFile<'_>| !f.is_cut || f.form != Form::IpSets;
    files
        .iter()
        .filter(is_usable)
        .filter(is_whole_set)
        .copied()
        .collect()
}
