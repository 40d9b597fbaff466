//! docs/reasons has a page for each reason for False, and what the pages quote is what there is: the table of stages, the
//! commands that svcdiag prints, its messages, and the rows of the fault catalogue.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use svcdiag_api::{Reason, STAGES};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// How commands begin that change nothing.
const READ: [&str; 38] = [
    "bridge -d link",
    "bridge fdb show dev ",
    "bridge link",
    "cat ",
    "conntrack -L",
    "conntrack -S",
    "curl localhost:",
    "curl -o /dev/null http://",
    "curl -m 5 localhost:",
    "dmesg",
    "hostname",
    "ip -d link",
    "ip neigh show",
    "ip route get ",
    "ip route show ",
    "iptables -S ",
    "iptables -t nat -S ",
    "iptables-legacy-save",
    "iptables-nft-save",
    "iptables-save",
    "ipvsadm -ln",
    "journalctl ",
    "kubectl api-resources",
    "kubectl auth can-i ",
    "kubectl describe ",
    "kubectl get ",
    "kubectl -n ",
    "lsmod",
    "nft list ",
    "nsenter -t PID -n nft list ",
    "nsenter -t PID -n nstat ",
    "nsenter -t PID -n ss ",
    "nstat ",
    "ps ",
    "ss ",
    "sysctl net.",
    "systemctl status ",
    "tcpdump -ni any ",
];

/// What kubectl does that changes nothing, behind its namespace; of what it runs in a Pod, see `RUN`.
const VERBS: [&str; 5] = ["get", "describe", "logs", "auth", "exec"];

/// What is run in a Pod.
const RUN: [&str; 6] = ["cat", "getent", "ls", "nslookup", "ss", "wget"];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

fn files(directory: &str, ending: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(Path::new(ROOT).join(directory)).unwrap();
    let paths = all.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|e| e == ending))
        .collect()
}

/// The pages by the names of their files, without the index.
fn pages() -> BTreeMap<String, String> {
    let named = files("docs/reasons", "md").into_iter().map(|path| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(path).unwrap())
    });
    named.filter(|(name, _)| name != "README").collect()
}

/// The part of a page below a heading.
fn section<'a>(page: &'a str, heading: &str) -> Option<&'a str> {
    let (_, rest) = page.split_once(&format!("\n## {heading}\n"))?;
    Some(rest.split("\n## ").next().unwrap_or(rest))
}

/// The same text on one line.
fn on_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn faults() -> BTreeSet<&'static str> {
    let faults = STAGES.iter().flat_map(|stage| stage.faults);
    faults.map(|reason| reason.as_str()).collect()
}

#[test]
fn every_reason_for_false_has_a_page_and_no_page_is_of_another() {
    let pages = pages();
    let missing: Vec<_> = faults()
        .into_iter()
        .filter(|name| !pages.contains_key(*name))
        .collect();
    assert_eq!(missing, [""; 0], "reasons without a page in docs/reasons");
    for (name, page) in &pages {
        assert!(
            name.parse::<Reason>().is_ok(),
            "docs/reasons/{name}.md: no such reason"
        );
        assert!(
            page.starts_with(&format!("# {name}\n")),
            "docs/reasons/{name}.md: its title"
        );
    }
}

#[test]
fn the_index_has_every_page_and_each_stage_in_its_order_of_precedence() {
    let index = read("docs/reasons/README.md");
    let linked = |text: &str| -> Vec<String> {
        let links = text.split("](").skip(1);
        let names = links.filter_map(|link| link.split_once(".md)"));
        names.map(|(name, _)| name.to_owned()).collect()
    };
    for stage in STAGES {
        let section = section(&index, stage.condition.as_str()).unwrap();
        let mut listed = linked(section);
        listed.retain(|name| faults().contains(name.as_str()));
        let wanted: Vec<&str> = stage.faults.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(listed, wanted, "docs/reasons/README.md, {}", stage.condition);
    }
    let linked: BTreeSet<String> = linked(&index).into_iter().collect();
    let left: Vec<String> = pages()
        .into_keys()
        .filter(|name| !linked.contains(name))
        .collect();
    assert_eq!(left, [""; 0], "pages that are not in docs/reasons/README.md");
}

#[test]
fn a_page_names_the_stages_of_its_reason_and_links_to_their_sections() {
    for (name, page) in pages() {
        let of = STAGES
            .iter()
            .filter(|stage| stage.faults.iter().any(|r| r.as_str() == name));
        for stage in of {
            let condition = format!("`{}`", stage.condition);
            assert!(page.contains(&condition), "docs/reasons/{name}.md: {condition}");
            let link = stage.condition.link();
            assert!(page.contains(&link), "docs/reasons/{name}.md: {link}");
        }
    }
}

fn only_reads(command: &str) -> bool {
    let begins = READ.iter().any(|start| {
        command == start.trim_end() || command.starts_with(start) || command.starts_with(&format!("{start} "))
    });
    let Some(rest) = command.strip_prefix("kubectl -n ") else {
        return begins;
    };
    let verb = rest.split_whitespace().nth(1).unwrap_or_default();
    let run = rest
        .split_once(" -- ")
        .and_then(|(_, run)| run.split_whitespace().next());
    VERBS.contains(&verb) && run.is_none_or(|run| RUN.contains(&run)) && (verb == "exec") == run.is_some()
}

#[test]
fn what_is_typed_to_confirm_a_reason_only_reads() {
    for (name, page) in pages() {
        let confirm = section(&page, "Confirm").unwrap();
        let (_, block) = confirm.split_once("```sh\n").unwrap();
        let (block, _) = block.split_once("\n```").unwrap();
        for line in block.lines() {
            let command = line.split("  # ").next().unwrap_or(line).trim();
            assert!(only_reads(command), "docs/reasons/{name}.md: {command}");
        }
    }
}

/// Whether a text is a command of the table, in which `{}` stands for what is filled in.
fn is_like(command: &str, pattern: &str) -> bool {
    let mut parts = pattern.split("{}");
    let Some(mut rest) = parts.next().and_then(|start| command.strip_prefix(start)) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, between)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in between {
        let Some((_, after)) = rest.split_once(part) else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(last)
}

#[test]
fn what_is_typed_to_fix_a_fault_is_what_svcdiag_prints() {
    let table = read("crates/engine/tests/engine/commands.md");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let printed: Vec<&str> = rows
        .filter_map(|row| row.split_once("` |"))
        .map(|(c, _)| c)
        .collect();
    let programs: BTreeSet<&str> = printed
        .iter()
        .filter(|command| command.contains(' '))
        .filter_map(|command| command.split(' ').next())
        .collect();
    for name in faults() {
        let pages = pages();
        let fix = on_one_line(section(&pages[name], "Fix").unwrap());
        let quoted = fix.split('`').skip(1).step_by(2);
        for command in quoted.filter(|q| q.split_once(' ').is_some_and(|(p, _)| programs.contains(p))) {
            assert!(
                printed.iter().any(|pattern| is_like(command, pattern)),
                "docs/reasons/{name}.md: {command}"
            );
        }
    }
}

/// Messages are shortened with dots. Of a reason without a snapshot there is nothing to compare with.
#[test]
fn messages_that_are_quoted_are_those_of_the_snapshots() {
    let snapshots = files("crates/engine/tests/engine/snapshots", "snap");
    let said: String = snapshots
        .into_iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let said = on_one_line(&said);
    for (name, page) in pages() {
        let Some(shown) = section(&page, "How it looks") else {
            continue;
        };
        if faults().contains(name.as_str()) && !said.contains(&format!("/{name} (")) {
            continue;
        }
        let block = shown.split("```").nth(1).unwrap();
        let (_, command) = block.rsplit_once("\n$ ").unwrap();
        let (_, message) = command.split_once('\n').unwrap();
        for part in on_one_line(message).split("...") {
            let part = part.trim_matches([' ', ',']);
            assert!(said.contains(part), "docs/reasons/{name}.md: {part}");
        }
    }
}

#[test]
fn rows_that_a_page_names_are_in_the_fault_catalogue() {
    let rows: BTreeSet<String> = files("testing/sandbox/manifests/faults", "yaml")
        .into_iter()
        .flat_map(|path| {
            let text = fs::read_to_string(path).unwrap();
            let ids = text.lines().filter_map(|line| line.strip_prefix("- id: "));
            ids.map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    let is_id = |text: &&str| {
        let mut letters = text.chars();
        matches!(letters.next(), Some('A' | 'N')) && letters.next().is_some_and(|c| c.is_ascii_digit())
    };
    for (name, page) in pages() {
        let tested = page.split_once("**Tested:**").map_or("", |(_, rest)| rest);
        for id in tested.split('`').skip(1).step_by(2).filter(is_id) {
            assert!(rows.contains(id), "docs/reasons/{name}.md: {id}");
        }
    }
}
