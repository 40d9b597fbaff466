//! The documentation names files and tests and links to pages; each is there. Names in capitals stand for any:
//! `stages/STAGE.rs`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

#[path = "common/files.rs"]
mod files;

use files::files;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Directories of the repository that a path may begin with.
const DIRECTORIES: [&str; 13] = [
    ".ci", "benches", "charts", "config", "crates", "crds", "docs", "examples", "fuzz", "hack", "src",
    "testing", "tests",
];

/// The documents, by path.
fn documents() -> Vec<(PathBuf, String)> {
    let root = Path::new(ROOT);
    let mut paths = files(&root.join("docs"), "md");
    paths.extend(["README.md", "CONTRIBUTING.md", "STYLE.md", "SECURITY.md"].map(|name| root.join(name)));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// Paths below the root of all files in Rust.
fn sources() -> Vec<String> {
    ["benches", "crates", "fuzz", "src", "testing", "tests"]
        .iter()
        .flat_map(|directory| files(&Path::new(ROOT).join(directory), "rs"))
        .map(|path| path.strip_prefix(ROOT).unwrap().to_str().unwrap().to_owned())
        .collect()
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
    let is_metric = |name: &&str| name.starts_with("svcdiag_") || name.starts_with("process_");
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

/// The targets of links to files, as written.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
}

/// The anchors of a page, as GitHub makes them of its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut in_code = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        in_code ^= line.starts_with("```");
        if in_code || !line.starts_with('#') {
            continue;
        }
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        found.insert(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
    }
    found
}

#[test]
fn links_lead_to_a_file_and_a_heading_in_it() {
    let mut dead = Vec::new();
    for (document, text) in documents() {
        for link in links(&text) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => document.clone(),
                _ => document.parent().unwrap().join(path),
            };
            let has_heading =
                || anchor.is_empty() || anchors(&fs::read_to_string(&target).unwrap()).contains(anchor);
            if !target.exists() || !has_heading() {
                dead.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert_eq!(dead, Vec::<String>::new());
}

#[test]
fn the_readme_is_a_page_to_read_at_once() {
    let lines = fs::read_to_string(Path::new(ROOT).join("README.md"))
        .unwrap()
        .lines()
        .count();
    assert!(lines <= 150, "{lines} lines: move some to docs/");
}
