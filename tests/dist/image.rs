//! hack/image: the archive is an OCI image layout that every runtime accepts, with the files and the configuration of
//! Containerfile.

use std::{collections::BTreeMap, fs, io::Read, path::Path, process::Command};

use flate2::read::GzDecoder;
use serde_json::{Value, json};
use tar::Archive;

use super::{VERSION, failure, root, sha256, success};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const NAME: &str = "ghcr.io/svcdiag/svcdiag";

/// An ELF program of 64 bits, as far as hack/image reads it.
fn program(machine: u16, segments: &[u32]) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
    bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
    bytes[56..58].copy_from_slice(&u16::try_from(segments.len()).unwrap().to_le_bytes());
    for kind in segments {
        bytes.extend(kind.to_le_bytes());
        bytes.resize(bytes.len() + 52, 0);
    }
    bytes
}

const LOAD: u32 = 1;
const INTERPRETER: u32 = 3;
const AMD64: u16 = 62;
const ARM64: u16 = 183;

fn command(directory: &Path, binary: &[u8]) -> Command {
    fs::write(directory.join("binary"), binary).unwrap();
    let mut command = Command::new(root("hack/image"));
    command
        .args([directory.join("binary"), directory.join("image.oci.tar")])
        .env("SVCDIAG_GIT_COMMIT", COMMIT)
        .env("SOURCE_DATE_EPOCH", "1700000000");
    command
}

fn archive(binary: &[u8]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    success(&mut command(directory.path(), binary));
    fs::read(directory.path().join("image.oci.tar")).unwrap()
}

/// A file in a tar archive.
struct File {
    content: Vec<u8>,
    mode: u32,
    owner: (u64, u64),
    time: u64,
}

fn files(tar: &[u8]) -> BTreeMap<String, File> {
    let mut found = BTreeMap::new();
    for entry in Archive::new(tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header();
        let mut file = File {
            content: Vec::new(),
            mode: header.mode().unwrap(),
            owner: (header.uid().unwrap(), header.gid().unwrap()),
            time: header.mtime().unwrap(),
        };
        entry.read_to_end(&mut file.content).unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        assert!(
            found.insert(path.clone(), file).is_none(),
            "{path} is there twice"
        );
    }
    found
}

/// An image layout; whoever reads a blob checks it.
struct Layout(BTreeMap<String, File>);

impl Layout {
    fn of(binary: &[u8]) -> Self {
        Self(files(&archive(binary)))
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_slice(&self.0[path].content).unwrap()
    }

    fn blob(&self, descriptor: &Value, kind: &str) -> &[u8] {
        let digest = descriptor["digest"].as_str().unwrap();
        let content = &self.0[&format!("blobs/{}", digest.replace(':', "/"))].content;
        assert_eq!(digest, format!("sha256:{}", sha256(content)));
        assert_eq!(descriptor["size"], content.len());
        let expected = format!("application/vnd.oci.image.{kind}");
        assert_eq!(descriptor["mediaType"], expected);
        content
    }

    fn manifest(&self) -> Value {
        let index = self.json("index.json");
        let [descriptor] = index["manifests"].as_array().unwrap().as_slice() else {
            panic!("one manifest: {index}");
        };
        serde_json::from_slice(self.blob(descriptor, "manifest.v1+json")).unwrap()
    }

    fn config(&self) -> Value {
        serde_json::from_slice(self.blob(&self.manifest()["config"], "config.v1+json")).unwrap()
    }

    /// The only layer, unpacked.
    fn layer(&self) -> Vec<u8> {
        let manifest = self.manifest();
        let [descriptor] = manifest["layers"].as_array().unwrap().as_slice() else {
            panic!("one layer: {manifest}");
        };
        let mut layer = Vec::new();
        let compressed = self.blob(descriptor, "layer.v1.tar+gzip");
        GzDecoder::new(compressed).read_to_end(&mut layer).unwrap();
        layer
    }
}

#[test]
fn digests_and_sizes_are_those_of_the_blobs() {
    let layout = Layout::of(&program(AMD64, &[LOAD]));
    assert_eq!(layout.json("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}));
    let diff_id = format!("sha256:{}", sha256(&layout.layer()));
    assert_eq!(
        layout.config()["rootfs"],
        json!({"type": "layers", "diff_ids": [diff_id]})
    );
    assert_eq!(layout.config()["history"].as_array().unwrap().len(), 1);
    for document in [layout.json("index.json"), layout.manifest()] {
        assert_eq!(document["schemaVersion"], 2);
    }
    let blobs = layout.0.keys().filter(|path| path.starts_with("blobs/")).count();
    assert_eq!(blobs, 3, "manifest, configuration and layer, and nothing else");
}

#[test]
fn runtimes_keep_it_under_the_name_that_the_manifests_use() {
    let layout = Layout::of(&program(AMD64, &[LOAD]));
    let tag = format!("v{VERSION}");
    let name = format!("{NAME}:{tag}");
    let annotations = layout.json("index.json")["manifests"][0]["annotations"].clone();
    assert_eq!(annotations["io.containerd.image.name"], name);
    assert_eq!(annotations["org.opencontainers.image.ref.name"], tag);
    let path = |descriptor: &Value| {
        format!(
            "blobs/{}",
            descriptor["digest"].as_str().unwrap().replace(':', "/")
        )
    };
    let manifest = layout.manifest();
    let for_docker = json!([{
        "Config": path(&manifest["config"]),
        "RepoTags": [name],
        "Layers": [path(&manifest["layers"][0])],
    }]);
    assert_eq!(layout.json("manifest.json"), for_docker);
    let deployment = fs::read_to_string(root("config/manager/deployment.yaml")).unwrap();
    assert!(deployment.contains(&format!("image: {name}\n")));
}

#[test]
fn the_layer_has_the_binary_and_the_licence() {
    let binary = program(AMD64, &[LOAD]);
    let files = files(&Layout::of(&binary).layer());
    assert_eq!(files.keys().collect::<Vec<_>>(), ["LICENSE", "svcdiag"]);
    assert_eq!(files["svcdiag"].mode, 0o755);
    assert!(files["svcdiag"].content == binary);
    assert_eq!(files["LICENSE"].mode, 0o644);
    assert!(files["LICENSE"].content == fs::read(root("LICENSE")).unwrap());
    for file in files.values() {
        assert_eq!((file.owner, file.time), ((0, 0), 1_700_000_000));
    }
}

/// With `runAsNonRoot` the kubelet refuses a user that is a name, or root.
#[test]
fn it_runs_as_the_user_of_the_manifests_and_says_what_it_is() {
    let config = Layout::of(&program(AMD64, &[LOAD])).config();
    assert_eq!(config["os"], "linux");
    assert_eq!(config["created"], "2023-11-14T22:13:20Z");
    let container = &config["config"];
    assert_eq!(container["Entrypoint"], json!(["/svcdiag"]));
    let (user, group) = container["User"].as_str().unwrap().split_once(':').unwrap();
    assert!(user.parse::<u32>().unwrap() > 0 && group.parse::<u32>().unwrap() > 0);
    let deployment = fs::read_to_string(root("config/manager/deployment.yaml")).unwrap();
    assert!(deployment.contains("runAsNonRoot: true\n"));
    assert!(deployment.contains(&format!("runAsUser: {user}\n")));
    for (label, value) in [
        ("version", format!("v{VERSION}")),
        ("revision", COMMIT.to_owned()),
        ("source", env!("CARGO_PKG_REPOSITORY").to_owned()),
        ("licenses", env!("CARGO_PKG_LICENSE").to_owned()),
        ("title", "svcdiag".to_owned()),
        ("description", env!("CARGO_PKG_DESCRIPTION").to_owned()),
    ] {
        let label = format!("org.opencontainers.image.{label}");
        assert_eq!(container["Labels"][&label], value, "{label}");
    }
}

#[test]
fn the_same_binary_gives_the_same_bytes() {
    let binary = program(AMD64, &[LOAD]);
    assert!(archive(&binary) == archive(&binary));
}

#[test]
fn the_processor_is_that_of_the_binary() {
    for (machine, name) in [(AMD64, "amd64"), (ARM64, "arm64")] {
        let layout = Layout::of(&program(machine, &[LOAD]));
        assert_eq!(layout.config()["architecture"], name);
        let platform = &layout.json("index.json")["manifests"][0]["platform"];
        assert_eq!(*platform, json!({"architecture": name, "os": "linux"}));
    }
}

#[test]
fn a_binary_that_cannot_run_in_it_is_refused() {
    let riscv = 243;
    for (binary, reason) in [
        (program(AMD64, &[LOAD, INTERPRETER]), "is linked dynamically"),
        (program(riscv, &[LOAD]), "is for processor 243"),
        (b"#!/bin/sh\n".to_vec(), "is not a 64-bit Linux program"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let message = failure(&mut command(directory.path(), &binary));
        assert!(
            message.contains(reason) && message.lines().count() == 1,
            "{message}"
        );
        assert!(!directory.path().join("image.oci.tar").exists());
    }
}
