//! The routes of a node: its main table as `ip route` prints it, or `route -n` and `netstat -rn` (`net_tools`).
//!
//! Source: iproute2's ip/iproute.c (`print_route`).

mod net_tools;

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
        if let Some(routes) = net_tools::parse(text, MAX_ROUTES) {
            return Ok(Self(routes));
        }
        let mut lines = text.lines().enumerate().peekable();
        let mut routes = Vec::new();
        while let Some((index, line)) = lines.next() {
            // Each way of a route with several is in a line of its own.
            let has_ways = lines.peek().is_some_and(|(_, next)| {
                next.starts_with(char::is_whitespace) && next.trim_start().starts_with("nexthop")
            });
            if routes.len() < MAX_ROUTES {
                routes.extend(route(index + 1, line, has_ways));
            }
        }
        match routes.is_empty() {
            true => Err(ParseError::nothing(
                text,
                "the output of `ip route` or `route -n`",
            )),
            false => Ok(Self(routes)),
        }
    }

    /// Whether routes of an IP family are shown: `ip route` prints IPv4, `ip -6 route` the other one, and `default` stands in
    /// both. A node with an address has a route to its own network.
    #[must_use]
    pub fn show(&self, ip: IpAddr) -> bool {
        let mut networks = self.0.iter().filter_map(|route| route.to);
        networks.any(|net| net.addr().is_ipv4() == ip.is_ipv4())
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

fn route(number: usize, line: &str, has_ways: bool) -> Option<Route> {
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
    let leads = has_ways || words.any(|word| matches!(word, "dev" | "via" | "nexthop" | "nhid"));
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
    fn a_route_with_several_ways_leads_somewhere() {
        for route in [
            "10.244.8.0/24 proto bgp metric 20 \n\tnexthop via 192.0.2.1 dev eth0 weight 1 \n\tnexthop via 192.0.2.2 dev eth0 weight 1 \n",
            "10.244.8.0/24 nhid 12 proto bgp\n",
        ] {
            let routes = Routes::parse(route).unwrap();
            let towards = routes.towards(IpAddr::from([10, 244, 8, 3])).unwrap();
            assert_eq!((towards.line, towards.ends), (1, false), "{route}");
        }
    }

    #[test]
    fn of_the_other_family_nothing_is_shown() {
        let endpoint = IpAddr::from([10, 244, 8, 3]);
        let others = "fd00:7::/64 dev cni0 proto kernel metric 256\ndefault via fe80::1 dev eth0 proto ra\n";
        assert!(!Routes::parse(others).unwrap().show(endpoint));
        assert!(Routes::parse(TABLE).unwrap().show(endpoint));
    }

    const NET_TOOLS: &str = "\
root@w3:~# route -n
Kernel IP routing table
Destination     Gateway         Genmask         Flags Metric Ref    Use Iface
0.0.0.0         192.0.2.1       0.0.0.0         UG    100    0        0 eth0
10.244.7.0      0.0.0.0         255.255.255.0   U     0      0        0 cni0
10.244.8.0      10.244.8.0      255.255.255.0   UG    0      0        0 flannel.1
10.244.9.0      -               255.255.255.192 !     0      -        0 -
10.244.9.4      0.0.0.0         255.255.255.255 UH    0      0        0 cali0123
10.244.10.0     0.0.0.0         255.255.255.0   U     0      0        0 *
192.0.2.0       0.0.0.0         255.255.255.0   U     100    0        0 eth0
";

    #[test]
    fn tables_of_net_tools_are_read() {
        let netstat = NET_TOOLS
            .replace("route -n", "netstat -rn")
            .replace("Metric Ref    Use", "MSS Window  irtt");
        for text in [NET_TOOLS, &netstat] {
            let routes = Routes::parse(text).unwrap();
            let towards = |ip: &str| {
                let route = routes.towards(ip.parse().unwrap());
                route.map(|r| (r.line, r.ends))
            };
            assert_eq!(towards("10.244.8.3"), Some((6, false)));
            assert_eq!(towards("10.244.9.5"), Some((7, true)));
            assert_eq!(towards("10.244.9.4"), Some((8, false)));
            assert_eq!(
                towards("10.244.10.4"),
                Some((9, true)),
                "a black hole has no device"
            );
            assert_eq!(towards("203.0.113.4"), Some((4, false)));
            assert!(routes.show("10.244.8.3".parse().unwrap()));
        }
        let v6 = "\
Kernel IPv6 routing table
Destination                    Next Hop                   Flag Met Ref Use If
::1/128                        ::                         U    256 2     0 lo
fd00:7::/64                    ::                         U    256 1     0 cni0
::/0                           fe80::1                    UG   1024 5    0 eth0
fd00:9::/64                    ::                         !n   1024 1    0 lo
::/0                           ::                         !n   -1  1     0 lo
";
        let routes = Routes::parse(v6).unwrap();
        let towards = |ip: &str| routes.towards(ip.parse().unwrap()).map(|r| (r.line, r.ends));
        assert_eq!(towards("fd00:7::5"), Some((4, false)));
        assert_eq!(towards("fd00:9::5"), Some((6, true)));
        assert_eq!(towards("2001:db8::1"), Some((5, false)));
    }

    #[test]
    fn of_a_table_that_is_not_understood_as_a_whole_nothing_is_missing() {
        for line in [
            "pods.example    0.0.0.0   255.255.255.0   U     0      0        0 cni0",
            "10.244.8.0  ...",
        ] {
            assert!(Routes::parse(&format!("{NET_TOOLS}{line}\n")).is_err(), "{line}");
        }
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
        fn any_text_is_survived(
            text in "(default|blackhole|10\\.0\\.0\\.0/|8|dev| |\n|é|Destination Gateway Genmask Flags|Next Hop|255\\.0\\.0\\.0|UG|!|\\PC){0,30}"
        ) {
            let _ = Routes::parse(&text).map(|r| r.towards(IpAddr::from([10, 0, 0, 1])).is_some());
        }
    }
}
