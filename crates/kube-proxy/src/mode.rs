//! The modes of kube-proxy, and what holds the rules that it writes in them.
//!
//! On the wire (kube-proxy's flag, its configuration, its port and its log; NodeProbes; statuses) both are
//! strings. They are parsed and displayed here and nowhere else.

use std::fmt;

/// How kube-proxy implements Services on a node: `--proxy-mode`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProxyMode {
    /// iptables, by either backend.
    Iptables,
    /// nftables.
    Nftables,
    /// ipvs.
    Ipvs,
    /// userspace, until Kubernetes 1.25.
    Userspace,
    /// kernelspace, on Windows.
    Kernelspace,
    /// One that this version does not know, in lower case.
    Other(String),
}

impl ProxyMode {
    /// A mode by its name, in any case; None for the empty name, which stands for the default of the platform.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "" => return None,
            "iptables" => Self::Iptables,
            "nftables" => Self::Nftables,
            "ipvs" => Self::Ipvs,
            "userspace" => Self::Userspace,
            "kernelspace" | "winkernel" => Self::Kernelspace,
            other => Self::Other(other.to_owned()),
        })
    }

    /// Whether this version knows it.
    #[must_use]
    pub fn is_known(&self) -> bool {
        !matches!(self, Self::Other(_))
    }
}

impl fmt::Display for ProxyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
            Self::Ipvs => "ipvs",
            Self::Userspace => "userspace",
            Self::Kernelspace => "kernelspace",
            Self::Other(name) => name,
        })
    }
}

/// What holds rules of kube-proxy on a node: the `layout` of a NodeProbe's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The tables `kube-proxy` of nf_tables.
    Nftables,
    /// Chains of iptables, in nf_tables.
    IptablesNft,
    /// Chains of iptables, in the older tables of the kernel.
    IptablesLegacy,
    /// The kernel's virtual servers.
    Ipvs,
    /// Chains of iptables that lead to ports of kube-proxy itself.
    Userspace,
}

impl Backend {
    const ALL: [Self; 5] = [
        Self::Nftables,
        Self::IptablesNft,
        Self::IptablesLegacy,
        Self::Ipvs,
        Self::Userspace,
    ];

    /// A backend by its name in NodeProbes.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|backend| backend.name() == name)
    }

    /// Its name in NodeProbes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::IptablesNft => "iptables",
            Self::IptablesLegacy => "iptables-legacy",
            Self::Ipvs => "ipvs",
            Self::Userspace => "userspace",
        }
    }

    /// The mode in which kube-proxy writes to it.
    #[must_use]
    pub fn mode(self) -> ProxyMode {
        match self {
            Self::Nftables => ProxyMode::Nftables,
            Self::IptablesNft | Self::IptablesLegacy => ProxyMode::Iptables,
            Self::Ipvs => ProxyMode::Ipvs,
            Self::Userspace => ProxyMode::Userspace,
        }
    }

    /// Whether it is one of the two backends of iptables, in the mode of that name.
    #[must_use]
    pub fn is_iptables(self) -> bool {
        matches!(self, Self::IptablesNft | Self::IptablesLegacy)
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_displayed_as_it_is_parsed() {
        for name in ["iptables", "nftables", "ipvs", "userspace", "kernelspace", "frob"] {
            assert_eq!(ProxyMode::parse(name).unwrap().to_string(), name);
        }
        assert_eq!(ProxyMode::parse("IPVS"), Some(ProxyMode::Ipvs));
        assert_eq!(ProxyMode::parse("winkernel"), Some(ProxyMode::Kernelspace));
        assert_eq!(ProxyMode::parse(""), None);
        assert!(!ProxyMode::parse("frob").unwrap().is_known());
    }

    #[test]
    fn a_backend_is_displayed_as_it_is_parsed_and_has_a_known_mode() {
        for backend in Backend::ALL {
            assert_eq!(Backend::parse(&backend.to_string()), Some(backend));
            assert!(backend.mode().is_known(), "{backend}");
        }
        assert_eq!(Backend::parse("frob"), None);
    }
}
