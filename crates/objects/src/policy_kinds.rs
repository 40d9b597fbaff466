//! Kinds of policies beyond NetworkPolicy.
//!
//! Which of them are in force and what they say is not judged: that they are served is what is to be known,
//! so that no lost packet is blamed on anybody else.

/// Kinds that admit or deny packets between Pods: group, kind, and what people call it.
const KINDS: [(&str, &str, &str); 14] = [
    ("cilium.io", "CiliumNetworkPolicy", "CiliumNetworkPolicy"),
    (
        "cilium.io",
        "CiliumClusterwideNetworkPolicy",
        "CiliumClusterwideNetworkPolicy",
    ),
    ("crd.projectcalico.org", "NetworkPolicy", "Calico NetworkPolicy"),
    (
        "crd.projectcalico.org",
        "GlobalNetworkPolicy",
        "Calico GlobalNetworkPolicy",
    ),
    ("projectcalico.org", "NetworkPolicy", "Calico NetworkPolicy"),
    (
        "projectcalico.org",
        "GlobalNetworkPolicy",
        "Calico GlobalNetworkPolicy",
    ),
    ("crd.antrea.io", "NetworkPolicy", "Antrea NetworkPolicy"),
    (
        "crd.antrea.io",
        "ClusterNetworkPolicy",
        "Antrea ClusterNetworkPolicy",
    ),
    (
        "policy.networking.k8s.io",
        "AdminNetworkPolicy",
        "AdminNetworkPolicy",
    ),
    (
        "policy.networking.k8s.io",
        "BaselineAdminNetworkPolicy",
        "BaselineAdminNetworkPolicy",
    ),
    (
        "policy.networking.k8s.io",
        "ClusterNetworkPolicy",
        "ClusterNetworkPolicy",
    ),
    (
        "networking.k8s.aws",
        "ClusterNetworkPolicy",
        "AWS ClusterNetworkPolicy",
    ),
    (
        "networking.k8s.aws",
        "ApplicationNetworkPolicy",
        "AWS ApplicationNetworkPolicy",
    ),
    ("networking.gke.io", "FQDNNetworkPolicy", "FQDNNetworkPolicy"),
];

/// By this name it is told that the kinds could not be asked for.
pub const POLICY_KINDS: &str = "otherpolicykinds";

/// Whether a group has kinds of policies beyond NetworkPolicy.
#[must_use]
pub fn has_policy_kinds(group: &str) -> bool {
    KINDS.iter().any(|(g, ..)| *g == group)
}

/// What people call a kind, if it is one of policies beyond NetworkPolicy.
#[must_use]
pub fn policy_kind(group: &str, kind: &str) -> Option<&'static str> {
    let found = KINDS.iter().find(|(g, k, _)| (*g, *k) == (group, kind));
    found.map(|(_, _, name)| *name)
}
