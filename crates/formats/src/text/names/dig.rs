//! Lines of dig.

use super::{Seen, address, seen::reason};
use svcdiag_api::LookupResult;

pub(super) fn read(seen: &mut Seen, line: &str) {
    let line = line.trim();
    if seen.error(line) {
        return;
    }
    if let Some((_, rest)) = line.split_once("status: ") {
        match rest.split(',').next().unwrap_or_default() {
            // Without answers: the name is known, but has none of these records.
            "NOERROR" => seen.tell(LookupResult::NotFound),
            status => {
                seen.code(status);
                seen.denies(status);
                seen.tell(reason(status).unwrap_or(LookupResult::Failed));
            }
        }
    } else if let Some(server) = line.strip_prefix(";; SERVER: ") {
        seen.server = address(server);
    } else if let Some(section) = line
        .strip_prefix(";; ")
        .and_then(|rest| rest.strip_suffix(" SECTION:"))
    {
        seen.in_answer = section == "ANSWER";
    } else if let Some(question) = line.strip_prefix(';') {
        // `;hostnames.default.svc.cluster.local. IN A`
        let mut words = question.split_whitespace();
        if let (Some(name), Some("IN")) = (words.next(), words.next()) {
            seen.name(name);
        }
    } else if let Ok(found) = line.parse() {
        // +short prints nothing but addresses.
        seen.address(found);
    } else if seen.in_answer {
        record(seen, line);
    }
}

/// `NAME TTL IN A ADDRESS`.
fn record(seen: &mut Seen, line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name, _, "IN", kind, value, ..] = words.as_slice() else {
        return;
    };
    match *kind {
        "A" | "AAAA" => {
            seen.found_as(name);
            value
                .parse()
                .ok()
                .into_iter()
                .for_each(|found| seen.address(found));
        }
        // An alias alone leads nowhere.
        "CNAME" => seen.alias(value),
        _ => seen.has_records = true,
    }
}
