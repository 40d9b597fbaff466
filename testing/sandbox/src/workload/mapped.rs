//! A file that is mapped as a library would be, to be seen in /proc/PID/maps.
#![allow(unsafe_code, reason = "mapping a file has no safe wrapper")]

use std::{fs::File, io, num::NonZeroUsize};

use nix::sys::mman::{MapFlags, ProtFlags, mmap};

/// One page is enough.
const LENGTH: NonZeroUsize = NonZeroUsize::new(4096).expect("4096 is not zero");

/// Maps the C library of the Pod's image for as long as the process lives.
pub(super) fn library(libc: &str) -> io::Result<()> {
    let path = if libc == "musl" {
        "/lib/ld-musl-x86_64.so.1"
    } else {
        "/lib/libc.so.6"
    };
    let file = File::open(path)?;
    // SAFETY: the mapping is private, never read, written or executed by us, and placed by the kernel.
    unsafe {
        mmap(
            None,
            LENGTH,
            ProtFlags::PROT_READ | ProtFlags::PROT_EXEC,
            MapFlags::MAP_PRIVATE,
            file,
            0,
        )
    }?;
    Ok(())
}
