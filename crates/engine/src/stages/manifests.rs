//! What manifests prove, where nobody has seen the Pods of the Service.
//!
//! Manifests, as they are kept in Git, have no status: whether Pods run, whether they are ready, and whether the Service
//! has endpoints stays Unknown. A selector that misses the labels of the Pod templates by a typing error, and a
//! targetPort that no container of the selected templates has, are pointed out and make nothing False: there may always be
//! workloads, patches and injected containers in other files.

use crate::{
    Facts, Finding,
    saved::PodTemplate,
    text::{self, quoted},
    workloads::{
        Workload,
        compare::{Change, Difference, compare},
        near_miss::selector,
    },
};
use svcdiag_api::{ConditionType as C, Impact, Reason};
use svcdiag_objects::{IntOrString, Labels, Service, ServicePort, matches_labels};

/// Judges one stage by manifests; None where anything was observed that says more, or the stage does not depend on it.
pub(super) fn judge(facts: &Facts, stage: C) -> Option<Finding> {
    let service = facts.service.as_deref().filter(|s| s.has_selector())?;
    let templates = &facts.saved_objects.templates;
    let was_observed = facts.why_unreadable("pods").is_none()
        || !facts.selected_pods().is_empty()
        || !facts.slices.is_empty();
    if templates.is_empty() || was_observed || facts.why_unreadable("services").is_some() {
        return None;
    }
    let manifests = Manifests {
        facts,
        service,
        selected: templates
            .iter()
            .filter(|t| matches_labels(&service.spec.selector, &t.labels))
            .collect(),
    };
    match stage {
        C::DefinitionValid => Some(manifests.definition_valid()),
        C::PodsHealthy => Some(Finding::unknown(
            Reason::ProbeFailed,
            "The objects come from manifests, which do not say whether Pods run or are ready.",
        )),
        C::EndpointsPopulated => Some(manifests.endpoints_populated()),
        _ => None,
    }
}

/// Probably wrong, and not for certain: a patch, an overlay, a sidecar that is injected or a workload in another file may make
/// it right.
fn in_these_files(message: &str) -> Finding {
    Finding::unknown(
        Reason::ProbeFailed,
        format!("{message} That is probably wrong, unless another file or the cluster adds what is missing."),
    )
}

struct Manifests<'a> {
    facts: &'a Facts,
    service: &'a Service,
    /// Templates that the selector matches.
    selected: Vec<&'a PodTemplate>,
}

impl Manifests<'_> {
    fn definition_valid(&self) -> Finding {
        let ports = &self.service.spec.ports;
        let wrong: Vec<(&ServicePort, String)> = match self.service.is_headless() {
            // Clients dial whatever port of the Pods they like.
            true => Vec::new(),
            false => ports
                .iter()
                .filter_map(|p| Some((p, self.unresolved(p)?)))
                .collect(),
        };
        if let Some((port, name)) = wrong.first() {
            return self.named_port_not_found(port, name, wrong.len());
        }
        if self.selected.is_empty() {
            return Finding::unknown(Reason::ProbeFailed, self.none_selected());
        }
        let fits = format!("The Service fits {}", self.templates());
        match ports.iter().find_map(|p| self.other_protocol(p)) {
            Some(hint) => Finding::yes(Reason::ValidWithHints, format!("{fits}, but note: {hint}.")),
            None => Finding::yes(Reason::Valid, format!("{fits}.")),
        }
    }

    /// The name that a port asks for and no selected template has. Pods are asked by name and protocol.
    fn unresolved(&self, port: &ServicePort) -> Option<String> {
        let IntOrString::String(name) = port.target_port() else {
            return None;
        };
        let has = |t: &&&PodTemplate| {
            let mut ports = t.ports.iter();
            ports.any(|p| p.name.as_ref() == Some(&name) && p.protocol == port.protocol)
        };
        (!self.selected.is_empty() && !self.selected.iter().any(|t| has(&t))).then_some(name)
    }

    fn named_port_not_found(&self, port: &ServicePort, name: &str, of: usize) -> Finding {
        let declared: Vec<String> = self
            .selected
            .iter()
            .flat_map(|t| &t.ports)
            .map(|p| match &p.name {
                Some(name) => format!("{name} ({}/{})", p.number, p.protocol),
                None => format!("{}/{} without a name", p.number, p.protocol),
            })
            .collect();
        let declared = match declared.is_empty() {
            true => "no ports".to_owned(),
            false => text::list(&declared),
        };
        let message = format!(
            "targetPort of Service port {} is \"{name}\", but no container in {} declares a {} port of that name; declared: {declared}.",
            port.describe(),
            self.templates(),
            port.protocol
        );
        if !self.facts.saved_objects.is_from_manifest {
            return self.perhaps(&message);
        }
        // No port has such a name, wherever it may be.
        if !name.bytes().all(|b| b.is_ascii_digit()) {
            return in_these_files(&message);
        }
        let (reason, fix) = (
            Reason::NumericTargetPortName,
            "Remove the quotes around targetPort in the manifest. A current API server refuses such a name.",
        );
        let impact = match of >= self.service.spec.ports.len() {
            true => Impact::All,
            false => Impact::Some,
        };
        Finding::fault(impact, reason, message, fix)
    }

    /// Declarations bind nobody: a Pod may listen on what it does not declare.
    fn other_protocol(&self, port: &ServicePort) -> Option<String> {
        let IntOrString::Int(number) = port.target_port() else {
            return None;
        };
        let declared = || {
            self.selected
                .iter()
                .flat_map(|t| &t.ports)
                .filter(|p| p.number == number)
        };
        let other = declared()
            .next()
            .filter(|_| declared().all(|p| p.protocol != port.protocol))?;
        Some(format!(
            "Service port {} is {}, but the containers declare {number}/{} only",
            port.describe(),
            port.protocol,
            other.protocol
        ))
    }

    fn endpoints_populated(&self) -> Finding {
        if !self.selected.is_empty() {
            return Finding::unknown(
                Reason::ProbeFailed,
                format!(
                    "The selector matches {}, but the objects come from manifests, which do not say whether the Service has endpoints.",
                    self.templates()
                ),
            );
        }
        let Some((template, changes)) = self.typing_error() else {
            return Finding::unknown(Reason::ProbeFailed, self.none_selected());
        };
        let differences: Vec<String> = changes
            .iter()
            .map(|(have, want)| format!("{have} where the selector wants {want}"))
            .collect();
        let message = format!(
            "The selector {} matches none of the Pod templates in the manifests: that of {} {} has {}.",
            selector(&self.service.spec.selector),
            template.kind,
            template.name,
            text::list(&differences)
        );
        if !self.facts.saved_objects.is_from_manifest {
            return self.perhaps(&message);
        }
        in_these_files(&message)
    }

    /// The template that the selector misses by a slip, with each label as it is and as it is wanted.
    fn typing_error(&self) -> Option<(&PodTemplate, Vec<(String, String)>)> {
        let pair = |(key, value): (&String, &String)| format!("{key}={value}");
        self.facts.saved_objects.templates.iter().find_map(|template| {
            let taken = |s: &Labels| !s.is_empty() && matches_labels(s, &template.labels);
            if self.facts.other_services.iter().any(|s| taken(&s.selector)) {
                return None;
            }
            let workload = Workload {
                kind: template.kind.clone(),
                name: template.name.clone(),
                has_template: true,
                labels: template.labels.clone(),
                pods: Vec::new(),
            };
            match compare(&self.service.spec.selector, &workload)? {
                Difference::Labels(changes) if changes.iter().all(Change::is_slip) => {
                    let changes = changes
                        .iter()
                        .map(|c| (pair(c.instead), pair(c.wanted)))
                        .collect();
                    Some((template, changes))
                }
                _ => None,
            }
        })
    }

    fn none_selected(&self) -> String {
        let templates = &self.facts.saved_objects.templates;
        let labels: Vec<String> = templates
            .iter()
            .map(|t| match t.labels.is_empty() {
                true => format!("{} {} has no labels", t.kind, t.name),
                false => format!("{} {} has {}", t.kind, t.name, selector(&t.labels)),
            })
            .collect();
        let what = match templates.len() {
            1 => "does not match the only Pod template in the manifests",
            _ => "matches none of the Pod templates in the manifests",
        };
        format!(
            "The selector {} {what}: {}. Unless another manifest has Pods with these labels, the Service has no endpoints; in the cluster, compare with `kubectl -n {} get pods --show-labels`.",
            selector(&self.service.spec.selector),
            text::list(&labels),
            quoted(&self.facts.namespace)
        )
    }

    /// The Service was seen in a cluster, and the workload that runs there may differ from its manifest.
    fn perhaps(&self, message: &str) -> Finding {
        Finding::unknown(
            Reason::ProbeFailed,
            format!("{message} Whether the cluster runs what the manifests say is not known."),
        )
    }

    /// The selected templates, in words.
    fn templates(&self) -> String {
        let names: Vec<String> = self
            .selected
            .iter()
            .map(|t| format!("{} {}", t.kind, t.name))
            .collect();
        match names.len() {
            1 => format!("the Pod template of {}", text::list(&names)),
            _ => format!("the Pod templates of {}", text::list(&names)),
        }
    }
}
