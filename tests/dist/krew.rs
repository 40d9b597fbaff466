//! hack/krew: what krew checks of a manifest (apiVersion v1alpha2) holds, and the archives are those that it names.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

use super::{VERSION, failure, root, sha256, success};

fn name(arch: &str) -> String {
    format!("svcdiag_{VERSION}_linux_{arch}.tar.gz")
}

/// An archive with files that contain the given text.
fn write(path: &Path, files: &[&str], content: &str) {
    let encoder = GzEncoder::new(fs::File::create(path).unwrap(), Compression::default());
    let mut archive = tar::Builder::new(encoder);
    for file in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        archive
            .append_data(&mut header, file, content.as_bytes())
            .unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap();
}

fn krew(directory: &Path) -> Command {
    let mut command = Command::new(root("hack/krew"));
    command.arg(directory);
    command
}

fn manifest(directory: &Path) -> Value {
    success(&mut krew(directory));
    let text = fs::read_to_string(directory.join("svcdiag.yaml")).unwrap();
    serde_saphyr::from_str(&text).unwrap()
}

#[test]
fn the_manifest_is_one_that_krew_accepts() {
    let directory = tempfile::tempdir().unwrap();
    write(&directory.path().join(name("amd64")), &["LICENSE", "svcdiag"], "");
    let manifest = manifest(directory.path());
    assert_eq!(
        manifest["apiVersion"],
        "krew.googlecontainertools.github.com/v1alpha2"
    );
    assert_eq!(manifest["kind"], "Plugin");
    assert_eq!(manifest["metadata"], json!({"name": "svcdiag"}));
    let spec = &manifest["spec"];
    assert_eq!(spec["version"], format!("v{VERSION}"));
    assert_eq!(spec["homepage"], env!("CARGO_PKG_REPOSITORY"));
    let short = spec["shortDescription"].as_str().unwrap();
    assert!(short.len() <= 50 && !short.contains('\n'), "{short}");
    for text in ["description", "caveats"] {
        let lines = spec[text].as_str().unwrap().lines();
        assert!(lines.clone().count() > 0 && lines.clone().all(|line| line.len() <= 80));
    }
    let known: BTreeSet<&str> = [
        "version",
        "homepage",
        "shortDescription",
        "description",
        "caveats",
        "platforms",
    ]
    .into();
    let fields: BTreeSet<&str> = spec.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, known);
}

#[test]
fn the_platforms_are_the_archives_that_are_there_with_their_digests() {
    let directory = tempfile::tempdir().unwrap();
    for arch in ["arm64", "amd64"] {
        write(&directory.path().join(name(arch)), &["LICENSE", "svcdiag"], arch);
    }
    // Of another version, and no archive of a binary.
    write(
        &directory.path().join("svcdiag_9.9.9_linux_amd64.tar.gz"),
        &["svcdiag"],
        "",
    );
    write(
        &directory.path().join(format!("svcdiag-{VERSION}.tgz")),
        &["svcdiag"],
        "",
    );
    let expected = ["amd64", "arm64"].map(|arch| {
        let archive = name(arch);
        let repository = env!("CARGO_PKG_REPOSITORY");
        json!({
            "selector": {"matchLabels": {"os": "linux", "arch": arch}},
            "uri": format!("{repository}/releases/download/v{VERSION}/{archive}"),
            "sha256": sha256(&fs::read(directory.path().join(archive)).unwrap()),
            "bin": "kubectl-svcdiag",
            "files": [{"from": "svcdiag", "to": "kubectl-svcdiag"}, {"from": "LICENSE", "to": "."}],
        })
    });
    assert_eq!(manifest(directory.path())["spec"]["platforms"], json!(expected));
}

/// Its archive is one that Windows can unpack, and kubectl finds programs there by their ending.
#[test]
fn on_windows_the_plugin_comes_from_a_zip_and_has_an_ending() {
    let directory = tempfile::tempdir().unwrap();
    let archive = format!("svcdiag_{VERSION}_windows_amd64.zip");
    let files = tempfile::tempdir().unwrap();
    let zip = || {
        let arguments = [&directory.path().join(&archive), files.path()];
        success(Command::new(root("hack/zip")).args(arguments));
    };
    fs::write(files.path().join("LICENSE"), "").unwrap();
    zip();
    let message = failure(&mut krew(directory.path()));
    assert!(message.contains("has no svcdiag.exe"), "{message}");
    fs::write(files.path().join("svcdiag.exe"), "").unwrap();
    zip();
    let repository = env!("CARGO_PKG_REPOSITORY");
    assert_eq!(
        manifest(directory.path())["spec"]["platforms"],
        json!([{
            "selector": {"matchLabels": {"os": "windows", "arch": "amd64"}},
            "uri": format!("{repository}/releases/download/v{VERSION}/{archive}"),
            "sha256": sha256(&fs::read(directory.path().join(&archive)).unwrap()),
            "bin": "kubectl-svcdiag.exe",
            "files": [{"from": "svcdiag.exe", "to": "kubectl-svcdiag.exe"}, {"from": "LICENSE", "to": "."}],
        }])
    );
}

#[test]
fn a_manifest_that_would_install_nothing_is_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let message = failure(&mut krew(directory.path()));
    assert!(message.contains("no archive svcdiag_"), "{message}");
    write(&directory.path().join(name("amd64")), &["svcdiag"], "");
    let message = failure(&mut krew(directory.path()));
    assert!(message.contains("has no LICENSE"), "{message}");
    assert!(!directory.path().join("svcdiag.yaml").exists());
}
