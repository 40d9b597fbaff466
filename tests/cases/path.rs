//! What the path of an answer must not say.

use std::net::{IpAddr, SocketAddr};

use svcdiag::{
    api::{ConditionType as C, Observation, ServiceDiagnosis},
    engine::Diagnosis,
    report::{Hop, Place, State, hops},
};

/// What is wrong with the path of an answer in JSON, a sentence each.
pub(crate) fn complaints(answer: &[u8]) -> Vec<String> {
    let Ok(object) = serde_json::from_slice::<ServiceDiagnosis>(answer) else {
        return Vec::new();
    };
    let diagnosis = object.status.as_ref().and_then(Diagnosis::of_status);
    let Some(diagnosis) = diagnosis else {
        return Vec::new();
    };
    let hops = hops(&object.spec.service_name, &diagnosis);
    let mut wrong: Vec<String> = hops.iter().filter_map(|hop| claims(hop, &diagnosis)).collect();
    wrong.extend(contradiction(&hops, &diagnosis));
    wrong
}

/// A hop that is said to be in order though dials of it fail.
fn claims(hop: &Hop, diagnosis: &Diagnosis) -> Option<String> {
    let own: &[C] = match hop.place {
        Place::Service => &[C::ServiceReachable, C::ProxyForwards],
        Place::Endpoint => &[C::EndpointsReachable],
        Place::Client | Place::Dns | Place::Proxy | Place::Hairpin => return None,
    };
    let fails = |o: &&Observation| own.iter().any(|stage| o.condition == stage.as_str()) && is_failure(o);
    let failed = diagnosis.observations.iter().find(fails)?;
    (hop.state == State::Passed).then(|| format!("the path passes {}, but {failed:?}", hop.label))
}

/// Dials that succeeded are counted, and name no address.
fn is_failure(observation: &Observation) -> bool {
    let target = observation.target.as_deref().unwrap_or_default();
    target.parse::<SocketAddr>().is_ok() || target.parse::<IpAddr>().is_ok()
}

/// A client or an address that is not that of the root cause.
fn contradiction(hops: &[Hop], diagnosis: &Diagnosis) -> Vec<String> {
    const ABOUT_CLIENTS: [C; 4] = [
        C::NetworkPolicyAllows,
        C::EndpointsReachable,
        C::ServiceReachable,
        C::HairpinOK,
    ];
    let Some(cause) = &diagnosis.root_cause else {
        return Vec::new();
    };
    let is_cause = |stage: &C| stage.as_str() == cause.condition;
    // Where no dial failed, it names none.
    let names_pods = ["Pod ", "Pods "].iter().any(|word| cause.message.contains(word));
    let is_about_clients = names_pods && ABOUT_CLIENTS.iter().any(is_cause);
    let named = hops.iter().filter_map(|hop| {
        let label = hop.label.split(' ').collect::<Vec<_>>();
        match (hop.place, hop.state, label.as_slice()) {
            (Place::Client, State::Unknown, _) => None,
            (Place::Client, _, ["Pod", pod, ..]) => is_about_clients.then_some(*pod),
            (_, State::Broken { stage, .. }, [address, ..]) if is_cause(&stage) => {
                address.parse::<SocketAddr>().is_ok().then_some(*address)
            }
            _ => None,
        }
    });
    named
        .filter(|name| !cause.message.contains(name))
        .map(|name| {
            format!(
                "the path names {name}, but the root cause says: {}",
                cause.message
            )
        })
        .collect()
}
