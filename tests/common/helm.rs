//! Helm, as `hack/helm` installs it.

use std::{path::Path, process::Command};

/// Runs Helm at the root of the sources; its output or its error.
pub(crate) fn helm(arguments: &[&str], kubeconfig: Option<&Path>) -> Result<String, String> {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut command = Command::new(Path::new(root).join("hack/helm"));
    command.args(arguments).current_dir(root);
    if let Some(path) = kubeconfig {
        command.env("KUBECONFIG", path).env("HELM_DRIVER", "memory");
    }
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    match output.status.success() {
        true => Ok(text(output.stdout)),
        false => Err(text(output.stderr)),
    }
}
