//! What the agent of a node reports if all is well: every dial is answered, every name is found, no rule is missing.

use svcdiag::{
    api::{
        Answer, CLibrary, DialCount, DialPath, DnsServer, Hairpin, KubeProxy, Lookup, LookupResult,
        NodeFacts, NodeProbeSpec, NodeSettings, PortProtocol, PortState, ProbePod, Resolver, Rules, RunsAs,
    },
    objects::IpFamily,
};

/// The facts that answer a NodeProbe of a namespace.
pub(crate) fn all_is_well(namespace: &str, asked: &NodeProbeSpec) -> NodeFacts {
    let ports = asked.service.ports.iter();
    let ports: Vec<PortProtocol> = ports.filter_map(port_of).collect();
    let dials: Vec<DialCount> = ports.iter().flat_map(|port| dials(asked, *port)).collect();
    let addresses = &asked.service.cluster_ips;
    NodeFacts {
        probes_made: dials.iter().map(|dial| dial.made).sum(),
        slices: asked.slices.clone(),
        dials,
        resolvers: asked
            .clients
            .iter()
            .map(|c| resolver(namespace, asked, c))
            .collect(),
        dns_servers: dns_servers(asked),
        kube_proxy: Some(KubeProxy {
            mode: Some("nftables".to_owned()),
            process: Some("kube-proxy".to_owned()),
            runs_as: Some(RunsAs::Pod),
            livez: PortState::Ok,
            metrics: PortState::Ok,
            ..KubeProxy::default()
        }),
        rules: Some(Rules {
            layout: "nftables".to_owned(),
            compared: u32::try_from(ports.len()).unwrap(),
            ..Rules::default()
        }),
        hairpins: asked
            .endpoints
            .iter()
            .zip(addresses.iter().cycle())
            .map(|(pod, address)| Hairpin {
                pod: key(pod),
                target: format!("{address}:{}", ports[0].number),
                answer: Some(Answer::Accepted),
                bridge_port: Some("veth1a2b3c".to_owned()),
                hairpin_mode: Some(true),
                masqueraded: Some(true),
            })
            .collect(),
        settings: NodeSettings {
            ipv4_forwarding: Some(true),
            ipv6_forwarding: Some(true),
            bridge_netfilter: Some(true),
            forward_drops: Some(false),
            conntrack_full: Some(false),
            ..NodeSettings::default()
        },
        ..NodeFacts::default()
    }
}

fn port_of(port: &svcdiag::api::ProbeServicePort) -> Option<PortProtocol> {
    Some(PortProtocol {
        number: u16::try_from(port.port).ok()?,
        protocol: port.protocol.known()?,
    })
}

fn key(pod: &ProbePod) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

/// From the node to its own endpoints and through the Service, from each client to all others and through the Service.
fn dials(asked: &NodeProbeSpec, port: PortProtocol) -> Vec<DialCount> {
    let ready = || asked.subsets.iter().filter(|subset| !subset.terminating);
    let count = |local: bool, but: &[String]| {
        let subsets = ready().filter(|subset| subset.local == Some(local));
        subsets
            .flat_map(|s| &s.addresses)
            .filter(|ip| !but.contains(ip))
            .count()
    };
    let dial = |from: Option<&ProbePod>, path, same_node, made: usize| DialCount {
        from: from.map(key),
        path,
        port,
        family: IpFamily::V4,
        same_node,
        made: u32::try_from(made).unwrap(),
        failed: 0,
    };
    let mut dials = Vec::new();
    if asked.from_node {
        let (here, elsewhere) = (count(true, &[]), count(false, &[]));
        dials.push(dial(None, DialPath::Endpoint, Some(true), here));
        dials.push(dial(None, DialPath::Service, None, here + elsewhere));
    }
    for client in &asked.clients {
        let (here, elsewhere) = (count(true, &client.ips), count(false, &client.ips));
        dials.push(dial(Some(client), DialPath::Endpoint, Some(true), here));
        dials.push(dial(Some(client), DialPath::Endpoint, Some(false), elsewhere));
        dials.push(dial(Some(client), DialPath::Service, None, here + elsewhere));
    }
    dials.retain(|dial| dial.made > 0);
    dials
}

fn resolver(namespace: &str, asked: &NodeProbeSpec, client: &ProbePod) -> Resolver {
    let name = &asked.service_name;
    let found = |name: String, addresses: &[String]| Lookup {
        name,
        result: LookupResult::Found,
        code: None,
        found_as: None,
        addresses: addresses.to_vec(),
        ttl_seconds: 30,
    };
    let own = &asked.service.cluster_ips;
    let servers = asked.cluster_dns.as_ref().map(|dns| dns.addresses.clone());
    Resolver {
        pod: key(client),
        servers: servers.unwrap_or_default(),
        search: vec![
            format!("{}.svc.cluster.local", client.namespace),
            "svc.cluster.local".to_owned(),
            "cluster.local".to_owned(),
        ],
        ndots: 5,
        rotate: false,
        c_library: CLibrary::Glibc,
        uses_short_name: false,
        lookups: vec![
            found(name.clone(), own),
            found(format!("{name}.{namespace}"), own),
            found(format!("{name}.{namespace}.svc"), own),
            found(format!("{name}.{namespace}.svc.cluster.local"), own),
            found("kubernetes.default".to_owned(), &["10.96.0.1".to_owned()]),
        ],
    }
}

fn dns_servers(asked: &NodeProbeSpec) -> Vec<DnsServer> {
    let Some(dns) = &asked.cluster_dns else {
        return Vec::new();
    };
    let server = |from: Option<&ProbePod>, address: &str, endpoint: bool| DnsServer {
        from: from.map(key),
        server: address.to_owned(),
        endpoint,
        control: LookupResult::Found,
        result: LookupResult::Found,
        code: None,
        domain: None,
    };
    let of = |from: Option<&ProbePod>| -> Vec<DnsServer> {
        let addresses = dns.addresses.iter().map(|ip| server(from, ip, false));
        let endpoints = dns.endpoints.iter().map(|of| of.trim_end_matches(":53"));
        let endpoints = endpoints
            .filter(|_| from.is_some())
            .map(|ip| server(from, ip, true));
        addresses.chain(endpoints).collect()
    };
    let clients = asked.clients.iter().flat_map(|client| of(Some(client)));
    clients.chain(of(None)).collect()
}
