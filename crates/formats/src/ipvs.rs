//! Virtual servers of the kernel's load balancer, from /proc/net/ip_vs.
//!
//! Source: `ip_vs_info_seq_show` in the kernel's net/netfilter/ipvs/ip_vs_ctl.c. Addresses and ports are
//! hexadecimal, in the order in which they are written in decimal; IPv6 addresses are in brackets.
//!
//! ```text
//! IP Virtual Server version 1.2.1 (size=4096)
//! Prot LocalAddress:Port Scheduler Flags
//!   -> RemoteAddress:Port Forward Weight ActiveConn InActConn
//! TCP  0A600007:0050 rr persistent 10800 FFFFFFFF
//!   -> 0AF40004:24A0      Masq    1      0          0
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use svcdiag_kube_proxy::{Protocol, VirtualServer, VirtualServers};

/// Reads the file's text. What is no virtual server for an address and port, or no real server of one, is
/// passed over.
#[must_use]
pub fn parse(text: &str) -> VirtualServers {
    let mut all: Vec<((Protocol, SocketAddr), VirtualServer)> = Vec::new();
    // Whether the real servers that follow are those of the last one.
    let mut is_known = false;
    for line in text.lines() {
        if let Some(line) = line.trim_start().strip_prefix("-> ") {
            if let (Some(real), Some((_, server))) = (real_server(line), all.last_mut().filter(|_| is_known))
            {
                server.servers.push(real);
            }
        } else {
            let found = virtual_server(line);
            is_known = found.is_some();
            all.extend(found);
        }
    }
    all.into_iter().collect()
}

/// `TCP  0A600007:0050 rr persistent 10800 FFFFFFFF`
fn virtual_server(line: &str) -> Option<((Protocol, SocketAddr), VirtualServer)> {
    let mut words = line.split_ascii_whitespace();
    let protocol: Protocol = words.next()?.parse().ok()?;
    let address = address(words.next()?)?;
    let server = VirtualServer {
        is_persistent: words.any(|word| word == "persistent"),
        servers: Vec::new(),
    };
    Some(((protocol, address), server))
}

/// `0AF40004:24A0      Masq    1      0          0`
fn real_server(line: &str) -> Option<(SocketAddr, u32)> {
    let mut words = line.split_ascii_whitespace();
    Some((address(words.next()?)?, words.nth(1)?.parse().ok()?))
}

fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.rsplit_once(':')?;
    let ip = match ip.strip_prefix('[') {
        Some(ip) => IpAddr::V6(ip.strip_suffix(']')?.parse().ok()?),
        None => IpAddr::V4(Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?)),
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fmt::Write;

    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A600007:0050 rr persistent 10800 FFFFFFFF
  -> 0AF40004:24A0      Masq    1      0          0         
  -> 0AF40005:24A0      Masq    0      2          1         
FWM  00000001 rr 
  -> 0AF40009:24A0      Masq    1      0          0         
UDP  [fd00:0010:0096:0000:0000:0000:0000:000a]:0035 rr 
  -> [fd00:0010:0244:0000:0000:0000:0000:0003]:0035      Masq    1      0          0         
";

    #[test]
    fn what_the_kernel_writes_is_read() {
        let all = parse(TEXT);
        assert_eq!(all.len(), 2);
        let hostnames = all.at(Protocol::Tcp, "10.96.0.7:80".parse().unwrap()).unwrap();
        assert!(hostnames.is_persistent);
        let endpoint = |text: &str| text.parse().unwrap();
        assert_eq!(
            hostnames.servers,
            [(endpoint("10.244.0.4:9376"), 1), (endpoint("10.244.0.5:9376"), 0)]
        );
        let dns = all
            .at(Protocol::Udp, "[fd00:10:96::a]:53".parse().unwrap())
            .unwrap();
        assert_eq!(dns.servers, [(endpoint("[fd00:10:244::3]:53"), 1)]);
        assert!(!dns.is_persistent);
    }

    fn hexadecimal(address: &SocketAddr) -> String {
        match address {
            SocketAddr::V4(a) => format!("{:08X}:{:04X}", u32::from(*a.ip()), a.port()),
            SocketAddr::V6(a) => {
                let segments: Vec<String> = a.ip().segments().iter().map(|s| format!("{s:04x}")).collect();
                format!("[{}]:{:04X}", segments.join(":"), a.port())
            }
        }
    }

    fn any_address() -> impl Strategy<Value = SocketAddr> {
        any::<(IpAddr, u16)>().prop_map(SocketAddr::from)
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "((TCP|UDP|  ->|FWM)? ?[0-9A-F\\[\\]: ]{0,40}\\PC{0,10}\n){0,20}") {
            let _ = parse(&text);
        }

        #[test]
        fn every_server_is_found(
            address in any_address(),
            is_persistent: bool,
            servers in prop::collection::vec((any_address(), any::<u32>()), 0..8),
        ) {
            let flags = if is_persistent { "persistent 10800 FFFFFFFF" } else { "" };
            let mut text = format!("TCP  {} rr {flags}\n", hexadecimal(&address));
            for (real, weight) in &servers {
                writeln!(text, "  -> {}      Masq    {weight}      0          0", hexadecimal(real)).unwrap();
            }
            let expected = VirtualServer { is_persistent, servers };
            let all = parse(&text);
            prop_assert_eq!(all.at(Protocol::Tcp, address), Some(&expected));
        }
    }
}
