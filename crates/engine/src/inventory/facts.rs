//! From the Inventory to the Facts about one diagnosis.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;

use super::Inventory;
use crate::{ChainedService, ClientNamespace, ClusterDns, Facts, OtherService, Unreadable};
use svcdiag_api::{DataPath, NodeProbe, REFRESH_ANNOTATION, ServiceDiagnosis, ServiceDiagnosisStatus};
use svcdiag_objects::{EndpointSlice, Object, Pod, Service, grants_clients_to, matches_labels};

/// Where cluster DNS is looked for: upstream's names and OpenShift's.
pub const CLUSTER_DNS: [(&str, &str); 3] = [
    ("kube-system", "kube-dns"),
    ("kube-system", "coredns"),
    ("openshift-dns", "dns-default"),
];

/// Label of the Pods of NodeLocal DNSCache, beside cluster DNS.
const DNS_CACHE: (&str, &str) = ("k8s-app", "node-local-dns");

/// Kinds whose unparsable objects leave a gap in the Facts, with their plural.
const GAPS: [(&str, &str); 4] = [
    ("Service", "services"),
    ("EndpointSlice", "endpointslices"),
    ("Pod", "pods"),
    ("NetworkPolicy", "networkpolicies"),
];

impl Inventory {
    /// Everything that the verdict on a Service can depend on. The diagnosis is as it is to be judged:
    /// with its bounds, and with the status that was written last. What there is in other Namespaces is left out
    /// unless the reader of the verdict may know it.
    #[must_use]
    pub fn facts(&self, diagnosis: &ServiceDiagnosis, now: Timestamp, name_other_namespaces: bool) -> Facts {
        let key = (diagnosis.namespace().to_owned(), diagnosis.name().to_owned());
        let probes: Vec<NodeProbe> = self.probes_of(&key).collect();
        self.facts_with(diagnosis, &probes, now, name_other_namespaces)
    }

    /// The same for who has the NodeProbes of the diagnosis already.
    #[must_use]
    pub fn facts_with(
        &self,
        diagnosis: &ServiceDiagnosis,
        probes: &[NodeProbe],
        now: Timestamp,
        name_other_namespaces: bool,
    ) -> Facts {
        let namespace = diagnosis.namespace();
        let mut facts = Facts::new(now, namespace, diagnosis.spec.clone());
        let name = facts.spec.service_name.clone();
        facts.not_ready_since = diagnosis.status.as_ref().and_then(not_ready_since);
        let written = diagnosis.status.clone();
        facts.previous = written
            .filter(|w| w.observed_generation == diagnosis.metadata.generation)
            .map(Box::new);
        let refresh = diagnosis.annotation(REFRESH_ANNOTATION);
        facts.refresh = refresh.unwrap_or_default().to_owned();
        let uid = diagnosis.metadata.uid.as_deref().unwrap_or_default();
        facts.has_no_agents = self.has_no_agents();
        if diagnosis.spec.data_path != Some(DataPath::Ignore) {
            facts.nodes = self.node_reports(probes, uid);
        }
        facts.service = self.services.get(namespace, &name).cloned();
        if facts.service.is_none() {
            // Only a Service that is not there is looked for under other names and in other places.
            facts.other_services = self.services_beside(namespace, &name);
            let others = self
                .services
                .0
                .iter()
                .filter(|(ns, of)| *ns != namespace && of.contains_key(&name));
            let others = others.filter(|_| name_other_namespaces);
            facts.namesakes = others.map(|(ns, _)| ns.clone()).collect();
        }
        facts.slices = self.slices_of(namespace, &name).cloned().collect();
        let key = (namespace.to_owned(), name.clone());
        facts.slices_gone_at = self.slices_gone_at.get(&key).copied();
        facts.endpoints_of_services = self.endpoints_of_services(&facts, name_other_namespaces);
        facts.pods = self.pods.of(namespace).cloned().collect();
        facts.deployments = self.deployments.of(namespace).cloned().collect();
        facts.replica_sets = self.replica_sets.of(namespace).cloned().collect();
        facts.stateful_sets = self.stateful_sets.of(namespace).cloned().collect();
        self.look_around(&mut facts, name_other_namespaces);
        facts.policies = self.policies.of(namespace).cloned().collect();
        facts.cluster_dns = self.cluster_dns();
        if let Some(dns) = &mut facts.cluster_dns
            && dns.service.namespace() != namespace
            && !name_other_namespaces
        {
            dns.policies.clear();
        }
        facts.cluster_nodes = self.nodes.of("").cloned().collect();
        facts.events = self.events_of(namespace);
        facts.other_policy_kinds.clone_from(&self.other_policy_kinds);
        let listed = facts
            .slices
            .iter()
            .flat_map(|s| &s.endpoints)
            .flat_map(|e| &e.addresses);
        facts.service_addresses = listed
            .filter(|ip| self.service_ips.contains_key(*ip))
            .cloned()
            .collect();
        let mut involved = vec![namespace.to_owned()];
        if let Some(other) = facts
            .spec
            .clients
            .namespace
            .clone()
            .filter(|other| other != namespace)
        {
            let granted = self
                .namespaces
                .get("", &other)
                .is_some_and(|n| grants_clients_to(n, namespace));
            involved.push(other.clone());
            facts.client_namespace = Some(ClientNamespace {
                name: other,
                granted: false,
                pods: Vec::new(),
            });
            if granted {
                self.lend(&mut facts);
            }
        }
        involved.extend(
            facts
                .cluster_dns
                .as_ref()
                .map(|dns| dns.service.namespace().to_owned()),
        );
        involved.sort_unstable();
        involved.dedup();
        facts.namespaces = involved
            .iter()
            .filter_map(|n| self.namespaces.get("", n).cloned())
            .collect();
        facts.unreadable.extend(self.gaps(namespace, &name));
        facts
            .unreadable
            .extend(self.unreadable.iter().map(|(resource, why)| Unreadable {
                resource: resource.clone(),
                why: why.clone(),
            }));
        facts
    }

    /// Takes the Pods and policies of the clients' Namespace into the Facts.
    pub fn lend(&self, facts: &mut Facts) {
        let Some(clients) = facts.client_namespace.as_mut().filter(|c| !c.granted) else {
            return;
        };
        clients.granted = true;
        clients.pods = self.pods.of(&clients.name).cloned().collect();
        facts.policies.extend(self.policies.of(&clients.name).cloned());
        // None of its Services matters.
        facts.unreadable.extend(self.gaps(&clients.name, ""));
    }

    /// Pods of other namespaces that have the address of an endpoint, with it.
    pub fn others_at(&self, facts: &Facts) -> Vec<(String, String)> {
        let endpoints = facts.slices.iter().flat_map(|s| &s.endpoints);
        let own: BTreeSet<&str> = endpoints
            .filter(|e| e.pod_uid().is_some())
            .flat_map(|e| &e.addresses)
            .map(String::as_str)
            .collect();
        let others = self
            .pods
            .0
            .iter()
            .filter(|(namespace, _)| **namespace != facts.namespace);
        let pods = others.flat_map(|(_, pods)| pods.values());
        let with_network = pods.filter(|p| !p.is_host_network() && !p.has_ended() && !p.is_terminating());
        with_network
            .flat_map(|p| p.ips().map(move |ip| (ip, p)))
            .filter(|(ip, _)| own.contains(ip))
            .map(|(ip, p)| (ip.to_owned(), format!("{}/{}", p.namespace(), p.name())))
            .collect()
    }

    /// EndpointSlices of a namespace that are called like a Service and are none of any.
    pub fn unlabelled_slices(&self, namespace: &str, service: &str) -> Vec<String> {
        let is_called = |name: &str| name == service || name.starts_with(&format!("{service}-"));
        let slices = self.slices.of(namespace);
        let has_label = |s: &EndpointSlice| {
            let labels = s.metadata.labels.as_ref();
            labels.is_some_and(|l| l.contains_key(EndpointSlice::SERVICE_LABEL))
        };
        let unlabelled = slices.filter(|s| !has_label(s)).map(|s| s.name());
        unlabelled
            .filter(|name| is_called(name))
            .map(str::to_owned)
            .collect()
    }

    /// Whether a Pod of kube-proxy is ready on a node, as its DaemonSet labels it in clusters of kubeadm and of most
    /// clouds.
    pub fn runs_kube_proxy(&self, node: &str) -> bool {
        self.pods.of("kube-system").any(|p| {
            p.labels().get("k8s-app").is_some_and(|app| app == "kube-proxy")
                && p.spec.node_name.as_deref() == Some(node)
                && p.is_ready()
        })
    }

    /// Whether any Pod of a namespace is known.
    pub fn has_pods(&self, namespace: &str) -> bool {
        self.pods.of(namespace).next().is_some()
    }

    /// Whether there is a Node of a name, or a Pod that runs on it.
    pub fn has_node(&self, node: &str) -> bool {
        let mut pods = self.pods.0.values().flat_map(BTreeMap::values);
        self.nodes.get("", node).is_some() || pods.any(|p| p.spec.node_name.as_deref() == Some(node))
    }

    /// Whether a Service is known.
    pub fn has_service(&self, namespace: &str, name: &str) -> bool {
        self.services.get(namespace, name).is_some()
    }

    /// The node on which a Pod runs, if both are known.
    pub fn node_of_pod(&self, namespace: &str, name: &str) -> Option<&str> {
        self.pods.get(namespace, name)?.spec.node_name.as_deref()
    }

    /// Whether a Pod is known.
    pub fn has_pod(&self, namespace: &str, name: &str) -> bool {
        self.pods.get(namespace, name).is_some()
    }

    /// What other objects explain of a Service without endpoints of its own: only looked for there.
    fn look_around(&self, facts: &mut Facts, name_other_namespaces: bool) {
        let Some(service) = facts.service.as_deref() else {
            return;
        };
        if service.has_selector() {
            let is_selected = |p: &Pod| matches_labels(&service.spec.selector, p.labels()) && !p.has_ended();
            if facts.pods.iter().any(|p| is_selected(p)) {
                return;
            }
            let elsewhere = self
                .pods
                .0
                .iter()
                .filter(|(ns, pods)| **ns != facts.namespace && pods.values().any(|p| is_selected(p)));
            let elsewhere = elsewhere.filter(|_| name_other_namespaces);
            facts.selected_elsewhere = elsewhere.map(|(ns, _)| ns.clone()).collect();
            facts.other_services = self.services_beside(&facts.namespace, service.name());
        } else {
            let addresses: BTreeSet<&str> = facts
                .slices
                .iter()
                .flat_map(|s| &s.endpoints)
                .flat_map(|e| &e.addresses)
                .map(String::as_str)
                .collect();
            if addresses.is_empty() {
                return;
            }
            let services = self.services.0.values().flat_map(BTreeMap::values);
            let services = services.filter(|s| name_other_namespaces || s.namespace() == facts.namespace);
            let mut chained: Vec<ChainedService> = services
                .flat_map(|s| s.cluster_ips().into_iter().map(move |ip| (s, ip)))
                .filter(|(_, ip)| addresses.contains(ip))
                .map(|(s, ip)| ChainedService {
                    address: ip.to_owned(),
                    namespace: s.namespace().to_owned(),
                    name: s.name().to_owned(),
                })
                .collect();
            chained.sort_unstable();
            facts.chained_services = chained;
        }
    }

    fn services_beside(&self, namespace: &str, name: &str) -> Vec<OtherService> {
        let others = self.services.of(namespace).filter(|s| s.name() != name);
        let slim = |s: &Arc<Service>| OtherService {
            name: s.name().to_owned(),
            selector: s.spec.selector.clone(),
        };
        others.map(slim).collect()
    }

    /// Slices of a Service.
    pub fn slices_of(&self, namespace: &str, service: &str) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        let names = self.slices_of.get(&(namespace.to_owned(), service.to_owned()));
        names
            .into_iter()
            .flatten()
            .filter_map(|name| self.slices.get(namespace, name))
    }

    /// Addresses of hand-made endpoints that are cluster IPs of Services.
    fn endpoints_of_services(&self, facts: &Facts, name_other_namespaces: bool) -> Vec<(String, String)> {
        let endpoints = facts.slices.iter().flat_map(|s| &s.endpoints);
        let by_hand = endpoints.filter(|e| e.target_ref.is_none());
        let addresses: BTreeSet<&str> = by_hand.flat_map(|e| &e.addresses).map(String::as_str).collect();
        if addresses.is_empty() {
            return Vec::new();
        }
        let services = self.services.0.values().flat_map(|of| of.values());
        let mut found: Vec<(String, String)> = services
            .filter(|service| name_other_namespaces || service.namespace() == facts.namespace)
            .flat_map(|service| service.cluster_ips().into_iter().map(move |ip| (ip, service)))
            .filter(|(ip, _)| addresses.contains(ip))
            .map(|(ip, service)| {
                (
                    ip.to_owned(),
                    format!("{}/{}", service.namespace(), service.name()),
                )
            })
            .collect();
        found.sort();
        found
    }

    /// The Service of cluster DNS.
    pub(super) fn dns_service(&self) -> Option<&Arc<Service>> {
        CLUSTER_DNS
            .iter()
            .find_map(|(namespace, name)| self.services.get(namespace, name))
    }

    pub(super) fn cluster_dns(&self) -> Option<ClusterDns> {
        let service = self.dns_service()?;
        let selected =
            |p: &&Arc<Pod>| service.has_selector() && matches_labels(&service.spec.selector, p.labels());
        let is_cache = |p: &&Arc<Pod>| p.labels().get(DNS_CACHE.0).is_some_and(|v| v == DNS_CACHE.1);
        let pods = || self.pods.of(service.namespace());
        Some(ClusterDns {
            service: service.clone(),
            pods: pods().filter(selected).cloned().collect(),
            caches: pods().filter(is_cache).cloned().collect(),
            policies: self.policies.of(service.namespace()).cloned().collect(),
            config_map: None,
            domain: None,
        })
    }

    fn gaps(&self, namespace: &str, service: &str) -> Vec<Unreadable> {
        let of_namespace = self.unparsable.iter().filter(|((_, ns, _), _)| ns == namespace);
        of_namespace
            .filter_map(|((kind, _, name), why)| {
                let (_, resource) = GAPS.iter().find(|(k, _)| k == kind)?;
                // Another Service that cannot be parsed does not matter.
                let matters = *resource != "services" || name == service;
                let why = format!("{kind} {name} could not be parsed: {why}");
                matters.then(|| Unreadable {
                    resource: (*resource).to_owned(),
                    why,
                })
            })
            .collect()
    }
}

fn not_ready_since(previous: &ServiceDiagnosisStatus) -> Option<Timestamp> {
    let ready = previous
        .conditions
        .iter()
        .find(|c| c.type_ == "Ready" && c.status == "False")?;
    Some(ready.last_transition_time.0)
}
