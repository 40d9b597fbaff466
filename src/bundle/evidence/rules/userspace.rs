//! Rules in userspace mode, which kube-proxy had until Kubernetes 1.25: they lead to ports of kube-proxy itself.

use super::{Compared, backends::Backends};
use crate::{
    formats::rules::portals::Portals,
    kube_proxy::{Backend, ExpectedPort, IpFamily, ProxyMode},
};

/// The rules, if they are those of this mode.
pub(super) fn portals<'a>(saved: &'a Backends, mode: Option<&ProxyMode>) -> Option<Portals<'a>> {
    if mode.is_some_and(|mode| *mode != ProxyMode::Userspace) {
        return None;
    }
    let portals = Portals::of(saved.iptables.as_ref()?, IpFamily::V4).ok()?;
    // Their chains alone tell the mode, though they hold nothing for any Service.
    (mode.is_some() || !portals.is_empty() || saved.has_portals).then_some(portals)
}

/// Compares the rules, port by port; with why some ports could not be.
pub(super) fn compare(
    portals: &Portals<'_>,
    service: &str,
    ports: &[ExpectedPort],
) -> (Compared, Vec<String>) {
    let (mut compared, mut gaps, mut unread) = (0, Vec::new(), Vec::new());
    for port in ports.iter().filter(|p| p.family == IpFamily::V4) {
        match portals.audit(service, port) {
            Ok(found) => {
                compared += 1;
                gaps.extend(found);
            }
            Err(error) => unread.push(error.to_string()),
        }
    }
    let found = match compared {
        0 => Compared::default(),
        _ => Compared::of(Backend::Userspace, compared, gaps),
    };
    let mut destinations = ports.iter().flat_map(|p| &p.destinations);
    let proxy_port = destinations.find_map(|d| portals.proxy_port(d));
    (Compared { proxy_port, ..found }, unread)
}
