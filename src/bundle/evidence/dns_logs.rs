//! Logs of CoreDNS, which say why cluster DNS does not answer as it should.

use super::files::Evidence;
use crate::{
    bundle::Problem,
    engine::{DnsLog, DnsTrouble, Facts},
    formats::text::coredns_log::{CorednsLog, Trouble},
};

/// Most logs that are kept: cluster DNS has two Pods, or some.
const MAX_LOGS: usize = 20;

/// Adds what the logs say; returns what could not be understood.
pub(super) fn add(facts: &mut Facts, evidence: &Evidence<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
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
            Some(format!("{namespace}/{}", rest.split('/').next()?))
        };
        let lines = log.lines;
        let told = log.troubles.into_iter().map(|(trouble, (line, words))| DnsLog {
            pod: of_pod(),
            trouble: known(trouble),
            line,
            lines,
            words,
        });
        facts.saved_objects.dns_logs.extend(told);
    }
    problems
}

fn known(trouble: Trouble) -> DnsTrouble {
    match trouble {
        Trouble::BadCorefile => DnsTrouble::BadCorefile,
        Trouble::Loop => DnsTrouble::Loop,
        Trouble::Denied => DnsTrouble::Denied,
        Trouble::NoApi => DnsTrouble::NoApi,
        Trouble::NotSynced => DnsTrouble::NotSynced,
        Trouble::NoUpstream => DnsTrouble::NoUpstream,
    }
}
