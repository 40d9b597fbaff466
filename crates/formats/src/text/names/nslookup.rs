//! Lines of nslookup.

use super::{Seen, address, seen::reason};

pub(super) fn read(seen: &mut Seen, line: &str) {
    let line = line.trim();
    if seen.error(line) {
        return;
    }
    let field = |name: &str| {
        line.strip_prefix(name)
            .and_then(|rest| rest.strip_prefix(':'))
            .map(str::trim)
    };
    if let Some(server) = field("Server") {
        // It may be a name; then its address follows.
        seen.server = server.split_whitespace().next().and_then(address);
    } else if let Some(name) = field("Name") {
        seen.name(name);
        seen.found_as(name);
        seen.in_answer = true;
    } else if let Some((name, target)) = line.split_once("canonical name = ") {
        seen.name(name);
        seen.alias(target);
        seen.in_answer = true;
    } else if line.starts_with("Address") {
        addresses(seen, line);
    } else if let Some((_, rest)) = line.split_once("an't find ") {
        // `** server can't find NAME: NXDOMAIN`, `*** Can't find NAME: No answer`.
        let (name, why) = rest.split_once(": ").unwrap_or((rest, ""));
        seen.why(name, why);
    } else if let Some((_, rest)) = line.split_once("an't resolve ") {
        // musl cannot name the server, and says so first.
        let (name, why) = rest.split_once("':").unwrap_or((rest, ""));
        let name = name.trim_matches('\'');
        if name != "(null)" {
            seen.why(name, why);
        }
    } else if (line.starts_with("nslookup: ") || line.starts_with("DNS request timed out"))
        && let Some(result) = reason(line)
    {
        seen.tell(result);
    }
}

/// `Address 1: 10.0.1.175 hostnames.default.svc.cluster.local`, `Address: 10.0.0.10#53`.
fn addresses(seen: &mut Seen, line: &str) {
    let Some((_, rest)) = line.split_once(':') else {
        return;
    };
    for found in rest.split([' ', '\t', ',']).filter_map(address) {
        if seen.in_answer {
            seen.address(found);
        } else if seen.server.is_none() {
            seen.server = Some(found);
        }
    }
}
