//! What the kernel says of a table of iptables-legacy, by getsockopt.

use std::io;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::{bytes::u32_at, sockopt};
use svcdiag_kube_proxy::{IpFamily, ReadError};

/// The length of struct ipt_getinfo: name, hooks, two times five offsets, number of entries, size.
pub(super) const INFO: usize = 84;

/// The length of the head of struct ipt_get_entries: name, size, filled up to eight bytes.
pub(super) const HEAD: usize = 40;

/// A table may be replaced between the request for its size and the one for its entries.
const MAX_ATTEMPTS: usize = 5;

/// The kernel's two answers about a table.
pub(super) struct Answers {
    /// What it is: struct ipt_getinfo.
    pub(super) info: Vec<u8>,
    /// Its entries, behind a head of [`HEAD`] bytes.
    pub(super) entries: Vec<u8>,
}

/// Reads a table of at most so many bytes.
pub(super) fn read(family: IpFamily, table: &str, largest: usize) -> Result<Answers, ReadError> {
    let mut last = io::Error::from(io::ErrorKind::Interrupted);
    for _ in 0..MAX_ATTEMPTS {
        match read_once(family, table, largest) {
            Ok(answers) => return Ok(answers),
            Err(error) => last = error,
        }
    }
    Err(ReadError {
        what: format!("table {table} of iptables-legacy ({family})"),
        why: last.to_string(),
    })
}

/// The same, which fails when the table is replaced meanwhile.
pub(super) fn read_once(family: IpFamily, table: &str, largest: usize) -> io::Result<Answers> {
    /// IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES, the same numbers for IPv6.
    const GET_INFO: i32 = 64;
    const GET_ENTRIES: i32 = 65;

    let (domain, level) = match family {
        IpFamily::V4 => (AddressFamily::Inet, 0),
        IpFamily::V6 => (AddressFamily::Inet6, 41),
    };
    let socket = socket(domain, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut info = vec![0; INFO];
    copy_name(&mut info, table);
    sockopt::read(&socket, level, GET_INFO, &mut info)?;
    let size = u32_at(&info, 80)
        .and_then(|s| usize::try_from(s).ok())
        .unwrap_or_default();
    if size > largest {
        let why = format!("it has {size} bytes, more than the {largest} that are read");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    let mut entries = vec![0; HEAD + size];
    // Page by page the kernel would be long about the memory, too.
    sockopt::prefer_huge_pages(&mut entries);
    copy_name(&mut entries, table);
    if let (Some(field), Ok(size)) = (entries.get_mut(32..36), u32::try_from(size)) {
        field.copy_from_slice(&size.to_ne_bytes());
    }
    sockopt::read(&socket, level, GET_ENTRIES, &mut entries)?;
    Ok(Answers { info, entries })
}

pub(super) fn copy_name(to: &mut [u8], name: &str) {
    for (byte, value) in to.iter_mut().zip(name.bytes()) {
        *byte = value;
    }
}
