//! The table of stages in docs/conditions.md is that of `stage.rs`. `make generate` writes it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{env, fs};

use svcdiag_api::{Reason, STAGES, Stage};

const CONDITIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/conditions.md");
const START: &str = "<!-- stages: written by `make generate` from crates/api/src/stage.rs -->\n";
const END: &str = "<!-- end of stages -->\n";

/// Whether a reason is one of several stages, of which the page has a list of its own.
fn is_of_the_data_path(reason: Reason) -> bool {
    STAGES
        .iter()
        .filter(|stage| stage.faults.contains(&reason))
        .count()
        > 1
}

fn list(reasons: impl Iterator<Item = Reason>) -> String {
    let names: Vec<&str> = reasons.map(Reason::as_str).collect();
    names.join(", ")
}

/// The same, each with a link to its page, which every reason for False has.
fn links(reasons: impl Iterator<Item = Reason>) -> String {
    let links: Vec<String> = reasons
        .map(|reason| format!("[{reason}](reasons/{reason}.md)"))
        .collect();
    links.join(", ")
}

fn row(stage: &Stage) -> String {
    let own = links(stage.faults.iter().copied().filter(|r| !is_of_the_data_path(*r)));
    let shared = match stage.faults.iter().any(|r| is_of_the_data_path(*r)) {
        true => ", and those of the data path",
        false => "",
    };
    let unknowns = match stage.unknowns {
        [] => String::new(),
        some => format!("; unknown: {}", list(some.iter().copied())),
    };
    format!(
        "| `{}` | {} | {own}{shared} | {}{unknowns} |\n",
        stage.condition,
        stage.condition.meaning(),
        list(stage.successes.iter().copied())
    )
}

#[test]
fn the_page_has_the_stages_with_their_reasons() {
    let page = fs::read_to_string(CONDITIONS).unwrap();
    let (before, rest) = page.split_once(START).unwrap();
    let (written, after) = rest.split_once(END).unwrap();
    let head =
        "| condition | question | reasons to be `False` | other reasons of its own |\n|---|---|---|---|\n";
    let table: String = STAGES.iter().map(row).collect();
    let table = format!("\n{head}{table}\n");
    if env::var_os("GENERATE").is_some() {
        fs::write(CONDITIONS, format!("{before}{START}{table}{END}{after}")).unwrap();
        return;
    }
    assert!(
        written == table,
        "docs/conditions.md is out of date: run make generate"
    );
}

#[test]
fn the_page_lists_the_reasons_of_the_data_path() {
    let page = fs::read_to_string(CONDITIONS).unwrap();
    let (_, list) = page.split_once("Reasons of the data path").unwrap();
    let (list, _) = list.split_once(".\n").unwrap();
    let links = list.split('[').skip(1);
    let listed: Vec<Reason> = links
        .filter_map(|link| link.split_once(']')?.0.parse().ok())
        .collect();
    let shared: Vec<Reason> = Reason::ALL
        .iter()
        .copied()
        .filter(|r| is_of_the_data_path(*r))
        .collect();
    assert_eq!(listed, shared);
}
