//! The heart: [`Facts`] in, [`Diagnosis`] out. Pure, synchronous, and the time is a value.
//!
//! [`diagnose`] asks the questions of the "Debug Services" page one after the other. The table in
//! `stages` lists them in causal order with what each needs; every stage is one function in one
//! file. `ready` sums the answers up, `status` turns the result into what is written to the API.

#![forbid(unsafe_code)]

mod applicable;
pub mod asked;
mod clients;
mod diagnosis;
mod dialling;
mod evidence;
mod facts;
mod finding;
pub mod inventory;
mod kept;
mod node_rules;
mod observations;
mod plan;
mod pods;
mod policies;
mod ports;
mod questions;
mod ready;
mod saved;
mod stages;
mod status;
mod summary;
mod text;
mod time;
mod workloads;
mod written;

use crate::evidence::{Evidence, losses, proxies, reports};
use svcdiag_api::Observation;

pub use crate::{
    diagnosis::{Diagnosis, NodeLoss, Outcome},
    evidence::dials::{BY_PROXY, LARGE_ANSWERS_STOP, LATE, WITHOUT_STATUS},
    facts::{
        ChainedService, ClientNamespace, ClusterDns, Facts, NodeReport, OtherService, ProbeReport, Unreadable,
    },
    finding::{Finding, Verdict},
    node_rules::{dead_ends_of, rule_gap},
    plan::{plan, probe_name},
    policies::effects::may_keep_nodes_away,
    questions::{digest as question_digest, is_same as is_same_question},
    ready::NOTHING_BUT_THE_API,
    saved::{
        DnsLog, HairpinSetup, Origin, PodTemplate, Saved, SavedEvent, SavedObjects, SavedText, TableEvidence,
        TablePod, TemplatePort, UNKNOWN_NODE,
    },
    status::{Pace, is_same, pace},
};

/// Most observations that a status carries.
const MAX_OBSERVATIONS: usize = 32;

/// Judges a Service.
#[must_use]
pub fn diagnose(facts: &Facts) -> Diagnosis {
    let evidence = Evidence::of(facts);
    let stages = stages::judge_all(&evidence);
    let root_cause = ready::root_cause(&stages);
    let ready = ready::ready(facts, &stages, root_cause.as_ref());
    let stalled_at = ready::stalled_at(facts, &ready);
    let stalled = ready::stalled(facts, &ready, stalled_at);
    let reconciling = ready::reconciling(&ready, stalled.as_ref());
    let mut observations: Vec<Observation> = stages
        .iter()
        .flat_map(|(_, finding)| finding.observations.clone())
        .collect();
    observations.extend(observations::of(&evidence));
    observations.extend(kept::observations(&evidence, &stages));
    observations.truncate(MAX_OBSERVATIONS);
    let recheck_at = stages
        .iter()
        .filter_map(|(_, finding)| finding.recheck_at)
        .chain(stalled_at)
        .filter(|at| *at > facts.now)
        .min();
    let mut summary = summary::summary(&evidence, &stages);
    let mut proxy_mode = proxies::mode(&evidence.reports);
    if let Some(last) = kept::proxy(facts, &stages) {
        proxy_mode.clone_from(&last.proxy_mode);
        summary.proxy = last.summary.as_ref().map_or(summary.proxy, |s| s.proxy.clone());
    }
    let mut diagnosis = Diagnosis {
        summary,
        proxy_mode,
        stages,
        ready,
        reconciling,
        stalled,
        root_cause,
        observations,
        losses: losses::by_node(&evidence),
        recheck_at,
        silent_at: reports::silent_at(facts),
        settled_at: kept::settled_at(facts),
        answered_at: kept::answered_at(facts, &evidence.reports.waiting),
    };
    diagnosis.clean();
    diagnosis
}
