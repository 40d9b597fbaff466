//! Writes a bundle: all of it, or nothing.
//!
//! It is written next to its destination under another name, and moved there once it is complete. Only its owner may read
//! it: it says much about a cluster.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use jiff::Timestamp;
use tar::{Builder, Header};

use crate::system::{private_directory, private_file};

/// Why a bundle was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The path exists and is not overwritten.
    #[error("{0} already exists and is not overwritten; remove it, or choose another path with -o")]
    Exists(PathBuf),
    /// The path has no name at its end.
    #[error("{0} is not a valid name for a bundle; choose a directory or an archive (.tar.gz) with -o")]
    NoName(PathBuf),
    /// The system returned an error.
    #[error("could not write the bundle {path}: {source}")]
    Io {
        /// The destination.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
}

/// Rejects a path that exists.
///
/// # Errors
/// When the path is anything but an empty directory for a directory.
pub(super) fn refuse_to_overwrite(path: &Path) -> Result<(), WriteError> {
    let is_free = match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => true,
        Err(source) => return Err(io_error(path, source)),
        Ok(there) if there.is_dir() && Format::of(path) == Format::Directory => {
            let mut entries = std::fs::read_dir(path).map_err(|e| io_error(path, e))?;
            entries.next().is_none()
        }
        Ok(_) => false,
    };
    if is_free {
        Ok(())
    } else {
        Err(WriteError::Exists(path.to_owned()))
    }
}

/// Writes the files of a bundle; in an archive they are below a directory.
///
/// # Errors
/// When the path exists or cannot be written; then nothing is left there.
pub(super) fn write(
    path: &Path,
    directory: &str,
    files: &[(String, String)],
    time: Timestamp,
) -> Result<(), WriteError> {
    let name = path
        .file_name()
        .ok_or_else(|| WriteError::NoName(path.to_owned()))?;
    let partial = format!(".{}.partial-{}", name.to_string_lossy(), std::process::id());
    let partial = path.with_file_name(partial);
    let format = Format::of(path);
    let written = match format {
        Format::Directory => write_directory(&partial, files),
        Format::Tar | Format::TarGz => write_archive(&partial, format, directory, files, time),
    };
    let moved = written.map_err(|e| io_error(path, e)).and_then(|()| {
        // Reading the cluster took a while.
        refuse_to_overwrite(path)?;
        std::fs::rename(&partial, path).map_err(|e| io_error(path, e))
    });
    if moved.is_err() {
        // Nothing more can be done if this fails as well.
        let _ = match format {
            Format::Directory => std::fs::remove_dir_all(&partial),
            _ => std::fs::remove_file(&partial),
        };
    }
    moved
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Directory,
    Tar,
    TarGz,
}

impl Format {
    fn of(path: &Path) -> Self {
        let name = path.to_string_lossy();
        if name.ends_with(".tar.gz") || name.ends_with(".tgz") {
            Self::TarGz
        } else if name.ends_with(".tar") {
            Self::Tar
        } else {
            Self::Directory
        }
    }
}

fn write_directory(at: &Path, files: &[(String, String)]) -> io::Result<()> {
    private_directory(at)?;
    for (name, text) in files {
        let path = at.join(name);
        if let Some(parent) = path.parent().filter(|p| !p.is_dir()) {
            private_directory(parent)?;
        }
        let mut file = private_file(&path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
    }
    Ok(())
}

fn write_archive(
    at: &Path,
    format: Format,
    directory: &str,
    files: &[(String, String)],
    time: Timestamp,
) -> io::Result<()> {
    let file = private_file(at)?;
    let file = match format {
        Format::TarGz => {
            let encoder = GzEncoder::new(file, Compression::default());
            append(encoder, directory, files, time)?.finish()?
        }
        _ => append(file, directory, files, time)?,
    };
    file.sync_all()
}

fn append<W: Write>(to: W, directory: &str, files: &[(String, String)], time: Timestamp) -> io::Result<W> {
    let mut builder = Builder::new(to);
    for (name, text) in files {
        let mut header = Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(u64::try_from(time.as_second()).unwrap_or(0));
        builder.append_data(&mut header, format!("{directory}/{name}"), text.as_bytes())?;
    }
    builder.into_inner()
}

fn io_error(path: &Path, source: io::Error) -> WriteError {
    WriteError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Files;

    fn files() -> Vec<(String, String)> {
        let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        vec![
            file("objects/pods.json", "{}"),
            file("manifest.yaml", "service: web\n"),
        ]
    }

    #[test]
    fn what_is_written_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["web", "web.tar", "web.tgz", "web.tar.gz"] {
            let path = directory.path().join(name);
            write(
                &path,
                "svcdiag-shop-web",
                &files(),
                Timestamp::from_second(1000).unwrap(),
            )
            .unwrap();
            let read = Files::read(&path).unwrap();
            let found: Vec<_> = read
                .files
                .iter()
                .map(|f| (f.path.as_str(), f.text.as_str()))
                .collect();
            assert_eq!(
                found,
                [("manifest.yaml", "service: web\n"), ("objects/pods.json", "{}")],
                "{name}"
            );
        }
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            4,
            "something is left over"
        );
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_is_left_half_done() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(at("full/objects")).unwrap();
        std::fs::create_dir(at("dir.tar.gz")).unwrap();
        std::fs::write(at("file.tar.gz"), "mine").unwrap();
        std::fs::write(at("file"), "mine").unwrap();
        std::os::unix::fs::symlink("nowhere", at("link")).unwrap();
        for name in ["full", "dir.tar.gz", "file.tar.gz", "file", "link"] {
            let error = write(&at(name), "b", &files(), Timestamp::UNIX_EPOCH).unwrap_err();
            assert!(matches!(error, WriteError::Exists(_)), "{name}: {error}");
            assert!(error.to_string().contains("remove it, or choose another path"));
        }
        assert_eq!(std::fs::read_to_string(at("file.tar.gz")).unwrap(), "mine");
        // An empty directory counts as none.
        std::fs::create_dir(at("empty")).unwrap();
        write(&at("empty"), "b", &files(), Timestamp::UNIX_EPOCH).unwrap();
        let missing = write(&at("no/such/place.tar"), "b", &files(), Timestamp::UNIX_EPOCH).unwrap_err();
        assert!(matches!(missing, WriteError::Io { .. }));
        let names = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|e| e.unwrap().file_name());
        assert!(
            names
                .into_iter()
                .all(|n| !n.to_string_lossy().contains("partial"))
        );
    }
}
