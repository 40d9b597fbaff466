//! Packets that are lost at times, in words. What works all the same is no fault: it is a hint.

use std::collections::BTreeMap;

use super::loss_causes;
use crate::{NodeLoss, evidence::Evidence, text};
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
    losses.sort_by_key(|(_, loss)| std::cmp::Reverse(loss.lost.min(loss.tries)));
    if losses.is_empty() {
        return String::new();
    }
    let said: Vec<String> = losses.iter().map(|(node, loss)| describe(node, loss)).collect();
    let said = text::list_of(&said, "path");
    // Causes of what is not shown would explain nothing.
    losses.truncate(text::SHOWN);
    let causes = loss_causes::describe(&losses);
    match paths.contains(&LossyPath::DNS) {
        true => format!(
            " But answers are missing at times: {said} got no answer within two seconds. Most resolvers wait for five before they ask again.{causes}"
        ),
        false => format!(
            " But packets are lost at times: {said} needed a second SYN, which delays them by a second or more.{causes}"
        ),
    }
}

/// What is lost by node and path, whoever of the node tries.
pub(crate) fn by_node(evidence: &Evidence<'_>) -> Vec<NodeLoss> {
    let mut sums: BTreeMap<(&str, LossyPath), (u64, u64)> = BTreeMap::new();
    for report in &evidence.reports.current {
        for loss in &report.facts.losses {
            let (tries, lost) = sums.entry((report.node, loss.path)).or_default();
            *tries += u64::from(loss.tries);
            *lost += u64::from(loss.lost.min(loss.tries));
        }
    }
    let sums = sums.into_iter();
    sums.map(|((node, path), (tries, lost))| NodeLoss {
        node: node.to_owned(),
        path,
        tries,
        lost,
    })
    .collect()
}

fn describe(node: &str, loss: &PathLoss) -> String {
    let PathLoss {
        from,
        path,
        tries,
        lost,
        counters: _,
    } = loss;
    let lost = lost.min(tries);
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
