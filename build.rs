//! Passes on what only the compiler knows of itself, for `svcdiag version`, and the pages of docs/reasons, for `svcdiag
//! explain`. Everything else about a build comes from the environment (`src/version.rs`), so that a tarball builds like a
//! clone.

#![allow(
    clippy::disallowed_methods,
    reason = "a build script asks the compiler that it runs under"
)]

use std::{env, error::Error, fmt::Write, fs, path::Path, process::Command};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!(
        "cargo::rustc-env=SVCDIAG_RUST_VERSION={}",
        rust_version().unwrap_or_default()
    );
    println!(
        "cargo::rustc-env=SVCDIAG_PLATFORM={}",
        env::var("TARGET").unwrap_or_default()
    );
    let target = env::var("OUT_DIR")?;
    fs::write(Path::new(&target).join("reasons.rs"), reasons()?)?;
    Ok(())
}

/// The pages as constants, so that the program needs no files.
fn reasons() -> Result<String, Box<dyn Error>> {
    const PAGES: &str = "docs/reasons";
    println!("cargo::rerun-if-changed={PAGES}");
    let mut names: Vec<String> = fs::read_dir(PAGES)
        .map_err(|e| format!("could not read {PAGES}, whose pages svcdiag explain shows: {e}"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_, std::io::Error>>()?;
    names.sort();
    let directory = env::current_dir()?.join(PAGES);
    let file = |name: &str| directory.join(format!("{name}.md"));
    let mut text = String::from("const PAGES: &[(&str, &str)] = &[\n");
    for name in names.iter().filter_map(|name| name.strip_suffix(".md")) {
        if name != "README" {
            writeln!(text, "({name:?}, include_str!({:?})),", file(name))?;
        }
    }
    writeln!(
        text,
        "];\nconst INDEX: &str = include_str!({:?});",
        file("README")
    )?;
    Ok(text)
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
