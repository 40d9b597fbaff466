//! Lines of host and of getent.

use super::{Seen, address, seen::reason};
use svcdiag_api::LookupResult;

pub(super) fn read(seen: &mut Seen, line: &str) {
    let line = line.trim();
    if seen.error(line) {
        return;
    }
    if let Some((name, found)) = line
        .split_once(" has address ")
        .or_else(|| line.split_once(" has IPv6 address "))
    {
        seen.name(name);
        seen.found_as(name);
        found
            .parse()
            .ok()
            .into_iter()
            .for_each(|found| seen.address(found));
    } else if let Some((name, target)) = line.split_once(" is an alias for ") {
        seen.name(name);
        seen.alias(target);
    } else if let Some(server) = line.strip_prefix("Address: ") {
        // Behind `Using domain server:`.
        seen.server = address(server);
    } else if let Some((name, why)) = line
        .strip_prefix("Host ")
        .and_then(|rest| rest.split_once(" not found: "))
    {
        match reason(why) {
            Some(_) => seen.why(name, why),
            None => {
                seen.name(name);
                seen.tell(LookupResult::Failed);
            }
        }
    } else if let Some((name, _)) = line.split_once(" has no ") {
        // `NAME has no A record`
        seen.name(name);
        seen.tell(LookupResult::NotFound);
    }
}

/// `10.0.1.175      hostnames.default.svc.cluster.local`.
pub(super) fn read_getent(seen: &mut Seen, line: &str) {
    let mut words = line.split_whitespace();
    if let Some(found) = words.next().and_then(|word| word.parse().ok()) {
        seen.address(found);
        seen.found_as(words.next().unwrap_or_default());
    }
}
