//! resolv.conf, and which names a client's resolver asks for.
//!
//! Sources: resolv.conf(5) for glibc, and musl's src/network/lookup_name.c (`name_from_dns_search`).

use std::net::IpAddr;

use svcdiag_api::CLibrary;

/// glibc knows three name servers at most, and so does musl (MAXNS).
const MAX_SERVERS: usize = 3;

/// The API server takes no more suffixes for a Pod (MaxDNSSearchPaths of Kubernetes' core validation), and reports
/// hold no more.
const MAX_SEARCH: usize = 32;

/// glibc's RES_MAXNDOTS.
const MAX_NDOTS: u8 = 15;

/// What resolv.conf says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Name servers, in the order in which they are asked.
    pub servers: Vec<IpAddr>,
    /// Suffixes that are tried.
    pub search: Vec<String>,
    /// Names with so many dots are first tried as they are.
    pub ndots: u8,
    /// Whether the servers are asked in turn, not always the first one first.
    pub rotate: bool,
}

impl ResolvConf {
    /// Reads it as resolvers do: the last search or domain line counts, what is not known is passed over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut parsed = Self {
            ndots: 1,
            ..Self::default()
        };
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") if parsed.servers.len() < MAX_SERVERS => {
                    // fe80::1%eth0: the zone says nothing here.
                    let address: Option<IpAddr> =
                        words.next().and_then(|w| w.split('%').next()?.parse().ok());
                    parsed.servers.extend(address);
                }
                Some("search") => parsed.search = words.take(MAX_SEARCH).map(str::to_owned).collect(),
                Some("domain") => parsed.search = words.take(1).map(str::to_owned).collect(),
                Some("options") => {
                    for word in words {
                        let ndots = word.strip_prefix("ndots:").and_then(|n| n.parse::<u8>().ok());
                        parsed.ndots = ndots.unwrap_or(parsed.ndots).min(MAX_NDOTS);
                        parsed.rotate |= word == "rotate";
                    }
                }
                _ => {}
            }
        }
        parsed
    }

    /// The names that a resolver asks for, in order, until one is found. All end with a dot.
    #[must_use]
    pub fn candidates(&self, name: &str, libc: CLibrary) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![format!("{absolute}.")];
        }
        let dots = name.matches('.').count();
        let as_it_is = format!("{name}.");
        let searched = self
            .search
            .iter()
            .map(|suffix| format!("{name}.{}.", suffix.trim_matches('.')))
            .map(|name| name.replace("..", "."));
        let has_enough_dots = dots >= usize::from(self.ndots);
        match libc {
            // With enough dots musl asks for the name alone and never searches.
            CLibrary::Musl if has_enough_dots => vec![as_it_is],
            _ if has_enough_dots => std::iter::once(as_it_is).chain(searched).collect(),
            _ => searched.chain(std::iter::once(as_it_is)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    const OF_A_POD: &str = "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example\n\
                            nameserver 10.96.0.10\noptions ndots:5\n";

    #[test]
    fn what_the_kubelet_writes_is_read() {
        let parsed = ResolvConf::parse(OF_A_POD);
        assert_eq!(parsed.servers, ["10.96.0.10".parse::<IpAddr>().unwrap()]);
        assert_eq!(parsed.search.len(), 4);
        assert_eq!(parsed.ndots, 5);
        assert_eq!(
            parsed.candidates("hostnames", CLibrary::Glibc).first().unwrap(),
            "hostnames.shop.svc.cluster.local."
        );
        assert_eq!(
            parsed.candidates("hostnames", CLibrary::Musl).last().unwrap(),
            "hostnames."
        );
    }

    #[test]
    fn oddities_are_read_as_resolvers_do() {
        let text = "# comment\nsearch a.example\nsearch b.example c.example ; d.example\nnameserver fe80::1%eth0\n\
                    nameserver nonsense\noptions timeout:1 ndots:99 rotate\n";
        let parsed = ResolvConf::parse(text);
        assert_eq!(parsed.search, ["b.example", "c.example"]);
        assert_eq!(parsed.servers, ["fe80::1".parse::<IpAddr>().unwrap()]);
        assert_eq!(parsed.ndots, 15);
        assert!(parsed.rotate && !ResolvConf::parse(OF_A_POD).rotate);
        assert_eq!(ResolvConf::parse("").ndots, 1);
        let endless = format!("search{}", " a.example".repeat(1000));
        assert_eq!(ResolvConf::parse(&endless).search.len(), MAX_SEARCH);
    }

    #[test]
    fn with_ndots_zero_musl_never_searches() {
        let parsed = ResolvConf::parse(&OF_A_POD.replace("ndots:5", "ndots:0"));
        assert_eq!(parsed.candidates("hostnames", CLibrary::Musl), ["hostnames."]);
        let glibc = parsed.candidates("hostnames", CLibrary::Glibc);
        assert_eq!(glibc[..2], ["hostnames.", "hostnames.shop.svc.cluster.local."]);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,500}", name in ".{0,80}") {
            let parsed = ResolvConf::parse(&text);
            let _ = parsed.candidates(&name, CLibrary::Glibc);
            let _ = parsed.candidates(&name, CLibrary::Musl);
        }
    }
}
