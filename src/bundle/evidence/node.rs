//! What an agent would have reported of a node, from the texts that were saved on it and in its client Pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    connections,
    dials::{Caller, Dialled},
    files::Form,
    hairpin,
    kube_proxy::{Around, mark_ports_in_use},
    names,
    programs::Programs,
    routes,
    rules::{self, Compared, Mode},
    settings::Settings,
    text::{self, Parsed, Text},
};
use crate::{
    api::{NodeFacts, PodListeners, Resolver},
    bundle::Problem,
    engine::{Facts, Saved, SavedText},
    inventory::Inventory,
    kube_proxy::{Backend, ProxyMode},
    objects::{Object, Pod},
};

/// Forms of rules and of what belongs to them, in the order in which they are told of.
const RULES: [Form; 8] = [
    Form::IptablesSave,
    Form::Ip6tablesSave,
    Form::NftSave,
    Form::LegacySave,
    Form::Nft,
    Form::NftJson,
    Form::VirtualServers,
    Form::IpSets,
];

/// A node, and all that was saved of it.
pub(super) struct Node<'a> {
    pub facts: &'a Facts,
    pub name: &'a str,
    pub cluster: Cluster<'a>,
    pub files: Vec<Parsed<'a>>,
    pub clients: Vec<Client<'a>>,
}

/// A client Pod, and what was saved in it.
pub(super) struct Client<'a> {
    pub pod: Arc<Pod>,
    pub files: Vec<Parsed<'a>>,
}

/// What is known of kube-proxy for all nodes.
#[derive(Clone, Copy)]
pub(super) struct Cluster<'a> {
    /// Its mode in its ConfigMap.
    pub mode: Option<&'a ProxyMode>,
    /// Whether the program that would carry it was told to leave it out: of k3s, its servers tell the others.
    pub leaves_proxy_out: bool,
    /// Where its Pods are known.
    pub inventory: &'a Inventory,
}

/// What the texts of a node come to.
#[derive(Default)]
pub(super) struct Judged {
    pub seen: NodeFacts,
    pub saved: Saved,
    /// What was not understood, and what would tell more.
    pub problems: Vec<Problem>,
}

impl Node<'_> {
    /// Judges the texts. Problems stand in the order of what an agent would do: programs, rules, dials, the rest.
    pub(super) fn judge(mut self) -> Judged {
        let mut problems = self.cut();
        let texts = self.texts();
        let settings = Settings::of(&self.files);
        // They are the largest of all texts, and let go as soon as they are compared.
        let of_rules: Vec<Parsed<'_>> = self.files.extract_if(.., |f| RULES.contains(&f.form)).collect();
        let programs = Programs::of(&self.files, self.cluster.leaves_proxy_out);
        problems.extend(text::problems(&self.files, &Programs::FORMS));
        problems.extend(text::problems(&of_rules, &RULES));
        let said_mode = programs.mode();
        let modes = Mode {
            known: said_mode.as_ref(),
            configured: self.cluster.mode,
        };
        let (rules, not_compared) = rules::read(self.facts, self.name, modes, of_rules);
        problems.extend(not_compared);
        let (resolvers, dialled, unproven) = self.requests();
        problems.extend(unproven);
        problems.extend(text::problems(&self.files, &[Form::Names, Form::Settings]));
        problems.extend(settings.problems);
        problems.extend(text::problems(
            &self.files,
            &[Form::Listing, Form::Routes, Form::Offload],
        ));
        problems.extend(routes::lost(self.facts, &self.files));
        problems.extend(text::problems(&self.files, &[Form::Links]));
        for client in &self.clients {
            problems.extend(text::problems(&client.files, &[Form::Sockets]));
        }
        problems.extend(text::problems(&self.files, &[Form::Conntrack]));

        let mut saved = self.saved(&programs, &rules, &dialled);
        saved.texts = texts;
        let mut seen = NodeFacts {
            resolvers,
            dns_servers: names::servers(self.facts, &self.files),
            settings: settings.known,
            hairpins: dialled.hairpins(hairpin::mode(&self.files), rules.masquerades),
            listeners: dialled.listeners(self.facts),
            stale_connections: connections::stale(self.facts, self.name, &self.files),
            problems: problems.iter().map(ToString::to_string).collect(),
            ..NodeFacts::default()
        };
        seen.settings.dead_ends.extend(rules.dead_ends);
        seen.listeners
            .extend(self.clients.iter().filter_map(Client::listeners));
        let skips_rules = seen.settings.bridge_netfilter == Some(false) || settings.lacks_bridge_netfilter;
        (seen.dials, seen.failures) = dialled.counted(self.facts, self.name, skips_rules);
        seen.probes_made = seen.dials.iter().map(|d| d.made).sum();
        seen.probes_failed = seen.dials.iter().map(|d| d.failed).sum();
        if !seen.failures.is_empty() {
            problems.extend(routes::found(self.facts, &self.files));
        }
        let log = programs.kube_proxy_log();
        seen.rules = rules.rules.map(|rules| mark_ports_in_use(rules, log));

        let mode = said_mode
            .or_else(|| rules.backend.map(Backend::mode))
            .or_else(|| self.cluster.mode.cloned());
        let kube_proxy = Around::of(self.facts, self.name, &programs, &seen, &saved).kube_proxy(mode);
        seen.kube_proxy = kube_proxy;
        let around = Around::of(self.facts, self.name, &programs, &seen, &saved);
        let misses_conntrack = around.misses_conntrack();
        let exit = around.exit(self.cluster.inventory.runs_kube_proxy(self.name));
        // What these do not blame leaves no question open, and is no problem of the node's report.
        let not_blamed = [misses_conntrack.as_ref().err(), exit.as_ref().err()];
        problems.extend(not_blamed.into_iter().flatten().cloned());
        saved.hairpin = hairpin::setup(&programs, &self.files, rules.hairpin_set);
        saved.conntrack_missing = misses_conntrack.unwrap_or_default();
        saved.proxy_exit = exit.unwrap_or_default();
        Judged {
            seen,
            saved,
            problems,
        }
    }

    /// What the clients' look-ups found, and the requests of the node and its clients; with what nothing follows from.
    fn requests(&self) -> (Vec<Resolver>, Dialled, Vec<Problem>) {
        let mut dialled = Dialled::default();
        let mut resolvers = Vec::new();
        let of_node = Caller::of(self.facts, self.name, None, &[]);
        let mut problems = text::problems(&self.files, &[Form::Requests]);
        problems.extend(dialled.read(&of_node, &self.files));
        for Client { pod, files } in &self.clients {
            let resolver = names::resolver(self.facts, pod, files);
            if !names::asks_its_node(self.facts, pod) {
                problems.extend(text::problems(files, &[Form::ResolvConf, Form::Names]));
            }
            let found = resolver.as_ref().map_or(&[][..], |resolver| &resolver.lookups);
            let of_client = Caller::of(self.facts, self.name, Some(pod), found);
            problems.extend(text::problems(files, &[Form::Requests]));
            problems.extend(dialled.read(&of_client, files));
            resolvers.extend(resolver);
        }
        (resolvers, dialled, problems)
    }

    /// What saved files tell, and no agent reports.
    fn saved(&self, programs: &Programs<'_>, rules: &Compared, dialled: &Dialled) -> Saved {
        let asks_its_node = |client: &&Client<'_>| {
            names::asks_its_node(self.facts, &client.pod)
                && client.files.iter().any(|f| f.form == Form::Names)
        };
        let (silent, silent_endpoint) = dialled.silent();
        let ask_their_node = self.clients.iter().filter(asks_its_node);
        Saved {
            proxy_port: rules.proxy_port.and_then(|port| dialled.on_loopback(port)),
            dialled: dialled.endpoints(),
            wanted_over_tcp: dialled.wanted_over_tcp(),
            untranslated: dialled.untranslated(),
            unlisted: dialled.unlisted(),
            not_resolved: dialled.not_resolved(),
            masquerades_nothing: programs.masquerades_nothing(),
            perhaps_itself: dialled.perhaps_itself(self.facts),
            asks_its_node: ask_their_node.map(Client::key).collect(),
            checksum_offload: self.checksum_offload(),
            silent,
            silent_endpoint,
            ..Saved::default()
        }
    }

    /// What was saved, so that nobody is asked for it again.
    fn texts(&self) -> BTreeSet<SavedText> {
        let of_clients = self.clients.iter().flat_map(|client| &client.files);
        let text = |file: &Parsed<'_>| match (file.form, &file.text) {
            // A search does not show what it did not search for.
            (_, Text::Processes(ps)) => ps.would_show("cilium-agent").then_some(SavedText::Processes),
            (Form::KubeProxyLog, _) => Some(SavedText::KubeProxyLog),
            (Form::Conntrack, _) => Some(SavedText::Conntrack),
            (Form::ResolvConf, _) => Some(SavedText::ResolvConf),
            (form, _) => RULES.contains(&form).then_some(SavedText::Rules),
        };
        self.files.iter().chain(of_clients).filter_map(text).collect()
    }

    /// Links, and whether they leave checksums to the card, as the last file says.
    fn checksum_offload(&self) -> BTreeMap<String, bool> {
        let links = self.files.iter().filter_map(|file| match &file.text {
            Text::Offload(links) => Some(links),
            _ => None,
        });
        links.flatten().cloned().collect()
    }

    /// That files may have been cut.
    fn cut(&self) -> Vec<Problem> {
        let of_clients = self.clients.iter().flat_map(|client| &client.files);
        let cut = self.files.iter().chain(of_clients).filter(|file| file.is_cut);
        let problem = |file: &Parsed<'_>| {
            file.problem(
                "the last line does not end, so the file may be truncated; nothing is concluded from what it lacks",
            )
        };
        cut.map(problem).collect()
    }
}

impl Client<'_> {
    fn key(&self) -> String {
        format!("{}/{}", self.pod.namespace(), self.pod.name())
    }

    /// What listens in the Pod, as the first list of its sockets shows.
    fn listeners(&self) -> Option<PodListeners> {
        let sockets = self.files.iter().find_map(|file| match &file.text {
            Text::Sockets(sockets) => Some(sockets.clone()),
            _ => None,
        })?;
        Some(PodListeners {
            pod: self.key(),
            ips: self.pod.ips().map(str::to_owned).collect(),
            sockets,
        })
    }
}
