//! Which faults the demo shows, in which clusters, and the list of all.

use svcdiag_sandbox::{
    faults::{Fault, catalogue, data_path_catalogue},
    kernel::{DataPath, Wiring},
    proxy::ProxyMode,
};

use super::{Failure, Screen};

/// The short tour, a minute and a half: a selector that matches nothing, a target port that no container has, Pods that listen
/// elsewhere, a name that does not resolve, and packets with what drops them.
const SHORT: [&str; 5] = ["A08", "A04", "N01", "N24", "N37"];

/// The stops where nodes are in the kernel, in the order in which the page asks its questions: each condition
/// has at least one. Rows that take two samples ten seconds apart are left out.
const DATA_PATH: [&str; 17] = [
    "A01", "A04", "A10", "A12", "A08", "A09", "N38", "N01", "N22", "N06", "N07", "N12", "N45", "N37", "N24",
    "A22", "N30",
];

/// After these, the rules themselves once more, as the other mode of kube-proxy lays them out.
const DATA_PATH_IPTABLES: [&str; 4] = ["N09", "N10", "N13", "N31"];

/// The stops where there are objects only. A14 and A15 are left out because svcdiag gives slices 30 s before it calls
/// them stale or missing.
const OBJECTS: [&str; 14] = [
    "A01", "A03", "A04", "A18", "A10", "A11", "A12", "A13", "A08", "A09", "A21", "A19", "A20", "A22",
];

/// A cluster, and what is broken in it.
pub(super) struct Part {
    /// What it is about, in one line.
    pub(super) title: String,
    /// Nodes in the kernel, if there are any.
    pub(super) data_path: Option<DataPath>,
    /// The stops.
    pub(super) faults: Vec<Fault>,
}

/// How much of the tour is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// Some faults.
    Short,
    /// Every condition, and both layouts of rules.
    Whole,
}

/// The parts of the tour, or one part with these faults.
pub(super) fn parts(
    data_path: Option<DataPath>,
    only: &[String],
    length: Length,
) -> Result<Vec<Part>, Failure> {
    let all = all()?;
    if !only.is_empty() {
        let faults = only.iter().map(|id| named(&all, id, data_path));
        return Ok(vec![Part {
            title: title(data_path),
            data_path,
            faults: faults.collect::<Result<_, _>>()?,
        }]);
    }
    let Some(chosen) = data_path else {
        return Ok(vec![part(&all, &OBJECTS, None)]);
    };
    if length == Length::Short {
        return Ok(vec![part(&all, &SHORT, data_path)]);
    }
    let mut parts = vec![part(&all, &DATA_PATH, data_path)];
    if chosen.proxy == ProxyMode::Nftables {
        let iptables = DataPath {
            proxy: ProxyMode::Iptables,
            ..chosen
        };
        parts.push(part(&all, &DATA_PATH_IPTABLES, Some(iptables)));
    }
    Ok(parts)
}

fn part(all: &[Fault], ids: &[&str], data_path: Option<DataPath>) -> Part {
    let stops = ids
        .iter()
        .filter_map(|id| all.iter().find(|fault| fault.id == *id));
    Part {
        title: title(data_path),
        data_path,
        faults: stops
            .filter(|fault| why_not(fault, data_path).is_none())
            .cloned()
            .collect(),
    }
}

fn title(data_path: Option<DataPath>) -> String {
    match data_path {
        None => "A cluster of objects only: what the Kubernetes API can tell".to_owned(),
        Some(data_path) => format!(
            "A cluster with kube-proxy in mode {}: nodes and Pods are network namespaces of this machine",
            data_path.proxy
        ),
    }
}

fn named(all: &[Fault], id: &str, data_path: Option<DataPath>) -> Result<Fault, Failure> {
    let fault = all
        .iter()
        .find(|fault| fault.id.eq_ignore_ascii_case(id.trim()))
        .ok_or_else(|| format!("there is no fault {id}; `demo --list` shows all"))?;
    match why_not(fault, data_path) {
        Some(reason) => Err(format!("{id} cannot be shown: {reason}").into()),
        None => Ok(fault.clone()),
    }
}

/// Why a fault cannot be shown in such a cluster.
fn why_not(fault: &Fault, data_path: Option<DataPath>) -> Option<String> {
    if let Some(reason) = &fault.refused {
        return Some(reason.clone());
    }
    if fault.driver.is_some() {
        return Some("it takes more than a state; only the tests run it".to_owned());
    }
    let Some(data_path) = data_path else {
        return is_of_data_path(fault).then(|| {
            "it is about nodes and Pods, of which there are none with `--data-path none`".to_owned()
        });
    };
    if !is_of_data_path(fault) {
        return None;
    }
    let modes: Vec<String> = fault.modes.all().iter().map(ToString::to_string).collect();
    if !fault.modes.all().contains(&data_path.proxy) {
        return Some(format!("it is about --data-path {}", modes.join(" or ")));
    }
    (fault.wiring == Wiring::PointToPoint && data_path.wiring != fault.wiring)
        .then(|| "it is about --wiring ptp".to_owned())
}

fn is_of_data_path(fault: &Fault) -> bool {
    fault.id.starts_with('N')
}

fn all() -> Result<Vec<Fault>, Failure> {
    let mut all = catalogue()?;
    all.extend(data_path_catalogue()?);
    Ok(all)
}

/// Prints the catalogue.
pub(super) fn list(screen: &Screen) -> Result<bool, Failure> {
    let mut rows = vec![
        ["FAULT", "TOUR", "WHAT IS BROKEN", "VERDICT"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for fault in all()? {
        let id = fault.id.as_str();
        let stop = if fault.refused.is_some() {
            "refused"
        } else if fault.driver.is_some() {
            "tests"
        } else if SHORT.contains(&id) {
            "short"
        } else if DATA_PATH.contains(&id) {
            "whole"
        } else if DATA_PATH_IPTABLES.contains(&id) {
            "iptables"
        } else if OBJECTS.contains(&id) {
            "none"
        } else {
            ""
        };
        rows.push(vec![
            fault.id,
            stop.to_owned(),
            fault.title,
            fault.expected.to_string(),
        ]);
    }
    screen.table(&rows, &vec![true; rows.len()]);
    screen.say(
        "\nTOUR: short, shown by `demo`; whole, by `demo --all`; iptables, in its second part; none, with `--data-path none`; \
         refused, no API server lets it happen;\n\
         tests, run by `make test` only. All others: `demo --only ID,...`.",
    );
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use svcdiag_sandbox::faults::Expected;

    use super::*;

    fn nftables() -> Option<DataPath> {
        Some(DataPath {
            proxy: ProxyMode::Nftables,
            wiring: Wiring::Bridge,
        })
    }

    #[test]
    fn every_stop_of_the_tour_can_be_shown() {
        let stops = |data_path, length| -> Vec<usize> {
            let parts = parts(data_path, &[], length).unwrap();
            parts.iter().map(|part| part.faults.len()).collect()
        };
        assert_eq!(stops(nftables(), Length::Short), [SHORT.len()]);
        let whole = [DATA_PATH.len(), DATA_PATH_IPTABLES.len()];
        assert_eq!(stops(nftables(), Length::Whole), whole);
        assert_eq!(stops(None, Length::Short), [OBJECTS.len()]);
    }

    #[test]
    fn every_condition_is_broken_once() {
        let parts = parts(nftables(), &[], Length::Whole).unwrap();
        let causes = parts[0].faults.iter().filter_map(|fault| match &fault.expected {
            Expected::RootCause { condition, .. } => Some(condition.as_str()),
            Expected::NotFalse(_) => None,
        });
        assert_eq!(causes.collect::<BTreeSet<_>>().len(), 12);
    }

    #[test]
    fn a_fault_of_another_cluster_is_not_shown() {
        let only = |id: &str, data_path| {
            let parts = parts(data_path, &[id.to_owned()], Length::Short);
            parts.err().map(|e| e.to_string())
        };
        assert!(only("N13", nftables()).unwrap().contains("--data-path iptables"));
        assert!(only("n01", None).unwrap().contains("--data-path none"));
        assert!(only("A06", None).unwrap().contains("refuses"));
        assert!(only("N42", nftables()).unwrap().contains("tests"));
        assert!(only("N99", nftables()).unwrap().contains("no fault N99"));
        assert_eq!(only("n01", nftables()), None);
    }
}
