//! Programs and maps of the kernel's eBPF: the few commands of bpf() that a tracing program needs, without a library.
#![allow(unsafe_code, reason = "bpf() has no safe wrapper")]

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

/// Commands of linux/bpf.h, `enum bpf_cmd`.
const MAP_CREATE: i32 = 0;
const MAP_LOOKUP: i32 = 1;
const MAP_UPDATE: i32 = 2;
const MAP_GET_NEXT_KEY: i32 = 4;
const PROG_LOAD: i32 = 5;
const RAW_TRACEPOINT_OPEN: i32 = 17;
const MAP_FREEZE: i32 = 22;

/// BPF_MAP_TYPE_HASH and BPF_MAP_TYPE_ARRAY.
const HASH: u32 = 1;
const ARRAY: u32 = 2;
/// BPF_F_RDONLY_PROG.
const READ_ONLY: u32 = 1 << 7;
/// BPF_PROG_TYPE_RAW_TRACEPOINT.
const RAW_TRACEPOINT: u32 = 17;

/// What the verifier says about a program that it refuses: the last lines are what matters.
const VERIFIER_LOG: usize = 64 * 1024;

/// A hash table that programs write and we read. Its memory is allocated at once, so it is bounded.
#[derive(Debug)]
pub struct HashMap {
    file: OwnedFd,
    key: usize,
    value: usize,
}

impl HashMap {
    /// Creates a map for so many entries, with the sizes of a key and a value in bytes.
    ///
    /// # Errors
    /// PermissionDenied without CAP_BPF, or where bpf() is forbidden.
    pub fn new(key: usize, value: usize, entries: u32) -> io::Result<Self> {
        Self::create(HASH, (key, value), entries, 0)
    }

    fn create(kind: u32, (key, value): (usize, usize), entries: u32, flags: u32) -> io::Result<Self> {
        #[repr(C)]
        struct Create {
            kind: u32,
            key: u32,
            value: u32,
            entries: u32,
            flags: u32,
        }
        let size =
            |bytes: usize| u32::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
        let create = Create {
            kind,
            key: size(key)?,
            value: size(value)?,
            entries,
            flags,
        };
        // SAFETY: MAP_CREATE reads these fields and no pointer, and returns a descriptor.
        let file = unsafe { descriptor(MAP_CREATE, &create)? };
        Ok(Self { file, key, value })
    }

    /// The descriptor that instructions of a program name the map by.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// InvalidInput where a size is not that of the map, or what the kernel says.
    fn insert(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if (key.len(), value.len()) != (self.key, self.value) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // The kernel only reads the value, though the command has the same form as those that write one.
        let mut value = value.to_vec();
        // SAFETY: the kernel reads one key and one value; both have the sizes that the map was created with.
        unsafe { self.element(MAP_UPDATE, key.as_ptr(), value.as_mut_ptr()) }.map(|_| ())
    }

    /// Every entry, a key and its value. Programs may add others meanwhile: at most `most` are read.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn entries(&self, most: usize) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut entries = Vec::new();
        let mut key = self.next_key(None)?;
        while let Some(current) = key.take().filter(|_| entries.len() < most) {
            let value = self.value(&current)?;
            key = self.next_key(Some(&current))?;
            entries.extend(value.map(|value| (current, value)));
        }
        Ok(entries)
    }

    fn next_key(&self, after: Option<&Vec<u8>>) -> io::Result<Option<Vec<u8>>> {
        let mut next = vec![0_u8; self.key];
        let after = after.map_or(std::ptr::null(), |key| key.as_ptr());
        // SAFETY: the kernel reads one key, or none where the pointer is null, and writes one; every key that is
        // passed in was made here, with the size that the map was created with.
        unsafe { self.element(MAP_GET_NEXT_KEY, after, next.as_mut_ptr()) }.map(|found| found.then_some(next))
    }

    fn value(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0_u8; self.value];
        // SAFETY: the kernel reads one key and writes one value; both have the sizes that the map was created with.
        unsafe { self.element(MAP_LOOKUP, key.as_ptr(), value.as_mut_ptr()) }
            .map(|found| found.then_some(value))
    }

    /// False where there is no such element.
    ///
    /// # Safety
    /// `key` and `result` have to be valid for what the command reads and writes.
    unsafe fn element(&self, command: i32, key: *const u8, result: *mut u8) -> io::Result<bool> {
        #[repr(C)]
        struct Element {
            map: u32,
            padding: u32,
            key: u64,
            result: u64,
            flags: u64,
        }
        let element = Element {
            map: self.file.as_raw_fd().cast_unsigned(),
            padding: 0,
            key: key.expose_provenance() as u64,
            result: result.expose_provenance() as u64,
            flags: 0,
        };
        // SAFETY: the caller answers for the pointers.
        match unsafe { bpf(command, &element) } {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Bytes that a program may read and nobody can change: what the verifier takes for a constant text.
#[derive(Debug)]
pub struct Constant(HashMap);

impl Constant {
    /// With these bytes.
    ///
    /// # Errors
    /// PermissionDenied without CAP_BPF, or where bpf() is forbidden.
    pub fn new(bytes: &[u8]) -> io::Result<Self> {
        #[repr(C)]
        struct Freeze {
            map: u32,
        }
        // An array's keys are numbers of four bytes.
        let key = [0; 4];
        let array = HashMap::create(ARRAY, (key.len(), bytes.len()), 1, READ_ONLY)?;
        array.insert(&key, bytes)?;
        let freeze = Freeze {
            map: array.file.as_raw_fd().cast_unsigned(),
        };
        // SAFETY: MAP_FREEZE reads this field and no pointer.
        unsafe { bpf(MAP_FREEZE, &freeze)? };
        Ok(Self(array))
    }

    /// The descriptor that instructions of a program name it by.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.0.descriptor()
    }
}

/// A program that runs at a tracepoint until this is dropped.
#[derive(Debug)]
pub struct Attached {
    _link: OwnedFd,
}

impl Attached {
    /// Has the verifier check a program and runs it at a tracepoint, with the tracepoint's arguments as they are.
    /// The licence decides which helpers it may call.
    ///
    /// # Errors
    /// PermissionDenied without CAP_BPF and CAP_PERFMON or where bpf() is forbidden, NotFound where there is no
    /// such tracepoint, InvalidInput with the verifier's words for a program that it refuses.
    pub fn to_tracepoint(name: &CStr, program: &[u64], licence: &CStr) -> io::Result<Self> {
        #[repr(C)]
        struct Open {
            name: u64,
            program: u32,
            padding: u32,
        }
        let program = load(program, licence)?;
        let open = Open {
            name: name.as_ptr().expose_provenance() as u64,
            program: program.as_raw_fd().cast_unsigned(),
            padding: 0,
        };
        // SAFETY: the kernel reads a name that ends in a zero byte and lives through the call, and returns a
        // descriptor.
        let link = unsafe { descriptor(RAW_TRACEPOINT_OPEN, &open)? };
        // The link holds the program.
        Ok(Self { _link: link })
    }
}

fn load(program: &[u64], licence: &CStr) -> io::Result<OwnedFd> {
    match load_with_log(program, licence, &mut []) {
        // Again, this time to learn why.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EACCES)) => {
            let mut log = vec![0; VERIFIER_LOG];
            load_with_log(program, licence, &mut log).map_err(|error| {
                let text = CStr::from_bytes_until_nul(&log)
                    .unwrap_or_default()
                    .to_string_lossy();
                let lines: Vec<&str> = text.lines().rev().take(4).collect();
                let last: Vec<&str> = lines.into_iter().rev().collect();
                io::Error::new(error.kind(), format!("{error}: {}", last.join(" / ")))
            })
        }
        result => result,
    }
}

fn load_with_log(program: &[u64], licence: &CStr, log: &mut [u8]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Load {
        kind: u32,
        instructions: u32,
        program: u64,
        licence: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
    }
    let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "the program is too long");
    let load = Load {
        kind: RAW_TRACEPOINT,
        instructions: u32::try_from(program.len()).map_err(too_long)?,
        program: program.as_ptr().expose_provenance() as u64,
        licence: licence.as_ptr().expose_provenance() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: u32::try_from(log.len()).map_err(too_long)?,
        log: if log.is_empty() {
            0
        } else {
            log.as_mut_ptr().expose_provenance() as u64
        },
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads as many instructions of 8 bytes as there are and a licence that ends in a zero
    // byte, and writes no more of the log than its size; all live through the call. It returns a descriptor. What
    // the program does the verifier has proven harmless.
    unsafe { descriptor(PROG_LOAD, &load) }
}

/// # Safety
/// As [`bpf`]; the command has to be one that returns a descriptor.
unsafe fn descriptor<T>(command: i32, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the caller answers for the attributes; a descriptor that the kernel returns is new and ours alone.
    unsafe { bpf(command, attributes).map(|file| OwnedFd::from_raw_fd(file)) }
}

/// # Safety
/// The attributes have to be what the command wants, without bytes that are not initialised, and every pointer in
/// them valid.
unsafe fn bpf<T>(command: i32, attributes: &T) -> io::Result<i32> {
    // SAFETY: the kernel reads as many bytes as the struct has; the caller answers for what it points to.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}
