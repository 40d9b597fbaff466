//! The API objects of a bundle: from YAML and JSON to the slim types.
//!
//! Objects may stand in any file that ends like one of these formats: alone, in lists of kubectl or of
//! the API, or as several documents. An object that cannot be parsed is noted, so that nothing is
//! blamed on what it may be. Lists are read item by item, and only those fields of an object are kept
//! that a verdict may depend on.

mod config_map;
pub(super) mod endpoints;
pub(super) mod identity;
mod lists;
mod manifests;
pub(super) mod memory;
pub(super) mod routes;
mod versions;

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use self::{
    endpoints::Endpoints,
    identity::{Place, group, identify, is_homeless, text, who},
    memory::Memory,
    versions::{Seen, Versions},
};
use super::{
    Bundle, MANIFEST, Problem,
    documents::{self, Content, Item},
    files::{File, MAX_PROBLEMS, is_structured},
    moments::Moment,
};
use crate::{
    api::{NodeProbe, ServiceDiagnosis},
    inventory::Tracked,
    kube_proxy::ProxyMode,
    objects::{
        Deployment, EndpointSlice, Event, Lease, Namespace, NetworkPolicy, Node, Pod, ReplicaSet, Service,
        StatefulSet, policy_kind, trim_metadata,
    },
};

/// Takes the objects of all files into the bundle.
pub(super) fn take(bundle: &mut Bundle) {
    take_within(bundle, Memory::default());
}

/// The same, within some memory.
pub(super) fn take_within(bundle: &mut Bundle, memory: Memory) {
    let files = std::mem::take(&mut bundle.files.files);
    let home = bundle.home().to_owned();
    let mut reader = Reader {
        policy_kinds: bundle.manifest.other_policy_kinds.clone(),
        bundle,
        endpoints: Vec::new(),
        seen: Versions::default(),
        modes: BTreeSet::new(),
        whole: BTreeSet::new(),
        memory,
        home,
        written: None,
    };
    // Large lists come last: if there is no room for one of them, everything else is there.
    let (small, large): (Vec<&File>, _) = files
        .iter()
        .filter(|file| file.path != MANIFEST && is_structured(&file.path))
        .partition(|file| file.text.len() < LARGE);
    for file in small.into_iter().chain(large) {
        reader.file(file);
    }
    reader.finish();
    bundle.files.files = files;
}

/// A file of some hundred Pods.
const LARGE: usize = 4 << 20;

struct Reader<'a> {
    bundle: &'a mut Bundle,
    endpoints: Vec<Endpoints>,
    seen: Versions,
    /// What ConfigMaps of kube-proxy say of its mode.
    modes: BTreeSet<ProxyMode>,
    /// Kinds of policies beyond NetworkPolicy: those of the manifest, of objects and of their definitions.
    policy_kinds: BTreeSet<String>,
    /// Resources of which collect's own file was read to its end.
    whole: BTreeSet<String>,
    memory: Memory,
    /// The namespace of objects that do not say theirs.
    home: String,
    /// When the file was written that is read.
    written: Option<Timestamp>,
}

impl Reader<'_> {
    fn file(&mut self, file: &File) {
        self.written = file.modified;
        for document in documents::of(&file.text) {
            let place = Place {
                path: &file.path,
                document: document.place,
            };
            self.memory.take_entry();
            if self.is_full(&place, "left out, like all that follow it in this file") {
                return;
            }
            match document.content {
                Ok(content) => self.document(content, &place),
                Err(why) => self.problem(&place, why),
            }
        }
    }

    /// Whether there is no memory for more objects; what that means for a place is a problem.
    fn is_full(&mut self, place: &Place<'_>, what: &str) -> bool {
        let Some(why) = self.memory.exhausted() else {
            return false;
        };
        self.problem(place, format!("{what}: {why}"));
        true
    }

    fn problem(&mut self, place: &Place<'_>, what: impl Into<String>) {
        let what = match self.bundle.problems.len() {
            n if n < MAX_PROBLEMS => what.into(),
            MAX_PROBLEMS => "and more problems, which are not listed".to_owned(),
            _ => return,
        };
        let document = &place.document;
        self.bundle.problems.push(Problem {
            path: place.path.to_owned(),
            what: match document.is_empty() {
                true => what,
                false => format!("{document}: {what}"),
            },
        });
    }

    fn document(&mut self, content: Content<'_>, place: &Place<'_>) {
        let Content { head, items } = content;
        let kind = text(&head, "/kind");
        if kind.ends_with("List") && (items.is_some() || head["items"].is_null()) {
            self.list(&head, items.unwrap_or_default(), place);
        } else if !kind.is_empty() && head["apiVersion"].is_string() {
            self.object(head, place);
            // Otherwise the last one would be missed in silence.
            self.is_full(place, "left out");
        } else if items.is_some() {
            // kubectl writes the kind after the items.
            self.problem(
                place,
                "left out: a list without a kind; it may have been cut short",
            );
        } else if place.path.starts_with("objects/") && !head.is_null() {
            self.problem(place, "left out: not a Kubernetes object");
        }
    }

    fn list(&mut self, list: &Value, items: Vec<Item<'_>>, place: &Place<'_>) {
        let kind = text(list, "/kind").trim_end_matches("List").to_owned();
        self.policy_kinds
            .extend(policy_kind(group(list), &kind).map(str::to_owned));
        let mut found = lists::List::new(&kind, place);
        let mut is_whole = true;
        for (n, item) in items.into_iter().enumerate() {
            let document = match place.document.as_str() {
                "" => format!("item {}", n + 1),
                document => format!("{document}, item {}", n + 1),
            };
            let path = place.path;
            let place = Place { path, document };
            match item.parse() {
                Ok(item) => self.item(item, list, &kind, &mut found, &place),
                Err(why) => {
                    is_whole = false;
                    self.problem(&place, why);
                }
            }
            self.memory.take_entry();
            if self.is_full(&place, "left out, like all that follow it in this list") {
                is_whole = false;
                break;
            }
        }
        found.note_moments(
            &mut self.bundle.moments,
            &Moment {
                version: text(list, "/metadata/resourceVersion").parse().ok(),
                written: self.written,
                place: format!("{} {}", place.path, place.document),
            },
        );
        // kubectl writes the version of a list, be it empty; and nobody writes a list of one kind by hand.
        let is_by_hand =
            kind.is_empty() && found.is_of_manifests() && list.pointer("/metadata/resourceVersion").is_none();
        if !text(list, "/metadata/continue").is_empty() {
            self.problem(
                place,
                "only one page of a list: objects that are not in it may exist",
            );
        } else if !is_whole {
            // What is not in it may be in what was left out.
        } else if self.bundle.manifest.listed.is_some() {
            let stem = place
                .path
                .strip_prefix("objects/")
                .and_then(|p| p.split_once('.'));
            self.whole.extend(stem.map(|(stem, _)| stem.to_owned()));
        } else if !is_by_hand && !self.bundle.is_paste {
            self.bundle.has_all_nodes |= found.has_nodes();
            // A paste may have been cut or filtered, and may be of another cluster, namespace or moment than the rest.
            found.note(&mut self.bundle.listed);
        }
    }

    fn item(
        &mut self,
        mut item: Value,
        list: &Value,
        kind: &str,
        found: &mut lists::List,
        place: &Place<'_>,
    ) {
        // The items of a typed list do not say what they are.
        if item["kind"].is_null() && !kind.is_empty() && item.is_object() {
            item["kind"] = kind.into();
            item["apiVersion"] = list["apiVersion"].clone();
        }
        found.add(&item);
        self.object(item, place);
    }

    fn object(&mut self, value: Value, place: &Place<'_>) {
        let kind = text(&value, "/kind").to_owned();
        if manifests::is_manifest(&value) && self.manifest(&value, place) {
            return;
        }
        match (group(&value), kind.as_str()) {
            ("", "Service") => self.take::<Service>(value, place),
            ("", "Pod") => self.take::<Pod>(value, place),
            ("", "Namespace") => self.take::<Namespace>(value, place),
            ("", "ConfigMap") => {
                if let Some(domain) = config_map::dns_domain(&value) {
                    let name = text(&value, "/metadata/name").to_owned();
                    self.bundle.dns_config = Some((name, domain.to_owned()));
                }
                match config_map::mode(&value) {
                    Ok(mode) => self.modes.extend(mode),
                    Err(why) => self.problem(
                        place,
                        format!("kube-proxy's configuration could not be parsed: {why}"),
                    ),
                }
            }
            ("", "Node") => self.take::<Node>(value, place),
            ("", "Endpoints") => {
                if let Some(endpoints) = self.parse::<Endpoints>(value, place)
                    && self.memory.take_object(&endpoints)
                {
                    self.endpoints.push(endpoints);
                }
            }
            ("discovery.k8s.io", "EndpointSlice") => self.take::<EndpointSlice>(value, place),
            ("apps" | "extensions", "Deployment") => self.take::<Deployment>(value, place),
            ("apps" | "extensions", "ReplicaSet") => self.take::<ReplicaSet>(value, place),
            ("apps", "StatefulSet") => self.take::<StatefulSet>(value, place),
            ("networking.k8s.io" | "extensions", "NetworkPolicy") => self.take::<NetworkPolicy>(value, place),
            ("" | "events.k8s.io", "Event") => self.event(value, place),
            ("apiextensions.k8s.io", "CustomResourceDefinition") => {
                let found = policy_kind(text(&value, "/spec/group"), text(&value, "/spec/names/kind"));
                self.policy_kinds.extend(found.map(str::to_owned));
            }
            ("networking.k8s.io" | "extensions", "Ingress") => {
                self.backends(&value);
            }
            ("gateway.networking.k8s.io", kind) if kind.ends_with("Route") => self.backends(&value),
            ("coordination.k8s.io", "Lease") => self.lease(value, place),
            (crate::api::GROUP, "NodeProbe") => self.take::<NodeProbe>(value, place),
            (crate::api::GROUP, "ServiceDiagnosis") => {
                if let Some(mut diagnosis) = self.parse::<ServiceDiagnosis>(value, place) {
                    trim_metadata(&mut diagnosis.metadata);
                    if self.memory.take_object(&diagnosis) {
                        self.bundle.diagnoses.push(diagnosis);
                    }
                }
            }
            // The verdict depends on no other kind.
            (group, kind) => self
                .policy_kinds
                .extend(policy_kind(group, kind).map(str::to_owned)),
        }
    }

    /// Notes what a manifest says beside what an object of a cluster does; returns whether that is all.
    fn manifest(&mut self, value: &Value, place: &Place<'_>) -> bool {
        let kind = text(value, "/kind");
        let is_service = group(value).is_empty() && kind == "Service";
        let template = manifests::template(value);
        if !is_service && template.is_none() {
            return false;
        }
        let mut named = value.clone();
        let Ok((namespace, name)) = identify(&mut named, place, &self.home) else {
            // The object itself says why it is left out.
            return false;
        };
        if is_service {
            self.bundle.manifests.services.insert((namespace, name));
            return false;
        }
        // Nobody knows whether a Pod without a status runs.
        let is_pod = kind == "Pod";
        if is_pod {
            self.count_homeless(value, place);
        }
        if let Some(template) = template.filter(|t| self.memory.take_object(t)) {
            let templates = self.bundle.manifests.templates.entry(namespace).or_default();
            templates.insert(template);
        }
        is_pod
    }

    fn count_homeless(&mut self, value: &Value, place: &Place<'_>) {
        self.bundle.without_namespace += usize::from(is_homeless(value, place));
    }

    fn backends(&mut self, value: &Value) {
        let found = routes::backends(value);
        if found.iter().all(|backend| self.memory.take_object(backend)) {
            self.bundle.backends.extend(found);
        }
    }

    fn parse<K: DeserializeOwned>(&mut self, value: Value, place: &Place<'_>) -> Option<K> {
        let who = who(&value);
        serde_json::from_value(value)
            .map_err(|e| self.problem(place, format!("{who} could not be parsed: {e}")))
            .ok()
    }

    /// Takes an object in, or notes that it is there but could not be parsed.
    fn take<K: Tracked + DeserializeOwned + Serialize>(&mut self, mut value: Value, place: &Place<'_>) {
        self.count_homeless(&value, place);
        let (namespace, name) = match identify(&mut value, place, &self.home) {
            Ok(key) => key,
            Err(why) => return self.problem(place, format!("{} left out: {why}", who(&value))),
        };
        let key = (text(&value, "/kind").to_owned(), namespace.clone(), name.clone());
        match self.seen.see(key, &value) {
            Seen::New | Seen::Again => {}
            Seen::Newer => {
                let what = "is also in the bundle in an older version; this one is used";
                self.problem(place, format!("{} {what}", who(&value)));
            }
            Seen::Older => {
                let what = "is also in the bundle in a newer version, which is used";
                return self.problem(place, format!("{} {what}", who(&value)));
            }
            Seen::Unclear => {
                let what = "is also in the bundle in another version, and nothing says which one is newer";
                self.problem(place, format!("{} {what}; neither is used", who(&value)));
                let why = format!("{} {}: it {what}", place.path, place.document);
                self.bundle.inventory.delete::<K>(&namespace, &name);
                self.bundle.inventory.note_unparsable::<K>(&namespace, &name, why);
                return;
            }
        }
        match serde_json::from_value::<K>(value) {
            Ok(mut object) => {
                trim_metadata(object.meta_mut());
                if self.memory.take_object(&object) {
                    self.bundle.inventory.apply(object);
                }
            }
            Err(error) => {
                let why = format!("{} {}: {error}", place.path, place.document);
                self.problem(place, format!("{namespace}/{name} could not be parsed: {error}"));
                self.bundle
                    .inventory
                    .note_unparsable::<K>(&namespace, &name, why.trim_end().to_owned());
            }
        }
    }

    /// One look cannot tell when a renewal was first seen: the agent's clock has to do.
    fn lease(&mut self, value: Value, place: &Place<'_>) {
        let Some(mut lease) = self.parse::<Lease>(value, place) else {
            return;
        };
        if let (Some(_), Some(renewed)) = (lease.agent_node(), &lease.spec.renew_time) {
            self.bundle.inventory.observe_at(renewed.0);
            trim_metadata(&mut lease.metadata);
            if self.memory.take_object(&lease) {
                self.bundle.inventory.apply(lease);
            }
        }
    }

    /// Of Events only those are of use that say what went wrong with a Pod, or why there is none.
    fn event(&mut self, value: Value, place: &Place<'_>) {
        if let Some(mut event) = self.parse::<Event>(value, place) {
            trim_metadata(&mut event.metadata);
            if self.memory.take_object(&event) {
                self.bundle.inventory.note_event(event);
            }
        }
    }

    fn finish(mut self) {
        for path in endpoints::convert(std::mem::take(&mut self.endpoints), self.bundle) {
            let document = String::new();
            let place = Place {
                path: &path,
                document,
            };
            self.problem(&place, "has only the first of its endpoints: others may exist");
        }
        // That agents look is told by their Leases; of the nodes only the names matter.
        let of_agents: Vec<String> = self.bundle.inventory.agent_nodes().map(str::to_owned).collect();
        for name in of_agents {
            self.bundle.inventory.ensure_node(&name);
        }
        let kinds = std::mem::take(&mut self.policy_kinds);
        self.bundle.inventory.note_policy_kinds(kinds);
        // Where two versions of it differ, nobody knows which one was read.
        self.bundle.configured_mode = self.modes.pop_first().filter(|_| self.modes.is_empty());
        if let Some(listed) = &self.bundle.manifest.listed {
            // A file that is missing or broken takes its promise with it.
            let kept = listed.iter().filter(|l| self.whole.contains(&l.resource));
            self.bundle.listed = kept.cloned().collect();
        }
    }
}
