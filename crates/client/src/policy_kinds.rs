//! Which kinds of policies other than NetworkPolicy an API server serves. Every authenticated user may read this.

use std::collections::BTreeSet;

use kube::Client;
use svcdiag_objects::{has_policy_kinds, policy_kind};

use crate::is_not_served;

/// The kinds of policies other than NetworkPolicy that the API server serves. This takes one small request, and one more for
/// each version of a group that may have such kinds.
///
/// # Errors
/// When the API server does not answer.
pub async fn policy_kinds(client: &Client) -> kube::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let groups = client.list_api_groups().await?.groups;
    for group in groups.into_iter().filter(|g| has_policy_kinds(&g.name)) {
        for version in group.versions {
            match client.list_api_group_resources(&version.group_version).await {
                Ok(served) => {
                    let names = served
                        .resources
                        .iter()
                        .filter_map(|r| policy_kind(&group.name, &r.kind));
                    found.extend(names.map(str::to_owned));
                }
                // It was removed meanwhile.
                Err(error) if is_not_served(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}
