//! What NetworkPolicies, and other policies as far as they are known, do to the Service's clients.
//!
//! `rules` evaluates policies as the API defines them, `mismatch` names the rule that comes nearest. A `view` holds
//! the Pods behind a Service (`targets`) against its clients; `ports` and `dns` say whether these get through,
//! `effects` whose failures prove nothing, and `describe` puts it into messages.

pub(crate) mod describe;
pub(crate) mod dns;
pub(crate) mod effects;
pub(crate) mod mismatch;
pub(crate) mod ports;
pub(crate) mod rules;
pub(crate) mod targets;
#[cfg(test)]
mod tests;
pub(crate) mod view;
