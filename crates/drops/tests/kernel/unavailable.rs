//! Kernels and nodes on which nothing can be watched, and how little it takes to watch.

use std::{fs, path::Path, process::Command};

use proptest::prelude::*;
use svcdiag_drops::{Filter, Kernel, Leg, MAX_FILTERS, Paths, Unavailable, Watch};

use crate::network::{CLIENT, ENDPOINT, ENDPOINT_V6, Network, dial, filters, kernel, skip, watched};

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
    for number in [MAX_FILTERS, MAX_FILTERS + 1] {
        Watch::start(&kernel, &of_all_kinds(number)).unwrap();
    }
}

#[test]
fn a_filter_that_mixes_families_matches_nothing() {
    let Some(kernel) = kernel() else { return };
    let mut mixed = filters(CLIENT, None, ENDPOINT)[0];
    mixed.tuple.destination = "[fd02::2]:8080".parse().unwrap();
    let network = Network::routed();
    let drops = watched(&kernel, &[mixed], || {
        assert!(!dial(&network.client, ENDPOINT));
        assert!(!dial(&network.client, ENDPOINT_V6));
    });
    assert_eq!(drops, []);
}

/// The capabilities that the agent's container is given.
const MANIFEST: &str = include_str!("../../../../config/agent/daemonset.yaml");

/// CAP_SYSLOG is not among them: whoever lacks it sees no addresses in /proc/kallsyms, and is told functions all the
/// same.
#[test]
fn the_capabilities_of_the_agents_container_are_enough_to_name_what_dropped() {
    let Some(_alone) = kernel() else { return };
    let (_, added) = MANIFEST.split_once(" add:\n").unwrap();
    let lines = added.lines().map(str::trim);
    let listed = lines.take_while(|line| line.starts_with(['#', '-']));
    let names = listed.filter_map(|line| line.strip_prefix("- "));
    let capabilities = names.fold("-all".to_owned(), |all, name| {
        format!("{all},+{}", name.to_lowercase())
    });
    assert!(
        capabilities.contains("+perfmon") && !capabilities.contains("+syslog"),
        "{capabilities}"
    );
    let output = Command::new("setpriv")
        .args(["--inh-caps", "-all", "--bounding-set", &capabilities])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "faults::a_rule_of_nftables_on_the_node"])
        .args(["bridge::the_bridges_port_does_not_send_back", "--nocapture"])
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.contains("2 passed"), "{said}");
    assert!(!said.contains("CAP_BPF and CAP_PERFMON are missing"), "{said}");
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
