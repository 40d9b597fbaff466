//! The programs that do kube-proxy's work, by their names and flags.
//!
//! A product that can do it does it only where it was told to.

/// Programs that run kube-proxy inside their own process.
const CARRIERS: [&str; 4] = ["k3s", "rke2", "kubelite", "k0s"];

/// Programs that can do kube-proxy's work in its stead.
const REPLACEMENTS: [(&str, &str); 5] = [
    ("cilium-agent", "cilium"),
    ("ovnkube", "ovn-kubernetes"),
    ("kube-router", "kube-router"),
    ("calico-node", "calico"),
    ("antrea-agent", "antrea"),
];

/// What a program is to the node's Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// kube-proxy.
    KubeProxy,
    /// It runs kube-proxy inside its own process.
    Carrier,
    /// It can do kube-proxy's work in its stead, under this name.
    Replacement(&'static str),
}

/// The role of a program, by its name without folders.
#[must_use]
pub fn role(program: &str) -> Option<Role> {
    if program == "kube-proxy" {
        return Some(Role::KubeProxy);
    }
    if CARRIERS.contains(&program) {
        return Some(Role::Carrier);
    }
    let (_, name) = REPLACEMENTS.iter().find(|(known, _)| *known == program)?;
    Some(Role::Replacement(name))
}

/// Whether a product was told to do kube-proxy's work, by its flags; None where they do not tell.
pub fn replaces<'a>(name: &str, flag: impl Fn(&str) -> Option<&'a str>) -> Option<bool> {
    match name {
        "cilium" => is_cilium_told(flag("kube-proxy-replacement")?),
        "kube-router" => Some(!matches!(flag("run-service-proxy"), Some("false" | "0" | "f"))),
        "ovn-kubernetes" => Some(true),
        _ => None,
    }
}

/// Whether Cilium is told to by the value of `kube-proxy-replacement`. Older versions knew modes in which some of
/// kube-proxy's work is done: these do not tell.
#[must_use]
pub fn is_cilium_told(value: &str) -> Option<bool> {
    match value.trim() {
        "true" | "strict" => Some(true),
        "false" | "disabled" => Some(false),
        _ => None,
    }
}
