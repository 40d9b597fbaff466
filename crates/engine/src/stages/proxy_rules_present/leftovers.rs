//! Rules that kube-proxy left on a node where something else does its work now.

use crate::{Facts, Finding, evidence::reports::Report, text::quoted};
use svcdiag_api::{DialPath, GapKind, Reason, Rules};

/// Rules of a kube-proxy that is gone, which hold the Service's addresses.
pub(super) struct Leftover<'a> {
    report: &'a Report<'a>,
    rules: &'a Rules,
    by: &'a str,
}

impl<'a> Leftover<'a> {
    pub(super) fn of(report: &'a Report<'_>, by: &'a str) -> Option<Self> {
        let rules = report.facts.rules.as_ref()?;
        let has = |kind: GapKind| rules.gaps.iter().any(|gap| gap.kind == kind);
        // Where they lead to endpoints that are gone and to no other, they count as missing, too.
        let holds = has(GapKind::EndpointStale) || !has(GapKind::Missing);
        (rules.compared > 0 && holds).then_some(Self { report, rules, by })
    }

    /// Whether dials fail there that the old rules may have taken to Pods that are gone, or have refused.
    pub(super) fn does_harm(&self) -> bool {
        let is_through = |path: DialPath| path != DialPath::Endpoint;
        let fails = self.report.facts.failures.iter().any(|f| is_through(f.path));
        fails && self.leads_nowhere()
    }

    fn leads_nowhere(&self) -> bool {
        self.rules
            .gaps
            .iter()
            .any(|gap| gap.kind == GapKind::EndpointStale)
    }

    pub(super) fn describe(&self) -> String {
        let node = self.report.node;
        let gone = if self.leads_nowhere() {
            " and lead to endpoints that are gone"
        } else {
            ""
        };
        format!(
            "old rules left by kube-proxy on node {node} ({}) still match the Service's addresses{gone}",
            self.rules.layout
        )
    }

    pub(super) fn fault(&self, facts: &Facts) -> Finding {
        Finding::part_fails(
            Reason::ConflictingModes,
            format!("{} replaces kube-proxy, but {}.", self.by, self.describe()),
            self.cleanup(facts),
        )
    }

    /// kube-proxy removes all that is its own, and nothing else. It is in no image but its own, of which the node's
    /// version is the one that fits.
    pub(super) fn cleanup(&self, facts: &Facts) -> String {
        let node = self.report.node;
        let object = facts.cluster_node(node);
        let name = quoted(node);
        match object.and_then(|n| n.kubernetes_version()).map(quoted) {
            Some(version) => format!(
                "Have kube-proxy remove its rules on node {node}: `kubectl debug node/{name} -it --profile=sysadmin --image=registry.k8s.io/kube-proxy:{version} -- kube-proxy --cleanup`. Then delete the Pod node-debugger-... that this leaves behind."
            ),
            None => format!(
                "Have kube-proxy remove its rules on node {node}: run it there once with --cleanup, from its image and in the node's network. It removes its rules and exits."
            ),
        }
    }
}
