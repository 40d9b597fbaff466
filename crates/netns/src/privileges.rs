//! What the threads of the agent may do.
#![allow(unsafe_code, reason = "capset has no safe wrapper")]

use std::io;

/// Capabilities of linux/capability.h that only those who enter namespaces need: for that, and to watch drops there.
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// struct __user_cap_header_struct.
#[repr(C)]
struct Header {
    version: u32,
    /// 0 for the calling thread.
    thread: i32,
}

/// struct __user_cap_data_struct: 32 capabilities.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Capabilities {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// _LINUX_CAPABILITY_VERSION_3, which has room for 64.
const VERSION: u32 = 0x2008_0522;

/// Starts the threads that enter network namespaces, then takes the capabilities that they alone need from the
/// calling thread. Threads have what the one that starts them has: so it has to be called before any other is
/// started, and holds for all of them.
///
/// # Errors
/// When the kernel refuses.
pub fn keep_to_the_visitors() -> io::Result<()> {
    crate::prepare()?;
    let mut held = read()?;
    for capability in [SYS_ADMIN, PERFMON, BPF] {
        // Each has 32 of them.
        let of = usize::try_from(capability / 32).ok();
        if let Some(set) = of.and_then(|of| held.get_mut(of)) {
            let others = !(1 << (capability % 32));
            set.effective &= others;
            set.permitted &= others;
            set.inheritable &= others;
        }
    }
    write(&held)
}

fn read() -> io::Result<[Capabilities; 2]> {
    let header = Header {
        version: VERSION,
        thread: 0,
    };
    let mut held = [Capabilities::default(); 2];
    // SAFETY: the kernel reads the header and writes two structs of this version; both live through the call.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw const header, held.as_mut_ptr()) };
    (result == 0).then_some(held).ok_or_else(io::Error::last_os_error)
}

fn write(held: &[Capabilities; 2]) -> io::Result<()> {
    let header = Header {
        version: VERSION,
        thread: 0,
    };
    // SAFETY: the kernel reads the header and two structs of this version; both live through the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, held.as_ptr()) };
    (result == 0).then_some(()).ok_or_else(io::Error::last_os_error)
}
