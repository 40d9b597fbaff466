//! The sandbox's API server against the real one: `contract.jsonl` holds requests and the answers
//! of a kube-apiserver, and the stand-in gives the same, but for what `known.txt` lists.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

mod compare;
mod placeholders;
mod record;
mod replay;

use std::collections::BTreeMap;

use replay::Replay;

/// What the stand-in does not have at all, on purpose.
const LEFT_OUT: [&str; 3] = ["auth", "admission", "protobuf"];

/// Records that may differ, with the reason.
fn known() -> BTreeMap<&'static str, &'static str> {
    let lines = include_str!("known.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.split_once(' ').expect("a name and a reason"))
        .collect()
}

#[tokio::test]
async fn answers_are_those_of_a_real_api_server() {
    let mut known = known();
    let mut replay = Replay::start().await;
    let (mut same, mut differ, mut skipped) = (0, 0, 0);
    let mut wrong = Vec::new();
    let mut records = record::records();
    // History is forgotten last: what others ask for may be in it.
    records.sort_by_key(|record| record.before.is_some());
    for record in records {
        if record
            .scope
            .as_deref()
            .is_some_and(|scope| LEFT_OUT.contains(&scope))
        {
            skipped += 1;
            continue;
        }
        let differences = replay.one(&record).await;
        let name = format!("{}/{}", record.topic, record.name);
        match (differences.is_empty(), known.remove(record.name.as_str())) {
            (true, None) => same += 1,
            (false, Some(_)) => differ += 1,
            (true, Some(_)) => wrong.push(format!("{name} is as it should be: take it out of known.txt")),
            (false, None) => wrong.push(format!("{name} differs:\n    {}", differences.join("\n    "))),
        }
    }
    wrong.extend(
        known
            .keys()
            .map(|name| format!("{name} in known.txt is no record that is replayed")),
    );
    println!("{same} same, {differ} known to differ, {skipped} skipped");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
