//! Windows.

use std::{
    fs::{DirBuilder, File, FileType, OpenOptions},
    io,
    os::windows::fs::OpenOptionsExt,
    path::Path,
};

use tokio::signal::windows::{
    CtrlBreak, CtrlC, CtrlClose, CtrlShutdown, ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown,
};

/// What to type at the end of a paste.
pub(crate) const END_OF_INPUT: &str = "Ctrl-Z and Enter";

/// FILE_FLAG_OPEN_REPARSE_POINT of winbase.h: a link is opened itself, and is then no regular file.
const OPEN_REPARSE_POINT: u32 = 0x0020_0000;

/// Opens a file to read it. What one waits for, named pipes, lies in no directory here.
pub(crate) fn open_without_waiting(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// The same, without following a link.
pub(crate) fn open_without_following(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(OPEN_REPARSE_POINT)
        .open(path)
}

/// What a file is that is neither a regular file nor a directory nor a link.
pub(crate) fn special(_: FileType) -> &'static str {
    "not a regular file"
}

/// A new directory. Who may enter it is inherited from the one that it is in.
pub(crate) fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().create(path)
}

/// A new file, never an existing one. Who may read it is inherited from the directory.
pub(crate) fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// ^C, or the request to end.
#[derive(Debug)]
pub struct Termination {
    interrupt: CtrlC,
    stop: CtrlBreak,
    close: CtrlClose,
    shutdown: CtrlShutdown,
}

impl Termination {
    /// From here on none of them ends the program by itself, and none is lost. After its window was closed, Windows gives a
    /// program some seconds.
    ///
    /// # Errors
    /// When the system does not hand them out.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: ctrl_c()?,
            stop: ctrl_break()?,
            close: ctrl_close()?,
            shutdown: ctrl_shutdown()?,
        })
    }

    /// Waits for the next.
    pub async fn comes(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.stop.recv() => {}
            _ = self.close.recv() => {}
            _ = self.shutdown.recv() => {}
        }
    }
}
