//! The engine on Facts: every row of the fault catalogue, by the API alone and by what agents saw, its
//! lookalikes, and the properties that hold for all Facts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod addresses;
mod agents;
mod answers;
mod arrivals;
mod blame;
mod claims;
mod commands;
mod definition_valid;
mod dns_resolves;
mod dropped;
mod droppers;
mod endpoints_populated;
mod endpoints_reachable;
mod families;
mod fixtures;
mod full_size_paths;
mod hairpin_ok;
mod hints;
mod hostile;
mod kube_proxy;
mod kube_proxy_healthy;
mod local_policies;
mod losses;
mod masquerading;
mod network_policy_allows;
mod other_policies;
mod partly_known;
mod path_mtu;
mod plan;
mod pods;
mod pods_healthy;
mod policies;
mod policy_mismatch;
mod ports;
mod properties;
mod proxy_forwards;
mod proxy_rules_present;
mod ready;
mod rejections;
mod report;
mod rollouts;
mod selectorless;
mod selectors;
mod service_exists;
mod service_reachable;
mod silence;
mod subject;
mod timing;
mod walkthrough;
