//! The stages below the API: without a node agent their questions stay open, except where they
//! do not arise for the Service at all.

use super::super::{
    Facts, Finding,
    clients::{Clients, Role},
};
use crate::{
    api::Reason,
    objects::{Object, Service},
};

/// Label of a Service that another proxy than kube-proxy handles.
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";

/// Label of a Service that proxies are to take for headless.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

pub(super) fn endpoints_reachable(facts: &Facts) -> Finding {
    match facts.service.as_deref() {
        Some(service) if service.is_external_name() => {
            Finding::not_applicable("An ExternalName Service has no endpoints.")
        }
        _ => no_agent("The endpoints were not dialled"),
    }
}

pub(super) fn kube_proxy_healthy(facts: &Facts) -> Finding {
    not_proxied(facts).unwrap_or_else(|| no_agent("kube-proxy was not looked at"))
}

pub(super) fn proxy_rules_present(facts: &Facts) -> Finding {
    not_proxied(facts).unwrap_or_else(|| no_agent("The rules of kube-proxy were not read"))
}

pub(super) fn proxy_forwards(facts: &Facts) -> Finding {
    not_proxied(facts).unwrap_or_else(|| no_agent("The Service's addresses were not dialled from the nodes"))
}

pub(super) fn service_reachable(facts: &Facts) -> Finding {
    if let Some(finding) = without_address(facts) {
        return finding;
    }
    no_clients(facts).unwrap_or_else(|| no_agent("The Service's addresses were not dialled from client Pods"))
}

pub(super) fn hairpin_ok(facts: &Facts) -> Finding {
    match facts.service.as_deref() {
        Some(service) if !service.has_selector() => Finding::not_applicable("No Pod is behind the Service."),
        _ => not_proxied(facts).unwrap_or_else(|| no_agent("No Pod's way to itself was tried")),
    }
}

/// Why no client Pod can be used, if so.
pub(super) fn no_clients(facts: &Facts) -> Option<Finding> {
    match Clients::of(facts) {
        Clients::NotGranted(namespace) => Some(Finding::unknown(
            Reason::ClientNamespaceNotGranted,
            format!(
                "Namespace {namespace} does not lend its Pods as clients; its owner can grant it: \
                 `kubectl annotate namespace {namespace} {}={}`.",
                crate::api::CLIENTS_FOR_ANNOTATION,
                facts.namespace
            ),
        )),
        Clients::Pods { pods, role } if pods.is_empty() => Some(Finding::unknown(
            Reason::NoClientPods,
            match role {
                Role::Named => "spec.clients.podSelector matches no running Pod.",
                Role::Candidate | Role::Endpoint => {
                    "No running Pod of the namespace can stand for a client (hostNetwork, dnsPolicy)."
                }
            },
        )),
        Clients::Pods { .. } => None,
    }
}

pub(super) fn no_agent(what: &str) -> Finding {
    Finding::unknown(Reason::NoVantagePoint, format!("{what}: no node agent reports."))
}

/// Why kube-proxy has nothing to do with the Service, if so.
fn not_proxied(facts: &Facts) -> Option<Finding> {
    let service = facts.service.as_deref()?;
    if let Some(other) = service.labels().get(PROXY_NAME_LABEL) {
        return Some(Finding::unknown(
            Reason::HandledByAnotherProxy,
            format!("The label {PROXY_NAME_LABEL} leaves the Service to {other}."),
        ));
    }
    without_address(facts).or_else(|| {
        let headless = service.labels().contains_key(HEADLESS_LABEL);
        headless.then(|| {
            Finding::not_applicable(format!(
                "The label {HEADLESS_LABEL} keeps kube-proxy from the Service."
            ))
        })
    })
}

/// Why the Service has no address of its own, if so.
fn without_address(facts: &Facts) -> Option<Finding> {
    let service: &Service = facts.service.as_deref()?;
    if service.is_external_name() {
        return Some(Finding::not_applicable(
            "An ExternalName Service is an alias in DNS only.",
        ));
    }
    service
        .is_headless()
        .then(|| Finding::not_applicable("A headless Service has no address; clients dial the Pods."))
}
