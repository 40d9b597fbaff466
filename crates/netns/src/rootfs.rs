//! Files of a Pod, opened so that an image can do the node no harm.
//!
//! Through `/proc/PID/root/etc/resolv.conf` an absolute symlink in the image would lead into the agent's
//! own root. So the path is resolved by openat2(2) inside the Pod's root, magic links are refused, the
//! open does not wait for a FIFO, and only regular files are read, at most 64 KiB of them.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::{SFlag, fstat},
};
use parking_lot::Mutex;

use super::procfs;
use svcdiag_api::CLibrary;

/// More than any file that is read here has.
const MAX_SIZE: u64 = 64 * 1024;

/// Reads a file below the root of a process.
///
/// # Errors
/// NotFound without the file, InvalidInput for something that is no regular file, InvalidData for more
/// than 64 KiB or bytes that are no text.
pub fn read(pid: i32, path: &str) -> io::Result<String> {
    let root = File::open(format!("/proc/{pid}/root"))?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file: OwnedFd = openat2(&root, path, how)?;
    let status = fstat(&file)?;
    if SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{path} is no regular file"),
        ));
    }
    let mut text = String::new();
    File::from(file).take(MAX_SIZE + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).is_ok_and(|length| length > MAX_SIZE) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{path} is longer than {MAX_SIZE} bytes"),
        ));
    }
    Ok(text)
}

/// The C libraries of processes. The kernel is long about the list of what a process has mapped: so it is asked
/// for once for each process and program.
#[derive(Debug, Default)]
pub struct CLibraries(Mutex<HashMap<Program, CLibrary>>);

/// The number of a process, and device and inode of the program that it runs.
type Program = (i32, u64, u64);

/// More than a node has processes of clients.
const MAX_PROGRAMS: usize = 4096;

impl CLibraries {
    /// The C library of a process, by the files that it has mapped.
    ///
    /// # Errors
    /// When the process has gone.
    pub fn of(&self, pid: i32) -> io::Result<CLibrary> {
        let program = std::fs::metadata(format!("/proc/{pid}/exe"))?;
        let key = (pid, program.dev(), program.ino());
        let lock = || self.0.lock();
        if let Some(known) = lock().get(&key) {
            return Ok(*known);
        }
        let library = library_of(pid)?;
        // A program that has only just begun has yet to map it.
        if library != CLibrary::Unknown {
            let mut known = lock();
            if known.len() >= MAX_PROGRAMS {
                known.clear();
            }
            known.insert(key, library);
        }
        Ok(library)
    }
}

fn library_of(pid: i32) -> io::Result<CLibrary> {
    let mut library = CLibrary::Unknown;
    procfs::lines(pid, "maps", |line| library = with_line(library, line))?;
    Ok(library)
}

/// The C library that a process has, by one more line of /proc/PID/maps.
fn with_line(known: CLibrary, line: &str) -> CLibrary {
    let name = line.rsplit('/').next().unwrap_or_default();
    // What lets programs of glibc run on musl maps a file of glibc's name as well (gcompat).
    if name.starts_with("ld-musl-") || name.starts_with("libc.musl-") {
        CLibrary::Musl
    } else if known == CLibrary::Unknown && (name.starts_with("libc.so.6") || name.starts_with("libc-2.")) {
        CLibrary::Glibc
    } else {
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_library_is_known_by_the_names_of_its_files() {
        let line = |file: &str| format!("7f00-7f01 r-xp 00000000 00:00 1 {file}\n");
        let libc_in = |maps: &str| maps.lines().fold(CLibrary::Unknown, with_line);
        assert_eq!(libc_in(&line("/lib/ld-musl-x86_64.so.1")), CLibrary::Musl);
        assert_eq!(
            libc_in(&line("/usr/lib/x86_64-linux-gnu/libc.so.6")),
            CLibrary::Glibc
        );
        assert_eq!(libc_in(&line("/app/server")), CLibrary::Unknown);
        let both = line("/lib/libc.so.6") + &line("/lib/ld-musl-x86_64.so.1");
        assert_eq!(libc_in(&both), CLibrary::Musl);
    }
}
