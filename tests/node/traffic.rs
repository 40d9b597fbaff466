//! What becomes of connections under the rules that the sandbox writes.

use std::{
    io,
    net::{TcpListener, TcpStream},
    time::Duration,
};

use svcdiag_sandbox::proxy::{ProxyMode, cleanup, rules};

use super::{
    namespace::{in_new_namespace, run},
    rendered::{apply, cluster, node},
};

/// Connects within half a second, or not at all.
fn dial(address: &str) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_millis(500))
}

#[test]
fn connections_go_where_the_rules_of_every_mode_send_them() {
    let (cluster, node) = (cluster("lab-2-nftables"), node("lab-2"));
    for mode in ProxyMode::ALL {
        in_new_namespace(|| {
            // A Pod of the other node is here; the rules do not know.
            run("ip link set lo up
                 ip link add eth0 type veth peer name uplink
                 ip link set uplink up
                 ip link set eth0 up
                 ip addr add 10.89.0.12/24 dev eth0
                 ip addr add 10.244.0.10/32 dev lo
                 ip route add default via 10.89.0.1");
            let pod = TcpListener::bind("10.244.0.10:9376").unwrap();
            apply(&rules(mode, &cluster, &node));
            // Services solo, np-local at its NodePort, and lb-local at its load balancer's address: the node
            // itself is let past their Local policies.
            for address in ["10.96.153.223:80", "10.89.0.12:30086", "198.51.100.52:80"] {
                dial(address).unwrap_or_else(|e| panic!("{mode}: {address}: {e}"));
                pod.accept().unwrap();
            }
            // no-endpoints at its address, no-endpoints-nodeport at its NodePort.
            for address in ["10.96.16.223:80", "10.89.0.12:30085"] {
                let error = dial(address).unwrap_err();
                assert_eq!(
                    error.kind(),
                    io::ErrorKind::ConnectionRefused,
                    "{mode}: {address}"
                );
            }
            // itp-local, which has no endpoint on this node.
            let error = dial("10.96.45.225:80").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{mode}");
            apply(&cleanup(mode));
            assert!(dial("10.96.153.223:80").is_err(), "{mode}");
        });
    }
}
