//! A bundle that is a tar archive, compressed or not.

use std::{
    cell::Cell,
    io::{self, Read, Seek},
    path::{Component, Path},
    rc::Rc,
};

use flate2::read::MultiGzDecoder;
use jiff::Timestamp;
use tar::{Archive, Entry, EntryType};

use super::{MAX_DEPTH, MAX_FILES, Taken};

/// Most bytes that are unpacked, those of members that are left out included. Compressed, a petabyte of zeros fits into
/// a mail.
const MAX_UNPACKED: u64 = super::MAX_BUNDLE * 5 / 4;

/// Most bytes between the contents of two members: headers, and long names, which are read into memory.
const MAX_HEADERS: u64 = 1 << 20;

/// Reads an archive; false if the file is none.
pub(super) fn read(mut file: impl Read + Seek, path: &Path, taken: &mut Taken) -> bool {
    let mut start = [0; 512];
    let length = match fill(&mut file, &mut start) {
        Ok(length) if file.rewind().is_ok() => length,
        _ => return false,
    };
    let start = &start[..length];
    let named = |ending: &str| path.to_string_lossy().ends_with(ending);
    if start.starts_with(&[0x1f, 0x8b]) {
        read_tar(MultiGzDecoder::new(io::BufReader::new(file)), taken);
        return true;
    }
    // Old archives have no magic, and an empty one has nothing at all.
    let is_tar = start.get(257..262) == Some(b"ustar") || named(".tar") && length == 512;
    if is_tar {
        read_tar(io::BufReader::new(file), taken);
    }
    is_tar
}

/// Reads until the buffer is full or there is no more.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match from.read(&mut buffer[length..])? {
            0 => break,
            n => length += n,
        }
    }
    Ok(length)
}

fn read_tar(from: impl Read, taken: &mut Taken) {
    let what = match read_members(from, taken) {
        Ok(None) => return,
        Ok(Some(limit)) => format!("{limit}, so the rest is left out; keep only what docs/bundle.md lists"),
        Err(error) => format!("damaged or cut short, so the rest is missing: {error}"),
    };
    taken.problem("(the archive)", what);
}

/// Reads all members, or up to a limit that the archive exceeds, which is returned.
fn read_members(from: impl Read, taken: &mut Taken) -> io::Result<Option<String>> {
    let allowance = Rc::new(Cell::new(MAX_HEADERS));
    let mut unpacked = 0u64;
    let mut archive = Archive::new(Limited {
        from,
        allowance: allowance.clone(),
    });
    for (n, entry) in archive.entries()?.enumerate() {
        let mut entry = entry?;
        let size = entry.size();
        unpacked = size.saturating_add(unpacked);
        if n >= 2 * MAX_FILES {
            return Ok(Some(format!("more than {} files and directories", 2 * MAX_FILES)));
        }
        if unpacked > MAX_UNPACKED {
            let most = MAX_UNPACKED >> 20;
            return Ok(Some(format!("larger than {most} MiB when it is unpacked")));
        }
        allowance.set(size.saturating_add(MAX_HEADERS));
        visit(&mut entry, taken)?;
        // What was not taken is passed over here, so that the next header has its own allowance.
        io::copy(&mut entry, &mut io::sink())?;
        allowance.set(MAX_HEADERS);
    }
    Ok(None)
}

fn visit(entry: &mut Entry<'_, impl Read>, taken: &mut Taken) -> io::Result<()> {
    let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    let refused = match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous => None,
        EntryType::Directory | EntryType::XGlobalHeader => return Ok(()),
        EntryType::Symlink => Some("a symbolic link"),
        EntryType::Link => Some("a hard link"),
        EntryType::Fifo => Some("a FIFO"),
        EntryType::Char | EntryType::Block => Some("a device"),
        _ => Some("an unusual kind of member"),
    };
    if let Some(what) = refused {
        taken.problem(&name, format!("left out: {what}"));
        return Ok(());
    }
    let path = match plain(&name) {
        Ok(path) => path,
        Err(why) => {
            taken.problem(&name, format!("left out: {why}"));
            return Ok(());
        }
    };
    if !taken.has_room(&path, entry.size()) {
        return Ok(());
    }
    let size = entry.size();
    let seconds = entry.header().mtime().ok().and_then(|t| i64::try_from(t).ok());
    // Archives that are made to be the same every time have 0.
    let modified = seconds
        .filter(|t| *t > 0)
        .and_then(|t| Timestamp::from_second(t).ok());
    // A member that is cut short has lost its end, and half a list looks like a whole one.
    let mut content = Vec::new();
    entry.read_to_end(&mut content)?;
    if content.len() as u64 != size {
        taken.problem(&path, "left out: the archive is cut short in the middle of it");
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    taken.take(&path, modified, content);
    Ok(())
}

/// The path of a member in the bundle.
fn plain(name: &str) -> Result<String, String> {
    let mut parts = Vec::new();
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_string_lossy()),
            Component::CurDir => {}
            _ => return Err("its name leads out of the bundle (an absolute path, or ..)".to_owned()),
        }
    }
    match parts.len() {
        0 => Err("it has no name".to_owned()),
        n if n > MAX_DEPTH => Err(format!("more than {MAX_DEPTH} directories deep")),
        _ => Ok(parts.join("/")),
    }
}

/// A source that ends with an error once more was read than is allowed.
struct Limited<R> {
    from: R,
    allowance: Rc<Cell<u64>>,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let allowed = usize::try_from(self.allowance.get()).unwrap_or(usize::MAX);
        if allowed == 0 {
            return Err(io::Error::other("a header is too large"));
        }
        let length = buffer.len().min(allowed);
        let read = self.from.read(&mut buffer[..length])?;
        self.allowance.set(self.allowance.get() - read as u64);
        Ok(read)
    }
}
