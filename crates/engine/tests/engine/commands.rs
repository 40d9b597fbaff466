//! Every command that svcdiag prints stands in a table with a verdict of its safety (`commands.md`), and what
//! is printed in fact can be pasted.
//!
//! The commands are taken from the sources, where each stands as a whole between backquotes in one literal: so none
//! is forgotten, whether a test produces it or not.

mod literals;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use self::literals::{literals, quoted};

const CRATE: &str = env!("CARGO_MANIFEST_DIR");
/// Of the workspace.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const TABLE: &str = include_str!("commands.md");

/// A row of the table.
struct Row<'a> {
    command: &'a str,
    does: &'a str,
    why: &'a str,
    run: &'a str,
}

impl Row<'_> {
    fn is_command(&self) -> bool {
        self.does != "text"
    }
}

fn rows() -> Vec<Row<'static>> {
    let of_table = TABLE.lines().filter(|line| line.starts_with("| `"));
    of_table
        .map(|line| {
            let (command, rest) = line.strip_prefix("| `").unwrap().split_once("` |").unwrap();
            let cells: Vec<&str> = rest.trim_end_matches('|').split('|').map(str::trim).collect();
            let [does, why, run] = cells.as_slice() else {
                panic!("not four cells: {line}");
            };
            Row {
                command,
                does,
                why,
                run,
            }
        })
        .collect()
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name().into_string().unwrap();
        if path.is_dir() && name != "tests" {
            sources(&path, found);
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// The commands of the sources, and a file that has each.
fn printed() -> BTreeMap<String, PathBuf> {
    let mut files = Vec::new();
    sources(&Path::new(ROOT).join("src"), &mut files);
    for member in fs::read_dir(Path::new(ROOT).join("crates")).unwrap().flatten() {
        sources(&member.path().join("src"), &mut files);
    }
    let mut all = BTreeMap::new();
    for path in files {
        for literal in literals(&fs::read_to_string(&path).unwrap()) {
            // One alone draws the corner of a tree.
            if literal.matches('`').count() > 1 {
                all.extend(quoted(&literal).map(|command| (command, path.clone())));
            }
        }
    }
    all
}

#[test]
fn every_printed_command_has_a_row_and_every_row_is_printed() {
    let printed = printed();
    let rows = rows();
    let known: BTreeSet<&str> = rows.iter().map(|row| row.command).collect();
    assert_eq!(
        known.len(),
        rows.len(),
        "a command has two rows in tests/engine/commands.md"
    );
    let unknown: Vec<String> = printed
        .iter()
        .filter(|(command, _)| !known.contains(command.as_str()))
        .map(|(command, path)| format!("`{command}` in {}", path.display()))
        .collect();
    assert!(
        unknown.is_empty(),
        "Commands without a row in tests/engine/commands.md. A command stands as a whole between backquotes in one \
         literal. Can it be pasted on any cluster without harm? Then add `| `command` | reads or changes | why it is \
         safe | how it was run |`; `text` for what is no command.\n{}",
        unknown.join("\n")
    );
    let gone: Vec<&str> = known
        .into_iter()
        .filter(|command| !printed.contains_key(*command))
        .collect();
    assert!(
        gone.is_empty(),
        "Nothing prints these any more; remove their rows from tests/engine/commands.md.\n{}",
        gone.join("\n")
    );
}

#[test]
fn the_table_says_of_each_command_what_it_does_and_how_that_is_known() {
    for row in rows() {
        let Row {
            command,
            does,
            why,
            run,
        } = row;
        assert!(["reads", "changes", "text"].contains(&does), "{command}: {does}");
        let is_known = |run: &str| ["matrix", "e2e", "node"].contains(&run);
        assert!(run == "-" || run.split(", ").all(is_known), "{command}: {run}");
        assert!(
            does == "reads" || !why.is_empty(),
            "{command}: nothing says why it is safe"
        );
        assert!(does != "text" || run == "-", "{command}: no command, but run");
    }
}

/// Verbs that take something away, with what may follow them: one object by its name.
const REMOVALS: [&str; 6] = [
    "delete pod {}",
    "delete pod -l k8s-app=kube-proxy --field-selector spec.nodeName={}",
    "delete table ip kube-proxy",
    "-F KUBE-SERVICES",
    "-D -p udp --orig-dst {} --reply-src {}",
    "-d {} {} -r {}",
];

#[test]
fn no_command_does_harm() {
    for row in rows().iter().filter(|row| row.is_command()) {
        let command = row.command;
        for never in [
            "--force",
            "--all ",
            "-P ",
            "restore",
            "flush",
            "--grace-period",
            "rm ",
            "xargs",
            " | ",
        ] {
            let is_own = command == "svcdiag crd | kubectl apply --server-side -f -";
            assert!(is_own || !command.contains(never), "{command}: {never}");
        }
        let words: Vec<&str> = command.split_whitespace().collect();
        let removes =
            |word: &&str| matches!(*word, "delete" | "-D" | "-F" | "-X" | "-d" | "drain" | "replace");
        if words
            .iter()
            .any(|word| removes(word) && words[0] != "bridge" && words[0] != "ip")
        {
            assert!(
                REMOVALS.iter().any(|known| command.ends_with(known)),
                "{command} takes away more than one object that it names"
            );
        }
        assert!(!command.starts_with("{}"), "{command}: its program is not told");
    }
}

/// Labels by which commands select: those of our own manifests, and those of Kubernetes itself.
#[test]
fn commands_select_by_labels_that_exist() {
    let manifests = ["config/agent/daemonset.yaml", "config/manager/deployment.yaml"];
    let manifests = manifests.map(|file| fs::read_to_string(Path::new(ROOT).join(file)).unwrap());
    let others = [
        "component=kube-controller-manager",
        "k8s-app=kube-dns",
        "k8s-app=kube-proxy",
        // NodeLocal DNSCache, as Kubernetes' own manifest labels it.
        "k8s-app=node-local-dns",
        "kubernetes.io/service-name={}",
        "{}",
    ];
    for row in rows() {
        let mut words = row.command.split_whitespace();
        while words.by_ref().any(|word| word == "-l") {
            let selector = words.next().unwrap();
            let is_label = |manifest: &String, label: &str| {
                let label = label.split_once('=');
                label.is_some_and(|(key, value)| manifest.contains(&format!("{key}: {value}\n")))
            };
            let has_all = |manifest: &String| selector.split(',').all(|label| is_label(manifest, label));
            let is_ours = manifests.iter().any(has_all);
            assert!(
                is_ours || others.contains(&selector),
                "{}: {selector} selects nothing",
                row.command
            );
        }
    }
}

/// Whether a command is one of a row, with values in it.
fn is_of(command: &str, template: &str) -> bool {
    let mut parts = template.split("{}");
    let Some(mut rest) = command.strip_prefix(parts.next().unwrap()) else {
        return false;
    };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        let found = if parts.peek().is_none() && part.is_empty() {
            Some(rest.len())
        } else if parts.peek().is_none() {
            rest.ends_with(part).then(|| rest.len() - part.len())
        } else {
            rest.find(part)
        };
        let Some(at) = found.filter(|at| *at > 0) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

/// What a shell would not take for a plain word, outside of quotes.
fn has_bare_specials(value: &str) -> bool {
    let mut quote = None;
    for c in value.chars() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (
                None,
                ';' | '|' | '&' | '$' | '<' | '>' | '(' | ')' | '[' | ']' | '*' | '?' | '~' | '#' | '!'
                | '\\' | '\n',
            ) => {
                return true;
            }
            _ => {}
        }
    }
    quote.is_some()
}

/// Fails where a text has a command between backquotes that is of no row, or that a shell takes for another.
#[track_caller]
pub(crate) fn assert_safe_to_paste(text: &str, what: &str) {
    static ROWS: std::sync::OnceLock<Vec<Row<'static>>> = std::sync::OnceLock::new();
    let rows = ROWS.get_or_init(rows);
    assert!(
        text.split('`').count() % 2 == 1,
        "{what}: a backquote stands alone: {text}"
    );
    for command in text.split('`').skip(1).step_by(2) {
        let row = rows.iter().find(|row| is_of(command, row.command));
        let row = row.unwrap_or_else(|| panic!("{what}: {command} is of no row"));
        let is_whole = row.command.contains(['$', '>']);
        assert!(
            is_whole || !has_bare_specials(command),
            "{what}: {command}: not for a shell"
        );
    }
}

#[test]
fn what_the_snapshots_print_is_of_the_table_and_can_be_pasted() {
    let rows = rows();
    let mut seen = 0;
    for entry in fs::read_dir(Path::new(CRATE).join("tests/engine/snapshots"))
        .unwrap()
        .flatten()
    {
        let text = fs::read_to_string(entry.path()).unwrap();
        for line in text.lines() {
            for command in line.split('`').skip(1).step_by(2) {
                seen += 1;
                let row = rows.iter().find(|row| is_of(command, row.command));
                let row = row.unwrap_or_else(|| panic!("{command} is of no row: {}", entry.path().display()));
                let is_whole = row.command.contains(['$', '>']);
                assert!(
                    is_whole || !has_bare_specials(command),
                    "{command}: not for a shell"
                );
            }
        }
    }
    assert!(seen > 100, "{seen} commands");
}

#[test]
fn commands_are_found_in_sources() {
    let source = r##"
        // `not this`
        const A: &str = "see `one {name}` and `two -p '{{\"a\":{b}}}'`";
        fn f<'a>(c: char) -> &'a str { if c == '"' || c == '\'' { r#"`three "x"`"# } else { "no \
             more `four`" } }
        #[cfg(test)]
mod tests { const B: &str = "`five`"; }
    "##
    .replace("        #[cfg(test)]", "#[cfg(test)]");
    let found: Vec<String> = literals(&source)
        .iter()
        .flat_map(|l| quoted(l).collect::<Vec<_>>())
        .collect();
    assert_eq!(found, ["one {}", r#"two -p '{"a":{}}'"#, r#"three "x""#, "four"]);
    assert!(is_of("kubectl -n shop get pods", "kubectl -n {} get pods"));
    assert!(!is_of(
        "kubectl -n shop get pods -o wide",
        "kubectl -n {} get pods"
    ));
    assert!(has_bare_specials("a;b") && has_bare_specials("'a") && !has_bare_specials("'a;b'"));
}
