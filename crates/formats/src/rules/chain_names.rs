//! What the name of a chain of iptables says: whether it is one of kube-proxy's, and whether it was cut.

/// Beginnings of the names of kube-proxy's chains that end with 16 letters of a hash.
const HASHED: [&str; 6] = [
    "KUBE-SVC-",
    "KUBE-SVL-",
    "KUBE-EXT-",
    "KUBE-SEP-",
    "KUBE-FW-",
    "KUBE-XLB-",
];
const HASH: usize = 16;

/// Whether a name is one of kube-proxy's that was cut: its hash is too short.
pub(super) fn is_cut(chain: &str) -> bool {
    HASHED
        .iter()
        .filter_map(|start| chain.strip_prefix(start))
        .any(|hash| hash.len() != HASH)
}

/// Whether a chain belongs to one Service: what its name begins with.
pub(super) fn is_of_a_service(chain: &str) -> bool {
    HASHED.iter().any(|start| chain.starts_with(start))
}

/// Whether somebody may ask for a chain that no rule leads to. Every other one is there where a rule leads
/// to it.
pub(super) fn is_asked_by_name(chain: &str) -> bool {
    const NAMES: [&str; 9] = [
        "PREROUTING",
        "OUTPUT",
        "KUBE-SERVICES",
        "KUBE-NODEPORTS",
        "KUBE-EXTERNAL-SERVICES",
        "KUBE-PROXY-FIREWALL",
        "KUBE-POSTROUTING",
        "KUBE-MARK-MASQ",
        "KUBE-MARK-DROP",
    ];
    NAMES.contains(&chain)
}
