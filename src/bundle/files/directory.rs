//! A bundle that is a directory.

use std::{
    fs::FileType,
    io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::{MAX_DEPTH, MAX_FILES, Taken, open_regular};
use crate::system;

/// Reads what is below a directory.
pub(super) fn read(root: &Path, taken: &mut Taken) -> io::Result<()> {
    // The first one has to be readable; below it, what is not is a problem.
    let mut found = entries(root)?;
    let mut seen = 0;
    while let Some((path, kind)) = found.pop() {
        let name = slashed(path.strip_prefix(root).unwrap_or(&path));
        seen += 1;
        if seen > 2 * MAX_FILES {
            taken.problem(
                &name,
                "left out, like all that follow: the bundle has too many files",
            );
            return Ok(());
        }
        if let Err(error) = visit(&path, &name, kind, taken, &mut found) {
            taken.problem(&name, format!("left out: {error}"));
        }
    }
    Ok(())
}

/// A path as the files of a bundle are named, on every system.
fn slashed(path: &Path) -> String {
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}

fn visit(
    path: &Path,
    name: &str,
    kind: FileType,
    taken: &mut Taken,
    found: &mut Vec<(PathBuf, FileType)>,
) -> io::Result<()> {
    if kind.is_dir() {
        // Of what is in it, each is one deeper.
        if name.split('/').count() >= MAX_DEPTH {
            taken.problem(name, format!("left out: more than {MAX_DEPTH} directories deep"));
        } else {
            found.extend(entries(path)?);
        }
        return Ok(());
    }
    if let Some(what) = refused(kind) {
        taken.problem(name, format!("left out: {what}"));
        return Ok(());
    }
    // It may have been replaced meanwhile, so that the open file is what counts.
    let Some(file) = open_regular(path)? else {
        taken.problem(name, "left out: not a regular file");
        return Ok(());
    };
    let metadata = file.metadata()?;
    if !taken.has_room(name, metadata.len()) {
        return Ok(());
    }
    let modified = metadata.modified().ok().and_then(|t| Timestamp::try_from(t).ok());
    taken.read(name, modified, file)
}

/// In reverse order, since the last is taken next.
fn entries(directory: &Path) -> io::Result<Vec<(PathBuf, FileType)>> {
    let mut found = Vec::new();
    // One more than is looked at, so that the end is noticed.
    for entry in std::fs::read_dir(directory)?.take(2 * MAX_FILES + 1) {
        let entry = entry?;
        // The type of the entry itself: links are not followed.
        found.push((entry.path(), entry.file_type()?));
    }
    found.sort_by(|a, b| b.0.cmp(&a.0));
    Ok(found)
}

fn refused(kind: FileType) -> Option<&'static str> {
    if kind.is_symlink() {
        Some("a symbolic link; copy the file in its place")
    } else if kind.is_file() {
        None
    } else {
        Some(system::special(kind))
    }
}
