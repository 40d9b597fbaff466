//! ipvs mode: virtual servers from `ipvsadm`, hairpin entries from `ipset`.

use std::{collections::BTreeSet, net::SocketAddr};

use svcdiag::{
    formats::rules::{ipset, ipvsadm},
    kube_proxy::{Destination, ExpectedPort, IpFamily, Protocol, Purpose, RuleFault, Traffic},
};

/// What a node has to hold for a Service with these endpoints.
pub(super) fn port(cluster_ip: &str, endpoints: &[&str]) -> ExpectedPort {
    let address: SocketAddr = cluster_ip.parse().unwrap();
    let endpoints: BTreeSet<SocketAddr> = endpoints.iter().map(|e| e.parse().unwrap()).collect();
    ExpectedPort {
        name: String::new(),
        protocol: Protocol::Tcp,
        family: IpFamily::V4,
        destinations: vec![Destination {
            purpose: Purpose::ClusterIp,
            address: Some(address.ip()),
            port: address.port(),
            protocol: Protocol::Tcp,
            inside: Traffic::To(endpoints.clone()),
            outside: None,
            source_ranges: Vec::new(),
        }],
        affinity: false,
        serving: endpoints,
    }
}

const ENDPOINTS: [&str; 3] = ["10.244.0.5:9376", "10.244.0.6:9376", "10.244.0.7:9376"];

/// What the walk-through shows.
const LIST: &str = "\
u@node$ ipvsadm -ln
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
...
TCP  10.0.1.175:80 rr
  -> 10.244.0.5:9376               Masq    1      0          0
  -> 10.244.0.6:9376               Masq    1      0          0
  -> 10.244.0.7:9376               Masq    1      0          0
...
";

fn faults(list: &str, endpoints: &[&str]) -> Vec<(RuleFault, Option<String>)> {
    let gaps = ipvsadm::parse(list)
        .unwrap()
        .servers
        .audit(&port("10.0.1.175:80", endpoints));
    gaps.into_iter()
        .map(|gap| (gap.fault, gap.endpoint.map(|e| e.to_string())))
        .collect()
}

#[test]
fn virtual_servers_are_compared_with_the_endpoints() {
    assert_eq!(faults(LIST, &ENDPOINTS), []);
    let gone = |line: &str| LIST.replace(line, "");
    assert_eq!(
        faults(
            &gone("  -> 10.244.0.6:9376               Masq    1      0          0\n"),
            &ENDPOINTS
        ),
        [(RuleFault::EndpointMissing, Some("10.244.0.6:9376".to_owned()))]
    );
    assert_eq!(
        faults(LIST, &ENDPOINTS[..2]),
        [(RuleFault::StaleEndpoint, Some("10.244.0.7:9376".to_owned()))]
    );
    // Being drained.
    let drained = LIST.replace(
        "10.244.0.7:9376               Masq    1",
        "10.244.0.7:9376    Masq    0",
    );
    assert_eq!(faults(&drained, &ENDPOINTS[..2]), []);
    assert_eq!(
        faults(&gone("TCP  10.0.1.175:80 rr\n"), &ENDPOINTS),
        [(RuleFault::RulesMissing, None)]
    );
    // The walk-through leaves out the rest of the list.
    assert!(!ipvsadm::parse(LIST).unwrap().is_whole);
    assert!(ipvsadm::parse(&gone("...\n")).unwrap().is_whole);
}

#[test]
fn a_missing_hairpin_entry_is_told() {
    let list = "Name: KUBE-LOOP-BACK\nType: hash:ip,port,ip\nMembers:\n10.244.0.5,tcp:9376,10.244.0.5\n";
    let sets = ipset::parse(list).unwrap();
    let holds = |endpoint: &str| sets.holds_hairpin(Protocol::Tcp, endpoint.parse().unwrap());
    assert_eq!(holds(ENDPOINTS[0]), Some(true));
    assert_eq!(holds(ENDPOINTS[1]), Some(false));
}
