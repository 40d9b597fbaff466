//! What nodes in the kernel take: the rights of root, at least in a user namespace, and some programs.

use std::{
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

use svcdiag_sandbox::{kernel::DataPath, proxy::ProxyMode};

use super::Failure;

/// What to do where there can be no nodes in the kernel.
pub(super) const WITHOUT: &str = "Without it, add `--data-path none`: then there are objects only, and svcdiag shows \
                                  what the Kubernetes API can tell";

/// Becomes root of a user namespace, unless we are root already: by starting this very program again there.
///
/// # Errors
/// When this machine does not let users have namespaces. With success it does not return.
pub(super) fn become_root() -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    const UNSHARE: [&str; 2] = ["--user", "--map-root-user"];
    let tried = Command::new("unshare")
        .args(UNSHARE)
        .arg("true")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !tried.is_ok_and(|status| status.success()) {
        return Err(format!(
            "nodes in the kernel take root, or user namespaces, which this machine does not let you have (`unshare \
             --user --map-root-user true` fails; see sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces \
             and kernel.apparmor_restrict_unprivileged_userns). {WITHOUT}"
        )
        .into());
    }
    let own = std::env::current_exe()?;
    let error = Command::new("unshare")
        .args(UNSHARE)
        .arg("--")
        .arg(own)
        .args(std::env::args_os().skip(1))
        .exec();
    Err(format!("cannot run unshare: {error}").into())
}

/// Programs that are not here, with the Debian package of each.
pub(super) fn missing_programs(data_path: DataPath) -> Result<(), Failure> {
    let mut programs = vec![
        ("ip", "iproute2"),
        ("bridge", "iproute2"),
        ("nft", "nftables"),
        ("unshare", "util-linux"),
        ("nsenter", "util-linux"),
        ("setpriv", "util-linux"),
        ("awk", "mawk"),
        // A policy, a sidecar and leftovers are made with it whatever kube-proxy's mode.
        ("iptables-nft-restore", "iptables"),
    ];
    if data_path.proxy == ProxyMode::IptablesLegacy {
        programs.push(("iptables-legacy-restore", "iptables"));
    }
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let is_here = |program: &str| {
        path.split(':')
            .any(|directory| Path::new(directory).join(program).is_file())
    };
    let missing: Vec<String> = programs
        .into_iter()
        .filter(|(program, _)| !is_here(program))
        .map(|(program, package)| format!("{program} (Debian: {package})"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "nodes in the kernel take programs that are not here: {}. {WITHOUT}",
        missing.join(", ")
    )
    .into())
}
