//! From the stages' answers to Ready, Reconciling, Stalled and the root cause.

use jiff::{SignedDuration, Timestamp};

use crate::{Facts, Finding, Outcome, Verdict};
use svcdiag_api::{ConditionStatus, ConditionType, DataPath, Impact, Reason, RootCause};

/// What is said of a Service whose API objects are without fault while no agent has looked further.
pub const NOTHING_BUT_THE_API: &str = "No fault in the API objects, but the data path was not probed";

type Stages = [(ConditionType, Finding)];

/// The first fault that leaves nothing working, else the first fault: what stands earlier in
/// causal order explains what stands later, and a fault of a part does not explain a failure of all.
pub(crate) fn root_cause(stages: &Stages) -> Option<RootCause> {
    let faults = || {
        stages
            .iter()
            .filter_map(|(condition, finding)| match &finding.verdict {
                Verdict::False { impact, remediation } => Some((*condition, finding, *impact, remediation)),
                _ => None,
            })
    };
    let (condition, finding, impact, remediation) = faults()
        .find(|(_, _, impact, _)| *impact == Impact::All)
        .or_else(|| faults().next())?;
    Some(RootCause {
        condition: condition.as_str().to_owned(),
        reason: finding.reason.as_str().to_owned(),
        impact,
        message: finding.message.clone(),
        remediation: remediation.clone(),
        link: Some(finding.reason.link()),
    })
}

/// Whether the Service works.
pub(crate) fn ready(facts: &Facts, stages: &Stages, root_cause: Option<&RootCause>) -> Outcome {
    if facts.spec.suspend {
        return Outcome {
            status: ConditionStatus::Unknown,
            reason: Reason::Suspended,
            message: "The diagnosis is suspended (spec.suspend). Nothing is probed or checked.".to_owned(),
        };
    }
    if let Some(cause) = root_cause {
        let reason = stages
            .iter()
            .find(|(condition, _)| condition.as_str() == cause.condition)
            .map_or(Reason::Pending, |(_, finding)| finding.reason);
        return Outcome {
            status: ConditionStatus::False,
            reason,
            message: format!("{} is False: {}", cause.condition, cause.message),
        };
    }
    let open: Vec<&(ConditionType, Finding)> = stages
        .iter()
        .filter(|(_, finding)| !finding.is_satisfied())
        .collect();
    if open.is_empty() {
        return nothing_open(stages);
    }
    if let Some(works) = definition_works(facts, &open) {
        return works;
    }
    let of = |reasons: &[Reason]| -> Vec<&(ConditionType, Finding)> {
        open.iter()
            .copied()
            .filter(|(_, finding)| reasons.contains(&finding.reason))
            .collect()
    };
    let names = |stages: &[&(ConditionType, Finding)]| {
        stages
            .iter()
            .map(|(condition, _)| condition.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let describe = |(condition, finding): &(ConditionType, Finding)| {
        format!("{condition} is Unknown ({}): {}", finding.reason, finding.message)
    };
    let pending = of(&[Reason::Pending, Reason::PodsStarting]);
    let silent = of(&[Reason::AgentNotResponding]);
    let unseen = of(&[Reason::NoVantagePoint]);
    let other = open
        .iter()
        .find(|(_, f)| !matches!(f.reason, Reason::NoVantagePoint | Reason::Blocked));
    let (reason, message) = if let Some(first) = pending.first() {
        (Reason::Pending, describe(first))
    } else if !silent.is_empty() {
        (
            Reason::AgentNotResponding,
            format!(
                "Node agents have stopped reporting, so these conditions are Unknown: {}.",
                names(&silent)
            ),
        )
    } else if let Some(first) = other {
        (Reason::NoVantagePoint, describe(first))
    } else if let Some(first) = unseen.first().filter(|_| was_looked_at(stages)) {
        (Reason::NoVantagePoint, describe(first))
    } else if let Some(first) = open.first().filter(|_| unseen.is_empty()) {
        // What is left waits for a stage that was skipped.
        (Reason::NoVantagePoint, describe(first))
    } else {
        let unseen = names(&unseen);
        let why = match facts.nodes.is_empty() {
            true => ": no node agent reports",
            false => "",
        };
        (
            Reason::NoVantagePoint,
            format!("{NOTHING_BUT_THE_API}{why} ({unseen})."),
        )
    };
    Outcome {
        status: ConditionStatus::Unknown,
        reason,
        message,
    }
}

/// Where nothing but the data path is open, nobody has tried that, and the diagnosis asks for no more. Agents that have
/// fallen silent are agents: what they would see is not known.
fn definition_works(facts: &Facts, open: &[&(ConditionType, Finding)]) -> Option<Outcome> {
    let why = match facts.spec.data_path.unwrap_or(DataPath::Required) {
        DataPath::IfAvailable if facts.has_no_agents => "the cluster has no node agents",
        DataPath::Ignore => "dataPath is Ignore",
        DataPath::Required | DataPath::IfAvailable => return None,
    };
    let is_untried = |(condition, finding): &&(ConditionType, Finding)| {
        !ConditionType::api_stages().contains(condition)
            && matches!(finding.reason, Reason::NoVantagePoint | Reason::Blocked)
    };
    let names: Vec<&str> = open.iter().map(|(condition, _)| condition.as_str()).collect();
    open.iter().all(is_untried).then(|| Outcome {
        status: ConditionStatus::True,
        reason: Reason::DefinitionWorks,
        message: format!(
            "Nothing is wrong with the API objects. Not tested, because {why}: {}.",
            names.join(", ")
        ),
    })
}

/// Whether anybody dialled the Service or its endpoints.
fn was_looked_at(stages: &Stages) -> bool {
    const DIALLED: [ConditionType; 3] = [
        ConditionType::EndpointsReachable,
        ConditionType::ProxyForwards,
        ConditionType::ServiceReachable,
    ];
    let is_true = |(condition, finding): &(ConditionType, Finding)| {
        DIALLED.contains(condition) && finding.verdict == Verdict::True
    };
    stages.iter().any(is_true)
}

/// Where no question is left open. Without a client that could try, somebody else has to have got through.
fn nothing_open(stages: &Stages) -> Outcome {
    let has = |wanted: Reason| stages.iter().any(|(_, finding)| finding.reason == wanted);
    let of = |stage: ConditionType| stages.iter().find(|(c, _)| *c == stage).map(|(_, f)| f);
    let is_true = |stage| of(stage).is_some_and(|f| f.verdict == Verdict::True);
    // A headless Service has no address; its endpoints are all there is to dial.
    let is_headless = of(ConditionType::ServiceReachable).is_some_and(|f| f.reason == Reason::NotApplicable);
    let nodes_got_through =
        is_true(ConditionType::ProxyForwards) || is_headless && is_true(ConditionType::EndpointsReachable);
    let by_mesh = of(ConditionType::ServiceReachable).is_some_and(|f| f.reason == Reason::InterceptedByMesh);
    let no_clients = has(Reason::NoClientPods);
    let (status, reason, message) = if (no_clients || by_mesh) && !nodes_got_through {
        (
            ConditionStatus::Unknown,
            Reason::NoVantagePoint,
            "It could not be tested whether the Service works: neither a client Pod nor a node got through to it.",
        )
    } else if no_clients {
        (
            ConditionStatus::True,
            Reason::WorksFromNodes,
            "The Service works from the nodes. There is no client Pod to test from.",
        )
    } else {
        (
            ConditionStatus::True,
            Reason::ServiceWorks,
            "Every condition that applies to the Service is True.",
        )
    };
    Outcome {
        status,
        reason,
        message: message.to_owned(),
    }
}

/// When a Service that is not ready becomes Stalled.
pub(crate) fn stalled_at(facts: &Facts, ready: &Outcome) -> Option<Timestamp> {
    if ready.status != ConditionStatus::False {
        return None;
    }
    let patience = SignedDuration::from_secs(i64::from(facts.spec.stalled_after_seconds));
    facts
        .not_ready_since
        .unwrap_or(facts.now)
        .checked_add(patience)
        .ok()
}

pub(crate) fn stalled(facts: &Facts, ready: &Outcome, at: Option<Timestamp>) -> Option<Outcome> {
    at.filter(|at| *at <= facts.now).map(|_| Outcome {
        status: ConditionStatus::True,
        reason: ready.reason,
        message: format!(
            "Ready has been False for at least {} seconds and is not expected to become True without a change.",
            facts.spec.stalled_after_seconds
        ),
    })
}

/// True while the verdict may still change without anybody's doing.
pub(crate) fn reconciling(ready: &Outcome, stalled: Option<&Outcome>) -> Option<Outcome> {
    let waiting = match ready.status {
        ConditionStatus::False => stalled.is_none(),
        ConditionStatus::Unknown => ready.reason == Reason::Pending,
        ConditionStatus::True => false,
    };
    waiting.then(|| Outcome {
        status: ConditionStatus::True,
        reason: ready.reason,
        message: "The result may still change. Waiting for the Service to settle.".to_owned(),
    })
}
