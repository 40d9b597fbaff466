//! The mode of kube-proxy, from what shows it and from what it was told.

use super::backends::Backends;
use crate::kube_proxy::{ProxyMode, ReadError};

/// What is known of kube-proxy's mode.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Mode<'a> {
    /// As kube-proxy itself shows it.
    pub known: Option<&'a ProxyMode>,
    /// As its ConfigMap has it, which may have been changed since it started.
    pub configured: Option<&'a ProxyMode>,
}

impl<'a> Mode<'a> {
    /// The mode to go by, given those that have rules of the Service; None where it is not known.
    ///
    /// # Errors
    /// When the ConfigMap says one mode and all saved rules of the Service are of another: one of the two is
    /// left over, and nobody knows which.
    pub(super) fn settled(
        self,
        holding: &[ProxyMode],
        saved: &Backends,
    ) -> Result<Option<&'a ProxyMode>, ReadError> {
        let Some(configured) = self.configured.filter(|_| self.known.is_none()) else {
            return Ok(self.known);
        };
        match holding.first() {
            Some(other) if !holding.contains(configured) => Err(ReadError {
                what: "the rules of kube-proxy".to_owned(),
                why: format!(
                    "its ConfigMap says mode {configured}, but the saved rules of the Service are of mode {other}: one of the two is stale; save `curl localhost:10249/proxyMode` as proxymode.txt"
                ),
            }),
            Some(_) => Ok(Some(configured)),
            // Rules for any Service show that kube-proxy is, or was, in it.
            None => Ok(Some(configured).filter(|mode| saved.shown.contains(mode))),
        }
    }
}
