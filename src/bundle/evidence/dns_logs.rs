//! Logs of CoreDNS, which say why cluster DNS does not answer as it should.

use std::collections::BTreeMap;

use super::files::Evidence;
use crate::{
    bundle::Problem,
    engine::{DnsLog, Facts},
    formats::text::coredns_log::{CorednsLog, Trouble},
};

/// Most logs that are kept: cluster DNS has two Pods, or some.
const MAX_LOGS: usize = 20;

/// Adds what the logs say; returns what could not be understood.
pub(super) fn add(facts: &mut Facts, evidence: &Evidence<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    // Several Pods log the same.
    let mut told: BTreeMap<Trouble, DnsLog> = BTreeMap::new();
    for file in evidence.dns_logs.iter().take(MAX_LOGS) {
        let log = match CorednsLog::parse(file.text) {
            Ok(log) => log,
            Err(error) => {
                problems.push(file.problem(error));
                continue;
            }
        };
        let of_pod = || {
            let (namespace, rest) = file.path.strip_prefix("pods/")?.split_once('/')?;
            let (pod, _) = rest.split_once('/')?;
            Some(format!("{namespace}/{pod}"))
        };
        for (trouble, (line, words)) in log.troubles {
            told.entry(trouble).or_insert_with(|| DnsLog {
                pod: of_pod(),
                meaning: trouble.meaning().to_owned(),
                line,
                lines: log.lines,
                words,
            });
        }
    }
    facts.saved_objects.dns_logs.extend(told.into_values());
    problems
}
