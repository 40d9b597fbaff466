//! Requests by a headless Service's name and port, which go to that port of a Pod: nothing translates it.

use std::{net::SocketAddr, sync::Arc};

use crate::{
    engine::Facts,
    kube_proxy::Protocol,
    objects::{EndpointSlice, Open},
};

/// The Service port that was asked for by a name of the headless Service, or of a Pod below it, at an address of
/// its endpoints which have no such port.
pub(super) fn port(facts: &Facts, host: &str, target: SocketAddr) -> Option<u16> {
    let service = facts.service.as_deref().filter(|s| s.is_headless())?;
    if !is_name_of(facts, host) {
        return None;
    }
    let number = i32::from(target.port());
    let tcp = Open::Known(Protocol::Tcp);
    service
        .spec
        .ports
        .iter()
        .find(|p| p.port == number && p.protocol == tcp)?;
    let has_it = |slice: &&Arc<EndpointSlice>| slice.ready().any(|(ip, _)| ip == target.ip());
    let mut slices = facts.slices.iter().filter(has_it).peekable();
    slices.peek()?;
    let mut numbers = slices.flat_map(|s| s.numbers(&tcp));
    numbers
        .all(|(_, of)| of != target.port())
        .then_some(target.port())
}

/// `web`, `web.shop`, `web.shop.svc.cluster.local`, `web-0.web`, ...
fn is_name_of(facts: &Facts, host: &str) -> bool {
    let labels: Vec<&str> = host.trim_end_matches('.').split('.').collect();
    let (service, namespace) = (facts.spec.service_name.as_str(), facts.namespace.as_str());
    let leads = |labels: &[&str]| match labels {
        [first] => *first == service,
        [first, second, rest @ ..] => {
            *first == service && *second == namespace && rest.first().is_none_or(|third| *third == "svc")
        }
        [] => false,
    };
    leads(&labels) || labels.get(1..).is_some_and(leads)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ServiceDiagnosisSpec;

    #[test]
    fn names_of_the_service_and_of_pods_below_it_are_known() {
        let spec = ServiceDiagnosisSpec::for_service("web");
        let facts = Facts::new(jiff::Timestamp::UNIX_EPOCH, "shop", spec);
        for name in [
            "web",
            "web.shop",
            "web.shop.svc.cluster.local.",
            "web-0.web",
            "web-0.web.shop.svc",
        ] {
            assert!(is_name_of(&facts, name), "{name}");
        }
        for name in [
            "",
            "shop",
            "web.other",
            "web.shop.example",
            "10.0.0.1",
            "web-0",
            "a.b.web",
        ] {
            assert!(!is_name_of(&facts, name), "{name}");
        }
    }
}
