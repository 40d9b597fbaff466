//! The rules of all nodes, sorted by what they say.

use std::collections::BTreeSet;

use crate::{
    evidence::{
        Evidence,
        proxies::{self, Proxy},
        reports::Report,
    },
    stages::proxy_rules_present::{
        gaps::{self, Today, concerns, has_its_family},
        leftovers::Leftover,
    },
};
use svcdiag_api::{Reason, RuleGap, Rules};
use svcdiag_kube_proxy::{Backend, ProxyMode};
use svcdiag_objects::Service;

/// Something wrong on a node.
pub(super) struct Fault<'a> {
    pub report: &'a Report<'a>,
    pub reason: Reason,
    pub rules: &'a Rules,
    pub gap: Option<&'a RuleGap>,
}

/// What the rules of the nodes say.
pub(super) struct Survey<'a> {
    pub evidence: &'a Evidence<'a>,
    service: &'a Service,
    /// What is wrong.
    pub faults: Vec<Fault<'a>>,
    /// Whether a gap is one of earlier EndpointSlices.
    pub is_stale: bool,
    /// What is odd and no fault, in words.
    pub hints: BTreeSet<String>,
    /// Nodes whose rules are as they should be.
    pub right: Vec<&'a str>,
    /// Nodes whose rules could not be read.
    pub unread: Vec<&'a str>,
    /// Modes of nodes whose rules are not compared.
    pub other_modes: BTreeSet<ProxyMode>,
    /// Rules where something else does kube-proxy's work.
    pub leftovers: Vec<Leftover<'a>>,
    /// Nodes that lack rules of an IP family that they have no address of.
    pub of_other_family: Vec<&'a str>,
}

impl<'a> Survey<'a> {
    pub(super) fn of(evidence: &'a Evidence<'a>, service: &'a Service) -> Self {
        let mut survey = Self {
            evidence,
            service,
            faults: Vec::new(),
            is_stale: false,
            hints: BTreeSet::new(),
            right: Vec::new(),
            unread: Vec::new(),
            other_modes: BTreeSet::new(),
            leftovers: Vec::new(),
            of_other_family: Vec::new(),
        };
        for report in &evidence.reports.current {
            match (proxies::of(report), &report.facts.rules) {
                (Proxy::Replaced(by), _) => survey.leftovers.extend(Leftover::of(report, by)),
                (Proxy::Own, Some(rules)) => survey.add(report, rules),
                (Proxy::Own, None) => survey.add_unread(report),
            }
        }
        survey
    }

    fn add_unread(&mut self, report: &'a Report<'a>) {
        match proxies::mode_of(report) {
            Some(mode @ (ProxyMode::Ipvs | ProxyMode::Userspace)) => {
                self.other_modes.insert(mode);
            }
            _ => self.unread.push(report.node),
        }
    }

    fn add(&mut self, report: &'a Report<'a>, rules: &'a Rules) {
        let facts = self.evidence.facts;
        let before = self.faults.len();
        let fault = |reason, gap| Fault {
            report,
            reason,
            rules,
            gap,
        };
        let (gaps, of_others): (Vec<&RuleGap>, Vec<&RuleGap>) = rules
            .gaps
            .iter()
            .partition(|gap| concerns(facts, report.node, gap));
        self.faults
            .extend(conflict(rules).map(|reason| fault(reason, None)));
        let today = Today::of(facts, self.service, report);
        for gap in gaps {
            if !today.has(gap) {
                self.is_stale = true;
            } else if let Some(reason) = gaps::reason(facts, self.service, report, gap) {
                self.faults.push(fault(reason, Some(gap)));
            } else {
                self.hints.insert(format!(
                    "on node {}, {}: {}",
                    report.node, gap.destination, gap.detail
                ));
            }
        }
        if !of_others.is_empty() {
            self.of_other_family.push(report.node);
        }
        let is_concerned = of_others.is_empty() || has_its_family(facts, self.service, report.node);
        if self.faults.len() == before && is_concerned {
            self.right.push(report.node);
        }
    }
}

/// Whether another layout than kube-proxy's own holds the Service's addresses too.
fn conflict(rules: &Rules) -> Option<Reason> {
    let other = rules.conflict.as_deref()?;
    let is_iptables = |layout: &str| Backend::parse(layout).is_some_and(Backend::is_iptables);
    Some(if is_iptables(other) && is_iptables(&rules.layout) {
        Reason::ConflictingBackends
    } else {
        Reason::ConflictingModes
    })
}
