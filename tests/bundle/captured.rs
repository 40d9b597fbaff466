//! Real nodes, captured: what answered there is not blamed, and what did not answer is not called well.

use std::{collections::BTreeMap, fs, path::PathBuf};

use svcdiag::{
    api::ConditionStatus,
    bundle::{Bundle, Files, Problem, facts, files::File},
    engine::{Diagnosis, diagnose},
};

/// The captures with the truth of each Service, and their nodes.
const CAPTURES: [(&str, &str); 5] = [
    ("iptables", "lab-1"),
    ("nftables", "lab-1"),
    ("iptables-legacy", "lab-2"),
    ("lab-2-iptables", "lab-2"),
    ("lab-2-nftables", "lab-2"),
];

/// Why Services do not answer that never could, where the objects or rules tell.
const CAUSES: [(&str, &str); 5] = [
    ("bad-named-port", "DefinitionValid/NamedPortNotFound"),
    ("manual-none", "EndpointsPopulated/NoSelectorAndNoEndpoints"),
    ("no-endpoints", "EndpointsPopulated/SelectorMatchesNoPods"),
    (
        "no-endpoints-nodeport",
        "EndpointsPopulated/SelectorMatchesNoPods",
    ),
    ("notready", "PodsHealthy/ReadinessProbeFailing"),
];

fn directory(capture: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/captures")
        .join(capture)
}

/// All files but the truth.
fn bundle(capture: &str, node: &str) -> Bundle {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory(capture)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let place = match name.as_str() {
            "probe.txt" => continue,
            "api.json" | "pods.json" => format!("objects/{name}"),
            _ => format!("nodes/{node}/{name}"),
        };
        files.push(File {
            path: place,
            text: fs::read_to_string(&path).unwrap(),
            modified: None,
        });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Bundle::of(Files {
        files,
        problems: Vec::new(),
    })
}

/// Whether each Service answered anybody at any of its addresses, and whether it answered everybody.
fn truth(capture: &str) -> BTreeMap<String, (bool, bool)> {
    let text = fs::read_to_string(directory(capture).join("probe.txt")).unwrap();
    let mut truth: BTreeMap<String, (bool, bool)> = BTreeMap::new();
    let mut service = None;
    for line in text.lines() {
        if line.starts_with(' ') {
            let answered = line.contains("[200 exit 0");
            if let Some(known) = service.as_ref().and_then(|name| truth.get_mut(name)) {
                *known = (known.0 || answered, known.1 && answered);
            }
        } else if let Some((what, _)) = line.split_once(" http") {
            // `lb ingress http://...`: the address of a Service that is not its cluster IP.
            let name = what.split(' ').next().unwrap();
            service = Some(name.to_owned());
            truth.entry(name.to_owned()).or_insert((false, true));
        } else {
            service = None;
        }
    }
    assert!(truth.len() > 10, "{capture}: {truth:?}");
    truth
}

fn report(d: &Diagnosis) -> String {
    let stages = d.stages.iter();
    let lines = stages.map(|(c, f)| format!("{c:?} {:?} {:?}: {}", f.status(), f.reason, f.message));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn captured_nodes_are_judged_as_they_were() {
    let causes = BTreeMap::from(CAUSES);
    let mut judged = 0;
    for (capture, node) in CAPTURES {
        let bundle = bundle(capture, node);
        for (service, (some, all)) in truth(capture) {
            let diagnosis = bundle.diagnosis("matrix", &service);
            let now = "2027-01-01T00:00:00Z".parse().unwrap();
            let (facts, problems) = facts(&bundle, &diagnosis, now);
            // Of IPv6 there are no rules of every node.
            let is_gap = |p: &Problem| {
                p.what
                    .ends_with("table nat of IPv6: the saved rules do not contain it")
            };
            assert!(problems.iter().all(is_gap), "{capture}: {problems:?}");
            let d = diagnose(&facts);
            let root = d
                .root_cause
                .as_ref()
                .map(|r| format!("{}/{}", r.condition, r.reason));
            let what = format!("{capture} {service}: {root:?}\n{}", report(&d));
            if all {
                assert_eq!(root, None, "answered, but {what}");
            }
            if !some {
                assert_ne!(d.ready.status, ConditionStatus::True, "did not answer: {what}");
                match causes.get(service.as_str()) {
                    Some(cause) => assert_eq!(root.as_deref(), Some(*cause), "{what}"),
                    // Only dials could tell; what to save is said.
                    None => assert!(what.contains("save the output of `curl"), "{what}"),
                }
            }
            judged += 1;
        }
    }
    println!("{judged} captured Services judged");
}
