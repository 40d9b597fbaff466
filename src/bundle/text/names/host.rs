//! Lines of host and of getent.

use super::{Seen, address, seen::reason};
use crate::api::LookupResult;

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
        found
            .parse()
            .ok()
            .into_iter()
            .for_each(|found| seen.address(found));
    } else if let Some((name, _)) = line.split_once(" is an alias for ") {
        seen.name(name);
    } else if let Some(server) = line.strip_prefix("Address: ") {
        // Behind `Using domain server:`.
        seen.server = address(server);
    } else if let Some((name, why)) = line
        .strip_prefix("Host ")
        .and_then(|rest| rest.split_once(" not found: "))
    {
        seen.name(name);
        seen.tell(reason(why).unwrap_or(LookupResult::Failed));
    } else if let Some((name, _)) = line.split_once(" has no ") {
        // `NAME has no A record`
        seen.name(name);
        seen.tell(LookupResult::NotFound);
    }
}

/// `10.0.1.175      hostnames.default.svc.cluster.local`.
pub(super) fn read_getent(seen: &mut Seen, line: &str) {
    let found = line.split_whitespace().next().and_then(|word| word.parse().ok());
    found.into_iter().for_each(|found| seen.address(found));
}
