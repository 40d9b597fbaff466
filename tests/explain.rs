//! `svcdiag explain`, `completion` and `man`, and the program as a plugin of kubectl, as users run them.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and runs the binary"
)]

use std::{
    path::Path,
    process::{Command, Output},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_svcdiag");

fn run(program: &Path, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap()
}

/// What the program prints where it has nothing to complain about.
#[track_caller]
fn printed(program: impl AsRef<Path>, arguments: &[&str]) -> String {
    let output = run(program.as_ref(), arguments);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "{complaint}");
    String::from_utf8(output.stdout).unwrap()
}

/// The reasons that have a page.
fn reasons() -> Vec<String> {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reasons");
    let names = std::fs::read_dir(pages)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter_map(|name| Some(name.strip_suffix(".md")?.to_owned()))
        .filter(|name| name != "README")
        .collect()
}

#[test]
fn every_reason_is_explained_with_all_that_its_page_lets_one_type() {
    let reasons = reasons();
    assert!(reasons.len() > 90, "{}", reasons.len());
    for reason in reasons {
        let text = printed(PROGRAM, &["explain", &reason]);
        assert!(text.starts_with(&format!("{reason}\n\n")), "{text}");
        for heading in ["What svcdiag saw", "Confirm"] {
            assert!(text.contains(&format!("\n\n{heading}\n\n")), "{reason}: {text}");
        }
        assert!(text.contains("\n  kubectl ") || text.contains("\n  "), "{text}");
        for mark in ["](", "**", "```", "\n## ", "Tested:"] {
            assert!(!text.contains(mark), "{reason} has {mark:?}: {text}");
        }
        assert!(text.ends_with(&format!("/docs/reasons/{reason}.md\n")), "{text}");
    }
}

#[test]
fn the_list_has_every_reason() {
    let list = printed(PROGRAM, &["explain"]);
    for reason in reasons() {
        assert!(list.contains(&format!("  {reason} ")), "{reason}: {list}");
    }
}

#[test]
fn a_reason_that_does_not_exist_is_a_usage_error() {
    let output = run(Path::new(PROGRAM), &["explain", "NoReadyEndpoint"]);
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("did you mean NoReadyEndpoints?"), "{text}");
}

#[test]
fn colours_are_printed_where_they_are_asked_for() {
    let has_colours = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .env_remove("NO_COLOR")
            .envs(variables.iter().copied());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout.contains(&b'\x1b')
    };
    const EXPLAIN: [&str; 2] = ["explain", "NoReadyEndpoints"];
    let with = |color: &'static str| [&EXPLAIN[..], &["--color", color]].concat();
    assert!(!has_colours(&EXPLAIN, &[]), "in a pipe");
    assert!(has_colours(&with("always"), &[("NO_COLOR", "1")]));
    assert!(has_colours(
        &["--color=always", "explain", "NoReadyEndpoints"],
        &[]
    ));
    assert!(has_colours(&with("auto"), &[("CLICOLOR_FORCE", "1")]));
    assert!(!has_colours(&with("never"), &[("CLICOLOR_FORCE", "1")]));
}

#[test]
fn bash_completes_commands_and_reasons() {
    let script = printed(PROGRAM, &["completion", "bash"]);
    // As bash itself calls the function on a Tab.
    let complete = |line: &str| {
        let typed = format!(
            "{script}\nCOMP_WORDS=({line} '') COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)) COMP_TYPE=9\n\
             _clap_complete_svcdiag svcdiag \"${{COMP_WORDS[COMP_CWORD]}}\" && printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let mut bash = Command::new("bash");
        let directory = Path::new(PROGRAM).parent().unwrap().display();
        let path = format!("{directory}:{}", std::env::var("PATH").unwrap());
        let output = bash.arg("-c").arg(typed).env("PATH", path).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let commands = complete("svcdiag");
    for command in ["check", "collect", "diagnose", "explain", "list", "wait"] {
        assert!(
            commands.lines().any(|line| line == command),
            "{command}: {commands}"
        );
    }
    let reasons = complete("svcdiag explain");
    assert!(
        reasons.lines().any(|line| line == "NoReadyEndpoints"),
        "{reasons}"
    );
}

#[test]
fn shells_get_a_script() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = printed(PROGRAM, &["completion", shell]);
        assert!(script.contains("SVCDIAG_COMPLETE"), "{shell}: {script}");
    }
}

#[test]
fn kubectl_completes_its_plugin() {
    let directory = tempfile::tempdir().unwrap();
    let completer = directory.path().join("kubectl_complete-svcdiag");
    std::os::unix::fs::symlink(PROGRAM, &completer).unwrap();
    let commands = printed(&completer, &["c"]);
    assert!(commands.starts_with("check\tCheck a Service now"), "{commands}");
    assert!(commands.ends_with("\n:4\n"), "{commands}");
    let reasons = printed(&completer, &["explain", "noready"]);
    assert!(reasons.starts_with("NoReadyEndpoints\t"), "{reasons}");
}

#[test]
fn manual_pages_are_written_for_each_command() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("man1");
    printed(PROGRAM, &["man", "--output-dir", target.to_str().unwrap()]);
    let page = std::fs::read_to_string(target.join("svcdiag-check.1")).unwrap();
    for part in [".SH NAME", "svcdiag check hostnames", "Exit codes"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(target.join("svcdiag.1").exists() && target.join("svcdiag-wait.1").exists());
}

#[test]
fn as_a_plugin_it_is_called_as_one() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = directory.path().join("kubectl-svcdiag");
    std::os::unix::fs::symlink(PROGRAM, &plugin).unwrap();
    let help = printed(&plugin, &["check", "--help"]);
    assert!(help.contains("Usage: kubectl svcdiag check"), "{help}");
    assert!(help.contains("\n  kubectl svcdiag check hostnames\n"), "{help}");
    assert!(!help.contains("\n  svcdiag "), "{help}");
    let help = printed(&plugin, &["--help"]);
    assert!(help.contains("Usage: kubectl svcdiag"), "{help}");

    let own = printed(PROGRAM, &["check", "--help"]);
    assert!(own.contains("Usage: svcdiag check"), "{own}");
    assert!(own.contains("\n  svcdiag check hostnames\n"), "{own}");
}
