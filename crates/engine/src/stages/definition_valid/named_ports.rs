//! Ports of Pods that a Service asks for by name.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::{
    Finding,
    pods::{restart, state::rolling_out_until},
    stages::definition_valid::subject::Subject,
    text,
};
use svcdiag_api::Reason;
use svcdiag_objects::{IntOrString, Object, Pod, ServicePort};

impl Subject<'_> {
    /// Ports whose target is a name, with that name.
    pub(super) fn named_targets(&self) -> Vec<(&ServicePort, String)> {
        if !self.service.has_selector() || !self.translates_ports() {
            return Vec::new();
        }
        let named = self.ports.iter().filter_map(|p| match p.target_port() {
            IntOrString::String(name) => Some((*p, name)),
            IntOrString::Int(_) => None,
        });
        named.collect()
    }

    pub(super) fn numeric_target_port_name(&self) -> Option<Finding> {
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
                "targetPort of Service port {} is the string \"{name}\", which refers to a container port of that name. The number {name} was probably meant.",
                port.describe()
            ),
            format!("Remove the quotes around targetPort: {}.", self.edit()),
        ))
    }

    /// Ports whose target no Pod has a port of that name for.
    fn named_nowhere(&self) -> Vec<(&ServicePort, String)> {
        if self.pods.is_empty() {
            return Vec::new();
        }
        self.named_targets()
            .into_iter()
            .filter(|(_, name)| !is_number(name))
            .filter(|(port, name)| !self.pods.iter().any(|pod| has_port(pod, name, port)))
            .collect()
    }

    /// The same while a rollout is under way, whose new Pods may have the port; and until when it may take.
    pub(super) fn named_port_awaited(&self) -> Option<(String, Timestamp)> {
        let rollouts = self.pods.iter().filter_map(|p| rolling_out_until(self.facts, p));
        let until = rollouts.min()?;
        let nowhere = self.named_nowhere();
        let (port, name) = nowhere.first()?;
        let hint = format!(
            "targetPort of Service port {} is \"{name}\", which no Pod has yet while a rollout is under way",
            port.describe()
        );
        Some((hint, until))
    }

    pub(super) fn named_port_not_found(&self) -> Option<Finding> {
        if self.named_port_awaited().is_some() {
            return None;
        }
        let missing = self.named_nowhere();
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
                    p.protocol
                ))
            })
            .collect();
        let known: Vec<String> = known.into_iter().collect();
        let known = match known.is_empty() {
            true => "They have no named ports.".to_owned(),
            false => format!("Their named ports: {}.", text::list(&known)),
        };
        Some(self.fault(
            missing.len(),
            Reason::NamedPortNotFound,
            format!(
                "targetPort of Service port {} is \"{name}\", but {} a {} port of that name. {known}",
                port.describe(),
                match self.pods.len() {
                    1 => "the only Pod that the Service selects does not have".to_owned(),
                    n => format!("{} Pods that the Service selects has", text::none_of(n)),
                },
                port.protocol
            ),
            format!(
                "Give a container port the name \"{name}\" in the Pod template, or set targetPort to a port that the Pods have: {}.",
                self.edit()
            ),
        ))
    }

    /// Pods of different revisions may differ, since a rollout changes them; Pods of one may not.
    pub(super) fn named_port_missing_on_some_pods(&self) -> Option<Finding> {
        let mut revisions: BTreeMap<(&str, &str), Vec<&Pod>> = BTreeMap::new();
        for pod in &self.pods {
            if let Some(revision) = revision(pod) {
                revisions.entry(revision).or_default().push(pod);
            }
        }
        for (port, name) in self.named_targets() {
            for pods in revisions.values() {
                let (with, without): (Vec<&Pod>, Vec<&Pod>) =
                    pods.iter().partition(|pod| has_port(pod, &name, port));
                if with.is_empty() || without.is_empty() {
                    continue;
                }
                return Some(self.missing_on(port, &name, pods.len(), &without));
            }
        }
        None
    }

    fn missing_on(&self, port: &ServicePort, name: &str, of: usize, without: &[&Pod]) -> Finding {
        let names: Vec<&str> = without.iter().map(|p| p.name()).collect();
        let again = without.iter().find_map(|p| restart::command(p)).map(|command| {
            format!(
                " If a Pod lacks the port by accident (for example because a sidecar was not injected), replace the Pod: {command}."
            )
        });
        Finding::part_fails(
            Reason::NamedPortMissingOnSomePods,
            format!(
                "{} {} {} no {} port named \"{name}\", which is the targetPort of Service port {}, and so {} no traffic on that Service port. {} {} of {of} Pods of the same revision; the others have the port.",
                if names.len() == 1 { "Pod" } else { "Pods" },
                text::list(&names),
                if names.len() == 1 { "has" } else { "have" },
                port.protocol,
                port.describe(),
                if names.len() == 1 { "gets" } else { "get" },
                if names.len() == 1 { "It is" } else { "They are" },
                names.len()
            ),
            format!(
                "Find out how it differs from other Pods of its revision.{}",
                again.unwrap_or_default()
            ),
        )
    }
}

fn has_port(pod: &Pod, name: &str, port: &ServicePort) -> bool {
    pod.resolve_port(&IntOrString::String(name.to_owned()), &port.protocol)
        .is_some()
}

/// What Pods that were created from one template share: the ReplicaSet, or the revision of a StatefulSet or DaemonSet.
/// Of other Pods it is not known whether one template is behind them.
fn revision(pod: &Pod) -> Option<(&str, &str)> {
    let controller = pod.controller()?;
    let hash = pod.labels().get("controller-revision-hash").map(String::as_str);
    let of_set = (controller.kind == "ReplicaSet").then_some("");
    Some((controller.uid.as_str(), hash.or(of_set)?))
}

fn is_number(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit())
}
