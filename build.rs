//! Passes on what only the compiler knows of itself, for `svcdiag version`. Everything else about a build comes from the
//! environment (`src/version.rs`), so that a tarball builds like a clone.

#![allow(
    clippy::disallowed_methods,
    reason = "a build script asks the compiler that it runs under"
)]

use std::{env, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!(
        "cargo::rustc-env=SVCDIAG_RUST_VERSION={}",
        rust_version().unwrap_or_default()
    );
    println!(
        "cargo::rustc-env=SVCDIAG_PLATFORM={}",
        env::var("TARGET").unwrap_or_default()
    );
}

/// The version of the compiler: the second word of `rustc 1.95.0 (59807616e 2026-04-14)`.
fn rust_version() -> Option<String> {
    let output = Command::new(env::var_os("RUSTC")?)
        .arg("--version")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_whitespace().nth(1).map(str::to_owned)
}
