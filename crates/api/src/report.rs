//! What an agent reports, within the bounds of its kind.
//!
//! The agent keeps to them, or the API server would reject its whole report for one name that is too long. The
//! controller enforces them again before it uses a report: the installed schema may be older and lack the patterns,
//! and an attacker who controls a node can write anything.

use std::sync::OnceLock;

use serde_json::Value;

use super::{NodeFacts, Schema, own_schemas, printable::foreign};

/// Most bytes of facts, as JSON: etcd takes 1.5 MiB, and each diagnosis may have a hundred reports.
pub const MAX_REPORT: usize = 64 * 1024;

/// Room for saying that something was left out.
const REMARK: usize = 512;

/// The facts within their bounds; what had to be left out stands among the problems.
#[must_use]
pub fn bounded(facts: &NodeFacts) -> NodeFacts {
    static SCHEMA: OnceLock<Option<Schema>> = OnceLock::new();
    let schema = SCHEMA.get_or_init(|| {
        let status = own_schemas().remove("NodeProbe")?.field("status")?.clone();
        status.field("facts").cloned()
    });
    let (Some(schema), Ok(mut value)) = (schema, serde_json::to_value(facts)) else {
        return NodeFacts::default();
    };
    clean(&mut value);
    let before = items_by_field(&value);
    schema.fit(&mut value);
    shrink(&mut value);
    let lost: Vec<String> = before
        .into_iter()
        .filter_map(|(field, n)| {
            let lost = n - value.get(&field).map_or(0, items);
            (lost > 0).then(|| format!("{lost} of {field}"))
        })
        .collect();
    let mut facts: NodeFacts = serde_json::from_value(value).unwrap_or_default();
    if !lost.is_empty() {
        facts.problems.truncate(15);
        facts.problems.push(format!(
            "Omitted to keep the report within its size limit: {}.",
            lost.join(", ")
        ));
    }
    facts
}

/// Makes every string one that can be shown.
fn clean(value: &mut Value) {
    match value {
        Value::String(text) => *text = foreign(text),
        Value::Array(items) => items.iter_mut().for_each(clean),
        Value::Object(fields) => fields.values_mut().for_each(clean),
        _ => {}
    }
}

/// Takes items from the end of whatever is largest, until all of it fits.
fn shrink(facts: &mut Value) {
    let size = |value: &Value| serde_json::to_vec(value).map_or(0, |text| text.len());
    if size(facts) <= MAX_REPORT {
        return;
    }
    while size(facts) > MAX_REPORT - REMARK {
        let lists = facts.as_object_mut().into_iter().flatten().map(|(_, v)| v);
        let lists = lists.filter(|v| v.as_array().is_some_and(|items| !items.is_empty()));
        let Some(Value::Array(largest)) = lists.max_by_key(|v| size(v)) else {
            return;
        };
        largest.pop();
    }
}

fn items_by_field(facts: &Value) -> Vec<(String, usize)> {
    let fields = facts.as_object().into_iter().flatten();
    fields.map(|(name, value)| (name.clone(), items(value))).collect()
}

/// Items of the lists in a value.
fn items(value: &Value) -> usize {
    match value {
        Value::Array(list) => list.len() + list.iter().map(items).sum::<usize>(),
        Value::Object(fields) => fields.values().map(items).sum(),
        _ => 0,
    }
}
