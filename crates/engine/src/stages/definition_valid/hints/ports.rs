//! Ports of the Service that are not what they look like.

use std::collections::BTreeSet;

use crate::{
    ports,
    stages::definition_valid::{hints::MAX_OF_A_KIND, subject::Subject},
    text,
};
use svcdiag_objects::{IntOrString, Object, ServicePort};

pub(super) fn of(subject: &Subject<'_>) -> Vec<String> {
    let mut hints = Vec::new();
    let service = subject.service;
    if service.is_headless() {
        for wanted in ports::unlisted(subject.facts, service) {
            hints.push(format!(
                "port {} is not listed, but a headless Service does not need that",
                ports::text(wanted)
            ));
        }
    }
    let each = |hint: fn(&Subject<'_>, &ServicePort) -> Option<String>| {
        let found = subject.ports.iter().filter_map(move |port| hint(subject, port));
        found.take(MAX_OF_A_KIND)
    };
    hints.extend(each(untranslated));
    hints.extend(each(undeclared));
    hints.extend(each(named_twice));
    let elsewhere = &subject.facts.saved_objects.sent_elsewhere;
    hints.extend(elsewhere.iter().take(MAX_OF_A_KIND).map(|(by, port)| {
        format!("{by} sends to port {port}, which the Service does not list: requests that come that way get an error from the proxy (for example 503)")
    }));
    hints
}

/// A target port that has no effect, as nothing is between the clients and the Pods, or the host behind an alias.
fn untranslated(subject: &Subject<'_>, port: &ServicePort) -> Option<String> {
    let (service, target) = (subject.service, port.target_port());
    let why = if service.is_external_name() {
        "an ExternalName is an alias in DNS and does not translate ports"
    } else if service.is_headless() {
        "a headless Service does not translate ports"
    } else {
        return None;
    };
    let numbers: BTreeSet<i32> = match &target {
        IntOrString::Int(number) => BTreeSet::from([*number]),
        IntOrString::String(_) => subject
            .pods
            .iter()
            .filter_map(|p| p.resolve_port(&target, &port.protocol))
            .collect(),
    };
    if numbers.iter().all(|number| *number == port.port) {
        return None;
    }
    let numbers: Vec<String> = numbers.iter().map(i32::to_string).collect();
    let named = match &target {
        IntOrString::Int(_) => String::new(),
        IntOrString::String(name) => format!(" (targetPort {name})"),
    };
    Some(format!(
        "{why}: clients must use port {}{named}, not {}",
        text::list(&numbers),
        port.port
    ))
}

/// A port name that two containers of a Pod have: the first is taken, and the other one is never reached.
fn named_twice(subject: &Subject<'_>, port: &ServicePort) -> Option<String> {
    let target = port.target_port();
    let IntOrString::String(name) = &target else {
        return None;
    };
    subject.pods.iter().find_map(|pod| {
        let ports = pod
            .long_running()
            .flat_map(|c| c.ports.iter().map(move |p| (c, p)));
        let same: Vec<String> = ports
            .filter(|(_, p)| p.name.as_ref() == Some(name) && p.protocol == port.protocol)
            .map(|(c, p)| format!("{} of container {}", p.container_port, c.name))
            .collect();
        let taken = pod.resolve_port(&target, &port.protocol)?;
        (same.len() > 1).then(|| {
            format!(
                "Pod {} has {} ports named {name}, {}: the Service uses the first, {taken}",
                pod.name(),
                same.len(),
                text::list(&same)
            )
        })
    })
}

/// Declared ports that differ from the target port. Declarations are informative only.
fn undeclared(subject: &Subject<'_>, port: &ServicePort) -> Option<String> {
    let IntOrString::Int(target) = port.target_port() else {
        return None;
    };
    let pod = subject
        .pods
        .iter()
        .find(|p| p.long_running().any(|c| !c.ports.is_empty()))?;
    let declared: Vec<_> = pod.long_running().flat_map(|c| &c.ports).collect();
    if declared
        .iter()
        .any(|d| d.container_port == target && d.protocol == port.protocol)
    {
        return None;
    }
    if let Some(other) = declared.iter().find(|d| d.container_port == target) {
        return Some(format!(
            "port {} is {}, but the Pods declare {target}/{}",
            port.describe(),
            port.protocol,
            other.protocol
        ));
    }
    let declared: Vec<String> = declared
        .iter()
        .map(|d| format!("{}/{}", d.container_port, d.protocol))
        .collect();
    Some(format!(
        "targetPort {target} is not one of the declared container ports ({})",
        text::list(&declared)
    ))
}
