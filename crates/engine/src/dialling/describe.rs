//! Failed dials in words.

use std::collections::BTreeSet;

use crate::{
    UNKNOWN_NODE,
    evidence::{Evidence, dials::Failed, targets::key},
    text,
};
use svcdiag_api::{Answer, PortProtocol};
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

/// Who dialled, each once: a node is told from the Pods on it.
fn origins(failures: &[&Failed<'_>]) -> String {
    let origins: BTreeSet<(Option<&str>, &str)> = failures
        .iter()
        .map(|f| (f.dial.from.as_deref(), f.node))
        .collect();
    if let [(Some(pod), node)] = origins.iter().copied().collect::<Vec<_>>().as_slice() {
        return match *node {
            UNKNOWN_NODE => format!("Pod {pod}"),
            node => format!("Pod {pod} on node {node}"),
        };
    }
    let has_pods = |node: &str| origins.iter().any(|(pod, n)| pod.is_some() && *n == node);
    let (pods, nodes): (Vec<_>, Vec<_>) = origins.iter().copied().partition(|(pod, _)| pod.is_some());
    let said: Vec<String> = pods
        .into_iter()
        .chain(nodes)
        .map(|origin| match origin {
            (Some(pod), UNKNOWN_NODE) => format!("Pod {pod}"),
            (Some(pod), node) => format!("Pod {pod} (on node {node})"),
            (None, node) if has_pods(node) => format!("node {node} itself"),
            (None, node) => format!("node {node}"),
        })
        .collect();
    text::list_of(&said, "source")
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

/// `Connection timed out: 10.244.2.6:9376 (Pod a on node n2), dialled from node n1`.
pub(crate) fn endpoints(failures: &[&Failed<'_>]) -> String {
    let targets: BTreeSet<String> = failures.iter().map(|f| endpoint(f)).collect();
    dialled(&targets, failures)
}

/// `Connection timed out: 10.96.1.175:80, dialled from Pod shop/client on node n1`; with the endpoints
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
    format!(
        "{}: {}, dialled from {}",
        text::capitalized(&list(&answers)),
        list(targets),
        origins(failures)
    )
}

/// A Service port as its Service describes it.
pub(crate) fn port(evidence: &Evidence<'_>, port: PortProtocol) -> String {
    evidence
        .ends
        .service_port(port)
        .map_or_else(|| port.to_string(), |p| p.describe())
}

/// Names of the Pods behind the endpoints, each once.
pub(crate) fn pods<'a>(failures: &[&Failed<'a>]) -> Vec<&'a str> {
    let names: BTreeSet<&str> = failures
        .iter()
        .filter_map(|f| Some(f.target?.pod?.name()))
        .collect();
    names.into_iter().collect()
}
