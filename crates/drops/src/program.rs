// SPDX-License-Identifier: MIT OR GPL-2.0-only
//! The programs that run in the kernel for every packet that is dropped, and where asked for every one that comes in or goes
//! out, while a dial is watched.
//!
//! Each is assembled for the addresses of one dial and the structs of this kernel, as tcpdump assembles a filter: no
//! loops, no maps to look filters up in, and a packet of anybody else is left after some comparisons. In C that for drops
//! reads:
//!
//! ```c
//! int dropped(u64 *arguments) {
//!     struct record record = {};                                  // what is zero is not known
//!     struct sk_buff *packet = arguments[PACKET];
//!     u8 *header = packet->head + packet->network_header;
//!     if (packet->protocol == ETH_P_IP) {                         // with filters for IPv4; the same for IPv6
//!         record.protocol, .source, .destination, .ports = header...;
//!         if (...first filter...) { record.filter = 0; goto matched; }
//!         if (...second filter...) { record.filter = 1; goto matched; }
//!     }
//!     return 0;
//! matched:
//!     record.reason = arguments[REASON];
//!     snprintf(record.function, 64, "%ps", arguments[LOCATION]);
//!     struct net_device *device = packet->dev;
//!     if (device) { record.name, .index = device...; }
//!     else device = (packet->_skb_refdst & ~1)->dev;              // a socket's: the route still knows the namespace
//!     record.namespace = device->nd_net.net->ns.inum;
//!     map_update(DROPS, &record, &zero, BPF_NOEXIST);             // fails if it is full
//!     u64 *count = map_lookup(DROPS, &record);
//!     if (count) atomic_add(count, 1);
//!     return 0;
//! }
//! ```
//!
//! Those for packets that come in and go out leave reason and function zero, and ports that a filter leaves open. Where only
//! packets that open a connection count, a filter for TCP also asks for the flag SYN.
//!
//! Everything in the kernel is read by a helper that fails, and leaves zeros, where a pointer is none. The kernel itself
//! names the function: whoever may trace may be told that, while /proc/kallsyms takes CAP_SYSLOG.

mod assembler;

use std::{ffi::CStr, net::IpAddr, os::fd::RawFd};

use self::assembler::{Assembler, Label};
use svcdiag_kube_proxy::Protocol;

use crate::{Filter, Tuple, kernel::Layout};

/// Of this file, which is the program: only such programs may read the kernel's memory.
pub(crate) const LICENCE: &CStr = c"Dual MIT/GPL";

/// A key of the map, by the offsets of its fields.
pub(crate) mod record {
    /// Addresses have 16 bytes; those of IPv4 use the first four.
    pub(crate) const SOURCE: i16 = 0;
    pub(crate) const DESTINATION: i16 = 16;
    pub(crate) const FUNCTION: i16 = 32;
    pub(crate) const NAMESPACE: i16 = 96;
    pub(crate) const INDEX: i16 = 100;
    pub(crate) const NAME: i16 = 104;
    pub(crate) const REASON: i16 = 120;
    /// Ports of source and destination, as they are in the packet.
    pub(crate) const PORTS: i16 = 124;
    pub(crate) const PROTOCOL: i16 = 128;
    pub(crate) const FILTER: i16 = 130;
    /// A multiple of eight.
    pub(crate) const SIZE: i16 = 136;
}

/// Where a TCP header has its flags, and that of a packet that opens a connection.
const TCP_FLAGS: u32 = 13;
const SYN: i32 = 0x02;

/// IFNAMSIZ.
pub(crate) const NAME_LENGTH: i32 = 16;

/// A function's name, with that of its module; of a longer one the beginning is enough.
pub(crate) const FUNCTION_LENGTH: i32 = 64;

/// What the kernel is to write of an address: the function that has it.
pub(crate) const FUNCTION_FORMAT: &[u8; 4] = b"%ps\0";

/// Places on the stack, from its end.
const RECORD: i16 = -record::SIZE;
/// An IP header, or whatever has just been read.
const SCRATCH: i16 = RECORD - 40;

/// Registers. The last is the end of the stack; 1 to 5 are arguments of helpers, which do not survive them.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
const R5: u8 = 5;
const ARGUMENTS: u8 = 6;
const PACKET: u8 = 7;
const POINTER: u8 = 8;
const STACK: u8 = 10;

/// Helpers, by their numbers in linux/bpf.h.
const MAP_LOOKUP_ELEM: i32 = 1;
const MAP_UPDATE_ELEM: i32 = 2;
const PROBE_READ_KERNEL: i32 = 113;
const SNPRINTF: i32 = 165;
const BPF_NOEXIST: i32 = 1;

/// What the source of a `LOAD_MAP` says that its value is: a map, or the first value of one.
const OF_MAP: u8 = 1;
const OF_VALUE: u8 = 2;

/// Codes of instructions: class, size or source of the operand, operation.
mod code {
    pub(super) const LOAD_MAP: u8 = 0x18;
    pub(super) const LOAD_U32: u8 = 0x61;
    pub(super) const LOAD_U16: u8 = 0x69;
    pub(super) const LOAD_U8: u8 = 0x71;
    pub(super) const LOAD_U64: u8 = 0x79;
    pub(super) const STORE_U16_VALUE: u8 = 0x6a;
    pub(super) const STORE_U64_VALUE: u8 = 0x7a;
    pub(super) const STORE_U32: u8 = 0x63;
    pub(super) const STORE_U8: u8 = 0x73;
    pub(super) const STORE_U64: u8 = 0x7b;
    pub(super) const ATOMIC_ADD_U64: u8 = 0xdb;
    pub(super) const ADD_VALUE: u8 = 0x07;
    pub(super) const ADD: u8 = 0x0f;
    pub(super) const AND_VALUE: u8 = 0x57;
    pub(super) const SHIFT_LEFT: u8 = 0x67;
    pub(super) const MOVE_VALUE: u8 = 0xb7;
    pub(super) const MOVE: u8 = 0xbf;
    pub(super) const JUMP: u8 = 0x05;
    pub(super) const JUMP_IF_EQUAL: u8 = 0x15;
    pub(super) const JUMP_UNLESS_EQUAL_U32: u8 = 0x56;
    pub(super) const CALL: u8 = 0x85;
    pub(super) const EXIT: u8 = 0x95;
}

/// Where in the kernel a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// A packet is thrown away: `kfree_skb`.
    Dropped,
    /// It comes in by an interface: `netif_receive_skb`.
    Received,
    /// It is to go out by an interface: `net_dev_queue`.
    Sent,
}

/// Maps of the program, by their descriptors.
#[derive(Clone, Copy)]
pub(crate) struct Maps {
    /// Where it counts.
    pub counts: RawFd,
    /// Has [`FUNCTION_FORMAT`], for drops.
    pub format: Option<RawFd>,
}

/// What a program counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct What {
    pub point: Point,
    /// Of TCP only packets that open a connection: SYN, and the answer to it. Others of the same ends may be of connections
    /// that were made long ago.
    pub opening: bool,
}

/// The program for these filters. One whose sender and receiver are of different families matches no packet.
pub(crate) fn assemble(layout: &Layout, what: What, filters: &[Filter], maps: Maps) -> Vec<u64> {
    let What { point, opening } = what;
    let mut asm = Assembler::default();
    let (matched, end) = (asm.label(), asm.label());

    asm.emit(code::MOVE, ARGUMENTS, R1, 0, 0);
    asm.argument(
        PACKET,
        match point {
            Point::Dropped => layout.packet,
            Point::Received => layout.received,
            Point::Sent => layout.sent,
        },
    );
    asm.empty_record();
    if point == Point::Received {
        // The link's header is off, and nobody has noted yet where the next one begins.
        asm.follow(PACKET, layout.data);
    } else {
        // header = head + network_header
        asm.read(SCRATCH, 8, PACKET, layout.head);
        asm.emit(code::LOAD_U64, POINTER, STACK, SCRATCH, 0);
        asm.read(SCRATCH, 2, PACKET, layout.network_header);
        asm.emit(code::LOAD_U16, R1, STACK, SCRATCH, 0);
        asm.emit(code::ADD, POINTER, R1, 0, 0);
    }
    let mut may_match = false;
    for family in [IPV4, IPV6] {
        let is_of_family = |filter: &Filter| {
            let Tuple {
                source, destination, ..
            } = filter.tuple;
            source.is_ipv6() == family.ipv6 && destination.is_ipv6() == family.ipv6
        };
        let mut of_family = filters
            .iter()
            .enumerate()
            .filter(|(_, filter)| is_of_family(filter))
            .peekable();
        if of_family.peek().is_none() {
            continue;
        }
        may_match = true;
        let other_family = asm.label();
        asm.read(SCRATCH, 2, PACKET, layout.protocol);
        asm.emit(code::LOAD_U16, R1, STACK, SCRATCH, 0);
        asm.unless_equal(
            u16::from_ne_bytes(family.ether_type.to_be_bytes()).into(),
            other_family,
        );
        asm.header(&family);
        if opening {
            asm.read(SCRATCH, 1, POINTER, TCP_FLAGS);
        }
        for (number, filter) in of_family {
            asm.filter(number, filter, what, matched);
        }
        asm.jump(code::JUMP, 0, 0, end);
        asm.place(other_family);
    }
    // The verifier refuses what nothing leads to.
    if may_match {
        asm.jump(code::JUMP, 0, 0, end);
        asm.place(matched);
        if let Some(format) = maps.format {
            asm.why(layout, format);
        }
        asm.place_in_network(layout);
        asm.count(maps.counts, end);
    }
    asm.place(end);
    asm.emit(code::MOVE_VALUE, R0, 0, 0, 0);
    asm.emit(code::EXIT, 0, 0, 0, 0);
    asm.finish()
}

/// Where an IP header has what.
struct Family {
    ipv6: bool,
    ether_type: u16,
    header: i32,
    source: i16,
    address: i16,
    protocol: i16,
}

const IPV4: Family = Family {
    ipv6: false,
    ether_type: 0x0800,
    header: 20,
    source: 12,
    address: 4,
    protocol: 9,
};

/// Dials have no extension headers.
const IPV6: Family = Family {
    ipv6: true,
    ether_type: 0x86dd,
    header: 40,
    source: 8,
    address: 16,
    protocol: 6,
};

impl Assembler {
    /// Reads addresses, protocol and ports into the record. Changes the pointer.
    fn header(&mut self, family: &Family) {
        self.read(SCRATCH, family.header, POINTER, 0);
        self.emit(code::LOAD_U8, R1, STACK, SCRATCH + family.protocol, 0);
        self.emit(code::STORE_U8, STACK, R1, RECORD + record::PROTOCOL, 0);
        for part in (0..family.address).step_by(4) {
            let source = SCRATCH + family.source + part;
            for (from, to) in [
                (source, record::SOURCE),
                (source + family.address, record::DESTINATION),
            ] {
                self.emit(code::LOAD_U32, R1, STACK, from, 0);
                self.emit(code::STORE_U32, STACK, R1, RECORD + to + part, 0);
            }
        }
        if family.ipv6 {
            self.emit(code::ADD_VALUE, POINTER, 0, 0, family.header);
        } else {
            // The header's length is in its first half byte, in words of four.
            self.emit(code::LOAD_U8, R1, STACK, SCRATCH, 0);
            self.emit(code::AND_VALUE, R1, 0, 0, 0x0f);
            self.emit(code::SHIFT_LEFT, R1, 0, 0, 2);
            self.emit(code::ADD, POINTER, R1, 0, 0);
        }
        self.read(RECORD + record::PORTS, 4, POINTER, 0);
    }

    /// Goes on behind it unless the record is what the filter says.
    fn filter(&mut self, number: usize, filter: &Filter, what: What, matched: Label) {
        let next = self.label();
        let tuple = filter.tuple;
        self.emit(code::LOAD_U8, R1, STACK, RECORD + record::PROTOCOL, 0);
        self.unless_equal(tuple.protocol.number().into(), next);
        let sides = [
            (tuple.source, record::SOURCE, 0),
            (tuple.destination, record::DESTINATION, 2),
        ];
        for (side, address, port) in &sides {
            let (address, port) = (*address, *port);
            for (part, value) in (0..).step_by(4).zip(words(side.ip())) {
                self.emit(code::LOAD_U32, R1, STACK, RECORD + address + part, 0);
                self.unless_equal(value, next);
            }
            if side.port() != 0 {
                self.emit(code::LOAD_U16, R1, STACK, RECORD + record::PORTS + port, 0);
                self.unless_equal(u16::from_ne_bytes(side.port().to_be_bytes()).into(), next);
            }
        }
        if what.opening && tuple.protocol == Protocol::Tcp {
            self.emit(code::LOAD_U8, R1, STACK, SCRATCH, 0);
            self.emit(code::AND_VALUE, R1, 0, 0, SYN);
            self.unless_equal(SYN.cast_unsigned(), next);
        }
        if what.point != Point::Dropped {
            // Of a port that may be any, each would take up room of its own.
            for (_, _, port) in sides.iter().filter(|(side, ..)| side.port() == 0) {
                self.emit(code::STORE_U16_VALUE, STACK, 0, RECORD + record::PORTS + port, 0);
            }
        }
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        self.emit(code::STORE_U16_VALUE, STACK, 0, RECORD + record::FILTER, number);
        self.jump(code::JUMP, 0, 0, matched);
        self.place(next);
    }

    /// Why, and by which function.
    fn why(&mut self, layout: &Layout, format: RawFd) {
        self.argument(R1, layout.reason);
        self.emit(code::STORE_U32, STACK, R1, RECORD + record::REASON, 0);
        self.argument(R1, layout.location);
        self.emit(code::STORE_U64, STACK, R1, SCRATCH, 0);
        self.stack(R1, RECORD + record::FUNCTION);
        self.emit(code::MOVE_VALUE, R2, 0, 0, FUNCTION_LENGTH);
        self.map(R3, OF_VALUE, format);
        self.stack(R4, SCRATCH);
        self.emit(code::MOVE_VALUE, R5, 0, 0, 8);
        self.emit(code::CALL, 0, 0, 0, SNPRINTF);
    }

    /// The interface, and the namespace.
    fn place_in_network(&mut self, layout: &Layout) {
        let (by_route, namespace) = (self.label(), self.label());
        self.follow(PACKET, layout.device);
        self.jump(code::JUMP_IF_EQUAL, POINTER, 0, by_route);
        self.read(RECORD + record::NAME, NAME_LENGTH, POINTER, layout.name);
        self.read(RECORD + record::INDEX, 4, POINTER, layout.index);
        self.jump(code::JUMP, 0, 0, namespace);
        self.place(by_route);
        self.follow(PACKET, layout.destination);
        // The last bit says that nobody holds the route.
        self.emit(code::AND_VALUE, POINTER, 0, 0, !1);
        self.follow(POINTER, layout.destination_device);
        self.place(namespace);
        self.follow(POINTER, layout.device_namespace);
        self.read(RECORD + record::NAMESPACE, 4, POINTER, layout.inode);
    }

    fn count(&mut self, map: RawFd, end: Label) {
        self.emit(code::STORE_U64_VALUE, STACK, 0, SCRATCH, 0);
        self.map_and_key(map);
        self.stack(R3, SCRATCH);
        self.emit(code::MOVE_VALUE, R4, 0, 0, BPF_NOEXIST);
        self.emit(code::CALL, 0, 0, 0, MAP_UPDATE_ELEM);
        self.map_and_key(map);
        self.emit(code::CALL, 0, 0, 0, MAP_LOOKUP_ELEM);
        self.jump(code::JUMP_IF_EQUAL, R0, 0, end);
        self.emit(code::MOVE_VALUE, R1, 0, 0, 1);
        self.emit(code::ATOMIC_ADD_U64, R0, R1, 0, 0);
    }

    fn empty_record(&mut self) {
        for field in 0..record::SIZE / 8 {
            self.emit(code::STORE_U64_VALUE, STACK, 0, RECORD + 8 * field, 0);
        }
    }

    fn map_and_key(&mut self, map: RawFd) {
        self.map(R1, OF_MAP, map);
        self.stack(R2, RECORD);
    }
}

/// An address as its words are in a packet.
fn words(address: IpAddr) -> Vec<u32> {
    let of = |bytes: &[u8]| {
        let word = |bytes: &[u8]| {
            bytes
                .iter()
                .rev()
                .fold(0, |word, byte| word << 8 | u32::from(*byte))
        };
        bytes.chunks(4).map(word).collect()
    };
    match address {
        IpAddr::V4(address) => of(&address.octets()),
        IpAddr::V6(address) => of(&address.octets()),
    }
}
