//! What the agents are asked now, against what they were asked last.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::{Facts, NodeReport, ProbeReport, plan};
use svcdiag_api::{NodeProbe, NodeProbeSpec, ProbeService};

impl Facts {
    /// Counts what agents reported only as far as it answers what they are asked now: a question that is about
    /// to be written is asked already. Of the sample only those count who are alive.
    pub fn ask(&mut self, plan: &BTreeMap<String, NodeProbeSpec>) {
        self.only_endpoints_differ = only_endpoints_differ(&self.nodes, plan);
        for node in &mut self.nodes {
            let is_alive = node.is_alive(self.now);
            let asked = plan.get(&*node.name);
            let asked = asked.filter(|asked| is_alive || !plan::is_of_sample(asked));
            let answered = node.probe.take();
            let answered = answered.map(|report| *report);
            let report = asked.map(|asked| match answered {
                Some(report) if is_same(&report.asked, asked) => ProbeReport {
                    asked: asked.clone(),
                    ..report
                },
                report => ProbeReport {
                    asked: asked.clone(),
                    is_current: false,
                    question: String::new(),
                    owed_since: report
                        .as_ref()
                        .and_then(|r| r.owed_since)
                        .into_iter()
                        .chain(self.unanswered_since)
                        .min()
                        .or(Some(self.now)),
                    facts: report.and_then(|r| r.facts),
                },
            });
            node.probe = report.map(Box::new);
        }
    }
}

/// The question without what only says how to look again at what has failed.
fn question(spec: &NodeProbeSpec) -> NodeProbeSpec {
    NodeProbeSpec {
        arrivals: None,
        repeat: String::new(),
        ..spec.clone()
    }
}

/// Whether answers to one question are answers to the other.
#[must_use]
pub fn is_same(a: &NodeProbeSpec, b: &NodeProbeSpec) -> bool {
    // Copies are made only where they differ.
    a == b || question(a) == question(b)
}

/// What a question is told from others by.
#[must_use]
pub fn digest(spec: &NodeProbeSpec) -> String {
    // Serialising cannot fail: all keys are strings.
    let json = serde_json::to_vec(&question(spec)).unwrap_or_default();
    let digest = Sha256::digest(json);
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether an agent has answered what its NodeProbe asks now. Agents of version 0.1 say nothing but the generation.
pub(crate) fn is_answered(probe: &NodeProbe) -> bool {
    let observed = probe
        .status
        .as_ref()
        .and_then(|status| status.observed_generation);
    let is_of_generation = observed.is_some() && observed == probe.metadata.generation;
    is_of_generation || is_digest_of(observed_question(probe), &probe.spec)
}

/// The digest of the question that an agent has answered; empty if it gives none.
pub(crate) fn observed_question(probe: &NodeProbe) -> &str {
    let status = probe.status.as_ref();
    status.map_or("", |status| &status.observed_question)
}

/// Whether a digest is that of a question: it stays when the generation does not.
pub(crate) fn is_digest_of(observed: &str, spec: &NodeProbeSpec) -> bool {
    !observed.is_empty() && observed == digest(spec)
}

/// Whether what the agents are to be asked is what they were asked last, with other endpoints. A node that comes
/// in with them was not asked yet.
fn only_endpoints_differ(nodes: &[NodeReport], plan: &BTreeMap<String, NodeProbeSpec>) -> bool {
    let asked = |n: &NodeReport| n.probe.as_ref().map(|p| without_endpoints(&p.asked));
    let mut before = nodes
        .iter()
        .filter_map(|n| Some((asked(n)?, without_endpoints(plan.get(&*n.name)?))))
        .peekable();
    before.peek().is_some() && before.all(|(asked, planned)| asked == planned)
}

/// The question without what follows from the endpoints. Who tries is no part of it, since Pods that stand for
/// clients are replaced as well; nor are the Pods of cluster DNS. The policies are: they may be what shuts the
/// clients out now.
fn without_endpoints(question: &NodeProbeSpec) -> NodeProbeSpec {
    let mut dns = question.cluster_dns.clone();
    if let Some(dns) = &mut dns {
        dns.endpoints.clear();
    }
    NodeProbeSpec {
        cluster_dns: dns,
        service: ProbeService {
            is_cut: false,
            changed_time: None,
            ..question.service.clone()
        },
        subsets: Vec::new(),
        slices: Vec::new(),
        from_node: false,
        other_nodes: Vec::new(),
        full_size_paths: Vec::new(),
        arrivals: None,
        repeat: String::new(),
        clients: Vec::new(),
        endpoints: Vec::new(),
        revision: plan::policies_in(&question.revision).to_owned(),
        ..question.clone()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    fn probe(generation: i64, repeat: &str, revision: &str, status: serde_json::Value) -> NodeProbe {
        serde_json::from_value(json!({
            "apiVersion": "svcdiag.dev/v1alpha1", "kind": "NodeProbe", "metadata": { "name": "p", "generation": generation },
            "spec": { "nodeName": "n1", "diagnosis": { "name": "d", "uid": "u" }, "serviceName": "web",
                "intervalSeconds": 60, "revision": revision, "repeat": repeat },
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn an_answer_stands_while_only_second_looks_are_asked_for() {
        let first = probe(1, "", "1", json!(null));
        assert!(!is_answered(&first));
        let status = json!({ "observedGeneration": 1, "observedQuestion": digest(&first.spec) });
        assert!(is_answered(&probe(1, "", "1", status.clone())));
        assert!(is_answered(&probe(2, "w1", "1", status.clone())));
        assert!(!is_answered(&probe(2, "w1", "2", status)));
        let of_old_agent = json!({ "observedGeneration": 1 });
        let old = probe(1, "", "1", of_old_agent.clone());
        assert!(is_answered(&old) && !is_digest_of(observed_question(&old), &old.spec));
        assert!(!is_answered(&probe(2, "w1", "1", of_old_agent)));
    }
}
