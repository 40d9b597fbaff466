//! Pods of a dual-stack Service that listen in one IP family only.

use std::net::SocketAddr;

use crate::{
    dialling::describe,
    evidence::{Evidence, dials::Failed, listening},
    text::{self, quoted},
};
use svcdiag_objects::{IpFamily, Object, Pod};

/// Whether the same Pod answers on the same port over the other IP family.
pub(super) fn answers_in_the_other<'a>(evidence: &Evidence<'a>, failed: &Failed<'a>) -> bool {
    let dials = &evidence.direct;
    let (Some(endpoint), Some(pod)) = (failed.endpoint, failed.target.and_then(|t| t.pod)) else {
        return false;
    };
    let port = failed.dial.port;
    let others = evidence.ends.targets.iter().filter(|(other, target)| {
        let is_same = |p: &Pod| p.metadata.uid == pod.metadata.uid && p.name() == pod.name();
        other.is_ipv4() != endpoint.is_ipv4()
            && other.port() == endpoint.port()
            && target.pod.is_some_and(is_same)
    });
    let reached = |(other, target): (&SocketAddr, &_)| {
        let has_reached = |c: &_| evidence.ends.has_reached(dials, c, *other, *target, port);
        !evidence.ends.is_in_a_window() && dials.counts.iter().any(has_reached)
    };
    others.into_iter().any(reached)
}

/// Pods that listen, or answer, in the other IP family only.
pub(super) fn describe(
    evidence: &Evidence<'_>,
    failures: &[&Failed<'_>],
    who: &str,
    listen: &str,
    wanted: &str,
) -> (String, String) {
    let facts = evidence.facts;
    let endpoints = describe::endpoints(failures);
    let addresses = listening::addresses(evidence, failures);
    let refused = failures.first().map_or(IpFamily::V6, |f| f.family());
    let other = refused.other();
    let message = if addresses.is_empty() {
        format!(
            "{who} {}. {endpoints}.",
            if listen == "listens" {
                format!("answers on port {wanted} over {other} but refuses it over {refused}")
            } else {
                format!("answer on port {wanted} over {other} but refuse it over {refused}")
            }
        )
    } else {
        format!(
            "{who} {listen} on port {wanted} only at {}, so not over {refused}. {endpoints}.",
            text::list(&addresses)
        )
    };
    let pod = describe::pods(failures).first().copied().unwrap_or_default();
    (
        message,
        format!(
            "Make the application listen in both families: on :: with IPv4-mapped addresses, or on :: and 0.0.0.0. Or, if no client needs {refused} and {other} is the Service's first family, set its ipFamilyPolicy to SingleStack, which keeps only the first. Check how the application is configured: `kubectl -n {} describe pod {}`.",
            quoted(&facts.namespace),
            quoted(pod)
        ),
    )
}
