//! Where to read more.

use crate::api::ConditionType;

/// The section of Kubernetes' "Debug Services" page that asks the question of a condition.
pub(super) const fn for_condition(condition: ConditionType) -> &'static str {
    use ConditionType as C;
    match condition {
        C::ServiceExists => {
            "https://kubernetes.io/docs/tasks/debug/debug-application/debug-service/#does-the-service-exist"
        }
        C::NetworkPolicyAllows => {
            "https://kubernetes.io/docs/tasks/debug/debug-application/debug-service/#any-network-policy-ingress-rules-affecting-the-target-pods"
        }
        C::DNSResolves => {
            "https://kubernetes.io/docs/tasks/debug/debug-application/debug-service/#does-the-service-work-by-dns-name"
        }
        C::ServiceReachable => {
            "https://kubernetes.io/docs/tasks/debug/debug-application/debug-service/#does-the-service-work-by-ip"
        }
        C::DefinitionValid => {
            "https://kubernetes.io/docs/tasks/debug/debug-application/debug-service/#is-the-service-defined-correctly"
        }
        C::EndpointsPopulated => {
            "https://kubernetes.io/docs/tasks/debug/debug-application/debug-service/#does-the-service-have-any-endpointslices"
        }
        C::PodsHealthy | C::EndpointsReachable => {
            "https://kubernetes.io/docs/tasks/debug/debug-application/debug-service/#are-the-pods-working"
        }
        C::KubeProxyHealthy => {
            "https://kubernetes.io/docs/tasks/debug/debug-application/debug-service/#is-kube-proxy-running"
        }
        C::ProxyRulesPresent => {
            "https://kubernetes.io/docs/tasks/debug/debug-application/debug-service/#is-the-kube-proxy-working"
        }
        C::ProxyForwards => {
            "https://kubernetes.io/docs/tasks/debug/debug-application/debug-service/#is-kube-proxy-proxying"
        }
        C::HairpinOK => {
            "https://kubernetes.io/docs/tasks/debug/debug-application/debug-service/#a-pod-fails-to-reach-itself-via-the-service-ip"
        }
        C::Ready | C::Reconciling | C::Stalled => {
            "https://kubernetes.io/docs/tasks/debug/debug-application/debug-service/"
        }
    }
}
