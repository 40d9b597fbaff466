//! kube-proxy of the node.

use super::{Memory, Round};
use crate::{agent::kubeproxy, api::KubeProxy};

pub(super) async fn look(round: &Round<'_>, memory: &Memory) -> KubeProxy {
    let now = kubeproxy::look(&round.node.netns).await;
    let listed = kubeproxy::processes(&round.node.netns).inspect_err(|error| {
        round.problem(format!("The processes of the node could not be listed: {error}."))
    });
    let processes_unread = listed.is_err();
    let processes = listed.unwrap_or_default();
    let mut facts = KubeProxy {
        mode: now.mode.clone(),
        process: processes.kube_proxy,
        replacement: processes.replacement,
        processes_unread,
        livez: now.livez,
        metrics: now.metrics_port,
        ..KubeProxy::default()
    };
    let mut earlier = memory
        .kube_proxy
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    match earlier.as_ref() {
        Some(look) => {
            if let Some(lag) = now.since(look) {
                facts.not_syncing = lag.not_syncing;
                facts.api_unreachable = lag.api_unreachable;
                *earlier = Some(now);
            }
        }
        None => *earlier = Some(now),
    }
    facts
}
