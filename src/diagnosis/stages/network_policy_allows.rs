//! Does any NetworkPolicy keep the clients away from the target Pods or from DNS?
//!
//! Policies are meant to keep somebody away. A denial is a fault only where it certainly hits those
//! who use the Service: clients that the user named; everybody, because no rule admits anyone; or
//! Pods of the namespace that may go nowhere at all. A policy that admits others than the Pods at
//! hand is taken for what it says: the clients are those others.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{
        Facts, Finding,
        clients::{Clients, Role},
        policy::{self, Access, Direction, End, Port},
        ports,
        vantage::Vantage,
        words,
    },
    applicable,
    policy_probes::{self, Probed},
    policy_targets::{Target, targets},
};
use crate::{
    api::Reason,
    objects::{Labels, NetworkPolicy, Object, Pod, Service, ServicePort},
};

/// Port of DNS.
const DNS_PORT: i32 = 53;

pub(super) fn judge(facts: &Facts) -> Finding {
    let Some(service) = facts.service.as_deref() else {
        return Finding::not_applicable("There is no Service.");
    };
    if service.is_external_name() {
        return Finding::not_applicable("No Pod of the cluster is behind an ExternalName Service.");
    }
    if let Some(why) = facts.why_unreadable("networkpolicies") {
        return Finding::unknown(
            Reason::ProbeFailed,
            format!("NetworkPolicies could not be read: {why}."),
        );
    }
    let (clients, role) = match Clients::of(facts) {
        Clients::Pods { pods, role } => (pods, role),
        Clients::NotGranted(_) => {
            return applicable::no_clients(facts)
                .unwrap_or_else(|| Finding::not_applicable("There are no clients."));
        }
    };
    let scene = Scene::new(facts, service, &clients, role);
    let ports = ports::judged(facts, service);
    let verdicts: Vec<(&ServicePort, PortVerdict)> =
        ports.iter().map(|p| (*p, scene.judge_port(p))).collect();
    let denied: Vec<(&ServicePort, &Denial)> = verdicts
        .iter()
        .filter_map(|(port, verdict)| match verdict {
            PortVerdict::Denied(denial) => Some((*port, denial)),
            _ => None,
        })
        .collect();
    let vantage = Vantage::of(facts);
    let mut unenforced = None;
    // What the policies say is held against what clients see, where any has tried.
    if let Some((finding, clients)) = scene.denied(&denied, verdicts.len()) {
        match policy_probes::to_the_service(facts, &vantage, &clients) {
            Probed::Passes => unenforced = Some(finding.message),
            Probed::Pending(pending) => return pending,
            Probed::Fails | Probed::Nobody => return finding,
        }
    }
    if let Some((finding, clients)) = scene.dns_denied(&ports) {
        match policy_probes::to_dns(&vantage, &clients) {
            Probed::Passes => unenforced = unenforced.or(Some(finding.message)),
            Probed::Pending(pending) => return pending,
            Probed::Fails | Probed::Nobody => return finding,
        }
    }
    if let Some(denial) = unenforced {
        return with_other_kinds(
            facts,
            Finding::yes(
                Reason::DeniedButNotEnforced,
                format!("{denial} But the traffic passes: the network plugin does not enforce the policies."),
            ),
        );
    }
    let has = |wanted: fn(&PortVerdict) -> bool| verdicts.iter().any(|(_, v)| wanted(v));
    let is_undecided = has(|v| matches!(v, PortVerdict::Undecided));
    let is_for_others =
        !verdicts.is_empty() && verdicts.iter().all(|(_, v)| matches!(v, PortVerdict::ForOthers));
    let probed = match policy_probes::to_the_service(facts, &vantage, &[]) {
        Probed::Pending(pending) if is_undecided => return pending,
        probed => probed,
    };
    let finding = if is_undecided && matches!(probed, Probed::Passes) {
        Finding::yes(
            Reason::Allowed,
            format!(
                "The policies {} let the clients through, as their dials show.",
                words::list(&scene.policy_names())
            ),
        )
    } else if is_undecided && matches!(probed, Probed::Fails) {
        Finding::unknown(
            Reason::ProbeFailed,
            format!(
                "A rule of {} admits a block of addresses (ipBlock) or a Namespace whose labels are not known; the clients' dials fail, which may be what the policies ask for.",
                words::list(&scene.policy_names())
            ),
        )
    } else if is_undecided {
        Finding::unknown(
            Reason::NoVantagePoint,
            "A rule admits a block of addresses (ipBlock) or a Namespace whose labels are not known; whether that holds for the clients' Pods, only a probe can tell.",
        )
    } else if is_for_others && matches!(probed, Probed::Passes) {
        Finding::yes(
            Reason::DeniedButNotEnforced,
            format!(
                "The policies {} admit others than the Pods that tried, and these get through all the same: the network plugin does not enforce the policies.",
                words::list(&scene.policy_names())
            ),
        )
    } else if is_for_others {
        Finding::unknown(
            Reason::NoClientPods,
            format!(
                "The policies admit others than the running Pods of namespace {}; name the clients in spec.clients.podSelector to have them judged.",
                scene.client_namespace
            ),
        )
    } else if scene.isolates_anybody() {
        Finding::yes(
            Reason::Allowed,
            format!(
                "The policies {} let the clients through.",
                words::list(&scene.policy_names())
            ),
        )
    } else {
        Finding::yes(
            Reason::NoPolicySelects,
            "No NetworkPolicy selects the Pods involved.",
        )
    };
    with_other_kinds(facts, finding)
}

/// Whether any policy isolates a Pod of the Service against others.
pub(in super::super) fn is_isolated(facts: &Facts, pod: &Pod) -> bool {
    let policies: Vec<&NetworkPolicy> = facts.policies.iter().map(AsRef::as_ref).collect();
    !policy::isolating(&policies, pod, Direction::Ingress).is_empty()
}

/// Whether policies may keep nodes away from endpoints, so that what nodes dial proves nothing.
pub(crate) fn may_keep_nodes_away(facts: &Facts) -> bool {
    let ready = facts.slices.iter().flat_map(|slice| slice.ready());
    let ready: BTreeSet<&str> = ready.filter_map(|(_, endpoint)| endpoint.pod_uid()).collect();
    let is_endpoint = |pod: &Pod| pod.metadata.uid.as_deref().is_some_and(|uid| ready.contains(uid));
    let mut pods = facts.pods.iter();
    !facts.other_policy_kinds.is_empty()
        || facts.why_unreadable("networkpolicies").is_some()
        || pods.any(|pod| is_endpoint(pod) && is_isolated(facts, pod))
}

/// Whether the policies keep a Pod, as namespace/name, away from cluster DNS.
pub(in super::super) fn is_cut_off_from_dns(facts: &Facts, key: &str) -> bool {
    let Some(service) = facts.service.as_deref() else {
        return false;
    };
    let others = facts.client_namespace.iter().flat_map(|n| &n.pods);
    let mut pods = facts.pods.iter().chain(others).map(AsRef::as_ref);
    pods.any(|pod: &Pod| {
        key == format!("{}/{}", pod.namespace(), pod.name()) && {
            let scene = Scene::new(facts, service, &[pod], Role::Candidate);
            scene.clients.iter().any(|c| scene.is_cut_off_from_dns(c))
        }
    })
}

/// Whether the policies keep a Pod from any endpoint, or may do so for all that can be told.
pub(in super::super) fn may_be_shut_out(facts: &Facts, pod: &Pod) -> bool {
    is_kept(facts, pod, |ways| ways.denied > 0 || ways.undecided > 0)
}

/// Whether the policies keep a Pod from any endpoint at a port that clients use. Such a Pod is no client:
/// that it does not get through is what somebody wanted.
pub(in super::super) fn shut_out(facts: &Facts, pod: &Pod) -> bool {
    is_kept(facts, pod, |ways| ways.denied > 0)
}

fn is_kept(facts: &Facts, pod: &Pod, is_kept: fn(&Ways) -> bool) -> bool {
    let Some(service) = facts.service.as_deref() else {
        return false;
    };
    let scene = Scene::new(facts, service, &[pod], Role::Candidate);
    ports::judged(facts, service).iter().any(|port| {
        let targets = scene.targets_of(port);
        scene.clients.iter().any(|c| is_kept(&scene.ways(c, &targets)))
    })
}

/// Policies of other kinds are not judged; the reader has to know that there may be some.
fn with_other_kinds(facts: &Facts, mut finding: Finding) -> Finding {
    if !facts.other_policy_kinds.is_empty() {
        let mut kinds: Vec<&str> = facts.other_policy_kinds.iter().map(String::as_str).collect();
        kinds.sort_unstable();
        finding.message.push_str(&format!(
            " The cluster also serves {}, which are not judged.",
            words::list(&kinds)
        ));
    }
    finding
}

struct Client<'a> {
    pod: &'a Pod,
    isolating: Vec<&'a NetworkPolicy>,
}

struct Scene<'a> {
    facts: &'a Facts,
    service: &'a Service,
    targets: Vec<Target<'a>>,
    clients: Vec<Client<'a>>,
    role: Role,
    client_namespace: &'a str,
    namespaces: BTreeMap<&'a str, &'a Labels>,
}

enum PortVerdict {
    Passes,
    Undecided,
    /// The policies admit others than the Pods at hand.
    ForOthers,
    Denied(Denial),
}

struct Denial {
    reason: Reason,
    policies: BTreeSet<String>,
    /// Whether some of the clients or endpoints are not concerned.
    partly: bool,
    /// Clients that are shut out, by name; empty when it is everybody.
    clients: Vec<String>,
}

/// How a client fares on its ways to all targets of a port.
struct Ways {
    total: usize,
    denied_in: BTreeSet<String>,
    denied_out: BTreeSet<String>,
    denied: usize,
    undecided: usize,
}

impl<'a> Scene<'a> {
    fn new(facts: &'a Facts, service: &'a Service, clients: &[&'a Pod], role: Role) -> Self {
        let policies: Vec<&NetworkPolicy> = facts.policies.iter().map(AsRef::as_ref).collect();
        let client = |pod: &&'a Pod| Client {
            pod,
            isolating: policy::isolating(&policies, pod, Direction::Egress),
        };
        Self {
            facts,
            service,
            targets: targets(facts, service, &policies),
            clients: clients.iter().map(client).collect(),
            role,
            client_namespace: Clients::namespace(facts),
            namespaces: facts.namespaces.iter().map(|n| (n.name(), n.labels())).collect(),
        }
    }

    fn isolates_anybody(&self) -> bool {
        self.targets.iter().any(|t| !t.isolating.is_empty())
            || self.clients.iter().any(|c| !c.isolating.is_empty())
    }

    fn policy_names(&self) -> Vec<&str> {
        let of_targets = self.targets.iter().flat_map(|t| &t.isolating);
        let names = of_targets
            .chain(self.clients.iter().flat_map(|c| &c.isolating))
            .map(|p| p.name());
        names.collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn end<'b>(&'b self, pod: Option<&'b Pod>, addresses: &'b [String]) -> End<'b> {
        let namespace_labels = pod.and_then(|p| self.namespaces.get(p.namespace()).copied());
        End {
            pod,
            namespace_labels,
            addresses,
        }
    }

    /// The number of a Service port on a target.
    fn number(&self, target: &Target, port: &ServicePort) -> Option<i32> {
        match target.pod {
            Some(pod) if self.service.has_selector() => {
                pod.resolve_port(&port.target_port(), port.protocol())
            }
            _ => {
                let of_slices = self.facts.slices.iter().flat_map(|s| &s.ports);
                of_slices
                    .filter(|p| p.name() == port.name() && p.protocol() == port.protocol())
                    .find_map(|p| p.port)
            }
        }
    }

    /// The targets that have a Service port, with its number there.
    fn targets_of<'b>(&'b self, port: &'b ServicePort) -> Vec<(&'b Target<'a>, Port<'b>)> {
        let numbered = |t| {
            Some((
                t,
                Port {
                    number: self.number(t, port)?,
                    protocol: port.protocol(),
                },
            ))
        };
        self.targets.iter().filter_map(numbered).collect()
    }

    fn judge_port(&self, port: &ServicePort) -> PortVerdict {
        let targets = self.targets_of(port);
        let shut: Vec<&Target> = targets
            .iter()
            .filter(|(t, p)| !policy::admits_anybody(&t.isolating, Direction::Ingress, *p, t.pod))
            .map(|(t, _)| *t)
            .collect();
        if !shut.is_empty() {
            return PortVerdict::Denied(Denial {
                reason: Reason::IngressDenied,
                policies: shut.iter().flat_map(|t| names(&t.isolating)).collect(),
                partly: shut.len() < targets.len(),
                clients: Vec::new(),
            });
        }
        let ways: Vec<(&Client, Ways)> = self.clients.iter().map(|c| (c, self.ways(c, &targets))).collect();
        let ways: Vec<&(&Client, Ways)> = ways.iter().filter(|(_, w)| w.total > 0).collect();
        match self.role {
            Role::Named => judge_named(&ways),
            Role::Candidate | Role::Endpoint => self.judge_candidates(&ways, &targets),
        }
    }

    /// Candidates stand for the clients: it is enough that one of them gets through.
    fn judge_candidates(&self, ways: &[&(&Client, Ways)], targets: &[(&Target, Port)]) -> PortVerdict {
        if ways.is_empty() {
            let isolated = targets.iter().any(|(t, _)| !t.isolating.is_empty());
            return if isolated {
                PortVerdict::ForOthers
            } else {
                PortVerdict::Passes
            };
        }
        if ways.iter().any(|(_, w)| w.denied == 0 && w.undecided == 0) {
            return PortVerdict::Passes;
        }
        if ways.iter().any(|(_, w)| w.denied == 0) {
            return PortVerdict::Undecided;
        }
        // What keeps the Service's own Pods from each other says nothing of its clients.
        if self.role == Role::Endpoint {
            return PortVerdict::ForOthers;
        }
        let partly: Vec<_> = ways.iter().filter(|(_, w)| w.denied < w.total).collect();
        if !partly.is_empty() {
            return PortVerdict::Denied(denial(partly.iter().map(|w| &***w), true));
        }
        let locked_in = |(client, ways): &(&Client, Ways)| {
            ways.denied_in.is_empty()
                && policy::is_closed_but_for(&client.isolating, Direction::Egress, DNS_PORT)
        };
        if !self.service.is_for_outside() && ways.iter().all(|w| locked_in(w)) {
            return PortVerdict::Denied(denial(ways.iter().copied(), false));
        }
        PortVerdict::ForOthers
    }

    fn ways(&self, client: &Client, targets: &[(&Target, Port)]) -> Ways {
        let mut ways = Ways {
            total: 0,
            denied_in: BTreeSet::new(),
            denied_out: BTreeSet::new(),
            denied: 0,
            undecided: 0,
        };
        for (target, port) in targets {
            let itself = target
                .pod
                .is_some_and(|p| p.metadata.uid == client.pod.metadata.uid);
            if itself && target.pods == 1 {
                // No policy keeps a Pod from itself.
                continue;
            }
            let addresses: Vec<String> = target
                .addresses
                .iter()
                .chain(&self.service.spec.cluster_ips)
                .cloned()
                .collect();
            let from = self.end(Some(client.pod), &[]);
            let into = policy::access(&target.isolating, Direction::Ingress, from, *port, target.pod);
            let to = self.end(target.pod, &addresses);
            let out = policy::access(&client.isolating, Direction::Egress, to, *port, target.pod);
            ways.total += 1;
            if into == Access::Denied {
                ways.denied_in.extend(names(&target.isolating));
            } else if out == Access::Denied {
                ways.denied_out.extend(names(&client.isolating));
            }
            if into == Access::Denied || out == Access::Denied {
                ways.denied += 1;
            } else if !(into.passes() && out.passes()) {
                ways.undecided += 1;
            }
        }
        ways
    }

    /// What is denied, and the clients that it is denied to, as namespace/name; none when it is everybody.
    fn denied(&self, denied: &[(&ServicePort, &Denial)], ports: usize) -> Option<(Finding, Vec<String>)> {
        let by_precedence = [Reason::IngressDenied, Reason::EgressDenied];
        let (port, denial) = by_precedence
            .iter()
            .find_map(|r| denied.iter().find(|(_, d)| d.reason == *r))?;
        let all = denied.len() == ports && denied.iter().all(|(_, d)| !d.partly);
        let policies: Vec<&String> = denial.policies.iter().collect();
        let who = match denial.clients.as_slice() {
            [] => "anybody".to_owned(),
            clients => format!("{} of namespace {}", words::list(clients), self.client_namespace),
        };
        let policy = words::list(&policies);
        let on_port = port.describe();
        let target = port.target_port();
        let selector = super::super::near_miss::selector(&self.service.spec.selector);
        let (message, namespace, fix) = match denial.reason {
            Reason::IngressDenied => (
                format!(
                    "NetworkPolicy {policy} does not admit {who} to the {}Pods of port {on_port}.",
                    if denial.partly { "some of the " } else { "" }
                ),
                &*self.facts.namespace,
                format!(
                    "an ingress rule for the clients, to port {target} of the Pods (not port {} of the Service)",
                    port.port
                ),
            ),
            _ => (
                format!("NetworkPolicy {policy} does not let {who} out to the Pods of port {on_port}."),
                self.client_namespace,
                format!(
                    "an egress rule to the Pods {selector}, port {target} (not port {} of the Service)",
                    port.port
                ),
            ),
        };
        let first = policies.first().map(|p| p.as_str()).unwrap_or_default();
        let remediation = format!("Add {fix}: `kubectl -n {namespace} edit networkpolicy {first}`.");
        let finding = if all {
            Finding::nothing_works(denial.reason, message, remediation)
        } else {
            Finding::part_fails(denial.reason, message, remediation)
        };
        let keys = denial
            .clients
            .iter()
            .map(|name| format!("{}/{name}", self.client_namespace));
        Some((finding, keys.collect()))
    }

    /// Clients that get to the Service but not to cluster DNS, so that they never find it.
    fn dns_denied(&self, ports: &[&ServicePort]) -> Option<(Finding, Vec<String>)> {
        let asks_dns = |c: &&Client| {
            c.pod
                .spec
                .dns_policy
                .as_deref()
                .is_none_or(|p| p.starts_with("ClusterFirst"))
        };
        let gets_through = |c: &&Client| {
            ports
                .iter()
                .any(|p| self.ways(c, &self.targets_of(p)).denied == 0)
        };
        let clients: Vec<&Client> = self
            .clients
            .iter()
            .filter(asks_dns)
            .filter(gets_through)
            .collect();
        let shut_out: Vec<&Client> = clients
            .iter()
            .copied()
            .filter(|c| self.is_cut_off_from_dns(c))
            .collect();
        let counts = match self.role {
            Role::Named => true,
            Role::Candidate => shut_out.len() == clients.len(),
            Role::Endpoint => false,
        };
        if shut_out.is_empty() || !counts {
            return None;
        }
        let policies: BTreeSet<String> = shut_out.iter().flat_map(|c| names(&c.isolating)).collect();
        let policies: Vec<String> = policies.into_iter().collect();
        let who: Vec<&str> = shut_out.iter().map(|c| c.pod.name()).collect();
        let message = format!(
            "NetworkPolicy {} does not let {} of namespace {} out to cluster DNS (UDP port {DNS_PORT}); they cannot look the Service up.",
            words::list(&policies),
            words::list(&who),
            self.client_namespace
        );
        let remediation = format!(
            "Add an egress rule to UDP and TCP port {DNS_PORT} of cluster DNS: `kubectl -n {} edit networkpolicy {}`.",
            self.client_namespace,
            policies.first().map(String::as_str).unwrap_or_default()
        );
        let finding = if shut_out.len() == clients.len() {
            Finding::nothing_works(Reason::EgressToDNSDenied, message, remediation)
        } else {
            Finding::part_fails(Reason::EgressToDNSDenied, message, remediation)
        };
        let keys = who.iter().map(|name| format!("{}/{name}", self.client_namespace));
        Some((finding, keys.collect()))
    }

    /// Whether for sure no query leaves the client. A rule for a block of addresses may mean a DNS
    /// cache on the node, or a server outside the cluster.
    fn is_cut_off_from_dns(&self, client: &Client) -> bool {
        let port = |number| Port {
            number,
            protocol: "UDP",
        };
        if client.isolating.is_empty()
            || policy::admits_a_block(&client.isolating, Direction::Egress, port(DNS_PORT))
        {
            return false;
        }
        let Some(dns) = self.facts.cluster_dns.as_ref().filter(|dns| !dns.pods.is_empty()) else {
            return !policy::admits_anybody(&client.isolating, Direction::Egress, port(DNS_PORT), None);
        };
        dns.pods.iter().all(|pod| {
            let to = self.end(Some(pod), &dns.service.spec.cluster_ips);
            let targets = dns.service.spec.ports.iter().filter(|p| p.protocol() == "UDP");
            let numbers = targets
                .filter_map(|p| pod.resolve_port(&p.target_port(), "UDP"))
                .chain([DNS_PORT]);
            numbers.into_iter().all(|number| {
                policy::access(&client.isolating, Direction::Egress, to, port(number), Some(pod))
                    == Access::Denied
            })
        })
    }
}

/// The user named the clients: each of them has to get through.
fn judge_named(ways: &[&(&Client, Ways)]) -> PortVerdict {
    let denied: Vec<_> = ways.iter().copied().filter(|(_, w)| w.denied > 0).collect();
    if denied.is_empty() {
        let undecided = ways.iter().any(|(_, w)| w.undecided > 0);
        return if undecided {
            PortVerdict::Undecided
        } else {
            PortVerdict::Passes
        };
    }
    let partly = denied.len() < ways.len() || denied.iter().any(|(_, w)| w.denied < w.total);
    PortVerdict::Denied(denial(denied.into_iter(), partly))
}

fn denial<'a, 'b: 'a>(
    ways: impl Iterator<Item = &'a (&'b Client<'b>, Ways)> + Clone,
    partly: bool,
) -> Denial {
    let ingress: BTreeSet<String> = ways
        .clone()
        .flat_map(|(_, w)| w.denied_in.iter().cloned())
        .collect();
    let (reason, policies) = if ingress.is_empty() {
        (
            Reason::EgressDenied,
            ways.clone()
                .flat_map(|(_, w)| w.denied_out.iter().cloned())
                .collect(),
        )
    } else {
        (Reason::IngressDenied, ingress)
    };
    Denial {
        reason,
        policies,
        partly,
        clients: ways.map(|(c, _)| c.pod.name().to_owned()).collect(),
    }
}

fn names(policies: &[&NetworkPolicy]) -> Vec<String> {
    policies.iter().map(|p| p.name().to_owned()).collect()
}
