//! One rule of nf_tables held against one packet.
//!
//! A rule is a list of expressions that load values into registers and look at them. What is known of the packet is
//! loaded byte by byte; everything else is unknown, and a comparison with it may hold or not.
//!
//! Source: the kernel's include/uapi/linux/netfilter/nf_tables.h and net/netfilter/nft_*.c.

use svcdiag_kube_proxy::{IpFamily, Match};

use super::{
    packet::{Packet, states_of_xt},
    registers::{Registers, compare, word},
    sets::{Member, Sets},
};
use crate::{
    netfilter::{
        expressions::{DATA_VALUE, LIST_ELEMENT},
        xt,
    },
    netlink::Attributes,
};

/// Whether a rule takes a packet, from what can be known of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holds {
    No,
    Maybe,
    Yes,
}

impl Holds {
    fn of(known: Option<bool>) -> Self {
        match known {
            Some(true) => Self::Yes,
            Some(false) => Self::No,
            None => Self::Maybe,
        }
    }

    fn turned(self, is_turned: bool) -> Self {
        match (self, is_turned) {
            (Self::Yes, true) => Self::No,
            (Self::No, true) => Self::Yes,
            (holds, _) => holds,
        }
    }
}

/// What becomes of the packets that a rule takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End<'a> {
    Drop,
    Reject,
    /// They leave the base chain otherwise: accepted, translated, queued.
    Accept,
    Return,
    Jump(&'a [u8]),
    Goto(&'a [u8]),
    /// A map says it, by one of these of its elements.
    Map(&'a [u8], Which),
}

/// Which elements of a map may be that of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// Any.
    Any,
    /// One for a state of connection tracking that the packet may have.
    OfState,
    /// That with this key.
    Of(Vec<u8>),
}

/// What a rule does with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome<'a> {
    pub holds: Holds,
    /// None where packets always go on to the next rule.
    pub end: Option<End<'a>>,
    /// What the counter says of packets that met all conditions; none if it counts others as well.
    pub packets: Option<u64>,
}

struct Reader<'p> {
    packet: &'p Packet,
    /// Whether the table sees packets as IP packets of their family: those at bridges and interfaces are others.
    is_ip: bool,
    registers: Registers,
    holds: Holds,
    packets: Option<u64>,
}

/// What a rule does with a packet, by its expressions.
pub(super) fn outcome<'a>(
    expressions: Attributes<'a>,
    packet: &Packet,
    is_ip: bool,
    sets: &dyn Sets,
) -> Outcome<'a> {
    let mut reader = Reader {
        packet,
        is_ip,
        registers: Registers::default(),
        holds: Holds::Yes,
        packets: None,
    };
    let mut end = None;
    for (_, expression) in expressions.iter().filter(|(kind, _)| *kind == LIST_ELEMENT) {
        let expression = Attributes(expression);
        let name = expression.text(1).unwrap_or_default();
        let data = expression.nested(2).unwrap_or_default();
        end = reader.read(name, data, sets);
        if end.is_some() || reader.holds == Holds::No {
            break;
        }
    }
    Outcome {
        holds: reader.holds,
        end,
        packets: reader.packets,
    }
}

/// Name, revision and data of a match of iptables.
pub(super) fn xt_info<'a>(data: Attributes<'a>) -> (&'a str, u8, &'a [u8]) {
    let revision = data.be_u32(2).and_then(|r| u8::try_from(r).ok());
    (
        data.text(1).unwrap_or_default(),
        revision.unwrap_or_default(),
        data.get(3).unwrap_or_default(),
    )
}

impl Reader<'_> {
    /// Reads an expression; where it ends the rule, how.
    fn read<'a>(&mut self, name: &str, data: Attributes<'a>, sets: &dyn Sets) -> Option<End<'a>> {
        match name {
            "counter" => self.packets = data.be_u64(2),
            "log" | "last" | "notrack" => {}
            "payload" if data.be_u32(1).is_some() => self.payload(data),
            "meta" if data.get(1).is_some() => self.meta(data),
            "ct" if data.get(1).is_some() => self.connection(data),
            // They write something that no rule here is held against.
            "payload" | "meta" | "ct" => {}
            "bitwise" => self.bitwise(data),
            "byteorder" => self.registers.load(data.be_u32(2), []),
            "cmp" => {
                let holds = self.compare(data);
                self.condition(holds);
            }
            "range" => {
                let holds = self.range(data);
                self.condition(holds);
            }
            "lookup" => return self.lookup(data, sets),
            "immediate" => {
                let value = data.nested(2)?;
                match value.get(DATA_VALUE) {
                    Some(constant) => {
                        self.registers
                            .load(data.be_u32(1), constant.iter().copied().map(Some));
                    }
                    None => return verdict(value),
                }
            }
            "reject" => return Some(End::Reject),
            "nat" | "masq" | "redir" | "queue" => return Some(End::Accept),
            "match" => {
                let holds = self.xt(data);
                self.condition(holds);
            }
            "target" => {
                return match data.text(1).unwrap_or_default() {
                    "REJECT" => Some(End::Reject),
                    "DNAT" | "SNAT" | "MASQUERADE" | "REDIRECT" | "NFQUEUE" => Some(End::Accept),
                    _ => None,
                };
            }
            _ => {
                self.registers.forget();
                self.condition(Holds::Maybe);
            }
        }
        None
    }

    fn condition(&mut self, holds: Holds) {
        self.holds = self.holds.min(holds);
        self.packets = None;
    }

    fn payload(&mut self, data: Attributes<'_>) {
        const NETWORK_HEADER: u32 = 1;
        const TRANSPORT_HEADER: u32 = 2;
        let number = |kind| data.be_u32(kind).and_then(|n| usize::try_from(n).ok());
        let (from, length) = (number(3).unwrap_or_default(), number(4).unwrap_or_default());
        let base = data.be_u32(2);
        // No register is longer.
        let bytes = (from..from.saturating_add(length.min(64))).map(|at| match base {
            Some(NETWORK_HEADER) => self.packet.network_byte(at),
            Some(TRANSPORT_HEADER) => self.packet.transport_byte(at),
            _ => None,
        });
        let bytes: Vec<Option<u8>> = bytes.collect();
        self.registers.load(data.be_u32(1), bytes);
    }

    fn meta(&mut self, data: Attributes<'_>) {
        const PROTOCOL: u32 = 1;
        const NFPROTO: u32 = 15;
        const L4PROTO: u32 = 16;
        let is_v4 = self.packet.family() == IpFamily::V4;
        let value: &[u8] = match data.be_u32(2) {
            Some(PROTOCOL) if is_v4 => &[0x08, 0x00],
            Some(PROTOCOL) => &[0x86, 0xdd],
            Some(NFPROTO) if self.is_ip && is_v4 => &[2],
            Some(NFPROTO) if self.is_ip => &[10],
            Some(L4PROTO) => &[self.packet.protocol],
            _ => &[],
        };
        self.registers
            .load(data.be_u32(1), value.iter().copied().map(Some));
    }

    fn connection(&mut self, data: Attributes<'_>) {
        const STATE: u32 = 0;
        let register = data.be_u32(1);
        match data.be_u32(2) {
            Some(STATE) => self.registers.load_states(register, u32::MAX),
            _ => self.registers.load(register, []),
        }
    }

    fn bitwise(&mut self, data: Attributes<'_>) {
        const MASK_AND_XOR: u32 = 0;
        let (source, target) = (data.be_u32(1), data.be_u32(2));
        let constant = |kind| data.nested(kind).and_then(|d| d.get(DATA_VALUE));
        let known = (|| {
            (data.be_u32(6).unwrap_or(MASK_AND_XOR) == MASK_AND_XOR).then_some(())?;
            let (mask, xor) = (constant(4)?, constant(5)?);
            let states = self.registers.states_at(source?);
            let bytes = self.registers.get(source?, mask.len())?;
            let pairs = bytes.iter().zip(mask).zip(xor);
            let bytes: Vec<Option<u8>> = pairs
                .map(|((byte, mask), xor)| match mask {
                    0 => Some(*xor),
                    mask => byte.map(|byte| (byte & mask) ^ xor),
                })
                .collect();
            let is_plain = xor.iter().all(|byte| *byte == 0);
            let states = states.filter(|_| is_plain).and_then(|of| Some(of & word(mask)?));
            Some((bytes, states))
        })();
        let (bytes, states) = known.unwrap_or_default();
        match states {
            Some(states) => self.registers.load_states(target, states),
            None => self.registers.load(target, bytes),
        }
    }

    fn compare(&self, data: Attributes<'_>) -> Holds {
        let compared = (|| {
            let register = data.be_u32(1)?;
            let constant = data.nested(3)?.get(DATA_VALUE)?;
            let operator = data.be_u32(2)?;
            if let Some(mask) = self.registers.states_at(register) {
                return Some(self.compare_states(mask, operator, word(constant)?));
            }
            let loaded = self.registers.get(register, constant.len())?;
            Some(Holds::of(compare(loaded, operator, constant)))
        })();
        compared.unwrap_or(Holds::Maybe)
    }

    /// Some bits of the state, held against none or against one state.
    fn compare_states(&self, mask: u32, operator: u32, constant: u32) -> Holds {
        const EQUAL: u32 = 0;
        const NOT_EQUAL: u32 = 1;
        let is_turned = match operator {
            EQUAL => false,
            NOT_EQUAL => true,
            _ => return Holds::Maybe,
        };
        match constant {
            0 => Holds::of(self.packet.is_in_state(mask)).turned(!is_turned),
            state if mask == u32::MAX => Holds::of(self.packet.is_in_state(state)).turned(is_turned),
            _ => Holds::Maybe,
        }
    }

    fn range(&self, data: Attributes<'_>) -> Holds {
        const NOT_EQUAL: u32 = 1;
        let constant = |kind| data.nested(kind).and_then(|d| d.get(DATA_VALUE));
        let is_within = (|| {
            let (from, to) = (constant(3)?, constant(4)?);
            let loaded: Option<Vec<u8>> = self
                .registers
                .get(data.be_u32(1)?, from.len())?
                .iter()
                .copied()
                .collect();
            let loaded = loaded?;
            Some(from <= loaded.as_slice() && loaded.as_slice() <= to)
        })();
        Holds::of(is_within).turned(data.be_u32(2) == Some(NOT_EQUAL))
    }

    fn lookup<'a>(&mut self, data: Attributes<'a>, sets: &dyn Sets) -> Option<End<'a>> {
        let name = data.name(1).unwrap_or_default();
        let register = data.be_u32(2).unwrap_or_default();
        let is_of_states = self.registers.states_at(register) == Some(u32::MAX);
        let key = |length| {
            let bytes = self.registers.get(register, length)?;
            bytes.iter().copied().collect::<Option<Vec<u8>>>()
        };
        let found = match is_of_states {
            true => Member::Unknown,
            false => sets.find(name, &key),
        };
        let holds = match (&found, is_of_states) {
            (Member::Present(_), _) => Holds::Yes,
            (Member::Absent, _) => Holds::No,
            (Member::Unknown, true) => sets
                .states(name)
                .map_or(Holds::Maybe, |states| Holds::of(self.packet.is_in_state(states))),
            (Member::Unknown, false) => Holds::Maybe,
        };
        match data.be_u32(3) {
            Some(0) => {
                // Without an element the packet goes on to the next rule.
                self.holds = self.holds.min(holds);
                let which = match (found, is_of_states) {
                    (Member::Present(key), _) => Which::Of(key),
                    (_, true) => Which::OfState,
                    (_, false) => Which::Any,
                };
                return Some(End::Map(name, which));
            }
            Some(register) => {
                self.registers.load(Some(register), []);
                self.condition(holds);
            }
            None => {
                let is_turned = data.be_u32(5).unwrap_or_default() & 1 != 0;
                self.condition(holds.turned(is_turned));
            }
        }
        None
    }

    fn xt(&self, data: Attributes<'_>) -> Holds {
        let (name, revision, info) = xt_info(data);
        if let Some(states) = states_of_xt(name, revision, info) {
            return Holds::of(self.packet.is_in_state(states));
        }
        match xt::read_match(name, revision, info) {
            Match::Neutral => Holds::Yes,
            Match::DestinationPort(ports) => {
                // It may ask for more than that.
                match ports.contains(&self.packet.destination.port()) {
                    true => Holds::Maybe,
                    false => Holds::No,
                }
            }
            _ => Holds::Maybe,
        }
    }
}

/// What a verdict says.
pub(super) fn verdict(data: Attributes<'_>) -> Option<End<'_>> {
    const DATA_VERDICT: u16 = 2;
    let verdict = data.nested(DATA_VERDICT)?;
    let code = i32::from_ne_bytes(verdict.be_u32(1)?.to_ne_bytes());
    Some(match code {
        -3 => End::Jump(verdict.name(2)?),
        -4 => End::Goto(verdict.name(2)?),
        -5 => End::Return,
        // Continue and break.
        ..0 => return None,
        // The number of a queue may stand in the upper bits.
        _ if code & 0xff == 0 => End::Drop,
        _ => End::Accept,
    })
}
