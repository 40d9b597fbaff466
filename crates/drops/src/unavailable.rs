use std::{io, path::PathBuf};

/// Why drops cannot be watched on this node.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// The process may not use eBPF for tracing.
    #[error("CAP_BPF and CAP_PERFMON are missing")]
    NoCapability,
    /// The kernel does not describe its types.
    #[error("the kernel has no type information in {} (CONFIG_DEBUG_INFO_BTF)", path.display())]
    NoBtf {
        /// The file that should have it.
        path: PathBuf,
        /// What reading it led to.
        source: io::Error,
    },
    /// The type information is of a kind that is not understood.
    #[error("the kernel's type information is not understood: {0}")]
    UnknownBtf(&'static str),
    /// The kernel is older than the reasons.
    #[error("the kernel gives no reason for drops (Linux 5.17 and later do)")]
    NoReason,
    /// Lockdown forbids programs to read the kernel's memory.
    #[error("the kernel is locked down (confidentiality), which forbids tracing programs")]
    LockedDown,
    /// The process has the capabilities and is refused all the same.
    #[error("the kernel refuses bpf() although the capabilities are there (seccomp, or a user namespace)")]
    Forbidden,
    /// Anything else that the kernel says.
    #[error("the tracing program could not be loaded")]
    Refused(#[source] io::Error),
}
