//! hack/dist: what it makes of binaries for macOS and Windows, which were built there (hack/binary).

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use super::{VERSION, failure, root, sha256, success};

const ELSEWHERE: &str = "aarch64-apple-darwin x86_64-pc-windows-msvc";

/// hack/dist with a build directory in which the binaries are, with some text instead of a program.
fn dist(build: &Path, binaries: &[&str]) -> Command {
    for name in binaries {
        let path = build.join("binaries").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    let mut command = Command::new(root("hack/dist"));
    command
        .env("CARGO_TARGET_DIR", build)
        .env("TARGETS", ELSEWHERE)
        .env("SOURCE_DATE_EPOCH", "1700000000")
        // What it would render is the same for all targets, and has its own tests.
        .env("KUBECTL", "true");
    command
}

const BINARIES: [&str; 2] = [
    "aarch64-apple-darwin/svcdiag",
    "x86_64-pc-windows-msvc/svcdiag.exe",
];

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn binaries_of_other_systems_are_packed_as_people_there_expect_them() {
    let build = tempfile::tempdir().unwrap();
    success(&mut dist(build.path(), &BINARIES));
    let dist = build.path().join("dist");
    let of = |platform: &str, ending: &str| format!("svcdiag_{VERSION}_{platform}.{ending}");
    // There is no image: an agent runs on Linux.
    let expected = [
        "SHA256SUMS".to_owned(),
        "install-agentless.yaml".to_owned(),
        "install.yaml".to_owned(),
        format!("svcdiag-{VERSION}.tgz"),
        "svcdiag.yaml".to_owned(),
        of("darwin_arm64", "cdx.json"),
        of("darwin_arm64", "tar.gz"),
        of("windows_amd64", "cdx.json"),
        of("windows_amd64", "zip"),
    ];
    assert_eq!(names(&dist), expected);

    let sums = fs::read_to_string(dist.join("SHA256SUMS")).unwrap();
    let others = expected.iter().filter(|name| *name != "SHA256SUMS");
    let all: String = others
        .map(|name| format!("{}  {name}\n", sha256(&fs::read(dist.join(name)).unwrap())))
        .collect();
    assert_eq!(sums, all);

    let manifest: Value =
        serde_saphyr::from_str(&fs::read_to_string(dist.join("svcdiag.yaml")).unwrap()).unwrap();
    let platforms = manifest["spec"]["platforms"].as_array().unwrap();
    let selectors: Vec<_> = platforms
        .iter()
        .map(|it| &it["selector"]["matchLabels"])
        .collect();
    assert_eq!(
        selectors,
        [
            &json!({"os": "darwin", "arch": "arm64"}),
            &json!({"os": "windows", "arch": "amd64"})
        ]
    );

    // The components are those of the other system, without what reads the kernel of a node.
    for (platform, part) in [
        ("darwin_arm64", "security-framework"),
        ("windows_amd64", "schannel"),
    ] {
        let bom = fs::read_to_string(dist.join(of(platform, "cdx.json"))).unwrap();
        let has = |name: &str| bom.contains(&format!("\"name\": \"{name}\""));
        assert!(has("svcdiag-engine") && has(part), "{platform}");
        assert!(!has("svcdiag-agent") && !has("svcdiag-netns"), "{platform}");
    }
}

#[test]
fn the_zip_has_program_and_licence_and_is_the_same_each_time() {
    let archives = [(); 2].map(|()| {
        let build = tempfile::tempdir().unwrap();
        success(&mut dist(build.path(), &BINARIES));
        let name = format!("svcdiag_{VERSION}_windows_amd64.zip");
        let path = build.path().join("dist").join(name);
        let list = "import sys, zipfile\nfor m in zipfile.ZipFile(sys.argv[1]).infolist(): \
                    print(m.filename, oct(m.external_attr >> 16), m.date_time)";
        let listed = success(Command::new("python3").args(["-c", list]).arg(&path));
        assert_eq!(
            listed,
            "LICENSE 0o100644 (2023, 11, 14, 22, 13, 20)\nsvcdiag.exe 0o100755 (2023, 11, 14, 22, 13, 20)\n"
        );
        fs::read(path).unwrap()
    });
    assert_eq!(archives[0], archives[1]);
}

#[test]
fn a_binary_that_is_missing_is_said_before_anything_is_built() {
    let build = tempfile::tempdir().unwrap();
    let message = failure(&mut dist(build.path(), &BINARIES[..1]));
    assert!(
        message.contains("x86_64-pc-windows-msvc/svcdiag.exe is missing: run hack/binary"),
        "{message}"
    );
    assert!(!build.path().join("dist").exists());
    let message = failure(dist(build.path(), &BINARIES).env("TARGETS", "riscv64gc-unknown-linux-musl"));
    assert!(
        message.contains("svcdiag is not released for 'riscv64gc"),
        "{message}"
    );
}

#[test]
fn binaries_of_other_systems_are_not_built_here() {
    for (target, system) in [
        ("x86_64-apple-darwin", "macOS"),
        ("x86_64-pc-windows-msvc", "Windows"),
    ] {
        let message = failure(Command::new(root("hack/binary")).arg(target));
        assert!(
            message.contains(&format!("the libraries of {system}: build it there")),
            "{message}"
        );
    }
}
