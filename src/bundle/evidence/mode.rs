//! The mode of kube-proxy, from what shows it and from what it was told.

use super::files::{Form, TextFile};
use crate::proxy::ReadError;

/// What is known of kube-proxy's mode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mode<'a> {
    /// As kube-proxy itself shows it.
    pub known: Option<&'a str>,
    /// As its ConfigMap has it, which may have been changed since it started.
    pub configured: Option<&'a str>,
}

impl<'a> Mode<'a> {
    /// The mode to go by, given those that have rules of the Service; None where it is not known.
    ///
    /// # Errors
    /// When the ConfigMap says one mode and all saved rules of the Service are of another: one of the two is
    /// left over, and nobody knows which.
    pub(super) fn settled(
        self,
        holding: &[&str],
        files: &[TextFile<'_>],
    ) -> Result<Option<&'a str>, ReadError> {
        let Some(told) = self.configured.filter(|_| self.known.is_none()) else {
            return Ok(self.known);
        };
        match holding.first() {
            Some(other) if !holding.contains(&told) => Err(ReadError {
                what: "the rules of kube-proxy".to_owned(),
                why: format!(
                    "its ConfigMap says mode {told}, and the saved rules of the Service are of mode {other}, so that one of them is left over; save `curl localhost:10249/proxyMode` as proxymode.txt"
                ),
            }),
            Some(_) => Ok(Some(told)),
            None => Ok(Some(told).filter(|told| is_used(told, files))),
        }
    }
}

/// Whether the files show rules of a mode for any Service, so that kube-proxy is, or was, in it.
fn is_used(mode: &str, files: &[TextFile<'_>]) -> bool {
    files.iter().any(|file| match file.form {
        Form::IptablesSave | Form::Ip6tablesSave | Form::NftSave | Form::LegacySave => {
            mode == "iptables" && file.text.contains("-A KUBE-SVC-")
        }
        Form::Nft | Form::NftJson => {
            mode == "nftables" && file.text.contains("service-ips") && file.text.contains("goto")
        }
        _ => false,
    })
}

/// The mode in which kube-proxy lays rules out so.
pub(super) fn mode_of_layout(layout: &str) -> &str {
    match layout {
        "iptables-legacy" => "iptables",
        other => other,
    }
}
