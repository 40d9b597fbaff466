//! The routes of a node, as `ip route` prints its main table.
//!
//! Source: iproute2's ip/iproute.c (`print_route`).

use std::net::IpAddr;

use ipnet::IpNet;

use super::ParseError;

/// Most routes that are read: a node has some for each other node.
const MAX_ROUTES: usize = 20_000;

/// Routes of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes(Vec<Route>);

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads to; None for everywhere (`default`), in both IP families.
    pub to: Option<IpNet>,
    /// Its line, from 1.
    pub line: usize,
    /// Whether packets end here (`blackhole`, `unreachable`, `prohibit`).
    pub ends: bool,
}

impl Routes {
    /// Reads routes.
    ///
    /// # Errors
    /// When no line is a route.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let lines = text.lines().enumerate();
        let routes = lines.filter_map(|(index, line)| route(index + 1, line));
        let routes: Vec<Route> = routes.take(MAX_ROUTES).collect();
        match routes.is_empty() {
            true => Err(ParseError::nothing(text, "the output of `ip route`")),
            false => Ok(Self(routes)),
        }
    }

    /// The route that packets to an address take: the longest one. None where there is none at all.
    #[must_use]
    pub fn towards(&self, ip: IpAddr) -> Option<&Route> {
        let fits = |route: &&Route| route.to.is_none_or(|net| net.contains(&ip));
        self.0
            .iter()
            .filter(fits)
            .max_by_key(|route| route.to.map_or(0, |net| u16::from(net.prefix_len()) + 1))
    }
}

fn route(number: usize, line: &str) -> Option<Route> {
    let mut words = line.split_whitespace().peekable();
    let ends = words
        .next_if(|word| matches!(*word, "blackhole" | "unreachable" | "prohibit"))
        .is_some();
    // `throw` goes on in another table, the others are no routes of packets that leave.
    let _ = words.next_if_eq(&"unicast");
    let to = match words.next()? {
        "default" => None,
        word => match word.parse::<IpNet>() {
            Ok(net) => Some(net),
            Err(_) => Some(IpNet::from(word.parse::<IpAddr>().ok()?)),
        },
    };
    let leads = words.any(|word| matches!(word, "dev" | "via" | "nexthop"));
    (ends || leads).then_some(Route {
        to,
        line: number,
        ends,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TABLE: &str = "\
root@w3:~# ip route
default via 192.0.2.1 dev eth0 proto dhcp src 192.0.2.13 metric 100
10.244.7.0/24 dev cni0 proto kernel scope link src 10.244.7.1
10.244.8.0/24 via 10.244.8.0 dev flannel.1 onlink
blackhole 10.244.9.0/26 proto bird
10.244.9.4 dev cali0123 scope link
192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.13
";

    #[test]
    fn the_longest_route_is_taken() {
        let routes = Routes::parse(TABLE).unwrap();
        let towards = |ip: &str| {
            let route = routes.towards(ip.parse().unwrap());
            route.map(|r| (r.line, r.ends))
        };
        assert_eq!(towards("10.244.8.3"), Some((4, false)));
        assert_eq!(towards("10.244.9.5"), Some((5, true)));
        assert_eq!(towards("10.244.9.4"), Some((6, false)));
        assert_eq!(towards("203.0.113.4"), Some((2, false)));
        let bare = Routes::parse("10.244.7.0/24 dev cni0\n").unwrap();
        assert_eq!(bare.towards(IpAddr::from([10, 244, 8, 3])), None);
    }

    #[test]
    fn what_is_no_route_is_none() {
        for text in [
            "",
            "Kernel IP routing table\nDestination     Gateway\n",
            "10.0.0.1\n",
            "Object \"rute\" is unknown\n",
        ] {
            assert!(Routes::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(default|blackhole|10\\.0\\.0\\.0/|8|dev| |\n|é|\\PC){0,30}") {
            let _ = Routes::parse(&text).map(|r| r.towards(IpAddr::from([10, 0, 0, 1])).is_some());
        }
    }
}
