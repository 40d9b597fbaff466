//! Does the Service exist?

use crate::{
    Finding,
    evidence::Evidence,
    text::{self, quoted},
};
use svcdiag_api::Reason;

/// Most characters in which a near miss may differ.
const NEAR: usize = 2;

pub(super) fn judge(evidence: &Evidence<'_>) -> Finding {
    let facts = evidence.facts;
    let (name, namespace) = (&facts.spec.service_name, &facts.namespace);
    if facts.service.is_some() && facts.saved_objects.is_from_manifest {
        return Finding::yes(
            Reason::ServiceFound,
            format!(
                "Service {namespace}/{name} is defined in a manifest, which does not say whether it was applied."
            ),
        );
    }
    if facts.service.is_some() {
        return Finding::yes(
            Reason::ServiceFound,
            format!("Service {namespace}/{name} exists."),
        );
    }
    let mut message = format!("There is no Service {name} in namespace {namespace}.");
    let mut near: Vec<&str> = facts
        .other_services
        .iter()
        .map(|s| s.name.as_str())
        .filter(|s| is_near(name, s))
        .collect();
    near.sort_unstable();
    if !near.is_empty() {
        message.push_str(&format!(
            " Services with similar names there: {}.",
            text::list(&near)
        ));
    }
    let mut namesakes: Vec<&str> = facts.namesakes.iter().map(String::as_str).collect();
    namesakes.sort_unstable();
    if !namesakes.is_empty() {
        let elsewhere = text::count(namesakes.len(), "other namespace");
        let named = text::list(&namesakes);
        message.push_str(&format!(
            " A Service of this name exists in {elsewhere} ({named})."
        ));
    }
    let (name, namespace) = (quoted(name), quoted(namespace));
    let remediation = if let Some(near) = near.first().map(|near| quoted(near)) {
        format!(
            "If you mean {near}, diagnose that one: `kubectl -n {namespace} get service {near}`. \
             Otherwise create the Service."
        )
    } else if !namesakes.is_empty() {
        format!(
            "If you mean one of those, create the ServiceDiagnosis in its namespace. Otherwise create the Service in {namespace}, for example from a Deployment of that name: \
             `kubectl -n {namespace} expose deployment {name} --port=PORT --target-port=TARGET`."
        )
    } else {
        format!(
            "Create the Service: `kubectl -n {namespace} expose deployment {name} --port=PORT --target-port=TARGET`."
        )
    };
    Finding::nothing_works(Reason::ServiceNotFound, message, remediation)
}

/// Whether a name may have been meant: almost the same letters, or the one is a part of the other.
fn is_near(name: &str, other: &str) -> bool {
    let contained = name.len() >= 4 && other.len() >= 4 && (other.contains(name) || name.contains(other));
    contained || strsim::levenshtein(name, other) <= NEAR.min(name.len() / 2)
}
