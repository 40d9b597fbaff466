//! One round for one diagnosis: Facts, verdict, status.

use std::{sync::Arc, time::Instant};

use kube::runtime::controller::Action;

use super::{Context, events, metrics::Outcome, schedule, status};
use crate::{
    api::{ConditionStatus, ConditionType, Reason, ServiceDiagnosis, ServiceDiagnosisSpec},
    diagnosis::{Diagnosis, Finding, diagnose},
    objects::Object,
};

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The status could not be written.
    #[error(transparent)]
    Status(#[from] status::WriteError),
}

/// Brings the status of a diagnosis up to date.
pub(super) async fn reconcile(
    diagnosis: Arc<ServiceDiagnosis>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let start = Instant::now();
    let result = round(&diagnosis, &context).await;
    let outcome = match &result {
        Ok((_, true)) => Outcome::Written,
        Ok((_, false)) => Outcome::Unchanged,
        Err(_) => Outcome::Failed,
    };
    context.metrics.reconciled(outcome, start.elapsed());
    result.map(|(action, _)| action)
}

/// Returns when to look again, and whether a status was written.
async fn round(diagnosis: &ServiceDiagnosis, context: &Context) -> Result<(Action, bool), Error> {
    let (namespace, name) = (diagnosis.namespace(), diagnosis.name());
    let uid = diagnosis.metadata.uid.as_deref().unwrap_or_default();
    let previous = context.written.latest(diagnosis);
    let now = super::now();
    let verdict = judge(diagnosis, context, previous.as_ref(), now);
    let status = verdict.status(previous.as_ref(), diagnosis.metadata.generation, now);
    let written = status::write_if_changed(context, diagnosis, previous.as_ref(), &status).await?;
    context.failures.reset(uid);
    if written {
        events::ready_flipped(context, diagnosis, previous.as_ref(), &status).await;
    }
    context.metrics.ready(
        namespace,
        name,
        verdict.ready.status == ConditionStatus::True,
        verdict.ready.reason,
    );
    let spec = bounded(diagnosis, context);
    let action = if spec.suspend {
        Action::await_change()
    } else {
        Action::requeue(schedule::next_look(&spec, verdict.recheck_at, uid, now))
    };
    Ok((action, written))
}

fn judge(
    diagnosis: &ServiceDiagnosis,
    context: &Context,
    previous: Option<&crate::api::ServiceDiagnosisStatus>,
    now: jiff::Timestamp,
) -> Diagnosis {
    let (namespace, name) = (diagnosis.namespace(), diagnosis.name());
    let limit = context.options.max_diagnoses_per_namespace;
    let spec = bounded(diagnosis, context);
    let inventory = context.inventory();
    let beyond = inventory.is_beyond(limit, namespace, name);
    let facts = inventory.facts(
        namespace,
        spec,
        previous,
        now,
        context.options.name_other_namespaces,
    );
    drop(inventory);
    if beyond {
        beyond_bound(limit)
    } else {
        diagnose(&facts)
    }
}

/// The spec within the bounds that the controller's flags set for tenants.
fn bounded(diagnosis: &ServiceDiagnosis, context: &Context) -> ServiceDiagnosisSpec {
    let mut spec = diagnosis.spec.clone();
    spec.interval_seconds = spec.interval_seconds.max(context.options.min_interval);
    spec.nodes.max_nodes = spec.nodes.max_nodes.min(context.options.max_nodes);
    spec
}

/// The answer for a diagnosis beyond the number that a namespace may have.
fn beyond_bound(limit: usize) -> Diagnosis {
    let told = format!(
        "Not judged: the namespace has more than the {limit} diagnoses that the controller judges (--max-diagnoses-per-namespace)."
    );
    let stages = ConditionType::stages()
        .iter()
        .map(|c| (*c, Finding::unknown(Reason::Pending, told.clone())));
    Diagnosis::unjudged(stages.collect(), Reason::Pending, told)
}
