//! The rules of kube-proxy for many Services, as texts that `nft` and `iptables-restore` load.
//!
//! Service i is scale/svc-i with a ClusterIP of its own, port 80, three endpoints. As kube-proxy does for
//! 1,000 endpoints and more, comments are left off in iptables mode.

use std::{
    fmt::Write,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
};

/// Endpoints of a Service.
pub const ENDPOINTS: usize = 3;

/// The ClusterIP of a Service.
pub fn cluster_ip(service: usize) -> Ipv4Addr {
    Ipv4Addr::from(0x0a60_0100 + u32::try_from(service).unwrap())
}

/// The endpoints of a Service.
pub fn endpoints(service: usize) -> Vec<SocketAddr> {
    let first = 0x0af4_0000 + u32::try_from(service * ENDPOINTS).unwrap();
    (0..u32::try_from(ENDPOINTS).unwrap())
        .map(|i| SocketAddrV4::new(Ipv4Addr::from(first + i), 9376).into())
        .collect()
}

/// Characters as of a hash, the same for the same Service.
fn hash(seed: usize, length: usize) -> String {
    let mut state = u64::try_from(seed).unwrap().wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bd1_e995;
    let letter = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[usize::try_from(state >> 59).unwrap()])
    };
    (0..length).map(letter).collect()
}

/// The table of nftables mode, as kube-proxy 1.36 lays it out.
pub fn nftables(services: usize) -> String {
    let chain = |i| format!("service-{}-scale/svc-{i}/tcp/", hash(i, 8));
    let mut text = String::from(
        "table ip kube-proxy {\n\
         set cluster-ips { type ipv4_addr; }\n\
         map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }\n\
         map no-endpoint-nodeports { type inet_proto . inet_service : verdict; }\n\
         map firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict; }\n\
         map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }\n\
         map service-nodeports { type inet_proto . inet_service : verdict; }\n\
         chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }\n\
         chain nat-output { type nat hook output priority -100; jump services; }\n\
         chain services {\n\
         ip daddr . meta l4proto . th dport vmap @service-ips\n\
         fib daddr type local meta l4proto . th dport vmap @service-nodeports\n}\n",
    );
    for i in 0..services {
        let to: Vec<String> = endpoints(i)
            .iter()
            .enumerate()
            .map(|(n, e)| format!("{n} : {} . {}", e.ip(), e.port()))
            .collect();
        let to = to.join(", ");
        writeln!(
            text,
            "chain {} {{\nmeta l4proto tcp dnat ip to numgen random mod {ENDPOINTS} map {{ {to} }}\n}}",
            chain(i)
        )
        .unwrap();
    }
    text.push_str("}\n");
    for first in (0..services).step_by(1000) {
        let all = first..services.min(first + 1000);
        let elements: Vec<String> = all
            .clone()
            .map(|i| format!("{} . tcp . 80 : goto {}", cluster_ip(i), chain(i)))
            .collect();
        writeln!(
            text,
            "add element ip kube-proxy service-ips {{ {} }}",
            elements.join(", ")
        )
        .unwrap();
        let addresses: Vec<String> = all.map(|i| cluster_ip(i).to_string()).collect();
        writeln!(
            text,
            "add element ip kube-proxy cluster-ips {{ {} }}",
            addresses.join(", ")
        )
        .unwrap();
    }
    text
}

/// The tables of iptables mode, for either backend.
pub fn iptables(services: usize) -> String {
    let service_chain = |i| format!("KUBE-SVC-{}", hash(i, 16));
    let endpoint_chain = |i: usize, n: usize| format!("KUBE-SEP-{}", hash(1_000_000 + i * ENDPOINTS + n, 16));
    let mut chains = String::from(
        "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
         :KUBE-SERVICES - [0:0]\n:KUBE-EXTERNAL-SERVICES - [0:0]\nCOMMIT\n\
         *nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
         :POSTROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n\
         :KUBE-MARK-MASQ - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-PROXY-CANARY - [0:0]\n",
    );
    let mut rules = String::from(
        "-A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n-A POSTROUTING -j KUBE-POSTROUTING\n\
         -A KUBE-POSTROUTING -j MASQUERADE\n-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n",
    );
    for i in 0..services {
        let chain = service_chain(i);
        writeln!(chains, ":{chain} - [0:0]").unwrap();
        let ip = cluster_ip(i);
        writeln!(
            rules,
            "-A KUBE-SERVICES -d {ip}/32 -p tcp -m tcp --dport 80 -j {chain}"
        )
        .unwrap();
        writeln!(
            rules,
            "-A {chain} ! -s 10.244.0.0/14 -d {ip}/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ"
        )
        .unwrap();
        for (n, endpoint) in endpoints(i).iter().enumerate() {
            let to = endpoint_chain(i, n);
            writeln!(chains, ":{to} - [0:0]").unwrap();
            let left = ENDPOINTS - n;
            let chance = if left > 1 {
                format!(
                    "-m statistic --mode random --probability {:.10} ",
                    1.0 / left as f64
                )
            } else {
                String::new()
            };
            writeln!(rules, "-A {chain} {chance}-j {to}").unwrap();
            writeln!(rules, "-A {to} -s {}/32 -j KUBE-MARK-MASQ", endpoint.ip()).unwrap();
            writeln!(rules, "-A {to} -p tcp -m tcp -j DNAT --to-destination {endpoint}").unwrap();
        }
    }
    rules.push_str("-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\nCOMMIT\n");
    chains + &rules
}
