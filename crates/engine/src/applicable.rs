//! Whether the questions of the data path arise for the Service at all, and for whom.

use jiff::SignedDuration;

use crate::{
    Facts, Finding,
    clients::{Clients, Role},
    evidence::Evidence,
    plan::approval,
    text::quoted,
};
use svcdiag_api::Reason;
use svcdiag_kube_proxy::{HEADLESS_LABEL, PROXY_NAME_LABEL};
use svcdiag_objects::{Object, Service};

/// So long after a change EndpointSlices and Pods may not be of one moment.
const SETTLES_WITHIN: SignedDuration = SignedDuration::from_secs(30);

/// Why no client Pod can be used, if so.
pub(crate) fn no_clients(evidence: &Evidence<'_>) -> Option<Finding> {
    let facts = evidence.facts;
    if approval::foreign_clients_are_kept_away(facts) {
        // A Pod that comes or goes is in one of the two first.
        let until = facts.endpoints_settle_at(SETTLES_WITHIN);
        if until.is_some_and(|until| until > facts.now) {
            let why = "An EndpointSlice lists an endpoint that is not a running Pod of the namespace. A Pod may be starting or terminating.";
            return Some(Finding::unknown(Reason::Pending, why).recheck_at(until));
        }
        return Some(Finding::unknown(
            Reason::ClientNamespaceNotGranted,
            format!(
                "Nothing is dialled from the client namespace: clients in another namespace dial only endpoints that are running Pods of namespace {}, and the EndpointSlices list others.",
                facts.namespace
            ),
        ));
    }
    match &evidence.clients {
        Clients::NotGranted(namespace) => Some(Finding::unknown(
            Reason::ClientNamespaceNotGranted,
            format!(
                "Namespace {namespace} does not allow the use of its Pods as clients. Its owner can allow it: \
                 `kubectl annotate namespace {} {}={}`.",
                quoted(namespace),
                svcdiag_api::CLIENTS_FOR_ANNOTATION,
                quoted(&facts.namespace)
            ),
        )),
        Clients::Pods { pods, role } if pods.is_empty() => Some(Finding::unknown(
            Reason::NoClientPods,
            match role {
                Role::Named => "spec.clients.podSelector matches no running Pod.",
                Role::Candidate | Role::Endpoint => {
                    "No running Pod in the namespace is suitable as a client (hostNetwork, dnsPolicy)."
                }
            },
        )),
        Clients::Pods { .. } => None,
    }
}

/// Why kube-proxy has nothing to do with the Service, if so.
pub(crate) fn not_proxied(facts: &Facts) -> Option<Finding> {
    if let Some(other) = other_proxy(facts) {
        return Some(Finding::unknown(
            Reason::HandledByAnotherProxy,
            format!("The label {PROXY_NAME_LABEL} assigns the Service to another proxy, {other}."),
        ));
    }
    without_address(facts)
}

/// The proxy that the Service is left to by its label.
pub(crate) fn other_proxy(facts: &Facts) -> Option<&str> {
    let labels = facts.service.as_deref()?.labels();
    labels.get(PROXY_NAME_LABEL).map(String::as_str)
}

/// Why nobody uses the Service, if so: programs hold a headless Service without ports and selector to protect
/// an Endpoints object in which they keep something else than endpoints.
pub(crate) fn only_a_name(facts: &Facts) -> Option<Finding> {
    let service = facts.service.as_deref()?;
    let is_bare = service.is_headless() && !service.has_selector() && service.spec.ports.is_empty();
    let has_endpoints = facts.slices.iter().any(|s| !s.endpoints.is_empty());
    (is_bare && !has_endpoints).then(|| {
        Finding::not_applicable(
            "The Service is headless and has no ports, no selector and no endpoints: it only provides a name.",
        )
    })
}

/// Why the Service has no address of its own, if so.
pub(crate) fn without_address(facts: &Facts) -> Option<Finding> {
    let service: &Service = facts.service.as_deref()?;
    if service.is_external_name() {
        return Some(Finding::not_applicable(
            "An ExternalName Service is only an alias in DNS.",
        ));
    }
    if service.labels().contains_key(HEADLESS_LABEL) {
        return Some(Finding::not_applicable(format!(
            "The label {HEADLESS_LABEL} makes every proxy ignore the Service."
        )));
    }
    service.is_headless().then(|| {
        Finding::not_applicable("A headless Service has no cluster IP; clients connect to the Pods directly.")
    })
}
