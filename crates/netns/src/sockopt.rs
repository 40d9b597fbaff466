//! Socket options that no library knows. The only place besides `netns` that has to be unsafe.
#![allow(
    unsafe_code,
    reason = "getsockopt with options of netfilter has no safe wrapper, nor has madvise"
)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

/// Reads an option into a buffer, which may hold a question first.
///
/// # Errors
/// What the kernel says; InvalidData if it wrote another length than that of the buffer.
pub(crate) fn read(socket: impl AsFd, level: i32, option: i32, buffer: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(buffer.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the buffer is too long"))?;
    // SAFETY: the pointer and the length are those of one buffer that lives through the call, and the
    // kernel writes no more than the length says.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            buffer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if usize::try_from(length).ok() == Some(buffer.len()) {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the kernel gave another length than it announced",
        ))
    }
}

/// Asks for a large buffer that was not written to yet to get its memory in few large pieces, which is quicker by
/// a tenth. Where the kernel does not do so nothing is lost.
pub(crate) fn prefer_huge_pages(buffer: &mut [u8]) {
    const PAGE: usize = 4096;
    let range = buffer.as_mut_ptr_range();
    let begin = range.start.addr().next_multiple_of(PAGE);
    let Some(length) = range.end.addr().checked_sub(begin) else {
        return;
    };
    // SAFETY: the pages lie in a buffer that is ours, and stay what they are; only where their memory comes
    // from changes.
    unsafe {
        libc::madvise(
            range.start.with_addr(begin).cast(),
            length - length % PAGE,
            libc::MADV_HUGEPAGE,
        );
    }
}
