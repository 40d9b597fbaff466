//! docs/security.md claims nothing that no test shows: each threat names one that there is.

use std::{fs, path::Path};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Everything that is compiled, as one text.
fn sources() -> String {
    fn read(directory: &Path, into: &mut String) {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                read(&path, into);
            } else if path.extension().is_some_and(|e| e == "rs") {
                into.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut text = String::new();
    for directory in ["src", "tests", "crates"] {
        read(&Path::new(ROOT).join(directory), &mut text);
    }
    text
}

/// Whether what stands between backquotes is a test, or has some: a function, a file, a module, a target of make.
fn is_tested(name: &str, sources: &str) -> bool {
    let read = |path: &str| fs::read_to_string(Path::new(ROOT).join(path));
    let has_tests = |text: &str| text.contains("#[test]") || text.contains("#[tokio::test");
    if let Some(target) = name.strip_prefix("make ") {
        return read("Makefile").unwrap().contains(&format!("\n{target}:"));
    }
    if let Some(module) = name.strip_prefix("agent::") {
        return read(&format!("crates/agent/src/{module}.rs")).is_ok_and(|text| has_tests(&text));
    }
    if name.ends_with(".rs") {
        return read(name).is_ok_and(|text| has_tests(&text));
    }
    if name.contains('/') {
        return Path::new(ROOT).join(name).exists();
    }
    sources.contains(&format!("fn {name}()"))
}

#[test]
fn each_threat_names_a_test_that_there_is() {
    let document = fs::read_to_string(Path::new(ROOT).join("docs/security.md")).unwrap();
    let sources = sources();
    let mut threats = 0;
    for row in document.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [threat, _, _, tests] = cells[..] else {
            panic!("a threat, who, what stops it, and a test: {row}");
        };
        if threat == "threat" {
            continue;
        }
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test: {threat}");
        for name in names {
            assert!(is_tested(name, &sources), "no test is called {name}: {threat}");
        }
        threats += 1;
    }
    let counted = format!("All {threats} threats are tested and withstood.");
    assert!(document.contains(&counted), "{counted}");
}
