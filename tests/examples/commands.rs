//! Commands and images in the examples.

use std::{path::PathBuf, process::Command};

use serde_json::Value;

use super::{documents, files, read, root};

const IMAGE: &str = "ghcr.io/svcdiag/svcdiag";

/// The arguments of all containers that run our image, or a parameter that stands for it.
fn of_containers(value: &Value, found: &mut Vec<Vec<String>>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| of_containers(item, found)),
        Value::Object(fields) => {
            if let (Some(_), Some(arguments)) = (fields.get("image"), fields.get("args")) {
                let command = &value["command"];
                assert!(command.is_null() || *command == serde_json::json!(["/svcdiag"]));
                found.push(serde_json::from_value(arguments.clone()).unwrap());
            }
            fields.values().for_each(|field| of_containers(field, found));
        }
        _ => {}
    }
}

/// The arguments of svcdiag in the lines of a script or of a page.
fn of_lines(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().map(str::trim);
    let ours = lines.filter_map(|line| line.trim_start_matches("- ").strip_prefix("svcdiag "));
    let command = |rest: &str| {
        let words = rest.split_whitespace();
        let own = words.take_while(|word| !["|", "#", "&&", "2>&1"].contains(word));
        own.map(|word| word.trim_matches('"').to_owned()).collect()
    };
    ours.map(command).collect()
}

/// The arguments of svcdiag in the tools that a model may call.
fn of_tools(document: &Value) -> Vec<Vec<String>> {
    let toolsets = document["toolsets"].as_object().into_iter().flatten();
    let tools = toolsets.flat_map(|(_, toolset)| toolset["tools"].as_array().into_iter().flatten());
    let command = |tool: &Value| {
        let command = tool["command"].as_str().unwrap();
        let (own, _) = command.split_once(" || ").unwrap_or((command, ""));
        // A name that is filled in is one argument.
        let own = own.replace("{{ ", "{{").replace(" }}", "}}");
        let own = own.strip_prefix("svcdiag ").unwrap().split_whitespace();
        own.map(str::to_owned).collect()
    };
    tools.map(command).collect()
}

/// A value in the place of what another tool fills in.
fn filled_in(argument: &str) -> String {
    let is_left_open = argument.contains("{{") || argument.contains('$');
    match argument.split_once('=') {
        _ if !is_left_open => argument.to_owned(),
        _ if argument == "{{reason}}" => "FirewallDrops".to_owned(),
        Some((flag, _)) if flag.starts_with("--") => format!("{flag}=web"),
        _ => "web".to_owned(),
    }
}

fn is_understood(arguments: &[String]) {
    let arguments: Vec<String> = arguments.iter().map(|it| filled_in(it)).collect();
    let output = Command::new(env!("CARGO_BIN_EXE_svcdiag"))
        .args(&arguments)
        .arg("--help")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
}

#[test]
fn svcdiag_understands_the_commands_in_the_examples() {
    let mut commands = Vec::new();
    for (_, document) in documents() {
        of_containers(&document, &mut commands);
    }
    assert_eq!(commands.len(), 2, "{commands:?}");
    for path in files(&root("examples"), "yaml") {
        commands.extend(of_lines(&read(&path)));
    }
    assert_eq!(commands.len(), 6, "{commands:?}");
    commands.extend(documents().iter().flat_map(|(_, document)| of_tools(document)));
    assert_eq!(commands.len(), 10, "{commands:?}");
    commands.extend(of_lines(&read(&root("docs/gitops.md"))));
    commands.iter().for_each(|arguments| is_understood(arguments));
}

/// The policy of the Job goes by the exit codes that `check --help` documents.
#[test]
fn the_job_gives_up_on_answers_that_another_attempt_would_not_change() {
    let output = Command::new(env!("CARGO_BIN_EXE_svcdiag"))
        .args(["check", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for line in [
        "1  the Service does not work",
        "2  unknown",
        "3  usage or access error",
    ] {
        assert!(help.contains(line), "{help}");
    }
    let documents = documents();
    let job = documents
        .iter()
        .find_map(|(_, it)| it.pointer("/spec/metrics/0/provider/job/spec"))
        .unwrap();
    let codes = &job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"];
    assert_eq!(*codes, serde_json::json!([1, 3]));
    assert_eq!(job["template"]["spec"]["restartPolicy"], "Never");
}

#[test]
fn every_image_is_of_this_version() {
    let mut count = 0;
    let paths: Vec<PathBuf> = files(&root("examples"), "yaml");
    for path in paths {
        for rest in read(&path).split(IMAGE).skip(1) {
            let tag = concat!(":v", env!("CARGO_PKG_VERSION"));
            let next = rest.strip_prefix(tag).map(|rest| rest.chars().next());
            assert!(
                matches!(next, Some(None | Some('\n' | ')'))),
                "{}",
                path.display()
            );
            count += 1;
        }
    }
    assert_eq!(count, 3);
}
