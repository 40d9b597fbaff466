//! The files of a bundle, from a directory or an archive, in memory.
//!
//! A bundle comes from somebody else. So nothing outside of it is opened (no links, no `..`), nothing
//! that blocks or has no end (no devices, no FIFOs), and everything has a bound. What is left out is a
//! [`Problem`] that names the file, never a failure of the whole: the rest may still hold the answer.

mod archive;
mod colour;
mod directory;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    fs::File as Handle,
    io::{self, Read, Seek},
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use crate::{formats::text::continued::joined, report::printable, system};

/// Largest paste: a text with objects and outputs of commands.
pub const MAX_PASTE: u64 = 16 << 20;

/// Largest text of a node or a Pod that is kept, and most of all of them.
pub const MAX_FILE: u64 = 32 << 20;
const MAX_TEXTS: u64 = 64 << 20;

/// Most that is kept of files with API objects, be it one or many. kubectl writes 10 to 18 KiB of JSON for each Pod.
pub const MAX_OBJECTS: u64 = 128 << 20;

/// Most that is kept of a bundle. Everything is in memory at once, and beside it what is kept of the objects (160 MiB)
/// and the values of one of them (64 MiB): with what evidence is made of, less than 512 MiB in total.
pub const MAX_BUNDLE: u64 = MAX_TEXTS + MAX_OBJECTS;

/// Most files of a bundle: 5,000 nodes with two files each.
pub const MAX_FILES: usize = 10_000;

/// Deepest path, counted in names.
pub const MAX_DEPTH: usize = 16;

/// Most problems that are kept; a hostile bundle could have one for each of its members.
pub(super) const MAX_PROBLEMS: usize = 200;

/// Directories of the layout, which are never taken for one around the whole bundle.
const OWN_DIRECTORIES: [&str; 3] = ["objects", "nodes", "pods"];

/// A file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Path below the root of the bundle, with slashes.
    pub path: String,
    /// Content.
    pub text: String,
    /// When it was last written, where that is known.
    pub modified: Option<Timestamp>,
}

/// Something in a bundle that was left out or could not be understood.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Path of the file, as it is named in the bundle.
    pub path: String,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Problem {
    /// Names come from the bundle: what could steer a terminal is escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.escape_debug(), printable(&self.what))
    }
}

/// Why there is no bundle at all.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// Nothing is there.
    #[error(
        "there is no bundle at {0}: nothing of this name exists; name a directory or an archive (.tar.gz, .tgz, .tar), as `svcdiag collect -o` writes it"
    )]
    NotFound(PathBuf),
    /// It is there, but may not be read.
    #[error("could not read the bundle {path}: {source}; see who may read it with `ls -ld {path}`")]
    Unreadable {
        /// Path of the bundle.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error(
        "{0} is no bundle: neither a directory, nor a tar archive (.tar.gz, .tgz, .tar), nor a text (UTF-8); unpack it into a directory and name that"
    )]
    NotABundle(PathBuf),
    /// It is a text, but too long.
    #[error(
        "{path} is larger than {} MiB; paste only the objects and outputs that are about the Service, or make a directory of them as docs/bundle.md describes",
        .most >> 20
    )]
    TooLarge {
        /// Path of the text.
        path: PathBuf,
        /// The most that is read, in bytes.
        most: u64,
    },
}

/// The files of a bundle and what was left out.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// By path.
    pub files: Vec<File>,
    /// What was left out.
    pub problems: Vec<Problem>,
}

impl Files {
    /// Reads a directory or an archive, whichever the path is.
    ///
    /// # Errors
    /// When there is nothing to read at all.
    pub fn read(path: &Path) -> Result<Self, FilesError> {
        let unreadable = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => FilesError::NotFound(path.to_owned()),
            _ => FilesError::Unreadable {
                path: path.to_owned(),
                source,
            },
        };
        let mut taken = Taken::default();
        if std::fs::metadata(path).map_err(unreadable)?.is_dir() {
            directory::read(path, &mut taken).map_err(unreadable)?;
        } else {
            // The user names the archive, so that it may be a link; it may not be a FIFO.
            let file = system::open_without_waiting(path).map_err(unreadable)?;
            let is_file = file.metadata().map_err(unreadable)?.is_file();
            let unpacked = is_file.then(|| Self::unpack(file, path)).flatten();
            return unpacked.ok_or_else(|| FilesError::NotABundle(path.to_owned()));
        }
        Ok(taken.finish())
    }

    /// Reads a text to its end, without what steers a terminal.
    ///
    /// # Errors
    /// When it cannot be read, is too large, or is no text.
    pub fn text(from: impl Read, path: &Path, most: u64) -> Result<String, FilesError> {
        let mut bytes = Vec::new();
        from.take(most + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| FilesError::Unreadable {
                path: path.to_owned(),
                source,
            })?;
        if bytes.len() as u64 > most {
            let path = path.to_owned();
            return Err(FilesError::TooLarge { path, most });
        }
        match String::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => Ok(colour::without(text)),
            _ => Err(FilesError::NotABundle(path.to_owned())),
        }
    }

    /// Unpacks an archive that has this path; None if it is none.
    #[must_use]
    pub fn unpack(archive: impl Read + Seek, path: &Path) -> Option<Self> {
        let mut taken = Taken::default();
        archive::read(archive, path, &mut taken).then(|| taken.finish())
    }

    /// The file at a path.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|f| f.path == path)
    }

    /// When the newest file was written.
    #[must_use]
    pub fn newest(&self) -> Option<Timestamp> {
        self.files.iter().filter_map(|f| f.modified).max()
    }
}

/// A transcript with each command on one line.
fn with_whole_commands(text: String) -> String {
    let changed = match joined(&text) {
        Cow::Owned(whole) => Some(whole),
        Cow::Borrowed(_) => None,
    };
    changed.unwrap_or(text)
}

/// What a file may hold.
#[derive(Clone, Copy)]
enum FileKind {
    /// API objects.
    Objects,
    /// Text of a node or a Pod, or notes.
    Text,
}

impl FileKind {
    /// What is in the directory of a node or a Pod is its text, whatever the ending. There may still be directories
    /// around the bundle, and a namespace may be called like a directory of the layout.
    fn of(path: &str) -> Self {
        let parts: Vec<&str> = path.split('/').collect();
        let mut starts = (0..parts.len()).filter(|n| OWN_DIRECTORIES.contains(&parts[*n]));
        let inner = starts.next().map_or(&[][..], |start| &parts[start..]);
        let is_of_somebody = matches!(inner, ["nodes", _, _] | ["pods", _, _, _]);
        match !is_of_somebody && is_structured(path) {
            true => Self::Objects,
            false => Self::Text,
        }
    }

    /// The largest file, and how much of all of them together.
    fn most(self) -> (u64, u64) {
        match self {
            Self::Objects => (MAX_OBJECTS, MAX_OBJECTS),
            Self::Text => (MAX_FILE, MAX_TEXTS),
        }
    }

    /// How to make it smaller.
    fn advice(self) -> &'static str {
        match self {
            Self::Objects => {
                "; keep only the objects of the namespace of the Service, of its clients' and of kube-system"
            }
            Self::Text => "; keep only the lines about the Service, as docs/bundle.md describes",
        }
    }
}

/// Whether a file may hold API objects, by its ending.
pub(super) fn is_structured(path: &str) -> bool {
    [".yaml", ".yml", ".json"].iter().any(|end| path.ends_with(end))
}

/// What has been taken in so far.
#[derive(Default)]
struct Taken {
    files: BTreeMap<String, File>,
    problems: Vec<Problem>,
    /// Bytes of objects and of texts.
    objects: u64,
    texts: u64,
}

impl Taken {
    fn problem(&mut self, path: &str, what: impl Into<String>) {
        let what = match self.problems.len() {
            n if n < MAX_PROBLEMS => what.into(),
            MAX_PROBLEMS => "and more problems, which are not listed".to_owned(),
            _ => return,
        };
        let path = path.to_owned();
        self.problems.push(Problem { path, what });
    }

    /// Whether there is room for a file of a size; a problem if not.
    fn has_room(&mut self, path: &str, size: u64) -> bool {
        let kind = FileKind::of(path);
        let (of_one, of_all) = kind.most();
        let why = if self.files.len() >= MAX_FILES {
            format!("left out: the bundle has more than {MAX_FILES} files")
        } else if size > of_one {
            format!("left out: larger than {} MiB{}", of_one >> 20, kind.advice())
        } else if *self.bytes(kind) + size > of_all {
            let what = match kind {
                FileKind::Objects => "the API objects of the bundle are",
                FileKind::Text => "the texts of the bundle are",
            };
            format!(
                "left out: {what} larger than {} MiB{}",
                of_all >> 20,
                kind.advice()
            )
        } else {
            return true;
        };
        self.problem(path, why);
        false
    }

    fn bytes(&mut self, kind: FileKind) -> &mut u64 {
        match kind {
            FileKind::Objects => &mut self.objects,
            FileKind::Text => &mut self.texts,
        }
    }

    /// Reads a file. It may be longer than it said.
    fn read(&mut self, path: &str, modified: Option<Timestamp>, content: impl Read) -> io::Result<()> {
        let (most, _) = FileKind::of(path).most();
        let mut bytes = Vec::new();
        content.take(most + 1).read_to_end(&mut bytes)?;
        self.take(path, modified, bytes);
        Ok(())
    }

    /// Takes a file in.
    fn take(&mut self, path: &str, modified: Option<Timestamp>, bytes: Vec<u8>) {
        let size = bytes.len() as u64;
        if !self.has_room(path, size) {
            return;
        }
        match String::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => {
                let kind = FileKind::of(path);
                *self.bytes(kind) += size;
                // What is longer was not copied from a terminal.
                let text = match kind {
                    _ if size > MAX_FILE => text,
                    FileKind::Objects => colour::without(text),
                    FileKind::Text => with_whole_commands(colour::without(text)),
                };
                let path = path.to_owned();
                let file = File {
                    path: path.clone(),
                    text,
                    modified,
                };
                self.files.insert(path, file);
            }
            _ => self.problem(path, "left out: not a text file (UTF-8)"),
        }
    }

    fn finish(self) -> Files {
        let mut files: Vec<File> = self.files.into_values().collect();
        while let Some(outer) = directory_around(&files) {
            for file in &mut files {
                file.path.drain(..=outer.len());
            }
        }
        Files {
            files,
            problems: self.problems,
        }
    }
}

/// The directory that all files are in, if it is none of the layout: archives are often made of a
/// directory and not in it.
fn directory_around(files: &[File]) -> Option<String> {
    let (outer, _) = files.first()?.path.split_once('/')?;
    let in_it = |f: &File| f.path.split_once('/').is_some_and(|(first, _)| first == outer);
    let holds = |names: &[&str]| {
        files.iter().any(|f| {
            let inner = f.path.split('/').nth(1).unwrap_or_default();
            names.contains(&inner)
        })
    };
    // What lies directly in a directory tells its namespace, as in `kubectl cluster-info dump`.
    let is_root = holds(&OWN_DIRECTORIES) || holds(&["manifest.yaml", "nodes.json"]);
    (files.iter().all(in_it) && is_root && !OWN_DIRECTORIES.contains(&outer)).then(|| outer.to_owned())
}

/// Opens what has to be a regular file, without following a link or waiting for a FIFO's writer.
fn open_regular(path: &Path) -> io::Result<Option<Handle>> {
    let file = system::open_without_following(path)?;
    Ok(file.metadata()?.is_file().then_some(file))
}

#[cfg(test)]
mod tests;
