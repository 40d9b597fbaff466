//! Who listens on a node port that has no rules: connections reach that process instead of the Service.

use std::collections::BTreeSet;

use super::Round;
use crate::blocking::{Pool, blocking};
use svcdiag_api::{GapKind, RuleGap, Rules};
use svcdiag_netns::holders::{Holder, Port, holders};

/// Old versions of kube-proxy listen on the node ports that they serve.
const KUBE_PROXY: &str = "kube-proxy";

/// Names the processes that listen on node ports without rules. With rules it does not matter who listens there.
pub(super) async fn name_holders(round: &Round<'_>, rules: &mut Rules) {
    let is_missing = |gap: &&mut RuleGap| gap.kind == GapKind::NodePortMissing;
    let missing = rules.gaps.iter_mut().filter(is_missing);
    let missing: Vec<(Port, &mut RuleGap)> = missing.filter_map(|gap| Some((node_port(gap)?, gap))).collect();
    if missing.is_empty() {
        return;
    }
    let ports: BTreeSet<Port> = missing.iter().map(|(port, _)| *port).collect();
    let (netns, ips) = (round.node.netns.clone(), round.subject.node_ips.clone());
    let found = blocking(Pool::Node, move || holders(&netns, &ports, &ips)).await;
    let problem = |error: &std::io::Error| {
        round.problem(format!("It is not known who listens on node ports: {error}."));
    };
    let found = found.flatten().inspect_err(problem).unwrap_or_default();
    for (port, gap) in missing {
        if let Some(holder) = found.get(&port).filter(|holder| !is_kube_proxy(holder)) {
            gap.kind = GapKind::NodePortInUse;
            gap.detail = describe(holder);
        }
    }
}

/// The protocol and number of `node port 30080/TCP`.
fn node_port(gap: &RuleGap) -> Option<Port> {
    let (port, protocol) = gap.destination.strip_prefix("node port ")?.split_once('/')?;
    Some((protocol.parse().ok()?, port.parse().ok()?))
}

fn is_kube_proxy(holder: &Holder) -> bool {
    holder.process.as_ref().is_some_and(|p| p.name == KUBE_PROXY)
}

fn describe(holder: &Holder) -> String {
    match &holder.process {
        Some(process) if process.name.is_empty() => format!("process {}", process.pid),
        Some(process) => format!("process {}, PID {}", process.name, process.pid),
        None => format!("a process of user ID {}", holder.uid),
    }
}

#[cfg(test)]
mod tests {
    use svcdiag_kube_proxy::Protocol;
    use svcdiag_netns::holders::Process;

    use super::*;

    #[test]
    fn whoever_listens_is_described_as_far_as_it_is_known() {
        let of = |name: &str| Holder {
            uid: 101,
            process: Some(Process {
                pid: 4711,
                name: name.to_owned(),
            }),
        };
        let unknown = Holder {
            uid: 101,
            process: None,
        };
        assert_eq!(describe(&of("nginx")), "process nginx, PID 4711");
        assert_eq!(describe(&of("")), "process 4711");
        assert_eq!(describe(&unknown), "a process of user ID 101");
        assert!(is_kube_proxy(&of("kube-proxy")) && !is_kube_proxy(&unknown));
    }

    #[test]
    fn node_ports_are_read_as_differences_name_them() {
        let of = |destination: &str| {
            node_port(&RuleGap {
                kind: GapKind::NodePortMissing,
                destination: destination.to_owned(),
                endpoint: None,
                detail: String::new(),
            })
        };
        assert_eq!(of("node port 30080/TCP"), Some((Protocol::Tcp, 30080)));
        assert_eq!(of("node port 30053/UDP"), Some((Protocol::Udp, 30053)));
        assert_eq!(of("10.96.1.175:80/TCP"), None);
        assert_eq!(of("node port 99999/TCP"), None);
    }
}
