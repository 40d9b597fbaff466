use std::{collections::HashMap, fs::File, io::Read, path::PathBuf};

use memmap2::MmapMut;

use crate::{Unavailable, btf::Btf};

/// Where the kernel says what it is like.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Its types.
    pub btf: PathBuf,
    /// Whether it is locked down.
    pub lockdown: PathBuf,
    /// What this thread may do.
    pub status: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            btf: "/sys/kernel/btf/vmlinux".into(),
            lockdown: "/sys/kernel/security/lockdown".into(),
            status: "/proc/thread-self/status".into(),
        }
    }
}

/// What a watch has to know of this kernel. Some hundred short strings; it holds for as long as the machine is up.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub(crate) layout: Layout,
    pub(crate) paths: Paths,
    reasons: HashMap<u32, String>,
    subsystems: HashMap<u32, String>,
}

/// Arguments of the tracepoints, and offsets of fields in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Arguments, by position: of the tracepoint for drops, and the packet in those for what comes in and goes out.
    pub packet: u8,
    pub location: u8,
    pub reason: u8,
    pub received: u8,
    pub sent: u8,
    /// struct sk_buff.
    pub protocol: u32,
    pub head: u32,
    pub data: u32,
    pub network_header: u32,
    pub device: u32,
    pub destination: u32,
    /// struct net_device.
    pub name: u32,
    pub index: u32,
    pub device_namespace: u32,
    /// struct dst_entry.
    pub destination_device: u32,
    /// struct net.
    pub inode: u32,
}

/// The reasons of other parts of the kernel have that part's number in the upper half.
const SUBSYSTEM_SHIFT: u32 = 16;

/// Large kernels have some 10 MiB.
const MAX_BTF: usize = 64 << 20;

impl Kernel {
    /// Reads the kernel's types, which are some megabytes, and keeps what is needed of them.
    ///
    /// # Errors
    /// Where there are none, or the kernel gives no reasons.
    pub fn read(paths: Paths) -> Result<Self, Unavailable> {
        let no_btf = |source| Unavailable::NoBtf {
            path: paths.btf.clone(),
            source,
        };
        let mut file = File::open(&paths.btf).map_err(no_btf)?;
        let length = file.metadata().map_err(no_btf)?.len();
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MAX_BTF {
            return Err(Unavailable::UnknownBtf("the file is larger than 64 MiB"));
        }
        // Memory of its own, which goes back to the kernel at once. An allocator that has freed so much keeps as much from then
        // on (glibc's mallopt(3), M_MMAP_THRESHOLD).
        let mut types = MmapMut::map_anon(length).map_err(no_btf)?;
        file.read_exact(&mut types).map_err(no_btf)?;
        let btf = Btf::parse(&types).map_err(Unavailable::UnknownBtf)?;
        let by_number = |name: &str, prefix: &str| -> Option<HashMap<u32, String>> {
            let named =
                |(name, number): (&str, u32)| (number, name.strip_prefix(prefix).unwrap_or(name).to_owned());
            Some(btf.enumeration(name)?.into_iter().map(named).collect())
        };
        let reasons = by_number("skb_drop_reason", "SKB_DROP_REASON_").ok_or(Unavailable::NoReason)?;
        let subsystems = by_number("skb_drop_reason_subsys", "SKB_DROP_REASON_SUBSYS_").unwrap_or_default();
        Ok(Self {
            layout: layout(&btf)?,
            paths,
            reasons,
            subsystems,
        })
    }

    /// What the kernel calls a reason.
    pub(crate) fn reason(&self, number: u32) -> String {
        let subsystem = self.subsystems.get(&(number >> SUBSYSTEM_SHIFT));
        match (self.reasons.get(&number), subsystem) {
            (Some(name), _) => name.clone(),
            // Its names are in the module that has the subsystem.
            (None, Some(name)) => format!("{name} {}", number & 0xffff),
            (None, None) => format!("unnamed reason {number}"),
        }
    }
}

fn layout(btf: &Btf<'_>) -> Result<Layout, Unavailable> {
    let argument_of = |tracepoint: &str, kind: &str| {
        let arguments = btf.arguments(tracepoint).unwrap_or_default();
        let position = arguments.iter().position(|found| *found == kind)?;
        u8::try_from(position).ok()
    };
    let argument = |kind: &str| argument_of("kfree_skb", kind);
    // The only one there has always been.
    let packet_of = |tracepoint: &str| argument_of(tracepoint, "sk_buff").unwrap_or(0);
    let offset = |of: &str, field: &str| {
        btf.offset(of, field).ok_or(Unavailable::UnknownBtf(
            "a struct of the network stack lacks a field",
        ))
    };
    let missing = Unavailable::UnknownBtf("the tracepoint kfree_skb has no such arguments");
    let (Some(packet), Some(location)) = (argument("sk_buff"), argument("void")) else {
        return Err(missing);
    };
    Ok(Layout {
        packet,
        location,
        reason: argument("skb_drop_reason").ok_or(Unavailable::NoReason)?,
        received: packet_of("netif_receive_skb"),
        sent: packet_of("net_dev_queue"),
        protocol: offset("sk_buff", "protocol")?,
        head: offset("sk_buff", "head")?,
        data: offset("sk_buff", "data")?,
        network_header: offset("sk_buff", "network_header")?,
        device: offset("sk_buff", "dev")?,
        destination: offset("sk_buff", "_skb_refdst")?,
        name: offset("net_device", "name")?,
        index: offset("net_device", "ifindex")?,
        device_namespace: offset("net_device", "nd_net.net")?,
        destination_device: offset("dst_entry", "dev")?,
        inode: offset("net", "ns.inum")?,
    })
}
