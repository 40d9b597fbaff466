//! Lease: the sign of life of an agent.

use k8s_openapi::{
    api::coordination::v1 as coordination,
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::Resource;
use serde::{Deserialize, Serialize};

use super::{Object, null_is_default};
use svcdiag_api::AGENT_LEASE_PREFIX;

/// A Lease.
#[derive(Resource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[resource(inherit = "coordination::Lease")]
pub struct Lease {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is leased.
    #[serde(default, deserialize_with = "null_is_default")]
    pub spec: LeaseSpec,
}

/// LeaseSpec.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaseSpec {
    /// How long a renewal lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_duration_seconds: Option<i32>,
    /// When the holder renewed it, by the holder's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renew_time: Option<MicroTime>,
}

impl Lease {
    /// The node whose agent this Lease is a sign of; the name says it, since admission lets an agent
    /// write the Lease of its own node only.
    #[must_use]
    pub fn agent_node(&self) -> Option<&str> {
        self.name().strip_prefix(AGENT_LEASE_PREFIX)
    }

    /// Until when a renewal that was made, or first seen, at some time lasts.
    #[must_use]
    pub fn lasts_until(&self, renewed: jiff::Timestamp) -> jiff::Timestamp {
        let seconds = self.spec.lease_duration_seconds.unwrap_or_default().max(0);
        renewed
            .checked_add(jiff::SignedDuration::from_secs(seconds.into()))
            .unwrap_or(renewed)
    }
}
