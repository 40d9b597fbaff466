//! Files below a directory, but for what a package manager has put there.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where npm puts packages.
const PACKAGES: &str = "node_modules";

/// All files below a directory with that ending.
pub(crate) fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.ends_with(PACKAGES) {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|it| it == ending) {
            found.push(path);
        }
    }
    found
}
