//! Tables of `kubectl get`, and descriptions, as evidence of what they show, and of nothing else.
//!
//! A table may have been filtered or shortened by whoever copied it, so no object counts as missing for not being in it.
//! What two tables say of one object counts only if it is the same: nobody knows which one is newer.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde_json::{Value, json};

use super::{
    Fate,
    descriptions::ips,
    events::{SaidEvents, is_bare_table},
};
use crate::bundle::objects::identity::is_subdomain;
use crate::{
    engine::{TableEvidence, TablePod},
    formats::text::{
        events,
        kubectl::Kubectl,
        paste::Section,
        table::{Table, labels},
    },
    objects::{Node, Service},
};

/// Namespace and name.
type Key = (String, String);

/// What all tables of a paste show.
#[derive(Debug, Default)]
pub(in crate::bundle) struct Tables {
    /// Pods with their labels.
    pods: BTreeMap<Key, Said<TablePod>>,
    /// On which nodes Pods run.
    placed: BTreeMap<Key, Said<String>>,
    /// How many Pods stand in tables without labels, by namespace.
    unlabelled: BTreeMap<String, usize>,
    /// Ready addresses, as `kubectl get endpoints` lists them.
    endpoints: BTreeMap<Key, Said<BTreeSet<IpAddr>>>,
    /// Ready addresses of each EndpointSlice of a Service, as descriptions show them.
    slices: BTreeMap<Key, BTreeMap<Key, Said<BTreeSet<IpAddr>>>>,
    /// Services with their selectors.
    services: BTreeMap<Key, Said<Value>>,
    /// Services with their target ports, too.
    described: BTreeMap<Key, Said<Value>>,
    /// Nodes, with whether they are ready; None where two tables disagree.
    pub nodes: BTreeMap<String, Option<bool>>,
    /// Descriptions of Nodes.
    described_nodes: BTreeMap<Key, Said<Value>>,
    /// Warnings.
    pub(super) events: SaidEvents,
}

/// What is said of an object; None where two tables disagree.
#[derive(Debug)]
struct Said<T>(Option<T>);

fn say<T: PartialEq>(of: &mut BTreeMap<Key, Said<T>>, key: Key, value: T) {
    match of.get_mut(&key) {
        Some(before) => {
            if before.0.as_ref() != Some(&value) {
                before.0 = None;
            }
        }
        None => {
            of.insert(key, Said(Some(value)));
        }
    }
}

/// The kind of the objects in a table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pods,
    Services,
    Endpoints,
    EndpointSlices,
    Nodes,
}

impl Kind {
    /// By the columns, which differ for all of these kinds.
    fn of(table: &Table<'_>) -> Option<Self> {
        const KINDS: [(Kind, &[&str]); 5] = [
            (Kind::Pods, &["READY", "STATUS", "RESTARTS"]),
            (Kind::Services, &["TYPE", "CLUSTER-IP", "PORT(S)"]),
            (Kind::EndpointSlices, &["ADDRESSTYPE", "PORTS", "ENDPOINTS"]),
            (Kind::Endpoints, &["ENDPOINTS"]),
            (Kind::Nodes, &["STATUS", "ROLES", "VERSION"]),
        ];
        let kind = KINDS.iter().find(|(_, columns)| table.has(columns));
        kind.map(|(kind, _)| *kind)
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Pods => "Pods",
            Self::Services => "Services",
            Self::Endpoints => "Endpoints",
            Self::EndpointSlices => "EndpointSlices",
            Self::Nodes => "Nodes",
        }
    }
}

impl Tables {
    /// Takes a table in; says what it is and what became of it.
    pub(super) fn add(&mut self, section: &Section<'_>, home: &str) -> (String, Fate) {
        if is_bare_table(section) || events::is_header(section.text.lines().next().unwrap_or_default()) {
            return self.add_events(section, home);
        }
        let unknown = || {
            let why = "only tables of Pods, Services, Endpoints, EndpointSlices, Nodes and Events are read";
            ("a table".to_owned(), Fate::NotUsed(why.to_owned()))
        };
        let Some(table) = Table::parse(section.text) else {
            return unknown();
        };
        let Some(kind) = Kind::of(&table) else {
            return unknown();
        };
        let command = section.command.and_then(Kubectl::parse);
        let asked = command.as_ref().and_then(|c| c.namespace).unwrap_or(home);
        // Without the column, a table of all namespaces was cut.
        let is_placed = table.has(&["NAMESPACE"]) || !command.is_some_and(|c| c.all_namespaces);
        if !is_placed && kind != Kind::Nodes {
            let why = "it is of all namespaces, but has no column NAMESPACE";
            return (
                format!("a table of {}", kind.plural()),
                Fate::NotUsed(why.to_owned()),
            );
        }
        let mut misfits: Vec<usize> = table.misfits.iter().map(|line| section.first + line).collect();
        for (row, cells) in table.rows.iter().enumerate() {
            let name = table.cell(cells, "NAME").unwrap_or_default();
            // `kubectl get all` and `get pods,services` write the kind before the name.
            let name = name.rsplit('/').next().unwrap_or(name);
            let namespace = table.cell(cells, "NAMESPACE").unwrap_or(asked);
            let key = (namespace.to_owned(), name.to_owned());
            if self.row(kind, &table, cells, key).is_none() {
                misfits.push(section.first + row + 1);
            }
        }
        let what = format!(
            "a table of {} ({}){}",
            kind.plural(),
            match table.rows.len() {
                1 => "1 row".to_owned(),
                n => format!("{n} rows"),
            },
            super::not_understood(misfits)
        );
        (what, fate(kind, &table))
    }

    /// One row; None where it cannot be one.
    fn row(&mut self, kind: Kind, table: &Table<'_>, cells: &[&str], key: Key) -> Option<()> {
        // What stands in a message of ours is no more than a name may be.
        let names = [
            Some(key.1.as_str()),
            Some(key.0.as_str()).filter(|n| !n.is_empty()),
        ];
        names.iter().flatten().all(|n| is_subdomain(n)).then_some(())?;
        match kind {
            Kind::Pods => {
                let pod = pod(table, cells, &key.1)?;
                if let Some(node) = table.cell(cells, "NODE").filter(|n| is_subdomain(n)) {
                    say(&mut self.placed, key.clone(), node.to_owned());
                }
                match pod {
                    Some(pod) => self.say_pod(key, pod)?,
                    None => *self.unlabelled.entry(key.0).or_default() += 1,
                }
            }
            Kind::Services => {
                if table.has(&["SELECTOR"]) {
                    let service = service(table, cells, &key)?;
                    say(&mut self.services, key, service);
                }
            }
            Kind::Endpoints => {
                let listed = table.cell(cells, "ENDPOINTS").unwrap_or_default();
                self.say_endpoints(key, ips(listed)?)?;
            }
            // Which of its addresses are ready is not in the table.
            Kind::EndpointSlices => {}
            Kind::Nodes => {
                let status = table.cell(cells, "STATUS").unwrap_or_default();
                // `Ready,SchedulingDisabled`, `NotReady`.
                self.say_node(key.1, status.split(',').any(|word| word == "Ready"));
            }
        }
        Some(())
    }

    pub(super) fn say_endpoints(&mut self, key: Key, addresses: Vec<IpAddr>) -> Option<()> {
        say(&mut self.endpoints, key, addresses.into_iter().collect());
        Some(())
    }

    pub(super) fn say_pod(&mut self, key: Key, pod: TablePod) -> Option<()> {
        let is_same = |before: &TablePod| before.is_ready == pod.is_ready && before.labels == pod.labels;
        // A table and a description say the same in other words.
        match self.pods.get(&key).and_then(|said| said.0.as_ref()) {
            Some(before) if is_same(before) => {}
            _ => say(&mut self.pods, key, pod),
        }
        Some(())
    }

    /// The node on which a Pod runs.
    pub(in crate::bundle) fn node_of_pod(&self, namespace: &str, name: &str) -> Option<&str> {
        let said = self.placed.get(&(namespace.to_owned(), name.to_owned()))?;
        said.0.as_deref()
    }

    pub(super) fn say_slice(&mut self, service: Key, name: &str, addresses: Vec<IpAddr>) {
        let slice = (service.0.clone(), name.to_owned());
        say(
            self.slices.entry(service).or_default(),
            slice,
            addresses.into_iter().collect(),
        );
    }

    pub(super) fn say_described_node(&mut self, name: &str, node: Value) {
        let conditions = node
            .pointer("/status/conditions/0/status")
            .and_then(Value::as_str);
        self.say_node(name.to_owned(), conditions == Some("True"));
        say(&mut self.described_nodes, (String::new(), name.to_owned()), node);
    }

    /// Nodes of descriptions that agree with one another.
    pub(super) fn nodes(&self) -> impl Iterator<Item = Node> {
        let known = self.described_nodes.values().filter_map(|said| said.0.clone());
        known.filter_map(|node| serde_json::from_value(node).ok())
    }

    pub(super) fn say_node(&mut self, name: String, is_ready: bool) {
        let said = self.nodes.entry(name).or_insert(Some(is_ready));
        if *said != Some(is_ready) {
            *said = None;
        }
    }

    pub(super) fn say_described(&mut self, key: Key, service: Value) {
        say(&mut self.described, key, service);
    }

    /// Services that no object shows, each with whether its target ports are known. A description says more than a table.
    pub(super) fn services(&self) -> impl Iterator<Item = (&Key, Service, bool)> {
        fn known(of: &BTreeMap<Key, Said<Value>>) -> impl Iterator<Item = (&Key, Service)> {
            let said = of.iter().filter_map(|(key, said)| Some((key, said.0.as_ref()?)));
            said.filter_map(|(key, value)| Some((key, serde_json::from_value(value.clone()).ok()?)))
        }
        let described = known(&self.described).map(|(key, service)| (key, service, true));
        let others = known(&self.services).filter(|(key, _)| !self.described.contains_key(*key));
        described.chain(others.map(|(key, service)| (key, service, false)))
    }

    /// The ready addresses of a Service: of its EndpointSlices and of its Endpoints. One of the two may be a part of the other:
    /// not all slices may be there, and Endpoints are of one IP family. None where two texts disagree.
    fn ready_of(&self, key: &Key) -> Option<BTreeSet<IpAddr>> {
        let listed = self.endpoints.get(key).map(|said| said.0.as_ref());
        let Some(slices) = self.slices.get(key) else {
            return listed?.cloned();
        };
        let mut all = BTreeSet::new();
        for slice in slices.values() {
            all.extend(slice.0.as_ref()?);
        }
        match listed {
            Some(None) => None,
            Some(Some(listed)) if all.is_subset(listed) => Some(listed.clone()),
            Some(Some(listed)) => listed.is_subset(&all).then_some(all),
            None => Some(all),
        }
    }

    /// What the tables show of a namespace and of one of its Services.
    pub(in crate::bundle) fn evidence(&self, namespace: &str, service: &str) -> TableEvidence {
        let of_namespace = self.pods.iter().filter(|((ns, _), _)| ns == namespace);
        let endpoints = self.ready_of(&(namespace.to_owned(), service.to_owned()));
        TableEvidence {
            pods: of_namespace.filter_map(|(_, said)| said.0.clone()).collect(),
            unlabelled_pods: self.unlabelled.get(namespace).copied().unwrap_or(0),
            endpoints: endpoints.map(|ips| ips.iter().map(ToString::to_string).collect()),
            has_service: false,
            lost_nodes: self
                .nodes
                .iter()
                .filter(|(_, is_ready)| **is_ready == Some(false))
                .map(|(name, _)| name.clone())
                .collect(),
        }
    }
}

/// What a table of a kind is good for.
fn fate(kind: Kind, table: &Table<'_>) -> Fate {
    let why = match kind {
        Kind::Pods if !table.has(&["LABELS"]) => {
            "it does not say which Pods the Service selects; add --show-labels"
        }
        Kind::Services if !table.has(&["SELECTOR"]) => {
            "it does not say what the Services select; add -o wide, or save the Service with -o yaml"
        }
        Kind::EndpointSlices => "it does not say which endpoints are ready; save them with -o yaml",
        _ => return Fate::Used,
    };
    Fate::NotUsed(why.to_owned())
}

/// A Pod of a row; Some(None) where its labels are not shown.
fn pod(table: &Table<'_>, cells: &[&str], name: &str) -> Option<Option<TablePod>> {
    let (ready, containers) = table.cell(cells, "READY")?.split_once('/')?;
    let (ready, containers): (u32, u32) = (ready.parse().ok()?, containers.parse().ok()?);
    let status = table.cell(cells, "STATUS").filter(|s| is_word(s))?.to_owned();
    if !table.has(&["LABELS"]) {
        return Some(None);
    }
    let labels = match table.cell(cells, "LABELS") {
        Some(cell) => labels(cell).filter(|_| is_word(cell))?,
        None => BTreeMap::new(),
    };
    let gates = table
        .cell(cells, "READINESS GATES")
        .and_then(|g| g.split_once('/'));
    Some(Some(TablePod {
        name: name.to_owned(),
        labels,
        is_ready: status == "Running"
            && containers > 0
            && ready == containers
            && gates.is_none_or(|(met, all)| met == all),
        state: format!("{ready}/{containers} {status}"),
        node: table
            .cell(cells, "NODE")
            .filter(|n| is_subdomain(n))
            .map(str::to_owned),
    }))
}

/// A Service of a row of `-o wide`. The target ports are not shown.
fn service(table: &Table<'_>, cells: &[&str], (namespace, name): &Key) -> Option<Value> {
    const MAX_PORTS: usize = 100;
    let ports = table.cell(cells, "PORT(S)").unwrap_or_default();
    (ports.is_empty() || is_word(ports)).then_some(())?;
    let port = |text: &str| {
        let (numbers, protocol) = text.split_once('/')?;
        let mut numbers = numbers.split(':').map(|n| n.parse::<u16>().ok());
        let (port, node_port) = (numbers.next()??, numbers.next());
        Some(json!({ "port": port, "protocol": protocol, "nodePort": node_port.flatten() }))
    };
    let ports: Option<Vec<Value>> = ports
        .split(',')
        .filter(|p| !p.is_empty())
        .take(MAX_PORTS)
        .map(port)
        .collect();
    let selector = match table.cell(cells, "SELECTOR") {
        Some(cell) => labels(cell).filter(|_| is_word(cell))?,
        None => BTreeMap::new(),
    };
    Some(json!({
        "metadata": { "name": name, "namespace": namespace },
        "spec": {
            "type": table.cell(cells, "TYPE"),
            "clusterIP": table.cell(cells, "CLUSTER-IP"),
            "selector": selector,
            "ports": ports?,
        },
    }))
}

/// Whether a text has no other characters than names, labels and states have.
pub(super) fn is_word(text: &str) -> bool {
    let is_fit = |b: u8| b.is_ascii_alphanumeric() || b"-._/=,:".contains(&b);
    !text.is_empty() && text.len() <= 4096 && text.bytes().all(is_fit)
}
