//! The kernel's description of its own types: BTF, as in Documentation/bpf/btf.rst.
//!
//! Only what the program needs is read: where fields lie in structs, the names of enums, and the types of a
//! tracepoint's arguments. The file has five to ten megabytes, and is never in memory as a whole: of all types are known where
//! they begin, and of those with a name that is wanted, which they are. Files are those of the running kernel; even so nothing
//! in them is trusted to be in bounds.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    ops::Range,
};

/// `BTF_MAGIC`, in the byte order of this machine.
const MAGIC: u16 = 0xeb9f;

/// Large kernels have some 10 MiB.
const MAX_BYTES: u32 = 64 << 20;

/// Anonymous structs and unions within one another, and names for types of names: real kernels have five.
const MAX_DEPTH: usize = 16;

/// Members that are looked at for one field: sk_buff and net_device have some hundred.
const MAX_MEMBERS: u32 = 100_000;

/// The kernel's KSYM_NAME_LEN, to which all names of types keep.
const MAX_NAME: usize = 512;

/// What all types begin with: name, kind with the number of members, and size or another type.
const HEADER: usize = 12;

const PTR: u32 = 2;
pub(crate) const STRUCT: u32 = 4;
const UNION: u32 = 5;
pub(crate) const ENUM: u32 = 6;
pub(crate) const TYPEDEF: u32 = 8;
const CONST: u32 = 10;
const FUNC_PROTO: u32 = 13;
const TYPE_TAG: u32 = 18;

/// Why a file says nothing.
#[derive(Debug)]
pub(crate) enum Problem {
    /// It cannot be read.
    File(io::Error),
    /// What is wrong with it.
    Format(&'static str),
}

const SHORT: Problem = Problem::Format("the file is cut short");

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => SHORT,
            _ => Self::File(error),
        }
    }
}

/// All types of a kernel.
pub(crate) struct Btf<F> {
    file: F,
    types: Range<u32>,
    strings: Range<u32>,
    /// Where in the file each type begins; the first is `void` and has no place.
    starts: Vec<u32>,
    /// The first type of each wanted name and kind.
    wanted: HashMap<(&'static str, u32), u32>,
}

/// One type: the words that all have, and what follows them.
#[derive(Clone)]
struct Type {
    name: u32,
    kind: u32,
    /// Bitfields are among its members.
    bitfields: bool,
    /// Size or another type, as the kind has it.
    refers_to: u32,
    rest: Vec<u8>,
}

impl<F: Read + Seek> Btf<F> {
    /// Finds the types with these names. Says what is wrong with a file that is no BTF.
    pub(crate) fn parse(mut file: F, wanted: &[&'static str]) -> Result<Self, Problem> {
        let mut header = [0; 24];
        file.read_exact(&mut header[..2])?;
        if u16::from_ne_bytes([header[0], header[1]]) != MAGIC {
            return Err(Problem::Format("the file does not begin like BTF"));
        }
        file.read_exact(&mut header[2..])?;
        let field = |at| word(&header, at).filter(|field| *field <= MAX_BYTES);
        let section = |offset, length| {
            let start = field(4)? + field(offset)?;
            Some(start..start + field(length)?)
        };
        let too_large = Problem::Format("the file is larger than 64 MiB");
        let (Some(types), Some(strings)) = (section(8, 12), section(16, 20)) else {
            return Err(too_large);
        };
        let names = find(&mut file, &strings, wanted)?;
        let mut btf = Self {
            file,
            types,
            strings,
            starts: Vec::new(),
            wanted: HashMap::new(),
        };
        btf.index(&names)?;
        Ok(btf)
    }

    /// Notes where each type begins, and which ones have a wanted name.
    fn index(&mut self, names: &HashMap<u32, &'static str>) -> Result<(), Problem> {
        self.file.seek(SeekFrom::Start(self.types.start.into()))?;
        let mut reader = BufReader::new(&mut self.file);
        let mut at = self.types.start;
        while at < self.types.end {
            self.starts.push(at);
            let mut header = [0; HEADER];
            reader.read_exact(&mut header)?;
            let (name, info) = (word(&header, 0).ok_or(SHORT)?, word(&header, 4).ok_or(SHORT)?);
            let (kind, members) = ((info >> 24) & 31, info & 0xffff);
            if let Some(name) = names.get(&name) {
                let id = u32::try_from(self.starts.len()).map_err(|_| SHORT)?;
                self.wanted.entry((name, kind)).or_insert(id);
            }
            let rest = match kind {
                // Integers, variables, and tags of declarations.
                1 | 14 | 17 => 4,
                // Arrays.
                3 => 12,
                // Structs, unions, sections and enums of 64 bits.
                STRUCT | UNION | 15 | 19 => 12 * members,
                ENUM | FUNC_PROTO => 8 * members,
                PTR | 7..=12 | 16 | TYPE_TAG => 0,
                _ => {
                    return Err(Problem::Format(
                        "it has a kind of type that is newer than this program",
                    ));
                }
            };
            reader.seek_relative(rest.into())?;
            at += 12 + rest;
        }
        Ok(())
    }

    /// The offset in bytes of a field, which is a path such as `nd_net.net`; structs without a name are passed through.
    pub(crate) fn offset(&mut self, of: &'static str, field: &str) -> Option<u32> {
        let mut inside = self.named(of, STRUCT)?;
        let mut offset = 0_u32;
        let mut budget = MAX_MEMBERS;
        for name in field.split('.') {
            let (within, member) = self.member(&inside, name, MAX_DEPTH, &mut budget)?;
            offset = within.checked_add(offset)?;
            inside = self.resolved(member)?;
        }
        Some(offset)
    }

    /// Names and values of an enum.
    pub(crate) fn enumeration(&mut self, name: &'static str) -> Option<Vec<(String, u32)>> {
        let found = self.named(name, ENUM)?;
        let mut variants = found.rest.chunks_exact(8);
        variants.try_fold(Vec::new(), |mut all, bytes| {
            all.push((self.string(word(bytes, 0)?)?, word(bytes, 4)?));
            Some(all)
        })
    }

    /// What each argument of a tracepoint points to or is: the name of its type, empty for one without a name. `tracepoint` is
    /// its name after `btf_trace_`.
    pub(crate) fn arguments(&mut self, tracepoint: &'static str) -> Option<Vec<String>> {
        let pointer = self.named(tracepoint, TYPEDEF)?.refers_to;
        let pointer = self.resolved(pointer)?;
        let function = self
            .resolved(pointer.refers_to)
            .filter(|found| found.kind == FUNC_PROTO)?;
        // The first belongs to whoever listens, and programs do not see it.
        let arguments = function.rest.chunks_exact(8).skip(1);
        arguments.map(|bytes| self.argument(word(bytes, 4)?)).collect()
    }

    fn argument(&mut self, id: u32) -> Option<String> {
        let mut found = self.resolved(id)?;
        if found.kind == PTR {
            if found.refers_to == 0 {
                return Some("void".to_owned());
            }
            found = self.resolved(found.refers_to)?;
        }
        self.string(found.name)
    }

    fn named(&mut self, name: &'static str, kind: u32) -> Option<Type> {
        let id = *self.wanted.get(&(name, kind))?;
        self.get(id)
    }

    fn get(&mut self, id: u32) -> Option<Type> {
        let index = (id as usize).checked_sub(1)?;
        let start = *self.starts.get(index)?;
        let end = self.starts.get(index + 1).copied().unwrap_or(self.types.end);
        let bytes = self.bytes(start, end.checked_sub(start)? as usize)?;
        let info = word(&bytes, 4)?;
        Some(Type {
            name: word(&bytes, 0)?,
            kind: (info >> 24) & 31,
            bitfields: info >> 31 != 0,
            refers_to: word(&bytes, 8)?,
            rest: bytes.get(HEADER..)?.to_vec(),
        })
    }

    /// A type without its other names and qualifiers.
    fn resolved(&mut self, id: u32) -> Option<Type> {
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
    fn member(&mut self, of: &Type, name: &str, depth: usize, budget: &mut u32) -> Option<(u32, u32)> {
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
            if !self.is_called(found, "") {
                continue;
            }
            let within = self.resolved(kind)?;
            if let Some((offset, kind)) = self.member(&within, name, depth.checked_sub(1)?, budget) {
                return Some(((bits / 8).checked_add(offset)?, kind));
            }
        }
        None
    }

    fn string(&mut self, at: u32) -> Option<String> {
        let bytes = self.of_string(at, MAX_NAME)?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        String::from_utf8(bytes.get(..end)?.to_vec()).ok()
    }

    /// Whether a string is this one. Reads no more than the name has bytes.
    fn is_called(&mut self, at: u32, name: &str) -> bool {
        let bytes = self.of_string(at, name.len() + 1);
        bytes.is_some_and(|bytes| bytes.strip_prefix(name.as_bytes()) == Some(&[0]))
    }

    /// So many bytes of the strings, or those until their end.
    fn of_string(&mut self, at: u32, most: usize) -> Option<Vec<u8>> {
        let start = self.strings.start.checked_add(at)?;
        let left = self.strings.end.checked_sub(start)? as usize;
        self.bytes(start, most.min(left))
    }

    fn bytes(&mut self, start: u32, length: usize) -> Option<Vec<u8>> {
        self.file.seek(SeekFrom::Start(start.into())).ok()?;
        let mut bytes = vec![0; length];
        self.file.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }
}

/// Where among the strings these names are. Linkers keep each string once; of one that is there again, all places count.
fn find(
    file: &mut (impl Read + Seek),
    strings: &Range<u32>,
    names: &[&'static str],
) -> Result<HashMap<u32, &'static str>, Problem> {
    file.seek(SeekFrom::Start(strings.start.into()))?;
    let length = strings.end - strings.start;
    let mut reader = BufReader::new(file.take(length.into()));
    let (mut at, mut text) = (0, Vec::new());
    let mut found = HashMap::new();
    loop {
        text.clear();
        // A name that is longer than any is cut, and is none that is wanted.
        let read = (&mut reader).take(MAX_NAME as u64).read_until(0, &mut text)?;
        if read == 0 {
            return if at < length { Err(SHORT) } else { Ok(found) };
        }
        let name = names
            .iter()
            .find(|name| text.strip_suffix(&[0]) == Some(name.as_bytes()));
        found.extend(name.map(|name| (at, *name)));
        at += u32::try_from(read).unwrap_or(u32::MAX);
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

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
        let mut btf = Btf::parse(Cursor::new(file), &["s"]).unwrap();
        assert_eq!(btf.offset("s", "field"), None);
    }

    #[test]
    fn names_without_an_end_are_none() {
        let types = [1, ENUM << 24 | 1, 4, 1, 7];
        let long = [b"\0".to_vec(), vec![b'x'; 100_000]].concat();
        let file = file(&types, &long);
        let mut btf = Btf::parse(Cursor::new(file), &["x"]).unwrap();
        assert_eq!(btf.enumeration("x"), None);
    }

    #[test]
    fn an_enum_is_found_by_its_whole_name_and_its_kind() {
        // Of the names, one begins like the wanted one, and a struct has it.
        let strings = b"\0colors\0color\0RED\0BLUE\0";
        let [colors, color, red, blue] = [1, 8, 14, 18];
        let types = [
            [colors, ENUM << 24 | 1, 4, red, 9],
            [color, STRUCT << 24 | 1, 4, red, 1],
        ];
        let mut types = types.concat();
        types.extend([0]);
        types.extend([color, ENUM << 24 | 2, 4, red, 0, blue, 7]);
        let mut btf = Btf::parse(Cursor::new(file(&types, strings)), &["color"]).unwrap();
        let found = btf.enumeration("color").unwrap();
        assert_eq!(found, [("RED".to_owned(), 0), ("BLUE".to_owned(), 7)]);
        assert_eq!(btf.enumeration("colors"), None, "nobody wanted it");
    }

    #[test]
    fn what_is_no_btf_or_not_all_of_it_says_so() {
        let whole = file(&[1, ENUM << 24 | 1, 4, 1, 7], b"\0x\0");
        let problem = |bytes: Vec<u8>| match Btf::parse(Cursor::new(bytes), &["x"]) {
            Err(Problem::Format(why)) => why,
            Err(Problem::File(error)) => panic!("{error}"),
            Ok(_) => "",
        };
        assert_eq!(problem(whole.clone()), "");
        assert_eq!(
            problem(b"#!/bin/sh\n".to_vec()),
            "the file does not begin like BTF"
        );
        assert_eq!(problem(whole[..20].to_vec()), "the file is cut short");
        assert_eq!(problem(whole[..30].to_vec()), "the file is cut short");
        let mut large = whole;
        large[12..16].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(problem(large), "the file is larger than 64 MiB");
    }
}
