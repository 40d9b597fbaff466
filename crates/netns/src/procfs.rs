//! Files of /proc/PID, which are as long as the process likes.
//!
//! Arguments and environment of a process may have gigabytes, the list of what it has mapped hundreds of megabytes,
//! and that of its sockets too. Each is read up to a bound, and never kept whole. The kernel takes them from the
//! memory of the process, and may wait for that: so whoever reads them does so by `aside`.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::MetadataExt,
};

/// Arguments of the programs that matter here have a few KiB; of more only the beginning is looked at.
const MAX_ARGUMENTS: u64 = 64 * 1024;

/// Most environments are shorter, those with the variables of hundreds of Services too; of more only the beginning is
/// looked at.
const MAX_ENVIRONMENT: u64 = 256 * 1024;

/// A list of 60,000 mappings with long names, or of 100,000 sockets.
const MAX_LIST: u64 = 16 * 1024 * 1024;

/// A line has a path of 4 KiB at most, in which a byte may be written as four.
const MAX_LINE: u64 = 20 * 1024;

/// Names have sixteen bytes with their line feed; those of threads of the kernel may be longer.
const MAX_NAME: u64 = 64;

/// The cgroups of a process: a dozen lines.
const MAX_CGROUPS: u64 = 64 * 1024;

fn open(pid: i32, file: &str) -> io::Result<File> {
    File::open(format!("/proc/{pid}/{file}"))
}

fn beginning(pid: i32, file: &str, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(pid, file)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The words that a process was started with, each ended by a zero byte.
///
/// # Errors
/// When the process has gone.
pub fn arguments(pid: i32) -> io::Result<Vec<u8>> {
    beginning(pid, "cmdline", MAX_ARGUMENTS)
}

/// The environment that a process was started with, each variable ended by a zero byte.
///
/// # Errors
/// When the process has gone, or without CAP_SYS_PTRACE.
pub fn environment(pid: i32) -> io::Result<Vec<u8>> {
    beginning(pid, "environ", MAX_ENVIRONMENT)
}

/// The name of a process: fifteen bytes of its own choice.
///
/// # Errors
/// When the process has gone.
pub fn name(pid: i32) -> io::Result<String> {
    let bytes = beginning(pid, "comm", MAX_NAME)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned())
}

/// The host name that a process sees, if it is the one that the calling process sees.
///
/// # Errors
/// When the process has gone, or without CAP_SYS_PTRACE.
pub fn shared_host_name(pid: i32) -> io::Result<Option<String>> {
    let namespace = |of: &str| {
        let metadata = fs::metadata(format!("/proc/{of}/ns/uts"))?;
        Ok::<_, io::Error>((metadata.dev(), metadata.ino()))
    };
    if namespace(&pid.to_string())? != namespace("self")? {
        return Ok(None);
    }
    let name = fs::read_to_string("/proc/sys/kernel/hostname")?;
    Ok(Some(name.trim().to_owned()))
}

/// The cgroups of a process.
///
/// # Errors
/// When the process has gone, or has more of them than there are.
pub fn cgroups(pid: i32) -> io::Result<String> {
    let mut text = String::new();
    open(pid, "cgroup")?
        .take(MAX_CGROUPS + 1)
        .read_to_string(&mut text)?;
    match u64::try_from(text.len()) {
        Ok(length) if length <= MAX_CGROUPS => Ok(text),
        _ => Err(too_long("cgroup", MAX_CGROUPS)),
    }
}

/// Goes through the lines of a list, one after the other. A line that is too long is handed over in pieces.
///
/// # Errors
/// When the process has gone, or the list is longer than is read: then what was handed over is not all.
pub fn lines(pid: i32, file: &str, each: impl FnMut(&str)) -> io::Result<()> {
    lines_of(open(pid, file)?, file, each)
}

/// The same for the calling thread, which may be in a network namespace of its own.
///
/// # Errors
/// When there is no such file, or it is longer than is read.
pub fn lines_here(file: &str, each: impl FnMut(&str)) -> io::Result<()> {
    lines_of(File::open(format!("/proc/thread-self/{file}"))?, file, each)
}

fn lines_of(opened: File, file: &str, mut each: impl FnMut(&str)) -> io::Result<()> {
    let mut text = BufReader::with_capacity(64 * 1024, opened.take(MAX_LIST + 1));
    let mut line = Vec::new();
    let mut length = 0;
    loop {
        line.clear();
        let read = text.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        length += u64::try_from(read).unwrap_or(u64::MAX);
        if read == 0 {
            return Ok(());
        }
        if length > MAX_LIST {
            return Err(too_long(file, MAX_LIST));
        }
        each(String::from_utf8_lossy(&line).trim_end_matches('\n'));
    }
}

fn too_long(file: &str, most: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::FileTooLarge,
        format!("{file} is longer than {most} bytes"),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_a_process_says_of_itself_is_read() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let program = std::env::args().next().unwrap();
        assert!(arguments(pid).unwrap().starts_with(program.as_bytes()));
        assert!(cgroups(pid).unwrap().lines().count() >= 1);
        let mut own = 0;
        lines(pid, "maps", |line| own += usize::from(line.ends_with(&program))).unwrap();
        assert!(own > 0);
        assert!(!name(pid).unwrap().is_empty());
        assert!(
            shared_host_name(pid)
                .unwrap()
                .is_some_and(|name| !name.contains('\n'))
        );
        assert!(arguments(-1).is_err());
    }
}
