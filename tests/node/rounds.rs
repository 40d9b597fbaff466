//! Rounds of an agent, one after another.

use svcdiag::{
    agent::round::{Memory, Node, probe},
    api::{NodeFacts, NodeProbeSpec},
};

use super::test_cluster::{NAMESPACE, Same, TestCluster};

/// A node, its Pods, and what the agent remembers from round to round.
pub(super) struct Rounds {
    pub(super) cluster: TestCluster,
    node: Node,
    pub(super) spec: NodeProbeSpec,
    memory: Memory,
}

impl Rounds {
    pub(super) fn of(cluster: TestCluster, spec: NodeProbeSpec) -> Self {
        Self {
            node: cluster.as_node(),
            cluster,
            spec,
            memory: Memory::default(),
        }
    }

    /// What the next round reports.
    pub(super) async fn next(&self) -> NodeFacts {
        let source = Same(self.spec.clone());
        probe(&self.node, NAMESPACE, &self.spec, &source, &self.memory).await
    }
}
