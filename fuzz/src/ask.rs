//! What is asked of rules and of resolv.conf once they could be read.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use svcdiag::{
    api::CLibrary,
    formats::resolv::ResolvConf,
    formats::rules::{iptables_save::IptablesSave, portals::Portals},
    kube_proxy::{
        Destination, ExpectedPort, IpFamily, Protocol, Purpose, Ruleset, Table, Traffic, audit,
        hairpin_is_masqueraded, holds,
    },
};

/// Everything that the agent and a bundle ask of rules.
pub(crate) fn everything(rules: &dyn Ruleset, family: IpFamily) {
    for port in ports(family) {
        let _ = audit(rules, &port);
        let _ = holds(rules, &port);
        for endpoint in &port.serving {
            for destination in &port.destinations {
                if let Some(address) = destination.address {
                    let service = (address, destination.port);
                    let _ = hairpin_is_masqueraded(rules, service, port.protocol, *endpoint);
                }
            }
        }
    }
    for table in [Table::Nat, Table::Filter, Table::KubeProxy] {
        for chain in ["KUBE-SERVICES", "PREROUTING", "OUTPUT", "services", ""] {
            let _ = rules.chain(family, table, chain);
        }
    }
}

/// The same for rules that hold both families.
pub(crate) fn both_families(rules: &dyn Ruleset) {
    everything(rules, IpFamily::V4);
    everything(rules, IpFamily::V6);
}

/// What is asked of rules in userspace mode.
pub(crate) fn portals(rules: &IptablesSave, family: IpFamily) {
    if let Ok(portals) = Portals::of(rules, family) {
        for port in ports(family) {
            let _ = portals.audit("default/hostnames", &port);
        }
    }
}

/// The names that a resolver makes of the three forms of a Service's name.
pub(crate) fn names(resolv: &ResolvConf) {
    for libc in [CLibrary::Glibc, CLibrary::Musl] {
        for name in ["web", "web.shop", "web.shop.svc.cluster.local."] {
            let _ = resolv.candidates(name, libc);
        }
    }
}

/// A port of the Service that the captures hold in every mode, of one that they refuse, and of one at an external IP.
fn ports(family: IpFamily) -> Vec<ExpectedPort> {
    let addresses: Vec<IpAddr> = match family {
        IpFamily::V4 => vec![
            [10, 96, 242, 240].into(),
            [10, 96, 154, 51].into(),
            [198, 51, 100, 51].into(),
        ],
        IpFamily::V6 => vec![[0xfd00, 0x10, 0x96, 0, 0, 0, 0, 1].into()],
    };
    addresses
        .into_iter()
        .map(|address| port(family, address))
        .collect()
}

/// A port with its node port.
fn port(family: IpFamily, address: IpAddr) -> ExpectedPort {
    let endpoints: [SocketAddr; 2] = match family {
        IpFamily::V4 => [([10, 244, 0, 4], 9376).into(), ([10, 244, 0, 5], 9376).into()],
        IpFamily::V6 => {
            let pod = |last| ([0xfd00, 0x10, 0x244, 0, 0, 0, 0, last], 9376).into();
            [pod(4), pod(5)]
        }
    };
    let endpoints: BTreeSet<SocketAddr> = endpoints.into();
    let destination = |purpose, port| Destination {
        purpose,
        address: Some(address).filter(|_| purpose == Purpose::ClusterIp),
        port,
        protocol: Protocol::Tcp,
        inside: Traffic::To(endpoints.clone()),
        outside: Some(Traffic::Reject),
        source_ranges: Vec::new(),
    };
    ExpectedPort {
        name: String::new(),
        protocol: Protocol::Tcp,
        family,
        destinations: vec![
            destination(Purpose::ClusterIp, 80),
            destination(Purpose::NodePort, 30080),
        ],
        affinity: true,
        serving: endpoints,
    }
}
