//! The data path of a Service that no diagnosis watches: agents are asked by a ServiceDiagnosis that lasts as long as the
//! check. The verdict is the controller's, since who may write diagnoses may not read what agents report about nodes.

use std::{collections::BTreeMap, io::IsTerminal, time::Duration};

use jiff::SignedDuration;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, PostParams},
};
use tokio::time::{Instant, sleep};

use super::Error;
use crate::{
    api::{Reason, ServiceDiagnosis, ServiceDiagnosisSpec},
    cluster::{Request, RequestError, ask, list},
    engine::Diagnosis,
    report::Answer,
    system::Termination,
};

/// Label of such diagnoses. Nothing else asks what they ask.
const TEMPORARY: (&str, &str) = ("svcdiag.dev/temporary", "check");

/// A temporary diagnosis that is older was left behind by a check that was killed.
const LEFT_BEHIND: SignedDuration = SignedDuration::from_hours(1);

/// How often the status is read.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// How long a dial that is lost between nodes may get another cause: the other node watches for its packets meanwhile.
const SECOND_LOOK: Duration = Duration::from_secs(8);

/// Whether a diagnosis is one of a check.
pub(super) fn is_temporary(diagnosis: &ServiceDiagnosis) -> bool {
    diagnosis.labels().contains_key(TEMPORARY.0)
}

/// How long a verdict is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Until {
    pub timeout: Duration,
    /// Until then a verdict that the Service does not work is no answer yet.
    pub works_by: Option<Instant>,
}

/// What came of asking the agents.
pub(super) enum Asked {
    /// A diagnosis was made; its verdict, if there was one in time.
    Answered(Option<Box<Diagnosis>>),
    /// The API server did not answer; it may do so later.
    NotNow,
    /// No diagnosis can be made.
    Refused,
}

/// Has the agents probe. Why there is no verdict is noted.
///
/// # Errors
/// When the user interrupts.
pub(super) async fn probe(
    client: &Client,
    namespace: &str,
    spec: &ServiceDiagnosisSpec,
    until: Until,
    termination: &mut Termination,
) -> Result<Asked, Error> {
    let api: Api<ServiceDiagnosis> = Api::namespaced(client.clone(), namespace);
    tokio::select! {
        () = remove_left_behind(client, &api, namespace) => {}
        () = termination.comes() => return Err(Error::Interrupted),
    }
    let (params, wanted) = (PostParams::default(), diagnosis(spec));
    let request = || Request::create::<ServiceDiagnosis>(namespace);
    let name = match ask(api.create(&params, &wanted), request).await {
        Ok(made) => made.name_any(),
        Err(error) => {
            eprintln!("note: the agents were not asked to probe the data path: {error}");
            return Ok(match error.may_pass() {
                true => Asked::NotNow,
                false => Asked::Refused,
            });
        }
    };
    let answer = tokio::select! {
        found = settled(&api, &name, until) => Ok(Asked::Answered(found.map(Box::new))),
        () = termination.comes() => Err(Error::Interrupted),
    };
    tokio::select! {
        () = remove(&api, namespace, &name) => {}
        () = termination.comes() => eprintln!("warning: ServiceDiagnosis {name} may be left; {}", by_hand(namespace, &name)),
    }
    answer
}

fn diagnosis(spec: &ServiceDiagnosisSpec) -> ServiceDiagnosis {
    let mut diagnosis = ServiceDiagnosis::new("", spec.clone());
    diagnosis.metadata.name = None;
    diagnosis.metadata.generate_name = Some("svcdiag-check-".to_owned());
    diagnosis.metadata.labels = Some([(TEMPORARY.0.to_owned(), TEMPORARY.1.to_owned())].into());
    diagnosis
}

fn by_hand(namespace: &str, name: &str) -> String {
    format!("remove it with: kubectl -n {namespace} delete servicediagnosis {name}")
}

async fn remove(api: &Api<ServiceDiagnosis>, namespace: &str, name: &str) {
    let params = DeleteParams::default();
    let request = || Request::delete::<ServiceDiagnosis>(namespace, name);
    match ask(api.delete(name, &params), request).await {
        // That it is gone is what matters.
        Ok(_) | Err(RequestError::NotServed { .. }) => {}
        Err(error) => eprintln!("warning: {error}; {}", by_hand(namespace, name)),
    }
}

/// Removes what killed checks have left; what cannot be removed is tried again by the next.
async fn remove_left_behind(client: &Client, api: &Api<ServiceDiagnosis>, namespace: &str) {
    let label = format!("{}={}", TEMPORARY.0, TEMPORARY.1);
    let found: Result<Vec<ServiceDiagnosis>, RequestError> = list(client, namespace, Some(&label)).await;
    let old = crate::clock::now() - LEFT_BEHIND;
    for diagnosis in found.unwrap_or_default() {
        if diagnosis.creation_timestamp().is_some_and(|time| time.0 < old) {
            let _ = api.delete(&diagnosis.name_any(), &DeleteParams::default()).await;
        }
    }
}

/// Waits for the verdict, and shows on a terminal which stages have been judged. After the timeout what is known counts.
async fn settled(api: &Api<ServiceDiagnosis>, name: &str, until: Until) -> Option<Diagnosis> {
    let mut shown = std::io::stderr().is_terminal().then(BTreeMap::new);
    let end = until.works_by.unwrap_or_else(|| Instant::now() + until.timeout);
    let mut last = None;
    let mut looked_at: Option<Instant> = None;
    loop {
        let problem = match ask(api.get(name), || Request::get::<ServiceDiagnosis>(name)).await {
            Ok(found) => {
                last = verdict_of(&found);
                if let (Some(verdict), Some(shown)) = (&last, &mut shown) {
                    show(verdict, shown);
                }
                if let Some(verdict) = last.as_ref().filter(|verdict| is_settled(verdict)) {
                    let since = *looked_at.get_or_insert_with(Instant::now);
                    let is_last = !is_looked_at_again(verdict) || since.elapsed() >= SECOND_LOOK;
                    if is_last && (until.works_by.is_none() || Answer::of(verdict, false) == Answer::Works) {
                        return last;
                    }
                }
                None
            }
            Err(error) => Some(error),
        };
        if Instant::now() > end {
            let why = match (&last, problem) {
                // What was waited for is that it works.
                (Some(verdict), None) if is_settled(verdict) => return last,
                (_, Some(error)) => format!("{error}"),
                (None, None) => "the controller has written no verdict".to_owned(),
                (Some(_), None) => "not all agents have answered".to_owned(),
            };
            eprintln!("note: {why} within {} s (--timeout)", until.timeout.as_secs());
            return last;
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// The verdict on the present spec.
fn verdict_of(diagnosis: &ServiceDiagnosis) -> Option<Diagnosis> {
    diagnosis.current_status().and_then(Diagnosis::of_status)
}

/// Whether nothing is waited for any more.
fn is_settled(verdict: &Diagnosis) -> bool {
    let reasons = verdict.stages.iter().map(|(_, finding)| finding.reason);
    !reasons
        .chain([verdict.ready.reason])
        .any(|reason| reason == Reason::Pending)
}

/// Whether the agents of both nodes look for what a verdict does not say yet.
fn is_looked_at_again(verdict: &Diagnosis) -> bool {
    let mut causes = verdict.root_cause.iter();
    causes.any(|cause| cause.reason == Reason::CrossNodeUnreachable.as_str())
}

/// Tells of stages that have got another answer.
fn show(verdict: &Diagnosis, shown: &mut BTreeMap<&'static str, Reason>) {
    for (stage, finding) in &verdict.stages {
        let is_known = finding.status() != crate::api::ConditionStatus::Unknown;
        if is_known && shown.insert(stage.as_str(), finding.reason) != Some(finding.reason) {
            eprintln!("{stage:<20} {}", finding.reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::{Facts, diagnose};

    /// As the controller writes it for generation 2.
    fn written(spec: ServiceDiagnosisSpec, observed: i64) -> ServiceDiagnosis {
        let facts = Facts::new(jiff::Timestamp::UNIX_EPOCH, "shop", spec.clone());
        let mut diagnosis = ServiceDiagnosis::new("d", spec);
        diagnosis.metadata.generation = Some(2);
        diagnosis.status = Some(diagnose(&facts).status(None, Some(observed), facts.now));
        diagnosis
    }

    #[test]
    fn a_fault_settles_the_verdict_at_once_though_it_may_be_reconciling_still() {
        let diagnosis = written(ServiceDiagnosisSpec::for_service("cart"), 2);
        let conditions = &diagnosis.status.as_ref().unwrap().conditions;
        assert!(
            conditions
                .iter()
                .any(|c| c.type_ == "Reconciling" && c.status == "True")
        );
        let verdict = verdict_of(&diagnosis).unwrap();
        assert!(is_settled(&verdict));
        assert_eq!(verdict.ready.reason, Reason::ServiceNotFound);
    }

    #[test]
    fn a_verdict_on_an_earlier_spec_is_none() {
        assert!(verdict_of(&written(ServiceDiagnosisSpec::for_service("cart"), 1)).is_none());
        let mut without = written(ServiceDiagnosisSpec::for_service("cart"), 2);
        without.status = None;
        assert!(verdict_of(&without).is_none());
    }

    #[test]
    fn stages_that_wait_for_agents_are_waited_for() {
        let mut diagnosis = written(ServiceDiagnosisSpec::for_service("cart"), 2);
        let status = diagnosis.status.as_mut().unwrap();
        let stage = status
            .conditions
            .iter_mut()
            .find(|c| c.type_ == "HairpinOK")
            .unwrap();
        stage.reason = "Pending".to_owned();
        assert!(!is_settled(&verdict_of(&diagnosis).unwrap()));
    }

    #[test]
    fn a_temporary_diagnosis_is_known_by_its_label() {
        let made = diagnosis(&ServiceDiagnosisSpec::for_service("cart"));
        assert!(is_temporary(&made));
        assert_eq!(
            json!(made)["metadata"],
            json!({ "generateName": "svcdiag-check-", "labels": { "svcdiag.dev/temporary": "check" } })
        );
        assert!(!is_temporary(&written(
            ServiceDiagnosisSpec::for_service("cart"),
            2
        )));
    }
}
