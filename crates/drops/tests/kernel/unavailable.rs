//! Kernels and nodes on which nothing can be watched.

use std::{fs, path::Path};

use proptest::prelude::*;
use svcdiag_drops::{Filter, Kernel, Leg, MAX_FILTERS, Paths, Unavailable, Watch};

use crate::network::{CLIENT, ENDPOINT, Network, dial, filters, kernel, skip, watched};

fn read(btf: &Path) -> Result<Kernel, Unavailable> {
    Kernel::read(Paths {
        btf: btf.to_owned(),
        ..Paths::default()
    })
}

fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Option<Result<Kernel, Unavailable>> {
    let Ok(mut types) = fs::read(Paths::default().btf) else {
        skip("the kernel has no BTF");
        return None;
    };
    change(&mut types);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), types).unwrap();
    Some(read(file.path()))
}

/// Gives every type of a name another of the same length.
fn rename(types: &mut [u8], from: &str, to: &str) {
    let name = [b"\0", from.as_bytes(), b"\0"].concat();
    let at = types
        .windows(name.len())
        .position(|window| window == name)
        .unwrap();
    types[at + 1..][..to.len()].copy_from_slice(to.as_bytes());
}

#[test]
fn a_kernel_without_types() {
    let result = read(Path::new("/nonexistent/vmlinux"));
    assert!(matches!(result, Err(Unavailable::NoBtf { .. })), "{result:?}");
}

#[test]
fn a_kernel_without_reasons() {
    let result = changed(|types| rename(types, "skb_drop_reason", "skb_nothing_any"));
    assert!(
        matches!(result, None | Some(Err(Unavailable::NoReason))),
        "{result:?}"
    );
}

#[test]
fn a_kernel_with_other_structs() {
    let result = changed(|types| rename(types, "network_header", "network_footer"));
    assert!(
        matches!(result, None | Some(Err(Unavailable::UnknownBtf(_)))),
        "{result:?}"
    );
}

#[test]
fn types_that_are_cut_short() {
    for part in 0..8 {
        let result = changed(|types| types.truncate(types.len() * part / 8));
        assert!(
            matches!(result, None | Some(Err(Unavailable::UnknownBtf(_)))),
            "{result:?}"
        );
    }
}

#[test]
fn a_kernel_that_hides_its_addresses_still_gives_reasons() {
    let Some(_alone) = kernel() else { return };
    let hidden = tempfile::NamedTempFile::new().unwrap();
    fs::write(hidden.path(), "0000000000000000 T tcp_v4_rcv\n").unwrap();
    let kernel = Kernel::read(Paths {
        symbols: hidden.path().to_owned(),
        ..Paths::default()
    });
    let network = Network::routed();
    let drops = watched(&kernel.unwrap(), &filters(CLIENT, None, ENDPOINT), || {
        assert!(!dial(&network.client, ENDPOINT));
    });
    let [drop] = &drops[..] else { panic!("{drops:?}") };
    assert_eq!((drop.reason.as_str(), &drop.location), ("NO_SOCKET", &None));
}

#[test]
fn more_filters_than_one_program_has_room_for() {
    let Some(kernel) = kernel() else { return };
    let filter = filters(CLIENT, None, ENDPOINT)[0];
    let of_all_kinds = |number: usize| -> Vec<Filter> {
        let v6 = |address: &str| address.parse().unwrap();
        let mut longest = filter;
        longest.leg = Leg::Answer;
        longest.tuple.source = v6("[fd01::2]:1");
        longest.tuple.destination = v6("[fd02::2]:8080");
        [filter, longest].into_iter().cycle().take(number).collect()
    };
    Watch::start(&kernel, &of_all_kinds(MAX_FILTERS)).unwrap();
    let refused = Watch::start(&kernel, &of_all_kinds(MAX_FILTERS + 1));
    assert!(
        matches!(refused, Err(Unavailable::TooManyFilters(_))),
        "{refused:?}"
    );
}

#[test]
fn a_filter_that_mixes_families_is_refused() {
    let Some(kernel) = kernel() else { return };
    let mut mixed = filters(CLIENT, None, ENDPOINT)[0];
    mixed.tuple.destination = "[fd02::2]:8080".parse().unwrap();
    let refused = Watch::start(&kernel, &[mixed]);
    assert!(matches!(refused, Err(Unavailable::MixedFamilies)), "{refused:?}");
}

#[test]
fn a_kernel_knows_the_reasons_that_it_has() {
    let Some(kernel) = kernel() else { return };
    assert!(kernel.has_reason("NETFILTER_DROP"));
    assert!(!kernel.has_reason("NETFILTER"));
}

proptest! {
    #[test]
    fn any_file_is_survived(mut types: Vec<u8>, header in any::<[u8; 6]>()) {
        let magic = 0xeb9f_u16.to_ne_bytes();
        types.splice(0..0, [magic[0], magic[1], 1, 0, 24, 0, 0, 0].into_iter().chain(header));
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), types).unwrap();
        prop_assert!(read(file.path()).is_err());
    }
}
