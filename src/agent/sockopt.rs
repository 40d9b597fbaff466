//! Socket options that no library knows. The only place besides `netns` that has to be unsafe.
#![allow(
    unsafe_code,
    reason = "getsockopt with options of netfilter has no safe wrapper"
)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

/// Reads an option into a buffer, which may hold a question first.
///
/// # Errors
/// What the kernel says; InvalidData if it wrote another length than that of the buffer.
pub fn read(socket: impl AsFd, level: i32, option: i32, buffer: &mut [u8]) -> io::Result<()> {
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
