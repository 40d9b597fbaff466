//! Who gets through, by what the policies say alone.
//!
//! A [`PolicyView`] holds the Pods behind a Service against its clients, each with the policies that isolate it, and
//! follows the routes from a client to all targets of a port. `policy_ports` and `policy_dns` say what that means
//! for the clients; whether a denial is a fault, `network_policy_allows` says.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Facts,
    clients::{Clients, Role},
    policies::{
        mismatch::{Mismatch, nearest},
        rules::{self, Access, Direction, End, Front, Port},
        targets::{Target, targets},
    },
};
use svcdiag_objects::{Labels, NetworkPolicy, Object, Pod, Service, ServicePort};

/// A client, with the policies that isolate it.
pub(crate) struct Client<'a> {
    pub pod: &'a Pod,
    pub isolating: Vec<&'a NetworkPolicy>,
}

/// The Pods behind a Service, and its clients.
pub(crate) struct PolicyView<'a> {
    pub facts: &'a Facts,
    pub service: &'a Service,
    pub targets: Vec<Target<'a>>,
    pub clients: Vec<Client<'a>>,
    pub role: Role,
    pub client_namespace: &'a str,
    namespaces: BTreeMap<&'a str, &'a Labels>,
}

/// How a client fares on its routes to all targets of a port.
#[derive(Default)]
pub(crate) struct Routes {
    pub total: usize,
    /// Routes that no rule admits.
    pub denied: usize,
    /// Routes that a rule may admit, which most network plugins take for one that does not.
    pub doubtful: usize,
    /// Routes that a rule may admit.
    pub undecided: usize,
    /// What is in the way into targets.
    pub into: Closed,
    /// What is in the way out of the client.
    pub out: Closed,
}

/// Policies that let nothing through.
#[derive(Clone, Default)]
pub(crate) struct Closed {
    /// Their names.
    pub policies: BTreeSet<String>,
    /// What the rule lacks that comes nearest to letting it through.
    pub mismatch: Option<Mismatch>,
}

impl Routes {
    /// Whether the client gets to all targets for sure.
    pub(crate) fn pass(&self) -> bool {
        self.denied + self.doubtful + self.undecided == 0
    }

    /// Whether the policies keep the client from a target, as far as anybody can tell.
    pub(crate) fn are_closed(&self) -> bool {
        self.denied + self.doubtful > 0
    }
}

impl<'a> PolicyView<'a> {
    /// The view of a Service and some Pods that use it.
    pub(crate) fn new(facts: &'a Facts, service: &'a Service, clients: &[&'a Pod], role: Role) -> Self {
        let policies: Vec<&NetworkPolicy> = facts.policies.iter().map(AsRef::as_ref).collect();
        let client = |pod: &&'a Pod| Client {
            pod,
            isolating: rules::isolating(&policies, pod, Direction::Egress),
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
    pub(crate) fn isolates_anybody(&self) -> bool {
        self.targets.iter().any(|t| !t.isolating.is_empty())
            || self.clients.iter().any(|c| !c.isolating.is_empty())
    }

    /// The policies that isolate somebody here, by name.
    pub(crate) fn policy_names(&self) -> Vec<&str> {
        let of_targets = self.targets.iter().flat_map(|t| &t.isolating);
        let names = of_targets
            .chain(self.clients.iter().flat_map(|c| &c.isolating))
            .map(|p| p.name());
        names.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// A Pod as the other end of a connection.
    pub(crate) fn end_of(&self, pod: &'a Pod) -> End<'a> {
        End {
            pod: Some(pod),
            namespace_labels: self.namespaces.get(pod.namespace()).copied(),
            addresses: &[],
            front: None,
        }
    }

    /// The number of a Service port on a target.
    fn number(&self, target: &Target, port: &ServicePort) -> Option<i32> {
        match target.pod {
            Some(pod) if self.service.has_selector() => pod.resolve_port(&port.target_port(), &port.protocol),
            _ => {
                let of_slices = self.facts.slices.iter().flat_map(|s| &s.ports);
                of_slices
                    .filter(|p| p.name() == port.name() && p.protocol == port.protocol)
                    .find_map(|p| p.port)
            }
        }
    }

    /// The targets that have a Service port, with its number there.
    pub(crate) fn targets_of<'b>(&'b self, port: &'b ServicePort) -> Vec<(&'b Target<'a>, Port<'b>)> {
        let numbered = |t| {
            Some((
                t,
                Port {
                    number: self.number(t, port)?,
                    protocol: &port.protocol,
                },
            ))
        };
        self.targets.iter().filter_map(numbered).collect()
    }

    /// How a client fares on its routes to the targets of a Service port.
    pub(crate) fn routes(&self, client: &Client<'a>, service_port: &ServicePort) -> Routes {
        let front = (!self.service.is_headless()).then(|| front_port(service_port));
        let mut routes = Routes::default();
        for (target, port) in self.targets_of(service_port) {
            let is_itself = target
                .pod
                .is_some_and(|p| p.name() == client.pod.name() && p.namespace() == client.pod.namespace());
            if is_itself && target.pods == 1 {
                // No policy keeps a Pod from itself.
                continue;
            }
            routes.total += 1;
            // A node always gets to its own Pods.
            let is_of_its_node = client.pod.is_host_network() && target.node.is_some();
            if is_of_its_node && target.node == client.pod.spec.node_name.as_deref() {
                continue;
            }
            let from = self.end_of(client.pod);
            let to = End {
                front: front.map(|port| Front {
                    addresses: &self.service.spec.cluster_ips,
                    port,
                }),
                ..match target.pod {
                    Some(pod) => self.end_of(pod),
                    None => End {
                        pod: None,
                        namespace_labels: None,
                        addresses: &target.addresses,
                        front: None,
                    },
                }
            };
            let into = rules::access(&target.isolating, Direction::Ingress, from, port, target.pod);
            let out = rules::access(&client.isolating, Direction::Egress, to, port, target.pod);
            let closed_in = is_closed(into);
            let closed_out = is_closed(out);
            if into == Access::Denied || out == Access::Denied {
                routes.denied += 1;
            } else if closed_in || closed_out {
                routes.doubtful += 1;
            } else if !(into.passes() && out.passes()) {
                routes.undecided += 1;
            }
            let (closed, isolating, direction, other) = if closed_in {
                (&mut routes.into, &target.isolating, Direction::Ingress, from)
            } else if closed_out {
                (&mut routes.out, &client.isolating, Direction::Egress, to)
            } else {
                continue;
            };
            closed.policies.extend(names(isolating));
            if closed.mismatch.is_none() {
                closed.mismatch = nearest(isolating, direction, Some(other), port, front, target.pod);
            }
        }
        routes
    }
}

/// A port as clients of the Service dial it.
pub(crate) fn front_port(port: &ServicePort) -> Port<'_> {
    Port {
        number: port.port,
        protocol: &port.protocol,
    }
}

/// Whether most network plugins, or all, let nothing through.
fn is_closed(access: Access) -> bool {
    match access {
        Access::Denied => true,
        Access::Undecided(doubt) => doubt.is_mostly_denied(),
        Access::Admitted | Access::Free => false,
    }
}

/// Names of policies.
pub(crate) fn names(policies: &[&NetworkPolicy]) -> Vec<String> {
    policies.iter().map(|p| p.name().to_owned()).collect()
}
