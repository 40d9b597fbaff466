//! Functions of the kernel, by address.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

/// /proc/kallsyms of large kernels has some 20 MiB.
const MAX_SYMBOLS: u64 = 256 << 20;

/// The kernel's own names have 512 bytes at most, and those of modules come after them.
const MAX_LINE: u64 = 1024;

/// The functions that hold these addresses. None where the kernel hides its addresses, which it shows as zeros.
pub(crate) fn functions(file: &Path, addresses: &[u64]) -> BTreeMap<u64, String> {
    let Ok(file) = File::open(file) else {
        return BTreeMap::new();
    };
    search(BufReader::new(file.take(MAX_SYMBOLS)), addresses)
}

/// The lines are in no order: the function is the one that begins nearest before the address.
fn search(mut symbols: impl BufRead, addresses: &[u64]) -> BTreeMap<u64, String> {
    let mut found: BTreeMap<u64, (u64, String)> = BTreeMap::new();
    let mut line = String::new();
    loop {
        line.clear();
        // A line that is no text ends it: the kernel writes none.
        if !matches!(symbols.by_ref().take(MAX_LINE).read_line(&mut line), Ok(1..)) {
            break;
        }
        let mut words = line.split_ascii_whitespace();
        let (Some(start), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let Ok(start @ 1..) = u64::from_str_radix(start, 16) else {
            continue;
        };
        if !matches!(kind, "t" | "T" | "w" | "W") {
            continue;
        }
        for address in addresses.iter().filter(|address| start <= **address) {
            if found.get(address).is_none_or(|(best, _)| *best < start) {
                found.insert(*address, (start, name.to_owned()));
            }
        }
    }
    found
        .into_iter()
        .map(|(address, (_, name))| (address, name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_belongs_to_the_function_that_begins_nearest_before_it() {
        let symbols =
            "ffff0300 T later\nffff0100 t nft_do_chain\t[nf_tables]\nffff0000 T earlier\nffff0180 d data\n";
        let found = search(symbols.as_bytes(), &[0xffff_01a0, 0xffff_0300, 0xfffe_0000]);
        let expected = [
            (0xffff_01a0, "nft_do_chain".to_owned()),
            (0xffff_0300, "later".to_owned()),
        ];
        assert_eq!(found, BTreeMap::from(expected));
    }

    #[test]
    fn hidden_addresses_name_nothing() {
        let symbols = "0000000000000000 T ip_rcv\n0000000000000000 T ip_error\nrubbish\n";
        assert!(search(symbols.as_bytes(), &[0xffff_01a0]).is_empty());
    }
}
