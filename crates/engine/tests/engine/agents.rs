//! Node agents for the walk-through: what each of three nodes was asked, and saw. Tests break what they saw.

use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::json;
use svcdiag_api::{
    Answer, CLibrary, DiagnosisRef, DialCount, DialFailure, DialPath, DnsServer, Hairpin, KubeProxy,
    ListeningSocket, Lookup, LookupResult, NodeFacts, NodeSettings, PodListeners, PortState, Resolver, Rules,
    RunsAs,
};
use svcdiag_engine::{Facts, NodeReport, ProbeReport, plan};
use svcdiag_objects::{EndpointSlice, IpFamily, Object, Pod, Protocol};

use crate::walkthrough::*;

pub(crate) const CLIENT: &str = "shop/client";
pub(crate) const VIP: &str = "10.96.1.175:80";

pub(crate) fn diagnosis_ref() -> DiagnosisRef {
    DiagnosisRef {
        name: "hostnames".into(),
        uid: "uid-diagnosis".into(),
    }
}

/// An agent that is alive and was asked nothing yet.
pub(crate) fn agent(name: &str) -> NodeReport {
    NodeReport {
        name: name.into(),
        labels: [("kubernetes.io/hostname".to_owned(), name.to_owned())].into(),
        alive_until: Some(now() + SignedDuration::from_secs(40)),
        probe: None,
        saved: None,
    }
}

/// The walk-through with an agent on each node, which was asked what the plan says and saw it work.
pub(crate) fn with_agents() -> Facts {
    let mut facts = healthy();
    facts.nodes = ["n1", "n2", "n3"].map(agent).to_vec();
    look(&mut facts);
    facts
}

/// Has every node asked by the plan report what it would see if all were well.
pub(crate) fn look(facts: &mut Facts) {
    let mut asked = plan(facts, &diagnosis_ref());
    for i in 0..facts.nodes.len() {
        let name = facts.nodes[i].name.clone();
        facts.nodes[i].probe = asked.remove(&name).map(|asked| ProbeReport {
            facts: Some(Arc::new(all_is_well(facts, &asked))),
            asked,
            is_current: true,
            owed_since: None,
        });
    }
}

/// Endpoints of the first Service port: address with port, node and Pod.
pub(crate) fn endpoints(facts: &Facts) -> Vec<(String, String, String)> {
    let mut all = Vec::new();
    for slice in &facts.slices {
        for e in slice.endpoints.iter().filter(|e| e.is_ready()) {
            let (Some(address), Some(port)) = (e.addresses.first(), slice.ports.first().and_then(|p| p.port))
            else {
                continue;
            };
            let pod = e
                .target_ref
                .as_ref()
                .and_then(|t| t.name.clone())
                .unwrap_or_default();
            all.push((
                format!("{address}:{port}"),
                e.node_name.clone().unwrap_or_default(),
                format!("{NS}/{pod}"),
            ));
        }
    }
    all
}

fn count(
    from: Option<&str>,
    path: DialPath,
    port: &str,
    same_node: Option<bool>,
    made: usize,
) -> Option<DialCount> {
    (made > 0).then(|| DialCount {
        from: from.map(str::to_owned),
        path,
        port: port.parse().unwrap(),
        family: IpFamily::V4,
        same_node,
        made: u32::try_from(made).unwrap(),
        failed: 0,
    })
}

fn all_is_well(facts: &Facts, asked: &svcdiag_api::NodeProbeSpec) -> NodeFacts {
    let service = facts.service.as_ref().unwrap();
    let port = &service.spec.ports[0];
    let number = format!("{}/{}", port.port, port.protocol);
    let endpoints = endpoints(facts);
    let here = endpoints
        .iter()
        .filter(|(_, node, _)| *node == asked.node_name)
        .count();
    let proxied = !service.is_headless() && !endpoints.is_empty();
    let mut dials = Vec::new();
    if asked.from_node {
        dials.push(count(None, DialPath::Endpoint, &number, Some(true), here));
        if proxied {
            dials.push(count(None, DialPath::Service, &number, None, endpoints.len()));
        }
    }
    for client in &asked.clients {
        let key = format!("{}/{}", client.namespace, client.name);
        let own = endpoints.iter().filter(|(_, _, pod)| *pod == key).count();
        dials.push(count(
            Some(&key),
            DialPath::Endpoint,
            &number,
            Some(true),
            here - own,
        ));
        dials.push(count(
            Some(&key),
            DialPath::Endpoint,
            &number,
            Some(false),
            endpoints.len() - here,
        ));
        if proxied {
            dials.push(count(
                Some(&key),
                DialPath::Service,
                &number,
                None,
                endpoints.len() - own,
            ));
        }
    }
    let dials: Vec<DialCount> = dials.into_iter().flatten().collect();
    NodeFacts {
        probes_made: dials.iter().map(|d| d.made).sum(),
        slices: facts
            .slices
            .iter()
            .map(|s| svcdiag_api::SliceVersion {
                name: s.name().to_owned(),
                resource_version: s.metadata.resource_version.clone().unwrap_or_default(),
            })
            .collect(),
        dials,
        resolvers: asked
            .clients
            .iter()
            .map(|c| resolver(facts, &format!("{}/{}", c.namespace, c.name)))
            .collect(),
        dns_servers: asked
            .clients
            .iter()
            .flat_map(|c| {
                let from = Some(format!("{}/{}", c.namespace, c.name));
                [
                    server(from.clone(), "10.96.0.10", false),
                    server(from, "10.244.1.2", true),
                ]
            })
            .chain([server(None, "10.96.0.10", false)])
            .collect(),
        kube_proxy: Some(KubeProxy {
            mode: Some("nftables".into()),
            process: Some("kube-proxy".into()),
            runs_as: Some(RunsAs::Pod),
            livez: PortState::Ok,
            metrics: PortState::Ok,
            ..KubeProxy::default()
        }),
        rules: proxied.then(|| Rules {
            layout: "nftables".into(),
            compared: 1,
            ..Rules::default()
        }),
        hairpins: if proxied && port.protocol == Protocol::Tcp {
            asked
                .endpoints
                .iter()
                .filter(|p| !p.host_network)
                .map(|p| Hairpin {
                    pod: format!("{}/{}", p.namespace, p.name),
                    target: VIP.into(),
                    answer: Some(Answer::Accepted),
                    bridge_port: Some("veth1a2b3c".into()),
                    hairpin_mode: Some(true),
                    masqueraded: Some(true),
                })
                .collect()
        } else {
            Vec::new()
        },
        settings: NodeSettings {
            ipv4_forwarding: Some(true),
            ipv6_forwarding: Some(true),
            bridge_netfilter: Some(true),
            forward_drops: Some(false),
            conntrack_full: Some(false),
            reverse_path_drops: Some(false),
            dead_ends: Vec::new(),
        },
        ..NodeFacts::default()
    }
}

fn resolver(facts: &Facts, pod: &str) -> Resolver {
    let service = facts.service.as_ref().unwrap();
    let namespace = pod.split('/').next().unwrap();
    let addresses = if service.is_headless() {
        endpoints(facts)
            .into_iter()
            .map(|(a, _, _)| a.split(':').next().unwrap().to_owned())
            .collect()
    } else {
        vec!["10.96.1.175".to_owned()]
    };
    let found = |name: &str| Lookup {
        name: name.into(),
        result: LookupResult::Found,
        code: None,
        found_as: None,
        addresses: addresses.clone(),
        ttl_seconds: 30,
    };
    let mut lookups = vec![
        found("hostnames"),
        found("hostnames.shop"),
        found("hostnames.shop.svc.cluster.local"),
        Lookup {
            addresses: vec!["10.96.0.1".into()],
            ..found("kubernetes.default")
        },
    ];
    if namespace != NS {
        lookups[0] = missing("hostnames");
    }
    Resolver {
        pod: pod.into(),
        servers: vec!["10.96.0.10".into()],
        search: vec![
            format!("{namespace}.svc.cluster.local"),
            "svc.cluster.local".into(),
            "cluster.local".into(),
        ],
        ndots: 5,
        rotate: false,
        c_library: CLibrary::Glibc,
        uses_short_name: false,
        lookups,
    }
}

/// A look-up of a name that is not there.
pub(crate) fn missing(name: &str) -> Lookup {
    Lookup {
        name: name.into(),
        result: LookupResult::NotFound,
        code: None,
        found_as: None,
        addresses: Vec::new(),
        ttl_seconds: 30,
    }
}

/// A DNS server that answers.
pub(crate) fn server(from: Option<String>, address: &str, endpoint: bool) -> DnsServer {
    DnsServer {
        from,
        server: address.into(),
        endpoint,
        control: LookupResult::Found,
        result: LookupResult::Found,
        code: None,
        domain: None,
    }
}

/// Changes what a node saw.
pub(crate) fn on(facts: &mut Facts, node: &str, change: impl FnOnce(&mut NodeFacts)) {
    let report = facts.nodes.iter_mut().find(|n| n.name == node).unwrap();
    let seen = report.probe.as_mut().unwrap().facts.as_mut().unwrap();
    change(Arc::make_mut(seen));
}

/// Changes what every node saw.
pub(crate) fn everywhere(facts: &mut Facts, change: impl Fn(&mut NodeFacts)) {
    for node in &mut facts.nodes {
        if let Some(seen) = node.probe.as_mut().and_then(|p| p.facts.as_mut()) {
            change(Arc::make_mut(seen));
        }
    }
}

/// A dial that failed.
pub(crate) struct Fail<'a> {
    pub node: &'a str,
    pub from: Option<&'a str>,
    pub path: DialPath,
    pub endpoint: Option<&'a str>,
    pub answer: Answer,
}

/// Notes a failed dial, as the agent would: in the list, and in the count.
pub(crate) fn fail(facts: &mut Facts, fail: Fail<'_>) {
    let at = |e: &str| endpoints(facts).into_iter().find(|(a, _, _)| a == e);
    let home = fail.endpoint.and_then(at).map(|(_, node, _)| node);
    let same_node = home.map(|home| home == fail.node);
    let service = facts.service.as_ref().unwrap();
    let port = service.spec.ports[0].port_protocol().unwrap();
    let target = match fail.path {
        DialPath::Endpoint => fail.endpoint.unwrap().to_owned(),
        DialPath::Service => VIP.to_owned(),
        DialPath::NodePort => "192.168.0.1:30080".to_owned(),
    };
    let counted = if fail.path == DialPath::Endpoint {
        same_node
    } else {
        None
    };
    on(facts, fail.node, |f| {
        let count = f
            .dials
            .iter_mut()
            .find(|d| d.from.as_deref() == fail.from && d.path == fail.path && d.same_node == counted);
        let count = count.unwrap_or_else(|| panic!("nobody dials {target} that way"));
        count.failed += 1;
        assert!(count.failed <= count.made);
        f.probes_failed += 1;
        f.failures.push(DialFailure {
            from: fail.from.map(str::to_owned),
            path: fail.path,
            port,
            target,
            endpoint: fail.endpoint.map(str::to_owned),
            same_node,
            same_bridge: false,
            answer: fail.answer,
            detail: None,
        });
    });
}

/// Every direct dial to these endpoints fails, from clients and from their own nodes.
pub(crate) fn fail_direct(facts: &mut Facts, which: &[usize], answer: Answer) {
    fail_from_clients(facts, which, answer);
    for i in which {
        let (address, node, _) = endpoints(facts)[*i].clone();
        fail(
            facts,
            Fail {
                node: &node,
                from: None,
                path: DialPath::Endpoint,
                endpoint: Some(&address),
                answer,
            },
        );
    }
}

/// The client fails at these endpoints directly; their own nodes do not.
pub(crate) fn fail_from_clients(facts: &mut Facts, which: &[usize], answer: Answer) {
    for i in which {
        let (address, _, _) = endpoints(facts)[*i].clone();
        fail(
            facts,
            Fail {
                node: "n1",
                from: Some(CLIENT),
                path: DialPath::Endpoint,
                endpoint: Some(&address),
                answer,
            },
        );
    }
}

/// Dials of somebody to the Service fail altogether.
pub(crate) fn fail_service(facts: &mut Facts, node: &str, from: Option<&str>, answer: Answer) {
    on(facts, node, |f| {
        f.dials
            .iter_mut()
            .filter(|d| d.path == DialPath::Service && d.from.as_deref() == from)
            .for_each(|d| d.made = 1);
    });
    fail(
        facts,
        Fail {
            node,
            from,
            path: DialPath::Service,
            endpoint: None,
            answer,
        },
    );
}

/// What listens in the Pods behind the Service.
pub(crate) fn sockets(facts: &mut Facts, sockets: &[(&str, &str, u16)]) {
    let listening: Vec<ListeningSocket> = sockets
        .iter()
        .map(|(protocol, address, port)| ListeningSocket {
            protocol: (*protocol).into(),
            address: (*address).into(),
            port: *port,
        })
        .collect();
    let all: Vec<(String, PodListeners)> = endpoints(facts)
        .into_iter()
        .map(|(address, node, pod)| {
            let ip = address.split(':').next().unwrap().to_owned();
            (
                node,
                PodListeners {
                    pod,
                    ips: vec![ip],
                    sockets: listening.clone(),
                },
            )
        })
        .collect();
    for (node, listeners) in all {
        on(facts, &node, |f| f.listeners.push(listeners));
    }
}

/// Changes how the client looks names up.
pub(crate) fn client_dns(facts: &mut Facts, change: impl FnOnce(&mut Resolver)) {
    on(facts, "n1", |f| change(&mut f.resolvers[0]));
}

/// The client does not find these names.
pub(crate) fn not_found(facts: &mut Facts, names: &[&str]) {
    client_dns(facts, |r| {
        for lookup in &mut r.lookups {
            if names.contains(&lookup.name.as_str()) {
                *lookup = missing(&lookup.name.clone());
            }
        }
    });
}

/// Leaves one Pod behind the Service.
pub(crate) fn single(facts: &mut Facts, which: usize) {
    let keep = facts.pods[which].clone();
    facts
        .pods
        .retain(|p| p.name() == keep.name() || !p.name().starts_with("hostnames-"));
    patch(
        Arc::make_mut(&mut facts.deployments[0]),
        json!({ "spec": { "replicas": 1 } }),
    );
    resync(facts);
}

/// Makes the Service and its slices speak UDP.
pub(crate) fn udp(facts: &mut Facts) {
    service(
        facts,
        json!({ "spec": { "ports": [{ "name": "default", "protocol": "UDP", "port": 80, "targetPort": 9376 }] } }),
    );
    patch::<EndpointSlice>(
        Arc::make_mut(&mut facts.slices[0]),
        json!({ "ports": [{ "name": "default", "port": 9376, "protocol": "UDP" }] }),
    );
    each_pod(facts, |p: &mut Pod| {
        p.spec.containers[0].ports[0].protocol = Protocol::Udp.into()
    });
}
