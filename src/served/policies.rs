//! Kinds of policies beyond NetworkPolicy.
//!
//! Which of them are in force and what they say is not judged: that they are served is what is to be known,
//! so that no lost packet is blamed on anybody else. Every authenticated user may ask for it.

use std::collections::BTreeSet;

use kube::Client;

use super::is_not_served;

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

/// What people call a kind, if it is one of policies beyond NetworkPolicy.
#[must_use]
pub fn policy_kind(group: &str, kind: &str) -> Option<&'static str> {
    let found = KINDS.iter().find(|(g, k, _)| (*g, *k) == (group, kind));
    found.map(|(_, _, name)| *name)
}

/// The kinds of policies beyond NetworkPolicy that the API server serves. It costs one small request, and one
/// more for each version of a group that may have such kinds.
///
/// # Errors
/// When the API server does not say.
pub async fn policy_kinds(client: &Client) -> kube::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let groups = client.list_api_groups().await?.groups;
    let groups = groups
        .into_iter()
        .filter(|g| KINDS.iter().any(|(group, ..)| *group == g.name));
    for group in groups {
        for version in group.versions {
            match client.list_api_group_resources(&version.group_version).await {
                Ok(served) => {
                    let names = served
                        .resources
                        .iter()
                        .filter_map(|r| policy_kind(&group.name, &r.kind));
                    found.extend(names.map(str::to_owned));
                }
                // It has gone meanwhile.
                Err(error) if is_not_served(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}
