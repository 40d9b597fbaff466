//! The bill of materials that `make dist` puts beside the binary: what CycloneDX demands is there, and it names what
//! is in the binary, with the checksums of Cargo.lock, and nothing else.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

use std::{collections::BTreeSet, path::Path, process::Command};

use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn bom() -> Value {
    let output = Command::new(Path::new(ROOT).join("hack/sbom")).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Name, version and checksum of every crate in Cargo.lock that comes from a registry.
fn locked() -> BTreeSet<(String, String, String)> {
    let lock = std::fs::read_to_string(Path::new(ROOT).join("Cargo.lock")).unwrap();
    let value = |package: &str, key: &str| {
        let line = package.lines().find_map(|l| l.strip_prefix(key))?;
        Some(line.strip_prefix(" = \"")?.strip_suffix('"')?.to_owned())
    };
    let package = |p| Some((value(p, "name")?, value(p, "version")?, value(p, "checksum")?));
    lock.split("[[package]]").filter_map(package).collect()
}

fn text<'a>(of: &'a Value, pointer: &str) -> &'a str {
    let found = of.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    assert!(!found.is_empty(), "no {pointer} in {of}");
    found
}

#[test]
fn the_bill_of_materials_names_what_is_in_the_binary() {
    let bom = bom();
    assert_eq!(bom["bomFormat"], "CycloneDX");
    assert_eq!(bom["specVersion"], "1.5");
    assert_eq!(bom["version"], 1);
    assert!(text(&bom, "/serialNumber").starts_with("urn:uuid:"));
    assert_eq!(bom["metadata"]["component"]["type"], "application");
    assert_eq!(bom["metadata"]["component"]["name"], "svcdiag");

    let locked = locked();
    let (mut names, mut references) = (BTreeSet::new(), BTreeSet::new());
    for component in bom["components"].as_array().unwrap() {
        let (name, version) = (text(component, "/name"), text(component, "/version"));
        assert_eq!(component["type"], "library");
        assert_eq!(
            text(component, "/purl"),
            format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
        );
        // What is of this repository comes from no registry.
        if !name.starts_with("svcdiag-") {
            assert_eq!(component["hashes"][0]["alg"], "SHA-256");
            let checksum = text(component, "/hashes/0/content");
            let locked_as = (name.to_owned(), version.to_owned(), checksum.to_owned());
            assert!(
                locked.contains(&locked_as),
                "{name} {version} is not in Cargo.lock so"
            );
        }
        assert!(!text(component, "/licenses/0/expression").contains('/'), "{name}");
        names.insert(name);
        assert!(
            references.insert(text(component, "/bom-ref")),
            "{name} is there twice"
        );
    }
    for linked in ["kube", "k8s-openapi", "rustls", "ring", "tar", "libc"] {
        assert!(names.contains(linked), "{linked} is in the binary");
    }
    // Of the tests, of the sandbox, of the compiler, of another system.
    for other in ["proptest", "kube-cel", "serde_derive", "cc", "windows-sys"] {
        assert!(!names.contains(other), "{other} is not in the binary");
    }

    references.insert(text(&bom, "/metadata/component/bom-ref"));
    let dependencies = bom["dependencies"].as_array().unwrap();
    let of: BTreeSet<&str> = dependencies.iter().map(|d| text(d, "/ref")).collect();
    assert_eq!(of, references, "every component has its dependencies");
    for reference in dependencies
        .iter()
        .flat_map(|d| d["dependsOn"].as_array().unwrap())
    {
        assert!(
            references.contains(reference.as_str().unwrap()),
            "{reference} is no component"
        );
    }
}
