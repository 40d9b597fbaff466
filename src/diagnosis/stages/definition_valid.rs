//! Is the Service defined correctly?

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{
    super::{Facts, Finding, ports, words},
    protocol_mismatch,
};
use crate::{
    api::{Impact, PortRef, Reason},
    objects::{IntOrString, Object, Pod, Service, ServicePort},
};

pub(super) fn judge(facts: &Facts) -> Finding {
    let Some(service) = facts.service.as_deref() else {
        return Finding::not_applicable("There is no Service.");
    };
    let subject = Subject {
        facts,
        service,
        ports: ports::judged(facts, service),
        pods: facts
            .selected_pods()
            .into_iter()
            .filter(|p| !p.is_terminating())
            .collect(),
    };
    // In the order of precedence; a fault that leaves nothing working explains more than one of a part.
    let faults: Vec<Finding> = [
        subject.port_not_listed(),
        subject.numeric_target_port_name(),
        subject.named_port_not_found(),
        subject.named_port_missing_on_some_pods(),
        protocol_mismatch::judge(facts, service, &subject.ports),
        subject.ip_family_mismatch(),
        subject.external_name_is_ip(),
        subject.manual_endpoints_port_mismatch(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let worst = faults.iter().position(Finding::leaves_nothing).unwrap_or(0);
    if let Some(fault) = faults.into_iter().nth(worst) {
        return fault;
    }
    let hints = subject.hints();
    if hints.is_empty() {
        return Finding::yes(Reason::Valid, "The definition of the Service is consistent.");
    }
    Finding::yes(
        Reason::ValidWithHints,
        format!("Nothing is wrong, but: {}.", hints.join("; ")),
    )
}

struct Subject<'a> {
    facts: &'a Facts,
    service: &'a Service,
    /// The Service's ports that clients use.
    ports: Vec<&'a ServicePort>,
    /// Selected Pods that are here to stay.
    pods: Vec<&'a Pod>,
}

impl Subject<'_> {
    /// The command that opens the Service in an editor.
    fn edit(&self) -> String {
        format!(
            "`kubectl -n {} edit service {}`",
            self.facts.namespace,
            self.service.name()
        )
    }

    /// A fault of these ports; of the whole Service, if clients use no others.
    fn fault(&self, of: usize, reason: Reason, message: String, remediation: String) -> Finding {
        if of >= self.ports.len() {
            Finding::nothing_works(reason, message, remediation)
        } else {
            Finding::part_fails(reason, message, remediation)
        }
    }

    /// Whether ports are translated at all: an ExternalName has none, and behind a headless
    /// Service clients dial whatever port of the Pods they like.
    fn translates_ports(&self) -> bool {
        !self.service.is_external_name() && !self.service.is_headless()
    }

    fn port_not_listed(&self) -> Option<Finding> {
        if self.service.is_external_name() {
            return None;
        }
        let by_name_only = self.service.is_headless();
        let unlisted: Vec<String> = ports::unlisted(self.facts, self.service)
            .into_iter()
            .filter(|w| !by_name_only || matches!(w, PortRef::String(_)))
            .map(ports::text)
            .collect();
        if unlisted.is_empty() {
            return None;
        }
        let listed: Vec<String> = self
            .service
            .spec
            .ports
            .iter()
            .map(ServicePort::describe)
            .collect();
        let listed = if listed.is_empty() {
            "no port".to_owned()
        } else {
            words::list(&listed)
        };
        let impact = if self.ports.is_empty() {
            Impact::All
        } else {
            Impact::Some
        };
        let message = format!(
            "Clients use port {}, but the Service lists {listed}.",
            words::list(&unlisted)
        );
        let remediation = format!(
            "Add the port to spec.ports of the Service ({}), or let the clients use a listed port and correct spec.ports of the ServiceDiagnosis.",
            self.edit()
        );
        Some(match impact {
            Impact::All => Finding::nothing_works(Reason::PortNotListed, message, remediation),
            Impact::Some => Finding::part_fails(Reason::PortNotListed, message, remediation),
        })
    }

    /// Ports whose target is a name, with that name.
    fn named_targets(&self) -> Vec<(&ServicePort, String)> {
        if !self.service.has_selector() || !self.translates_ports() {
            return Vec::new();
        }
        let named = self.ports.iter().filter_map(|p| match p.target_port() {
            IntOrString::String(name) => Some((*p, name)),
            IntOrString::Int(_) => None,
        });
        named.collect()
    }

    fn numeric_target_port_name(&self) -> Option<Finding> {
        let numeric: Vec<_> = self
            .named_targets()
            .into_iter()
            .filter(|(_, name)| is_number(name))
            .collect();
        let (port, name) = numeric.first()?;
        Some(self.fault(
            numeric.len(),
            Reason::NumericTargetPortName,
            format!(
                "targetPort of port {} is the string \"{name}\", which asks for a port of that name; the number {name} was probably meant.",
                port.describe()
            ),
            format!("Remove the quotes around targetPort: {}.", self.edit()),
        ))
    }

    fn named_port_not_found(&self) -> Option<Finding> {
        if self.pods.is_empty() {
            return None;
        }
        let missing: Vec<_> = self
            .named_targets()
            .into_iter()
            .filter(|(_, name)| !is_number(name))
            .filter(|(port, name)| !self.pods.iter().any(|pod| has_port(pod, name, port)))
            .collect();
        let (port, name) = missing.first()?;
        let known: BTreeSet<String> = self
            .pods
            .iter()
            .flat_map(|p| p.long_running())
            .flat_map(|c| &c.ports)
            .filter_map(|p| {
                Some(format!(
                    "{} ({}/{})",
                    p.name.as_ref()?,
                    p.container_port,
                    p.protocol()
                ))
            })
            .collect();
        let known: Vec<String> = known.into_iter().collect();
        let known = match known.is_empty() {
            true => "they name no ports".to_owned(),
            false => format!("they name {}", words::list(&known)),
        };
        Some(self.fault(
            missing.len(),
            Reason::NamedPortNotFound,
            format!(
                "targetPort of port {} is \"{name}\", but none of the {} that the Service selects has a {} port of that name; {known}.",
                port.describe(),
                words::count(self.pods.len(), "Pod"),
                port.protocol()
            ),
            format!(
                "Name the containers' port {name} in the Pod template, or set targetPort to a port that the Pods have: {}.",
                self.edit()
            ),
        ))
    }

    /// Pods of different revisions may differ, since a rollout changes them; Pods of one may not.
    fn named_port_missing_on_some_pods(&self) -> Option<Finding> {
        let mut revisions: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
        for pod in &self.pods {
            revisions.entry(revision(pod)).or_default().push(pod);
        }
        for (port, name) in self.named_targets() {
            for pods in revisions.values() {
                let (with, without): (Vec<&Pod>, Vec<&Pod>) =
                    pods.iter().partition(|pod| has_port(pod, &name, port));
                if with.is_empty() || without.is_empty() {
                    continue;
                }
                let names: Vec<&str> = without.iter().map(|p| p.name()).collect();
                return Some(Finding::part_fails(
                    Reason::NamedPortMissingOnSomePods,
                    format!(
                        "targetPort of port {} is \"{name}\", but {} of {} Pods of one revision have no {} port of that name: {}. They get no traffic for it.",
                        port.describe(),
                        without.len(),
                        pods.len(),
                        port.protocol(),
                        words::list(&names)
                    ),
                    format!(
                        "Make the Pods alike: name the port in all of them, or delete those without it so that they are made anew: `kubectl -n {} delete pod {}`.",
                        self.facts.namespace,
                        names.join(" ")
                    ),
                ));
            }
        }
        None
    }

    fn ip_family_mismatch(&self) -> Option<Finding> {
        let families = self.families();
        let have: BTreeSet<&str> = if self.service.has_selector() {
            self.pods
                .iter()
                .flat_map(|p| p.ips())
                .filter_map(family)
                .collect()
        } else {
            let used = self.facts.slices.iter().filter(|s| !s.endpoints.is_empty());
            used.map(|s| s.address_type.as_str())
                .filter(|t| *t == "IPv4" || *t == "IPv6")
                .collect()
        };
        if self.service.is_external_name()
            || families.is_empty()
            || have.is_empty()
            || !families.is_disjoint(&have)
        {
            return None;
        }
        let (wants, has) = (join(&families), join(&have));
        let whose = if self.service.has_selector() {
            "its Pods have"
        } else {
            "its EndpointSlices hold"
        };
        Some(Finding::nothing_works(
            Reason::IPFamilyMismatch,
            format!("The Service is {wants} only, but {whose} {has} addresses only."),
            format!(
                "Create the Service anew with ipFamilies [{has}] (the first family of a Service cannot be changed): \
                 `kubectl -n {ns} get service {name} -o yaml > {name}.yaml`, edit ipFamilies and remove clusterIP and clusterIPs, `kubectl replace --force -f {name}.yaml`.",
                ns = self.facts.namespace,
                name = self.service.name()
            ),
        ))
    }

    /// IP families of the Service, by its declaration or else by its addresses.
    fn families(&self) -> BTreeSet<&str> {
        let spec = &self.service.spec;
        if spec.ip_families.is_empty() {
            spec.cluster_ips.iter().filter_map(|ip| family(ip)).collect()
        } else {
            spec.ip_families.iter().map(String::as_str).collect()
        }
    }

    fn external_name_is_ip(&self) -> Option<Finding> {
        let name = self.service.spec.external_name.as_deref()?;
        if !self.service.is_external_name() || name.parse::<IpAddr>().is_err() {
            return None;
        }
        Some(Finding::nothing_works(
            Reason::ExternalNameIsIP,
            format!(
                "externalName is the address {name}; DNS would answer with a CNAME to a host of that name, which does not exist."
            ),
            format!(
                "Put a host name into externalName, or make it a Service without selector and give the address in an EndpointSlice: {}.",
                self.edit()
            ),
        ))
    }

    fn manual_endpoints_port_mismatch(&self) -> Option<Finding> {
        if self.service.has_selector() || !self.translates_ports() {
            return None;
        }
        let slices: Vec<_> = self
            .facts
            .slices
            .iter()
            .filter(|s| !s.endpoints.is_empty())
            .collect();
        if slices.is_empty() {
            return None;
        }
        let unmatched: Vec<_> = self
            .ports
            .iter()
            .filter(|port| {
                let same = |p: &&crate::objects::EndpointPort| {
                    p.name() == port.name() && p.protocol() == port.protocol()
                };
                !slices.iter().any(|s| s.ports.iter().any(|p| same(&p)))
            })
            .collect();
        let port = unmatched.first()?;
        let have: BTreeSet<String> = slices
            .iter()
            .flat_map(|s| &s.ports)
            .map(|p| format!("\"{}\"/{}", p.name(), p.protocol()))
            .collect();
        let have: Vec<String> = have.into_iter().collect();
        let have = if have.is_empty() {
            "no port".to_owned()
        } else {
            words::list(&have)
        };
        let mut names: Vec<&str> = slices.iter().map(|s| s.name()).collect();
        names.sort_unstable();
        Some(self.fault(
            unmatched.len(),
            Reason::ManualEndpointsPortMismatch,
            format!(
                "The Service's port is \"{}\"/{}, but EndpointSlice {} has {have}; kube-proxy pairs them by name and protocol.",
                port.name(),
                port.protocol(),
                words::list(&names)
            ),
            format!(
                "Give the port of the EndpointSlice the name \"{}\" and the protocol {}: `kubectl -n {} edit endpointslice {}`.",
                port.name(),
                port.protocol(),
                self.facts.namespace,
                names.first().copied().unwrap_or_default()
            ),
        ))
    }

    /// What is odd but works, or cannot be judged from here.
    fn hints(&self) -> Vec<String> {
        let mut hints = Vec::new();
        let service = self.service;
        if service.is_headless() {
            for wanted in ports::unlisted(self.facts, service) {
                hints.push(format!(
                    "port {} is not listed, which a headless Service does not need",
                    ports::text(wanted)
                ));
            }
            for port in self
                .ports
                .iter()
                .filter(|p| matches!(p.target_port(), IntOrString::Int(t) if t != p.port))
            {
                hints.push(format!(
                    "a headless Service does not translate ports: clients have to dial {}, not {}",
                    port.target_port(),
                    port.port
                ));
            }
        }
        for port in &self.ports {
            hints.extend(self.undeclared(port));
        }
        if service.spec.type_.as_deref() == Some("LoadBalancer")
            && service.status.load_balancer.ingress.is_empty()
        {
            hints.push(
                "the load balancer has no address yet, so that clients from outside cannot use it".to_owned(),
            );
        }
        let families = self.families();
        let have: BTreeSet<&str> = self
            .pods
            .iter()
            .flat_map(|p| p.ips())
            .filter_map(family)
            .collect();
        let lacking: BTreeSet<&str> = families.difference(&have).copied().collect();
        if !have.is_empty() && !lacking.is_empty() {
            hints.push(format!(
                "no Pod has an {} address, so that the Service does not work over it",
                join(&lacking)
            ));
        }
        hints
    }

    /// Declared ports that differ from the target port. Declarations are informative only.
    fn undeclared(&self, port: &ServicePort) -> Option<String> {
        let IntOrString::Int(target) = port.target_port() else {
            return None;
        };
        let pod = self
            .pods
            .iter()
            .find(|p| p.long_running().any(|c| !c.ports.is_empty()))?;
        let declared: Vec<_> = pod.long_running().flat_map(|c| &c.ports).collect();
        if declared
            .iter()
            .any(|d| d.container_port == target && d.protocol() == port.protocol())
        {
            return None;
        }
        if let Some(other) = declared.iter().find(|d| d.container_port == target) {
            return Some(format!(
                "port {} is {}, but the Pods declare {target}/{}",
                port.describe(),
                port.protocol(),
                other.protocol()
            ));
        }
        let declared: Vec<String> = declared
            .iter()
            .map(|d| format!("{}/{}", d.container_port, d.protocol()))
            .collect();
        Some(format!(
            "targetPort {target} is not among the declared container ports {}",
            words::list(&declared)
        ))
    }
}

fn has_port(pod: &Pod, name: &str, port: &ServicePort) -> bool {
    pod.resolve_port(&IntOrString::String(name.to_owned()), port.protocol())
        .is_some()
}

/// What Pods that were made from one template share: the ReplicaSet, or the revision of a
/// StatefulSet or DaemonSet. Pods that nobody controls count as one revision.
fn revision(pod: &Pod) -> &str {
    let hash = pod.labels().get("controller-revision-hash").map(String::as_str);
    hash.or_else(|| pod.controller_uid()).unwrap_or_default()
}

fn is_number(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit())
}

fn family(ip: &str) -> Option<&'static str> {
    Some(match ip.parse().ok()? {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    })
}

fn join(families: &BTreeSet<&str>) -> String {
    families.iter().copied().collect::<Vec<_>>().join(" and ")
}
