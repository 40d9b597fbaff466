//! Reproductions of public bug reports: each directory holds a bundle of files as a user would have saved
//! them, or a text as somebody would have pasted it (`paste.txt`), and `expect.json` with what a right answer has to contain. The real binary judges every one.
//!
//! The bundles were written from scratch after the facts of the reports: names are made up, addresses
//! are private or of documentation ranges. `live-*` hold reports of node agents in place of text.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "tests"
)]

mod expect;
mod path;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use expect::{Answer, Expect};

/// The binary under test.
const BINARY: &str = env!("CARGO_BIN_EXE_svcdiag");

/// Directories with a case, in order.
fn cases() -> Vec<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(here)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("expect.json").is_file())
        .collect();
    cases.sort();
    cases
}

/// What is wrong with the answer to a case, a sentence each.
fn judge(case: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(case.join("expect.json")).unwrap();
    let expect: Expect = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", case.display()));
    let mut command = Command::new(BINARY);
    let paste = case.join("paste.txt");
    let evidence = if paste.is_file() {
        paste
    } else {
        case.join("bundle")
    };
    command.arg("diagnose").arg("--bundle").arg(evidence);
    if let Some((namespace, name)) = expect.service.as_deref().map(|s| s.split_once('/').unwrap()) {
        command.args([name, "-n", namespace]);
    }
    let output = command.args(&expect.args).args(["-o", "json"]).output().unwrap();
    match Answer::read(&output) {
        Ok(answer) => [expect.complaints(&answer), path::complaints(&output.stdout)].concat(),
        Err(why) => vec![why],
    }
}

#[test]
fn every_public_report_is_answered_as_it_should_be() {
    let cases = cases();
    assert!(!cases.is_empty(), "there are no cases");
    let queue = Mutex::new(cases.iter());
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some(case) = queue.lock().unwrap().next() else {
                        return;
                    };
                    let complaints = judge(case);
                    if !complaints.is_empty() {
                        let name = case.file_name().unwrap().to_string_lossy();
                        wrong
                            .lock()
                            .unwrap()
                            .push(format!("{name}: {}", complaints.join("; ")));
                    }
                }
            });
        }
    });
    let mut wrong = wrong.into_inner().unwrap();
    wrong.sort();
    println!("{} of {} as expected", cases.len() - wrong.len(), cases.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
