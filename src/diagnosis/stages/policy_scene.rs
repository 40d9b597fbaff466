//! Who gets through, by what the policies say alone.
//!
//! A [`Scene`] holds the Pods behind a Service against its clients, each with the policies that isolate it.
//! It judges the ways from every client to every target of a port, and to cluster DNS; whether a denial is a
//! fault, `network_policy_allows` says.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{
        Facts,
        clients::{Clients, Role},
        policy::{self, Access, Direction, End, Port},
        ports,
    },
    policy_targets::{Target, targets},
};
use crate::{
    api::Reason,
    objects::{Labels, NetworkPolicy, Object, Pod, Service, ServicePort},
};

/// Port of DNS.
pub(super) const DNS_PORT: i32 = 53;

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

/// A client, with the policies that isolate it.
pub(super) struct Client<'a> {
    pub pod: &'a Pod,
    pub isolating: Vec<&'a NetworkPolicy>,
}

/// The Pods behind a Service, and its clients.
pub(super) struct Scene<'a> {
    pub facts: &'a Facts,
    pub service: &'a Service,
    pub targets: Vec<Target<'a>>,
    pub clients: Vec<Client<'a>>,
    pub role: Role,
    pub client_namespace: &'a str,
    pub namespaces: BTreeMap<&'a str, &'a Labels>,
}

/// Whether the clients get to a port.
pub(super) enum PortVerdict {
    Passes,
    Undecided,
    /// The policies admit others than the Pods at hand.
    ForOthers,
    Denied(Denial),
}

/// What is denied, by whom, and to whom.
pub(super) struct Denial {
    pub reason: Reason,
    pub policies: BTreeSet<String>,
    /// Whether some of the clients or endpoints are not concerned.
    pub partly: bool,
    /// Clients that are shut out, by name; empty when it is everybody.
    pub clients: Vec<String>,
}

/// How a client fares on its ways to all targets of a port.
pub(super) struct Ways {
    pub total: usize,
    pub denied_in: BTreeSet<String>,
    pub denied_out: BTreeSet<String>,
    pub denied: usize,
    pub undecided: usize,
}

impl<'a> Scene<'a> {
    /// The scene of a Service and some Pods that use it.
    pub(super) fn new(facts: &'a Facts, service: &'a Service, clients: &[&'a Pod], role: Role) -> Self {
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

    /// Whether any policy isolates anybody here.
    pub(super) fn isolates_anybody(&self) -> bool {
        self.targets.iter().any(|t| !t.isolating.is_empty())
            || self.clients.iter().any(|c| !c.isolating.is_empty())
    }

    /// The policies that isolate somebody here, by name.
    pub(super) fn policy_names(&self) -> Vec<&str> {
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
    pub(super) fn targets_of<'b>(&'b self, port: &'b ServicePort) -> Vec<(&'b Target<'a>, Port<'b>)> {
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

    /// Whether the clients get to a port of the Service.
    pub(super) fn judge_port(&self, port: &ServicePort) -> PortVerdict {
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

    /// How a client fares on its ways to some targets.
    pub(super) fn ways(&self, client: &Client, targets: &[(&Target, Port)]) -> Ways {
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

    /// Whether for sure no query leaves the client. A rule for a block of addresses may mean a DNS
    /// cache on the node, or a server outside the cluster.
    pub(super) fn is_cut_off_from_dns(&self, client: &Client) -> bool {
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

/// Names of policies.
pub(super) fn names(policies: &[&NetworkPolicy]) -> Vec<String> {
    policies.iter().map(|p| p.name().to_owned()).collect()
}
