//! The documentation names files and tests; each is there. Names in capitals stand for any: `stages/STAGE.rs`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Directories of the repository that a path may begin with.
const DIRECTORIES: [&str; 11] = [
    ".ci", "benches", "config", "crates", "crds", "docs", "fuzz", "hack", "src", "testing", "tests",
];

/// The documents, by path.
fn documents() -> Vec<(PathBuf, String)> {
    let root = Path::new(ROOT);
    let in_docs = fs::read_dir(root.join("docs")).unwrap().flatten();
    let mut paths: Vec<PathBuf> = in_docs.map(|entry| entry.path()).collect();
    paths.extend(["README.md", "CONTRIBUTING.md", "STYLE.md", "SECURITY.md"].map(|name| root.join(name)));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// Paths below the root of all files in Rust.
fn sources() -> Vec<String> {
    fn walk(directory: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path.strip_prefix(ROOT).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let mut found = Vec::new();
    for directory in ["benches", "crates", "fuzz", "src", "testing", "tests"] {
        walk(&Path::new(ROOT).join(directory), &mut found);
    }
    found
}

/// What may be a path: no spaces, quotes or brackets, and no punctuation at its end.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split(|c: char| !(c.is_alphanumeric() || "._-/*".contains(c)));
    parts
        .map(|part| part.trim_end_matches(['.', '/']))
        .filter(|part| !part.is_empty() && !part.contains(['*']) && !part.contains(".."))
        .filter(|part| {
            !part
                .split(['/', '.'])
                .any(|name| name.len() > 1 && name.chars().all(char::is_uppercase))
        })
}

#[test]
fn files_that_the_documentation_names_exist() {
    let sources = sources();
    let is_there = |word: &str| match word.split_once('/') {
        Some((first, _)) if DIRECTORIES.contains(&first) => Path::new(ROOT).join(word).exists(),
        _ if word.ends_with(".rs") => sources.iter().any(|path| path.ends_with(&format!("/{word}"))),
        _ => true,
    };
    let mut missing = BTreeSet::new();
    for (document, text) in documents() {
        missing.extend(
            words(&text)
                .filter(|word| !is_there(word))
                .map(|word| format!("{}: {word}", document.display())),
        );
    }
    assert_eq!(missing, BTreeSet::new());
}

#[test]
fn tests_that_the_documentation_names_exist() {
    let texts: String = sources()
        .iter()
        .map(|path| fs::read_to_string(Path::new(ROOT).join(path)).unwrap())
        .collect();
    let is_sentence = |name: &&str| {
        name.matches('_').count() >= 3
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let is_metric = |name: &&str| name.starts_with("svcdiag_");
    for (document, text) in documents() {
        for name in text
            .split('`')
            .filter(is_sentence)
            .filter(|name| !is_metric(name))
        {
            assert!(
                texts.contains(&format!("fn {name}(")),
                "{}: {name}",
                document.display()
            );
        }
    }
}

/// `cargo test` with a filter that matches nothing succeeds.
#[test]
fn filters_of_tests_that_the_documentation_names_match_a_module() {
    for (document, text) in documents() {
        for line in text.lines().filter(|line| line.contains("cargo test")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            for (n, word) in words.iter().enumerate() {
                let Some(module) = word.strip_suffix("::") else {
                    continue;
                };
                let folder = match words[..n] {
                    [.., "--lib"] => "src".to_owned(),
                    [.., "--test", test] => format!("tests/{test}"),
                    _ => panic!("{}: of which target? {line}", document.display()),
                };
                let at = |path: String| Path::new(ROOT).join(folder.as_str()).join(path).exists();
                assert!(
                    at(format!("{module}.rs")) || at(format!("{module}/mod.rs")),
                    "{}: {line}",
                    document.display()
                );
            }
        }
    }
}
