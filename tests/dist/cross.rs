//! hack/cross-check, with programs that only say how they were called.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;

use super::root;

/// A directory with stand-ins. rustc says where the standard library of a target would be.
fn programs(rustup: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path().display();
    for (name, script) in [
        ("rustc", format!("echo {here}/libraries/$4")),
        ("rustup", format!("target=$3; {rustup}")),
        (
            "cargo",
            "echo cargo \"$@\"; $AR_x86_64_pc_windows_msvc -out:$CARGO_TARGET_DIR/made -nologo".to_owned(),
        ),
    ] {
        let path = directory.path().join(name);
        fs::write(
            &path,
            format!("#!/usr/bin/env bash\nlibraries={here}/libraries\n{script}\n"),
        )
        .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    directory
}

fn check(programs: &Path) -> Output {
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    Command::new(root("hack/cross-check"))
        .env("PATH", path)
        .env("CARGO", "cargo")
        .env("CARGO_TARGET_DIR", programs.join("build"))
        .output()
        .unwrap()
}

#[test]
fn the_program_is_checked_for_each_system_and_archives_are_made() {
    let programs = programs("mkdir -p $libraries/$target");
    let output = check(programs.path());
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "cargo clippy --locked --quiet --package svcdiag --lib --bins --no-deps --target=x86_64-apple-darwin \
         --target=x86_64-pc-windows-msvc -- -D warnings\n"
    );
    assert_eq!(fs::read(programs.path().join("build/made")).unwrap(), b"");
    for target in ["x86_64-apple-darwin", "x86_64-pc-windows-msvc"] {
        assert!(
            programs.path().join("libraries").join(target).is_dir(),
            "{target} was not added"
        );
    }
}

#[test]
fn a_system_that_cannot_be_added_is_said_and_nothing_is_run() {
    let programs = programs("exit 1");
    let output = check(programs.path());
    assert_eq!((output.status.success(), output.stdout), (true, Vec::new()));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("macOS and Windows not checked"), "{message}");
}
