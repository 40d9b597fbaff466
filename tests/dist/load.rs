//! hack/image-load: which command it runs for which local cluster.

use std::{
    env, fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use tempfile::TempDir;

use super::{failure, root, success};

/// What the script needs, and those of the commands that it looks for.
fn path(commands: &[&str]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let of_the_system: Vec<_> = env::split_paths(&env::var_os("PATH").unwrap()).collect();
    for tool in ["bash", "dirname", "sed", "uname"] {
        let found = of_the_system
            .iter()
            .map(|path| path.join(tool))
            .find(|it| it.exists());
        symlink(found.unwrap(), directory.path().join(tool)).unwrap();
    }
    for command in commands {
        let file = directory.path().join(command);
        fs::write(&file, format!("#!/usr/bin/env bash\necho ran {command} \"$@\"\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    directory
}

fn load(path: &Path, environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(root("hack/image-load"));
    command
        .env_clear()
        .env("PATH", path)
        .env("ARCHIVE", root("LICENSE"))
        .envs(environment.iter().copied());
    command
}

/// What the stand-in for a cluster's command was called with.
fn ran(commands: &[&str], environment: &[(&str, &str)]) -> String {
    let path = path(commands);
    let output = success(&mut load(path.path(), environment));
    let last = output.lines().last().unwrap();
    last.replace(root("LICENSE").to_str().unwrap(), "ARCHIVE")
}

const ALL: [&str; 4] = ["ctr", "minikube", "k3d", "kind"];

#[test]
fn the_cluster_that_is_named_gets_the_image() {
    for (cluster, expected) in [
        ("kind", "ran kind load image-archive ARCHIVE"),
        ("k3d", "ran k3d image import ARCHIVE"),
        ("minikube", "ran minikube image load ARCHIVE"),
        ("containerd", "ran ctr --namespace k8s.io images import ARCHIVE"),
    ] {
        assert_eq!(ran(&ALL, &[("CLUSTER", cluster)]), expected);
    }
    for (cluster, expected) in [
        ("kind", "ran kind load image-archive ARCHIVE --name shop"),
        ("k3d", "ran k3d image import ARCHIVE --cluster shop"),
        ("minikube", "ran minikube image load ARCHIVE --profile shop"),
    ] {
        assert_eq!(
            ran(&ALL, &[("CLUSTER", cluster), ("CLUSTER_NAME", "shop")]),
            expected
        );
    }
}

#[test]
fn without_a_name_it_is_the_first_that_is_installed() {
    for (commands, expected) in [
        (&ALL[..], "ran kind load"),
        (&ALL[..3], "ran k3d image"),
        (&ALL[..2], "ran minikube image"),
        (&ALL[..1], "ran ctr --namespace"),
    ] {
        let command = ran(commands, &[]);
        assert!(command.starts_with(expected), "{command}");
    }
}

#[test]
fn what_is_missing_is_said_and_nothing_is_run() {
    for (commands, environment, expected) in [
        (&[][..], &[][..], "no kind, k3d, minikube or ctr"),
        (&["kind"], &[("CLUSTER", "k3d")], "k3d is not on the PATH"),
        (
            &["kind"],
            &[("CLUSTER", "microk8s")],
            "it is one of kind, k3d, minikube, containerd",
        ),
        (
            &["kind"],
            &[("ARCHIVE", "/nowhere/image.oci.tar")],
            "/nowhere/image.oci.tar does not exist: make dist writes it",
        ),
    ] {
        let path = path(commands);
        let message = failure(&mut load(path.path(), environment));
        assert!(
            message.contains(expected) && message.lines().count() == 1,
            "{message}"
        );
    }
}
