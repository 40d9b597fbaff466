//! The description of a Node, as the object that it describes: conditions, addresses, and where its Pods' addresses come from.
//!
//! Source: kubectl's pkg/describe (`describeNode`).

use jiff::{Timestamp, fmt::rfc2822::DateTimeParser};
use serde_json::{Map, Value, json};

use super::tables::is_word;
use crate::formats::text::describe::{Field, value, values};

/// Words of a time: `Mon, 30 Nov 2026 16:01:02 +0000`.
const WORDS_OF_TIME: usize = 6;

/// A Node; None where the description ends before its conditions.
pub(super) fn node(fields: &[Field<'_>], name: &str) -> Option<Value> {
    let ready = values(fields, "Conditions").iter().find_map(|line| ready(line))?;
    let labels = values(fields, "Labels").iter().filter(|pair| is_word(pair));
    let labels: Map<String, Value> = labels
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect();
    let pair = |line: &&str| {
        let (kind, address) = line.split_once(':')?;
        let address = address.trim();
        (is_word(kind) && is_word(address)).then(|| json!({ "type": kind, "address": address }))
    };
    let addresses: Vec<Value> = values(fields, "Addresses").iter().filter_map(pair).collect();
    let ranges = value(fields, "PodCIDRs")
        .or(value(fields, "PodCIDR"))
        .unwrap_or_default();
    let ranges: Vec<&str> = ranges.split(',').filter(|range| is_word(range)).collect();
    let version = values(fields, "System Info")
        .iter()
        .find_map(|line| line.strip_prefix("Kubelet Version:"));
    Some(json!({
        "metadata": { "name": name, "labels": labels },
        "spec": { "podCIDRs": ranges },
        "status": {
            "conditions": [ready],
            "addresses": addresses,
            "nodeInfo": { "kubeletVersion": version.map(str::trim).filter(|v| is_word(v)).unwrap_or_default() },
        },
    }))
}

/// The condition Ready of `TYPE STATUS HEARTBEAT TRANSITION REASON MESSAGE`, of which each time has several words.
fn ready(line: &str) -> Option<Value> {
    let mut words = line.split_whitespace();
    let status = match (words.next()?, words.next()?) {
        ("Ready", status @ ("True" | "False" | "Unknown")) => status,
        _ => return None,
    };
    let mut time = || words.by_ref().take(WORDS_OF_TIME).collect::<Vec<_>>().join(" ");
    let (_, since) = (time(), time());
    let reason = words.next().filter(|word| is_word(word));
    let message: Vec<&str> = words.collect();
    Some(json!({
        "type": "Ready",
        "status": status,
        "reason": reason,
        "message": Some(message.join(" ")).filter(|m| !m.is_empty()),
        "lastTransitionTime": self::time(&since),
    }))
}

/// kubectl writes times in the zone of whoever called it.
fn time(text: &str) -> Option<String> {
    let time: Timestamp = DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::text::describe::fields;

    #[test]
    fn a_condition_is_read_with_its_columns_and_without() {
        let wide = "Ready            Unknown   Mon, 30 Nov 2026 16:00:10 +0000   Mon, 30 Nov 2026 17:01:02 +0100   NodeStatusUnknown   Kubelet stopped posting node status.";
        let narrow = wide.split_whitespace().collect::<Vec<_>>().join(" ");
        for line in [wide, &narrow] {
            let condition = ready(line).unwrap();
            assert_eq!(condition["lastTransitionTime"], "2026-11-30T16:01:02Z");
            assert_eq!(condition["reason"], "NodeStatusUnknown");
            assert_eq!(condition["message"], "Kubelet stopped posting node status.");
        }
        assert_eq!(ready("Ready            Maybe"), None);
        assert_eq!(ready("MemoryPressure   False   Mon, 30 Nov 2026"), None);
        assert_eq!(ready("Ready   False").unwrap()["lastTransitionTime"], Value::Null);
    }

    #[test]
    fn a_description_that_ends_before_its_conditions_is_no_node() {
        let text = "Name:   w3\nRoles:  <none>\nTaints: <none>\n";
        assert_eq!(node(&fields(text), "w3"), None);
    }
}
