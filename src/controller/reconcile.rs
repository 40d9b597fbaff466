//! The reconciliation of one diagnosis: Facts, diagnosis, status, and then the NodeProbes.

use std::{sync::Arc, time::Instant};

use kube::runtime::{controller::Action, reflector::ObjectRef};
use tokio::task::JoinSet;
use tracing::Instrument;

use super::{
    Context, events, limits,
    metrics::{Outcome, Reported},
    open_reports,
    probes::{self, Plan, Work},
    schedule,
    status::{self, Written},
};
use crate::{
    api::{NodeProbe, ServiceDiagnosis, ServiceDiagnosisSpec, ServiceDiagnosisStatus},
    client::is_outage,
    engine::{Diagnosis, diagnose, plan},
    objects::Object,
};

/// Why a reconciliation failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The status could not be written.
    #[error(transparent)]
    Status(#[from] status::WriteError),
    /// A NodeProbe could not be applied.
    #[error(transparent)]
    Probes(#[from] probes::Error),
}

impl Error {
    /// The error of the client.
    pub(super) fn api(&self) -> Option<&kube::Error> {
        match self {
            Self::Status(status::WriteError::Api { source, .. })
            | Self::Probes(probes::Error::Api { source, .. }) => Some(source),
            _ => None,
        }
    }

    /// Whether the API server was unreachable.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Self::Status(status::WriteError::Api { source, .. })
            | Self::Probes(probes::Error::Api { source, .. }) => is_outage(source),
            Self::Status(status::WriteError::Timeout { .. })
            | Self::Probes(probes::Error::Timeout { .. }) => true,
        }
    }
}

/// Brings the status of a diagnosis up to date once there is a slot, for the spec that it has by then.
pub(super) async fn in_turn(queued: Arc<ServiceDiagnosis>, context: Arc<Context>) -> Result<Action, Error> {
    let waiting = context.metrics.waits();
    let work = async || {
        drop(waiting);
        match context.diagnoses.get(&ObjectRef::from_obj(&*queued)) {
            Some(diagnosis) => {
                let (namespace, name) = (diagnosis.namespace(), diagnosis.name());
                let span = tracing::info_span!("reconcile", namespace, name);
                let context = context.clone();
                on_any_core(async move { reconcile(&diagnosis, &context).await }.instrument(span)).await
            }
            None => Ok(Action::await_change()),
        }
    };
    let done = context.slots.run(work).await;
    done.unwrap_or_else(|| Ok(Action::await_change()))
}

/// Does the work on a task of its own: all that the queue polls itself runs on one core. It ends with who waits for it.
async fn on_any_core(
    work: impl Future<Output = Result<Action, Error>> + Send + 'static,
) -> Result<Action, Error> {
    let mut task = JoinSet::new();
    task.spawn(work);
    match task.join_next().await {
        Some(Ok(done)) => done,
        Some(Err(failed)) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
        // The runtime ends.
        Some(Err(_)) | None => Ok(Action::await_change()),
    }
}

async fn reconcile(diagnosis: &ServiceDiagnosis, context: &Context) -> Result<Action, Error> {
    let start = Instant::now();
    let result = round(diagnosis, context).await;
    let outcome = match &result {
        Ok((_, true)) => Outcome::Written,
        Ok((_, false)) => Outcome::Unchanged,
        Err(_) => Outcome::Failed,
    };
    context.metrics.reconciled(outcome, start.elapsed());
    result.map(|(action, _)| action)
}

/// Returns when to reconcile again, and whether a status was written.
async fn round(diagnosis: &ServiceDiagnosis, context: &Context) -> Result<(Action, bool), Error> {
    let (namespace, name) = (diagnosis.namespace(), diagnosis.name());
    let uid = diagnosis.metadata.uid.as_deref().unwrap_or_default();
    let previous = context.written.latest(diagnosis);
    let now = crate::clock::now();
    let spec = limits::bounded(&diagnosis.spec, &context.options);
    let start = Instant::now();
    let key = (namespace.to_owned(), name.to_owned());
    let present: Vec<NodeProbe> = context.inventory().probes_of(&key).collect();
    let (mut verdict, plan, reported) = judge(diagnosis, &spec, context, &present, previous.as_ref(), now);
    context.metrics.verdict_took(start.elapsed());
    let work = Work::of(diagnosis, &present, plan);
    let held_until = context
        .questions
        .hold(uid, diagnosis.metadata.generation, &work, &context.options, now);
    if held_until.is_some() {
        let why = limits::too_many_questions(&context.options);
        verdict.ready.message.push_str(&why);
    }
    let status = verdict.status(previous.as_ref(), diagnosis.metadata.generation, now);
    let status = context.installed.status(status);
    let written = status::write_if_due(context, diagnosis, previous.as_ref(), &status, &verdict).await;
    // A failed write of the status does not stop the NodeProbes.
    let work = match held_until {
        None => work,
        Some(_) => work.without_questions(),
    };
    let looks_held_until = context
        .second_looks
        .hold_second_looks(uid, &work, &context.options, now);
    let work = match looks_held_until {
        None => work,
        Some(_) => work.without_second_looks(),
    };
    let asked = work.run(context, diagnosis).await;
    let (is_written, due) = match written? {
        Written::Yes => (true, None),
        Written::No => (false, None),
        Written::Later(time) => (false, Some(time)),
    };
    if is_written {
        events::ready_flipped(context, diagnosis, previous.as_ref(), &status).await;
    }
    let data_path = spec.data_path.unwrap_or(context.options.data_path);
    open_reports::apply_if_changed(context, diagnosis, data_path).await;
    asked?;
    context.failures.reset(uid);
    context
        .metrics
        .judged(namespace, name, &spec.service_name, &verdict, reported);
    let action = if spec.suspend {
        Action::await_change()
    } else {
        Action::requeue(schedule::next_round(
            &spec,
            verdict
                .recheck_at
                .into_iter()
                .chain(due)
                .chain(held_until)
                .chain(looks_held_until)
                .min(),
            uid,
            now,
            context.inventory().diagnoses(),
        ))
    };
    Ok((action, is_written))
}

/// The diagnosis, the planned NodeProbes, and what agents reported, of a spec within the limits.
fn judge(
    diagnosis: &ServiceDiagnosis,
    spec: &ServiceDiagnosisSpec,
    context: &Context,
    present: &[NodeProbe],
    previous: Option<&ServiceDiagnosisStatus>,
    now: jiff::Timestamp,
) -> (Diagnosis, Plan, Reported) {
    let limit = context.options.max_diagnoses_per_namespace;
    let uid = diagnosis.metadata.uid.as_deref().unwrap_or_default();
    let judged = ServiceDiagnosis {
        metadata: diagnosis.metadata.clone(),
        spec: spec.clone(),
        status: previous.cloned(),
    };
    let inventory = context.inventory();
    if inventory.is_beyond(limit, diagnosis.namespace(), diagnosis.name()) {
        context.allowance.release(diagnosis.namespace(), uid);
        return (limits::beyond(limit), Plan::new(), Reported::default());
    }
    let others = inventory.probes_of_others(diagnosis.namespace(), uid);
    let mut facts = inventory.facts_with(&judged, present, now, context.options.name_other_namespaces);
    drop(inventory);
    // A report counts if it matches the NodeProbe as written, which with older CRDs has less than planned.
    let plan: Plan = plan(&facts, &probes::reference(diagnosis))
        .into_iter()
        .map(|(node, spec)| (node, context.installed.question(spec)))
        .collect();
    let (plan, wanted) = context
        .allowance
        .cut(&context.options, diagnosis.namespace(), uid, &others, plan);
    facts.unanswered_since = context.unanswered.since(uid);
    let is_answered_well = facts.is_answered_well();
    facts.ask(&plan);
    let is_owed = facts.is_unanswered() && !is_answered_well;
    context.unanswered.note(uid, is_owed, now);
    facts.are_probes_withheld = plan.is_empty() && wanted > 0;
    let mut verdict = diagnose(&facts);
    for remark in limits::remarks(&diagnosis.spec, spec, &context.options, plan.len(), wanted) {
        verdict.ready.message.push_str(&remark);
    }
    let reports = facts
        .nodes
        .iter()
        .filter_map(|node| node.probe.as_ref()?.facts.as_deref());
    (verdict, plan, Reported::of(reports))
}
