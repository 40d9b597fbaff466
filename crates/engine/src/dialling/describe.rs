//! Failed dials in words.

use std::collections::BTreeSet;

use crate::{
    evidence::{Evidence, dials::Failed, targets::key},
    text,
};
use svcdiag_api::Answer;
use svcdiag_objects::Object;

/// How a dial ended.
pub(crate) fn answer(failed: &Failed<'_>) -> String {
    let result = result(failed.answer);
    match &failed.dial.detail {
        Some(detail) if failed.is_without_status() => detail.clone(),
        Some(detail)
            if failed.answer != Answer::NoAnswer
                || failed.is_of_large_answers()
                || failed.is_of_some_requests() =>
        {
            format!("{result} ({detail})")
        }
        _ => result.to_owned(),
    }
}

/// What an answer is called.
pub(crate) fn result(answer: Answer) -> &'static str {
    match answer {
        Answer::Accepted => "connected",
        Answer::Refused => "connection refused",
        Answer::Rejected => "connection refused by a rule",
        Answer::Unreachable => "no route to host",
        Answer::TimedOut => "connection timed out",
        Answer::Reset => "connects but is reset",
        Answer::NoAnswer => "connects but times out",
        Answer::Unexpected => "unexpected answer",
    }
}

/// Who dialled.
pub(crate) fn whom(failed: &Failed<'_>) -> String {
    match &failed.dial.from {
        Some(pod) => format!("Pod {pod} on node {}", failed.node),
        None => format!("node {}", failed.node),
    }
}

/// An endpoint with its Pod and node.
pub(crate) fn endpoint(failed: &Failed<'_>) -> String {
    let address = failed.dial.endpoint.as_deref().unwrap_or(&failed.dial.target);
    let Some(target) = failed.target else {
        return address.to_owned();
    };
    match (target.pod, target.node) {
        (Some(pod), Some(node)) => format!("{address} (Pod {} on node {node})", key(pod)),
        (Some(pod), None) => format!("{address} (Pod {})", key(pod)),
        (None, Some(node)) => format!("{address} (on node {node})"),
        (None, None) => address.to_owned(),
    }
}

/// `10.244.2.6:9376 (Pod a on node n2): connection timed out, dialled from node n1`.
pub(crate) fn endpoints(failures: &[&Failed<'_>]) -> String {
    let targets: BTreeSet<String> = failures.iter().map(|f| endpoint(f)).collect();
    dialled(&targets, failures)
}

/// `10.96.1.175:80: connection timed out, dialled from Pod shop/client on node n1`; with the endpoints
/// that the dials were sent to, where they are known.
pub(crate) fn routes(failures: &[&Failed<'_>]) -> String {
    let targets: BTreeSet<String> = failures
        .iter()
        .map(|f| match f.endpoint {
            Some(_) => format!("{} to endpoint {}", f.dial.target, endpoint(f)),
            None => f.dial.target.clone(),
        })
        .collect();
    dialled(&targets, failures)
}

fn dialled(targets: &BTreeSet<String>, failures: &[&Failed<'_>]) -> String {
    let list = |items: &BTreeSet<String>| {
        let items: Vec<&String> = items.iter().collect();
        text::list(&items)
    };
    let answers: BTreeSet<String> = failures.iter().map(|f| answer(f)).collect();
    let origins: BTreeSet<String> = failures.iter().map(|f| whom(f)).collect();
    format!(
        "{}: {}, dialled from {}",
        list(targets),
        list(&answers),
        list(&origins)
    )
}

/// A Service port as its Service describes it.
pub(crate) fn port(evidence: &Evidence<'_>, port: &str) -> String {
    evidence
        .ends
        .service_port(port)
        .map_or_else(|| port.to_owned(), |p| p.describe())
}

/// Names of the Pods behind the endpoints, each once.
pub(crate) fn pods<'a>(failures: &[&Failed<'a>]) -> Vec<&'a str> {
    let names: BTreeSet<&str> = failures
        .iter()
        .filter_map(|f| Some(f.target?.pod?.name()))
        .collect();
    names.into_iter().collect()
}
