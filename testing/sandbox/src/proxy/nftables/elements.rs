//! What Service ports add to the maps, sets and chains of the table.

use std::{collections::BTreeMap, fmt::Write};

use super::super::select::{Refusal, ServicePort};

/// Elements of a set or map by their keys, each with what follows its key. An address that two Services
/// claim belongs to the first.
#[derive(Default)]
pub(super) struct Elements(BTreeMap<String, String>);

impl Elements {
    pub(super) fn add(&mut self, key: &str) {
        self.0.entry(key.to_owned()).or_default();
    }

    pub(super) fn add_goto(&mut self, key: &str, chain: &str) {
        let value = format!(" : goto {chain}");
        self.0.entry(key.to_owned()).or_insert(value);
    }

    pub(super) fn add_refusal(&mut self, key: &str, refusal: Refusal, port: &ServicePort) {
        let verdict = match refusal {
            Refusal::Reject => "goto reject-chain",
            Refusal::Drop => "drop",
        };
        let value = format!(" comment \"{}\" : {verdict}", port.name);
        self.0.entry(key.to_owned()).or_insert(value);
    }
}

/// What the Service ports add to the table.
#[derive(Default)]
pub(super) struct Additions {
    pub(super) cluster_ips: Elements,
    pub(super) hairpins: Elements,
    pub(super) service_ips: Elements,
    pub(super) service_node_ports: Elements,
    pub(super) no_endpoint_services: Elements,
    pub(super) no_endpoint_node_ports: Elements,
    pub(super) firewall_ips: Elements,
    pub(super) affinity_sets: String,
    pub(super) chains: String,
}

impl Additions {
    pub(super) fn chain(&mut self, name: &str, rules: &[String]) {
        write_chain(&mut self.chains, name, rules);
    }
}

pub(super) fn write_chain(text: &mut String, name: &str, rules: &[String]) {
    let _ = writeln!(text, "\tchain {name} {{");
    for rule in rules {
        let _ = writeln!(text, "\t\t{rule}");
    }
    text.push_str("\t}\n");
}

/// Writes a set or map.
pub(super) fn write_set(
    text: &mut String,
    kind: &str,
    name: &str,
    key: &str,
    comment: &str,
    elements: &Elements,
) {
    let _ = writeln!(
        text,
        "\t{kind} {name} {{\n\t\ttype {key}\n\t\tcomment \"{comment}\""
    );
    let elements: Vec<_> = elements
        .0
        .iter()
        .map(|(key, rest)| format!("{key}{rest}"))
        .collect();
    if !elements.is_empty() {
        let _ = writeln!(text, "\t\telements = {{ {} }}", elements.join(",\n\t\t\t     "));
    }
    text.push_str("\t}\n");
}
