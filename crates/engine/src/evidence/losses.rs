//! Packets that are lost at times, in words. What works all the same is no fault: it is a hint.

use crate::{evidence::Evidence, text};
use svcdiag_api::{LossyPath, PathLoss};

/// Who tries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Anybody,
    Clients,
    Nodes,
}

/// What is said of losses on some paths, with a space before it; nothing where there are none.
pub(crate) fn hint(evidence: &Evidence<'_>, from: From, paths: &[LossyPath]) -> String {
    let is_its = |loss: &&PathLoss| {
        paths.contains(&loss.path)
            && match from {
                From::Anybody => true,
                From::Clients => loss.from.is_some(),
                From::Nodes => loss.from.is_none(),
            }
    };
    let reports = evidence.reports.current.iter();
    let mut losses: Vec<(&str, &PathLoss)> = reports
        .flat_map(|report| {
            report
                .facts
                .losses
                .iter()
                .filter(is_its)
                .map(|loss| (report.node, loss))
        })
        .collect();
    losses.sort_by_key(|(_, loss)| std::cmp::Reverse(loss.lost));
    if losses.is_empty() {
        return String::new();
    }
    let said: Vec<String> = losses.iter().map(|(node, loss)| describe(node, loss)).collect();
    let said = text::list_of(&said, "path");
    match paths.contains(&LossyPath::DNS) {
        true => format!(
            " But answers are missing at times: {said} got no answer within two seconds. Most resolvers wait for five before they ask again."
        ),
        false => format!(
            " But packets are lost at times: {said} needed a second SYN, which delays them by a second or more."
        ),
    }
}

fn describe(node: &str, loss: &PathLoss) -> String {
    let PathLoss {
        from,
        path,
        tries,
        lost,
    } = loss;
    let (what, to) = match path {
        LossyPath::SameNode => ("connections", " to endpoints on the same node"),
        LossyPath::OtherNode => ("connections", " to endpoints on other nodes"),
        LossyPath::Service => ("connections", ""),
        LossyPath::DNS => ("DNS questions", ""),
    };
    match from {
        Some(pod) => format!("{lost} of {tries} {what} from Pod {pod} on node {node}{to}"),
        None => format!("{lost} of {tries} {what} from node {node}{to}"),
    }
}
