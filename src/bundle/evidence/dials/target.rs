//! What a request was sent to: an address, or a name that stands for one.

use std::net::{IpAddr, SocketAddr};

use crate::{api::Lookup, engine::Facts};

/// Host and port as they are written, and the port of the scheme.
pub(super) fn host(text: &str) -> Option<(&str, u16)> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let default = if scheme.eq_ignore_ascii_case("https") {
        443
    } else {
        80
    };
    Some((rest.split(['/', '?', '#']).next()?, default))
}

/// The name in a URL, if it is one of the Service.
pub(super) fn name_of_service<'a>(facts: &Facts, url: &'a str) -> Option<&'a str> {
    let (host, _) = host(url)?;
    let name = host.split(':').next()?;
    let first = name.split('.').next()?;
    (first == facts.spec.service_name).then_some(name)
}

/// A name, by the address that was tried, else by the one that a look-up of it found.
pub(super) fn by_name(text: &str, tried: Option<IpAddr>, found: &[Lookup]) -> Option<SocketAddr> {
    let (host, default) = host(text)?;
    let (name, port) = host
        .split_once(':')
        .map_or((host, None), |(name, port)| (name, Some(port)));
    let port = port.map_or(Some(default), |port| port.parse().ok())?;
    let looked_up = || {
        let lookup = found.iter().find(|l| l.name == name.trim_end_matches('.'))?;
        match lookup.addresses.as_slice() {
            [only] => only.parse().ok(),
            _ => None,
        }
    };
    Some(SocketAddr::new(tried.or_else(looked_up)?, port))
}

/// `10.0.1.175:80`, `http://10.0.1.175/path`, `[fd00::1]:80`, `localhost:48577`.
pub(super) fn target(text: &str) -> Option<SocketAddr> {
    let (host, default) = host(text)?;
    let host = host
        .strip_prefix("localhost")
        .map_or_else(|| host.to_owned(), |port| format!("127.0.0.1{port}"));
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.parse()
        .ok()
        .or_else(|| Some(SocketAddr::new(bare.parse::<IpAddr>().ok()?, default)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::api::LookupResult;

    #[test]
    fn targets_are_read_however_they_are_written() {
        let cases = [
            ("10.0.1.175:80", "10.0.1.175:80"),
            ("http://10.0.1.175/x", "10.0.1.175:80"),
            ("https://10.0.1.175", "10.0.1.175:443"),
            ("localhost:48577", "127.0.0.1:48577"),
            ("http://[fd00::1]:8080/", "[fd00::1]:8080"),
            ("[fd00::1]", "[fd00::1]:80"),
        ];
        for (text, address) in cases {
            assert_eq!(target(text), Some(address.parse().unwrap()), "{text}");
        }
        assert_eq!(target("hostnames"), None);
    }

    #[test]
    fn a_name_stands_for_the_address_that_was_tried_or_looked_up() {
        let found = [Lookup {
            name: "orders.shop".to_owned(),
            result: LookupResult::Found,
            code: None,
            found_as: None,
            addresses: vec!["10.96.60.1".to_owned()],
            ttl_seconds: 30,
        }];
        let address = |text: &str| by_name(text, None, &found).map(|a| a.to_string());
        assert_eq!(
            address("http://orders.shop:8080/x").as_deref(),
            Some("10.96.60.1:8080")
        );
        assert_eq!(address("https://orders.shop.").as_deref(), Some("10.96.60.1:443"));
        assert_eq!(address("orders"), None, "nobody looked that up");
        let tried = by_name("orders", "10.96.60.9".parse().ok(), &found);
        assert_eq!(tried, Some("10.96.60.9:80".parse().unwrap()));
    }
}
