//! Agents: on which nodes they are, whether they are alive, and what they were asked and answered.
//!
//! An agent is alive for as long as its Lease lasts, counted from the moment at which a renewal was
//! first seen here: the clocks of the nodes do not matter. A renewal by itself concerns nobody, or
//! thousands of nodes would have everything judged all the time; that an agent comes or goes for good
//! concerns all, that it comes back those who have to do with its node. That it falls silent changes
//! no object: who asks [`Inventory::fallen_silent`] now and then learns of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::{DiagnosisKey, Inventory, PackedProbe, Table, Tracked, heard, held_as_it_is};
use crate::{
    NodeReport, ProbeReport,
    facts::is_well,
    kept::ANSWERED_WITHIN,
    questions::{is_answered, observed_question},
    time::later,
};
use svcdiag_api::{NodeProbe, bounded};
use svcdiag_objects::{Labels, Lease, Node, Object};

/// What the Lease of an agent says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Agent {
    /// Its last renewal, by the agent's clock: only whether it has changed matters.
    renewed: Option<MicroTime>,
    /// When that renewal was first seen, by ours.
    seen: Timestamp,
    /// Since when the Lease has never lapsed.
    since: Timestamp,
    /// When it lapses without another renewal.
    until: Timestamp,
    /// The labels of its Node; None while there is no such Node.
    labels: Option<Arc<Labels>>,
}

impl Agent {
    fn of(lease: &Lease, before: Option<&Self>, node: Option<&Node>, now: Timestamp) -> Self {
        let renewed = lease.spec.renew_time.clone();
        let seen = before.filter(|b| b.renewed == renewed).map_or(now, |b| b.seen);
        let since = before.filter(|b| b.until > seen).map_or(seen, |b| b.since);
        Self {
            renewed,
            seen,
            since,
            until: lease.lasts_until(seen),
            labels: match before {
                Some(before) => before.labels.clone(),
                None => node.map(labels_of),
            },
        }
    }
}

fn labels_of(node: &Node) -> Arc<Labels> {
    Arc::new(node.labels().clone())
}

impl Inventory {
    /// Every Node with an agent, and what that was asked for a diagnosis.
    pub(super) fn node_reports(&self, probes: &[NodeProbe], uid: &str) -> Vec<NodeReport> {
        let own = probes.iter().filter(|p| p.spec.diagnosis.uid == uid);
        let probes: BTreeMap<&str, &NodeProbe> = own.map(|p| (p.spec.node_name.as_str(), p)).collect();
        // Of a thousand nodes for each diagnosis: nothing is looked up that can be kept.
        let report = |(node, agent): (&Arc<str>, &Agent)| {
            Some(NodeReport {
                name: node.clone(),
                labels: agent.labels.clone()?,
                alive_until: Some(agent.until),
                probe: probes.get(&**node).map(|p| Box::new(self.probe_report(p))),
                saved: None,
            })
        };
        let mut reports = Vec::with_capacity(self.agents.len());
        reports.extend(self.agents.iter().filter_map(report));
        reports
    }

    /// Whether the Leases of agents were listed, can be read still, and are none. A Lease that has lapsed is one of an agent
    /// that has fallen silent.
    pub(super) fn has_no_agents(&self) -> bool {
        self.leases_are_listed && !self.unreadable.contains_key("leases") && self.agents.is_empty()
    }

    fn probe_report(&self, probe: &NodeProbe) -> ProbeReport {
        let facts = probe.status.as_ref().and_then(|s| s.facts.clone());
        ProbeReport {
            asked: probe.spec.clone(),
            is_current: is_answered(probe),
            question: observed_question(probe).to_owned(),
            owed_since: self.owed_since.get(&key_of(probe)).copied(),
            facts: facts.map(Arc::new),
        }
    }

    /// How many agents are alive, and how many have fallen silent: their Leases have lapsed. Nobody waits for those of nodes
    /// that are gone.
    pub fn agents_by_life(&self, now: Timestamp) -> (usize, usize) {
        let of_nodes = self.agents.values().filter(|agent| agent.labels.is_some());
        let (alive, silent): (Vec<_>, Vec<_>) = of_nodes.partition(|agent| agent.until > now);
        (alive.len(), silent.len())
    }

    /// Diagnoses that have asked agents whose Leases lapsed after a time, by `until`.
    pub fn fallen_silent(&self, after: Timestamp, until: Timestamp) -> BTreeSet<DiagnosisKey> {
        let lapsed = |agent: &Agent| agent.until > after && agent.until <= until;
        let silent = self.agents.iter().filter(|(_, agent)| lapsed(agent));
        self.asking(&silent.map(|(node, _)| &**node).collect())
    }

    /// Diagnoses that have asked the agents of any of these nodes.
    fn asking(&self, nodes: &BTreeSet<&str>) -> BTreeSet<DiagnosisKey> {
        if nodes.is_empty() {
            return BTreeSet::new();
        }
        let has_asked = |key: &&DiagnosisKey| {
            let mut probes = self.packed_of(key);
            probes.any(|probe| nodes.contains(&*probe.node))
        };
        self.probes_of.keys().filter(has_asked).cloned().collect()
    }

    /// Names of the nodes whose agents have Leases.
    pub fn agent_nodes(&self) -> impl Iterator<Item = &str> {
        self.agents.keys().map(AsRef::as_ref)
    }

    /// The labels of every Node.
    pub fn node_labels(&self) -> BTreeMap<String, Arc<Labels>> {
        let nodes = self.nodes.of("");
        nodes.map(|n| (n.name().to_owned(), labels_of(n))).collect()
    }

    /// How many NodeProbes other diagnoses of a namespace have, by the UID of the diagnosis.
    pub fn probes_of_others(&self, namespace: &str, uid: &str) -> BTreeMap<String, usize> {
        let mut found: BTreeMap<&str, usize> = BTreeMap::new();
        for probe in self.probes.of(namespace).filter(|p| *p.of != *uid) {
            *found.entry(&probe.of).or_default() += 1;
        }
        found
            .into_iter()
            .map(|(of, count)| (of.to_owned(), count))
            .collect()
    }

    /// The NodeProbes that say they are of a diagnosis.
    pub fn probes_of(&self, diagnosis: &DiagnosisKey) -> impl Iterator<Item = NodeProbe> {
        self.packed_of(diagnosis).filter_map(|probe| probe.object())
    }

    /// Whether an agent that is alive was asked for a diagnosis a moment ago, and has not answered yet.
    pub fn awaits_answers(&self, diagnosis: &DiagnosisKey) -> bool {
        let names = self.probes_of.get(diagnosis).into_iter().flatten();
        let asked_just_now = names.filter(|name| {
            let owed_since = self.owed_since.get(&(diagnosis.0.clone(), (*name).clone()));
            owed_since.is_some_and(|since| later(*since, ANSWERED_WITHIN) > self.now)
        });
        let mut asked = asked_just_now.filter_map(|name| self.probes.get(&diagnosis.0, name));
        let is_alive = |agent: &Agent| agent.until > self.now;
        asked.any(|probe| self.agents.get(&*probe.node).is_some_and(is_alive))
    }

    fn packed_of(&self, diagnosis: &DiagnosisKey) -> impl Iterator<Item = &Arc<PackedProbe>> {
        let names = self.probes_of.get(diagnosis);
        names
            .into_iter()
            .flatten()
            .filter_map(|name| self.probes.get(&diagnosis.0, name))
    }
}

impl Tracked for Lease {
    held_as_it_is!();

    fn table(inventory: &mut Inventory) -> &mut Table<Self> {
        &mut inventory.leases
    }

    fn note_listed(inventory: &mut Inventory) {
        inventory.leases_are_listed = true;
    }

    /// All diagnoses, if an agent comes or goes for good. If it comes back after its Lease had lapsed, those that have asked it or
    /// have Pods on its node: for others it is a node like any other.
    fn concerns(inventory: &Inventory, old: Option<&Self>, new: Option<&Self>) -> BTreeSet<DiagnosisKey> {
        let of_agent = |lease: &Self| lease.agent_node().map(str::to_owned);
        match (old.and_then(of_agent), new.and_then(of_agent)) {
            (Some(_), Some(node)) => {
                let is_back = |agent: &Agent| agent.since == inventory.now;
                if !inventory.agents.get(node.as_str()).is_some_and(is_back) {
                    return BTreeSet::new();
                }
                &inventory.asking(&[node.as_str()].into()) | &inventory.with_pods_on(&node)
            }
            (None, None) => BTreeSet::new(),
            (Some(_), None) | (None, Some(_)) => inventory.all(),
        }
    }

    fn index(inventory: &mut Inventory, old: Option<&Self>, new: Option<&Self>) {
        match (new.and_then(|l| Some((l, l.agent_node()?))), old) {
            (Some((lease, node)), _) => {
                let of = inventory.nodes.get("", node).map(AsRef::as_ref);
                let agent = Agent::of(lease, inventory.agents.get(node), of, inventory.now);
                inventory.agents.insert(node.into(), agent);
            }
            (None, Some(old)) => {
                if let Some(node) = old.agent_node() {
                    inventory.agents.remove(node);
                }
            }
            (None, None) => {}
        }
    }
}

impl Tracked for Node {
    held_as_it_is!();

    fn table(inventory: &mut Inventory) -> &mut Table<Self> {
        &mut inventory.nodes
    }

    /// All diagnoses, if a node comes, goes or gets other addresses, and if one with an agent gets other labels, since these
    /// choose the nodes. Whether it is Ready concerns those with Pods there.
    fn concerns(inventory: &Inventory, old: Option<&Self>, new: Option<&Self>) -> BTreeSet<DiagnosisKey> {
        let has_agent = |node: &Self| inventory.agents.contains_key(node.name());
        let ready = |node: &Self| node.ready().map(|condition| condition.status.clone());
        let state = |node: &Self| (ready(node).is_some(), node.status.addresses.clone());
        let is_chosen_anew =
            old.map(Object::labels) != new.map(Object::labels) && old.or(new).is_some_and(has_agent);
        if is_chosen_anew || old.map(state) != new.map(state) {
            inventory.all()
        } else if old.map(ready) != new.map(ready) {
            inventory.with_pods_on(old.or(new).map(Object::name).unwrap_or_default())
        } else {
            BTreeSet::new()
        }
    }

    fn index(inventory: &mut Inventory, old: Option<&Self>, new: Option<&Self>) {
        let name = old.or(new).map(Object::name).unwrap_or_default();
        if let Some(agent) = inventory.agents.get_mut(name) {
            agent.labels = new.map(labels_of);
        }
    }
}

impl Tracked for NodeProbe {
    type Held = PackedProbe;

    /// A question, or an answer without a failure.
    fn tells_no_fault(&self) -> bool {
        let said = self.status.as_ref().and_then(|status| status.facts.as_ref());
        said.is_none_or(is_well)
    }

    fn table(inventory: &mut Inventory) -> &mut Table<PackedProbe> {
        &mut inventory.probes
    }

    fn hold(object: &Arc<Self>) -> Arc<PackedProbe> {
        Arc::new(PackedProbe::of(object))
    }

    fn held(held: &Arc<PackedProbe>) -> Option<Arc<Self>> {
        held.object().map(Arc::new)
    }

    /// What the agent was asked about, and no more of it than its kind may hold.
    fn admitted(mut self) -> Self {
        if let Some(facts) = self.status.as_mut().and_then(|s| s.facts.as_mut()) {
            *facts = heard::of(&self.spec, bounded(facts));
        }
        self
    }

    /// Its diagnosis, if it says something else than before or is gone.
    fn concerns(inventory: &Inventory, old: Option<&Self>, new: Option<&Self>) -> BTreeSet<DiagnosisKey> {
        let says = |probe: &Self| {
            (
                probe.spec.clone(),
                probe.status.clone(),
                probe.metadata.generation,
            )
        };
        if old.map(says) == new.map(says) {
            return BTreeSet::new();
        }
        let keys = old.into_iter().chain(new).map(diagnosis_of);
        keys.filter(|(namespace, name)| inventory.interests.get(namespace, name).is_some())
            .collect()
    }

    fn index(inventory: &mut Inventory, old: Option<&Self>, new: Option<&Self>) {
        if let Some(old) = old {
            let key = diagnosis_of(old);
            if let Some(names) = inventory.probes_of.get_mut(&key) {
                names.remove(old.name());
                if names.is_empty() {
                    inventory.probes_of.remove(&key);
                }
            }
        }
        if let Some(probe) = new.filter(|p| !is_answered(p)) {
            inventory.owed_since.entry(key_of(probe)).or_insert(inventory.now);
        } else if let Some(probe) = new.or(old) {
            inventory.owed_since.remove(&key_of(probe));
        }
        if let Some(new) = new {
            let names = inventory.probes_of.entry(diagnosis_of(new)).or_default();
            names.insert(new.name().to_owned());
        }
    }
}

/// Namespace and name.
fn key_of(probe: &NodeProbe) -> (String, String) {
    (probe.namespace().to_owned(), probe.name().to_owned())
}

/// The diagnosis that a NodeProbe names; it is in the same namespace.
fn diagnosis_of(probe: &NodeProbe) -> DiagnosisKey {
    (probe.namespace().to_owned(), probe.spec.diagnosis.name.clone())
}
