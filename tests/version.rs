//! `svcdiag version`, as users and scripts run it.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and runs the binary"
)]

use std::process::Command;

use serde_json::Value;
use svcdiag::version::Build;

/// What the binary prints, and its exit code.
fn svcdiag(arguments: &[&str]) -> (String, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_svcdiag"))
        .args(arguments)
        .output()
        .unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

#[test]
fn the_build_is_printed_in_each_format() {
    let expected = serde_json::to_value(Build::this()).unwrap();
    let (json, code) = svcdiag(&["version", "-o", "json"]);
    assert_eq!(
        (serde_json::from_str::<Value>(&json).unwrap(), code),
        (expected.clone(), Some(0))
    );
    let (yaml, code) = svcdiag(&["version", "--output", "yaml"]);
    assert_eq!(
        (serde_saphyr::from_str::<Value>(&yaml).unwrap(), code),
        (expected.clone(), Some(0))
    );
    let (text, code) = svcdiag(&["version"]);
    assert_eq!((text.lines().count(), code), (5, Some(0)));
    for value in expected.as_object().unwrap().values() {
        assert!(text.contains(value.as_str().unwrap()), "{value} in {text}");
    }
}

#[test]
fn other_formats_are_refused_and_help_has_examples() {
    assert_eq!(svcdiag(&["version", "-o", "wide"]), (String::new(), Some(3)));
    let (help, code) = svcdiag(&["version", "--help"]);
    assert!(help.contains("Examples:") && code == Some(0), "{help}");
}
