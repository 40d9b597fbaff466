use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::timeout;

use super::*;

#[test]
fn what_is_made_is_private_and_never_replaces_anything() {
    let directory = tempfile::tempdir().unwrap();
    let (inner, file) = (
        directory.path().join("inner"),
        directory.path().join("inner/file"),
    );
    private_directory(&inner).unwrap();
    private_file(&file).unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&inner), mode(&file)), (0o700, 0o600));
    assert!(private_directory(&inner).is_err() && private_file(&file).is_err());
}

#[tokio::test]
async fn an_interrupt_and_a_request_to_end_are_waited_for_more_than_once() {
    let mut termination = Termination::new().unwrap();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGINT] {
        kill(Pid::this(), signal).unwrap();
        timeout(Duration::from_secs(20), termination.comes())
            .await
            .unwrap();
    }
}
