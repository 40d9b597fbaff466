use std::{collections::HashMap, fs::File, path::PathBuf};

use crate::{
    Unavailable,
    btf::{Btf, Problem},
};

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

/// Types of the kernel.
const REASONS: &str = "skb_drop_reason";
const SUBSYSTEMS: &str = "skb_drop_reason_subsys";
const PACKET: &str = "sk_buff";
const DEVICE: &str = "net_device";
const DESTINATION: &str = "dst_entry";
const NAMESPACE: &str = "net";

/// Types that have the arguments of its tracepoints.
const DROPPED: &str = "btf_trace_kfree_skb";
const RECEIVED: &str = "btf_trace_netif_receive_skb";
const SENT: &str = "btf_trace_net_dev_queue";

/// All of these.
const WANTED: [&str; 9] = [
    REASONS,
    SUBSYSTEMS,
    PACKET,
    DEVICE,
    DESTINATION,
    NAMESPACE,
    DROPPED,
    RECEIVED,
    SENT,
];

impl Kernel {
    /// Reads the kernel's types, and keeps what is needed of them.
    ///
    /// # Errors
    /// Where there are none, or the kernel gives no reasons.
    pub fn read(paths: Paths) -> Result<Self, Unavailable> {
        let no_btf = |source| Unavailable::NoBtf {
            path: paths.btf.clone(),
            source,
        };
        let file = File::open(&paths.btf).map_err(no_btf)?;
        let mut btf = Btf::parse(file, &WANTED).map_err(|problem| match problem {
            Problem::File(source) => no_btf(source),
            Problem::Format(why) => Unavailable::UnknownBtf(why),
        })?;
        let mut by_number = |name: &'static str, prefix: &str| -> Option<HashMap<u32, String>> {
            let named = |(name, number): (String, u32)| match name.strip_prefix(prefix) {
                Some(rest) => (number, rest.to_owned()),
                None => (number, name),
            };
            Some(btf.enumeration(name)?.into_iter().map(named).collect())
        };
        let reasons = by_number(REASONS, "SKB_DROP_REASON_").ok_or(Unavailable::NoReason)?;
        let subsystems = by_number(SUBSYSTEMS, "SKB_DROP_REASON_SUBSYS_").unwrap_or_default();
        Ok(Self {
            layout: layout(&mut btf)?,
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

fn layout(btf: &mut Btf<File>) -> Result<Layout, Unavailable> {
    let mut arguments = |tracepoint| btf.arguments(tracepoint).unwrap_or_default();
    let (dropped, received, sent) = (arguments(DROPPED), arguments(RECEIVED), arguments(SENT));
    let argument_of = |arguments: &[String], kind: &str| {
        let position = arguments.iter().position(|found| found == kind)?;
        u8::try_from(position).ok()
    };
    let argument = |kind: &str| argument_of(&dropped, kind);
    // The only one there has always been.
    let packet_of = |arguments: &[String]| argument_of(arguments, "sk_buff").unwrap_or(0);
    let mut offset = |of: &'static str, field: &str| {
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
        reason: argument(REASONS).ok_or(Unavailable::NoReason)?,
        received: packet_of(&received),
        sent: packet_of(&sent),
        protocol: offset(PACKET, "protocol")?,
        head: offset(PACKET, "head")?,
        data: offset(PACKET, "data")?,
        network_header: offset(PACKET, "network_header")?,
        device: offset(PACKET, "dev")?,
        destination: offset(PACKET, "_skb_refdst")?,
        name: offset(DEVICE, "name")?,
        index: offset(DEVICE, "ifindex")?,
        device_namespace: offset(DEVICE, "nd_net.net")?,
        destination_device: offset(DESTINATION, "dev")?,
        inode: offset(NAMESPACE, "ns.inum")?,
    })
}
