//! Is kube-proxy writing the rules of this Service?

mod describe;
mod gaps;
mod leftovers;
mod remediation;
mod survey;

use crate::{
    Finding,
    evidence::{Evidence, proxies},
    stages::{
        checks::{Check, not_proxied},
        proxy_rules_present::survey::{Fault, Survey},
    },
    text,
};
use svcdiag_api::{ConditionType, Reason};

const WHAT: &str = "The rules of kube-proxy were not read";

/// Whether the question arises.
const APPLIES: [Check; 2] = [not_proxied, nobody_looked];

/// What the rules of all nodes say, in the order of precedence.
const CHECKS: [fn(&Survey<'_>) -> Option<Finding>; 8] = [
    rules_are_wrong,
    leftovers_do_harm,
    slices_have_changed,
    reports_are_missing,
    proxy_is_replaced,
    rules_are_unread,
    only_of_another_family,
    only_of_other_modes,
];

pub(super) fn judge(evidence: &Evidence<'_>) -> Finding {
    if let Some(finding) = APPLIES.iter().find_map(|check| check(evidence)) {
        return finding;
    }
    let Some(service) = evidence.service else {
        return Finding::not_applicable("There is no Service.");
    };
    let survey = Survey::of(evidence, service);
    let found = CHECKS.iter().find_map(|check| check(&survey));
    found.unwrap_or_else(|| rules_match(&survey))
}

fn nobody_looked(evidence: &Evidence<'_>) -> Option<Finding> {
    evidence.reports.nobody(WHAT)
}

/// The first fault in the order of the table, with all nodes that have it.
fn rules_are_wrong(survey: &Survey<'_>) -> Option<Finding> {
    let order = ConditionType::ProxyRulesPresent.faults().iter();
    order.copied().find_map(|reason| {
        let of: Vec<&Fault<'_>> = survey.faults.iter().filter(|f| f.reason == reason).collect();
        (!of.is_empty()).then(|| describe::build(survey.evidence, reason, &of))
    })
}

fn leftovers_do_harm(survey: &Survey<'_>) -> Option<Finding> {
    let harmful = survey.leftovers.iter().find(|l| l.does_harm())?;
    Some(harmful.fault(survey.evidence.facts))
}

fn slices_have_changed(survey: &Survey<'_>) -> Option<Finding> {
    survey.is_stale.then(|| {
        Finding::unknown(
            Reason::Pending,
            "The rules were compared with earlier EndpointSlices. Waiting for the next round of the agents.",
        )
    })
}

fn reports_are_missing(survey: &Survey<'_>) -> Option<Finding> {
    survey.evidence.reports.incomplete()
}

fn proxy_is_replaced(survey: &Survey<'_>) -> Option<Finding> {
    let by = proxies::replaced_everywhere(&survey.evidence.reports)?;
    let facts = survey.evidence.facts;
    Some(Finding::unknown(
        Reason::ProxyReplaced,
        match survey.leftovers.first() {
            None => format!("There are no kube-proxy rules to compare: {by} replaces kube-proxy."),
            Some(leftover) => format!(
                "{by} replaces kube-proxy, but {}. {}",
                leftover.describe(),
                leftover.cleanup(facts)
            ),
        },
    ))
}

/// Files hold the rules of the nodes that somebody looked at; where they hold some, the message names these.
fn rules_are_unread(survey: &Survey<'_>) -> Option<Finding> {
    let reports = &survey.evidence.reports;
    let are_files = reports.current.iter().all(|r| r.saved.is_some());
    if survey.unread.is_empty() || !survey.right.is_empty() && are_files {
        return None;
    }
    let on = text::nodes(&survey.unread);
    let message = match reports.problem(ConditionType::ProxyRulesPresent) {
        Some(why) => format!("kube-proxy's rules could not be read on {on}. {why}"),
        None => format!(
            "kube-proxy's rules could not be compared on {on}: there are none, or it is not known which of them are in use."
        ),
    };
    Some(Finding::unknown(Reason::ProbeFailed, message))
}

fn only_of_another_family(survey: &Survey<'_>) -> Option<Finding> {
    let is_only = survey.right.is_empty() && !survey.of_other_family.is_empty();
    is_only.then(|| {
        let message = format!("{}.", without_rules(&survey.of_other_family));
        Finding::unknown(Reason::NoVantagePoint, message)
    })
}

fn only_of_other_modes(survey: &Survey<'_>) -> Option<Finding> {
    survey.right.is_empty().then(|| {
        let modes: Vec<String> = survey.other_modes.iter().map(ToString::to_string).collect();
        Finding::not_applicable(format!(
            "kube-proxy is in {} mode, whose rules are not compared. The dials show whether they work.",
            text::list(&modes)
        ))
    })
}

fn rules_match(survey: &Survey<'_>) -> Finding {
    let on = text::nodes(&survey.right);
    let mut message = format!("The rules on {on} match the EndpointSlices");
    if !survey.hints.is_empty() {
        let hints: Vec<&String> = survey.hints.iter().collect();
        message.push_str(&format!(", but: {}", text::list(&hints)));
    }
    if !survey.of_other_family.is_empty() {
        message.push_str(&format!(". {}", without_rules(&survey.of_other_family)));
    }
    Finding::yes(Reason::RulesMatchEndpoints, format!("{message}."))
}

/// What is said of rules that nobody can ask for.
fn without_rules(nodes: &[&str]) -> String {
    let on = text::nodes(nodes);
    format!(
        "On {on}, rules are missing for Service addresses of an IP family in which the Node has no InternalIP; kube-proxy may write none for it"
    )
}
