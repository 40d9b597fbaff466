//! Linux and macOS.

use std::{
    fs::{DirBuilder, File, FileType, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt},
    path::Path,
};

use nix::fcntl::OFlag;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What to type at the end of a paste.
pub(crate) const END_OF_INPUT: &str = "Ctrl-D";

/// Opens a file to read it. A FIFO is not waited for.
pub(crate) fn open_without_waiting(path: &Path) -> io::Result<File> {
    open(path, OFlag::O_NONBLOCK)
}

/// The same, and a link is an error.
pub(crate) fn open_without_following(path: &Path) -> io::Result<File> {
    open(path, OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
}

fn open(path: &Path, flags: OFlag) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
}

/// What a file is that is neither a regular file nor a directory nor a link.
pub(crate) fn special(kind: FileType) -> &'static str {
    if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// A new directory that only its owner may enter.
pub(crate) fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// A new file that only its owner may read, never an existing one.
pub(crate) fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// ^C, or the request to end.
#[derive(Debug)]
pub struct Termination {
    interrupt: Signal,
    terminate: Signal,
}

impl Termination {
    /// From here on neither ends the program by itself, and none is lost.
    ///
    /// # Errors
    /// When the system does not hand out signals.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next.
    pub async fn comes(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
