//! The kernel's description of its own types: BTF, as in Documentation/bpf/btf.rst.
//!
//! Only what the program needs is read: where fields lie in structs, the names of enums, and the types of a
//! tracepoint's arguments. Files are those of the running kernel; even so nothing in them is trusted to be in bounds.

/// `BTF_MAGIC`, in the byte order of this machine.
const MAGIC: u16 = 0xeb9f;

/// Anonymous structs and unions within one another, and names for types of names: real kernels have five.
const MAX_DEPTH: usize = 16;

/// Members that are looked at for one field: sk_buff and net_device have some hundred.
const MAX_MEMBERS: u32 = 100_000;

/// The kernel's KSYM_NAME_LEN, to which all names of types keep.
const MAX_NAME: usize = 512;

const PTR: u32 = 2;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
const CONST: u32 = 10;
const FUNC_PROTO: u32 = 13;
const TYPE_TAG: u32 = 18;

/// All types of a kernel.
pub(crate) struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type begins; the first is `void` and has no place.
    starts: Vec<u32>,
}

/// One type: the words that all have, and what follows them.
#[derive(Clone, Copy)]
struct Type<'a> {
    name: u32,
    kind: u32,
    /// Bitfields are among its members.
    bitfields: bool,
    /// Size or another type, as the kind has it.
    refers_to: u32,
    rest: &'a [u8],
}

impl<'a> Btf<'a> {
    /// Says what is wrong with a file that is no BTF.
    pub(crate) fn parse(file: &'a [u8]) -> Result<Self, &'static str> {
        const SHORT: &str = "the file is cut short";
        let magic = file
            .get(..2)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u16::from_ne_bytes);
        if magic != Some(MAGIC) {
            return Err("the file does not begin like BTF");
        }
        let header = |at| {
            word(file, at)
                .and_then(|word| usize::try_from(word).ok())
                .ok_or(SHORT)
        };
        let body = file.get(header(4)?..).ok_or(SHORT)?;
        let section = |offset: usize, length: usize| {
            let rest = body.get(offset..)?;
            rest.get(..length)
        };
        let types = section(header(8)?, header(12)?).ok_or(SHORT)?;
        let strings = section(header(16)?, header(20)?).ok_or(SHORT)?;
        let mut starts = Vec::new();
        let mut at = 0;
        while at < types.len() {
            starts.push(u32::try_from(at).map_err(|_| "it is too large")?);
            let info = word(types, at + 4).ok_or(SHORT)?;
            let members = (info & 0xffff) as usize;
            at += 12
                + match (info >> 24) & 31 {
                    // Integers, variables, and tags of declarations.
                    1 | 14 | 17 => 4,
                    // Arrays.
                    3 => 12,
                    // Structs, unions, sections and enums of 64 bits.
                    STRUCT | UNION | 15 | 19 => 12 * members,
                    ENUM | FUNC_PROTO => 8 * members,
                    PTR | 7..=12 | 16 | TYPE_TAG => 0,
                    _ => return Err("it has a kind of type that is newer than this program"),
                };
        }
        Ok(Self {
            types,
            strings,
            starts,
        })
    }

    /// The offset in bytes of a field, which is a path such as `nd_net.net`; structs without a name are passed through.
    pub(crate) fn offset(&self, of: &str, field: &str) -> Option<u32> {
        let mut inside = self.named(of, STRUCT)?;
        let mut offset = 0_u32;
        let mut budget = MAX_MEMBERS;
        for name in field.split('.') {
            let (within, member) = self.member(inside, name, MAX_DEPTH, &mut budget)?;
            offset = within.checked_add(offset)?;
            inside = self.resolved(member)?;
        }
        Some(offset)
    }

    /// Names and values of an enum.
    pub(crate) fn enumeration(&self, name: &str) -> Option<Vec<(&'a str, u32)>> {
        let found = self.named(name, ENUM)?;
        let variant = |bytes: &[u8]| Some((self.string(word(bytes, 0)?)?, word(bytes, 4)?));
        found.rest.chunks_exact(8).map(variant).collect()
    }

    /// What each argument of a tracepoint points to or is: the name of its type, empty for one without a name.
    pub(crate) fn arguments(&self, tracepoint: &str) -> Option<Vec<&'a str>> {
        let pointer = self.resolved(self.named(&format!("btf_trace_{tracepoint}"), TYPEDEF)?.refers_to)?;
        let function = self
            .resolved(pointer.refers_to)
            .filter(|found| found.kind == FUNC_PROTO)?;
        let argument = |bytes: &[u8]| {
            let mut found = self.resolved(word(bytes, 4)?)?;
            if found.kind == PTR {
                if found.refers_to == 0 {
                    return Some("void");
                }
                found = self.resolved(found.refers_to)?;
            }
            self.string(found.name)
        };
        // The first belongs to whoever listens, and programs do not see it.
        function.rest.chunks_exact(8).skip(1).map(argument).collect()
    }

    fn named(&self, name: &str, kind: u32) -> Option<Type<'a>> {
        (1..=self.starts.len())
            .filter_map(|id| self.get(u32::try_from(id).ok()?))
            .find(|found| found.kind == kind && self.is_called(found.name, name))
    }

    fn get(&self, id: u32) -> Option<Type<'a>> {
        let index = (id as usize).checked_sub(1)?;
        let start = *self.starts.get(index)? as usize;
        let end = self
            .starts
            .get(index + 1)
            .map_or(self.types.len(), |end| *end as usize);
        let bytes = self.types.get(start..end)?;
        let info = word(bytes, 4)?;
        Some(Type {
            name: word(bytes, 0)?,
            kind: (info >> 24) & 31,
            bitfields: info >> 31 != 0,
            refers_to: word(bytes, 8)?,
            rest: bytes.get(12..)?,
        })
    }

    /// A type without its other names and qualifiers.
    fn resolved(&self, id: u32) -> Option<Type<'a>> {
        let mut found = self.get(id)?;
        for _ in 0..MAX_DEPTH {
            // Typedefs, volatile, const and restrict follow one another.
            if !(TYPEDEF..=CONST + 1).contains(&found.kind) && found.kind != TYPE_TAG {
                return Some(found);
            }
            found = self.get(found.refers_to)?;
        }
        None
    }

    /// Offset in bytes and type of a member. Structs may hold one another many times over: so the budget is for all.
    fn member(&self, of: Type<'a>, name: &str, depth: usize, budget: &mut u32) -> Option<(u32, u32)> {
        if !matches!(of.kind, STRUCT | UNION) {
            return None;
        }
        for bytes in of.rest.chunks_exact(12) {
            *budget = budget.checked_sub(1)?;
            let (found, kind, mut bits) = (word(bytes, 0)?, word(bytes, 4)?, word(bytes, 8)?);
            if of.bitfields {
                bits &= 0x00ff_ffff;
            }
            if self.is_called(found, name) {
                return Some((bits / 8, kind));
            }
            let within = || self.member(self.resolved(kind)?, name, depth.checked_sub(1)?, budget);
            if let Some((offset, kind)) = self.is_called(found, "").then(within).flatten() {
                return Some(((bits / 8).checked_add(offset)?, kind));
            }
        }
        None
    }

    fn string(&self, at: u32) -> Option<&'a str> {
        let rest = self.strings.get(at as usize..)?;
        let end = rest.iter().take(MAX_NAME).position(|byte| *byte == 0)?;
        std::str::from_utf8(&rest[..end]).ok()
    }

    /// Whether a string is this one. Takes no longer than the name has bytes.
    fn is_called(&self, at: u32, name: &str) -> bool {
        let rest = self.strings.get(at as usize..);
        let behind = rest.and_then(|rest| rest.strip_prefix(name.as_bytes()));
        behind.and_then(<[u8]>::first) == Some(&0)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(types: &[u32], strings: &[u8]) -> Vec<u8> {
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let [types_length, strings_length] = [types.len(), strings.len()].map(|n| u32::try_from(n).unwrap());
        let mut file = MAGIC.to_ne_bytes().to_vec();
        file.extend([1, 0]);
        for word in [24, 0, types_length, types_length, strings_length] {
            file.extend(word.to_ne_bytes());
        }
        [file, types, strings.to_vec()].concat()
    }

    /// A struct of a hundred members without a name, each of which is the struct itself: a walk would take for ever.
    #[test]
    fn structs_within_themselves_are_left_after_a_while() {
        const MEMBERS: u32 = 100;
        let mut types = vec![1, STRUCT << 24 | MEMBERS, 8];
        types.extend((0..MEMBERS).flat_map(|_| [0, 1, 0]));
        let file = file(&types, b"\0s\0");
        let btf = Btf::parse(&file).unwrap();
        assert_eq!(btf.offset("s", "field"), None);
    }

    #[test]
    fn names_without_an_end_are_none() {
        let types = [1, ENUM << 24 | 1, 4, 1, 7];
        let long = [b"\0".to_vec(), vec![b'x'; 100_000]].concat();
        let file = file(&types, &long);
        let btf = Btf::parse(&file).unwrap();
        assert_eq!(btf.enumeration("x"), None);
    }
}
