//! Probes that ask a port which the containers do not have.

use std::collections::BTreeSet;

use crate::text;
use svcdiag_objects::{Container, IntOrString, Pod, Probe};

/// What is odd about the ports that a container's probes ask. A number that nobody declares may be served all the
/// same, so that this explains a probe that fails and blames none that passes.
pub(crate) fn mismatch(pod: &Pod, container: &Container) -> Option<String> {
    let probes: [(&str, Option<&Probe>); 3] = [
        ("readiness", container.readiness_probe.as_ref()),
        ("liveness", container.liveness_probe.as_ref()),
        ("startup", container.startup_probe.as_ref()),
    ];
    let asks = |name: &'static str, probe: Option<&Probe>| Some((name, probe?.port()?.clone()));
    let asked: Vec<(&str, IntOrString)> = probes
        .into_iter()
        .filter_map(|(name, probe)| asks(name, probe))
        .collect();
    let (_, odd) = asked.iter().find(|(_, port)| !has(pod, container, port))?;
    let which: Vec<&str> = asked
        .iter()
        .filter(|(_, port)| port == odd)
        .map(|(name, _)| *name)
        .collect();
    let probes = match which.len() {
        1 => format!("{} probe uses", text::list(&which)),
        _ => format!("{} probes use", text::list(&which)),
    };
    let declared: BTreeSet<String> = pod
        .long_running()
        .flat_map(|c| &c.ports)
        .map(|p| match &p.name {
            Some(name) => format!("{name} ({}/{})", p.container_port, p.protocol),
            None => format!("{}/{}", p.container_port, p.protocol),
        })
        .collect();
    let declared: Vec<String> = declared.into_iter().collect();
    Some(match odd {
        IntOrString::Int(number) => format!(
            "its {probes} port {number}, but the containers declare {}",
            text::list(&declared)
        ),
        IntOrString::String(name) => format!(
            "its {probes} the port named {name}, which container {} does not have",
            container.name
        ),
    })
}

/// Whether a container can answer at the port as far as it is declared. Names are looked up in the container itself,
/// numbers are those of the whole Pod, and a Pod that declares none may listen anywhere.
fn has(pod: &Pod, container: &Container, port: &IntOrString) -> bool {
    match port {
        IntOrString::String(name) => container.ports.iter().any(|p| p.name.as_ref() == Some(name)),
        IntOrString::Int(number) => {
            let mut declared = pod.long_running().flat_map(|c| &c.ports).peekable();
            declared.peek().is_none() || declared.any(|p| p.container_port == *number)
        }
    }
}
