//! Node agents for the walk-through: what each of three nodes was asked, and saw. Tests break what they saw.

mod failing;

use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::json;
use svcdiag_api::{
    Answer, CLibrary, DiagnosisRef, DialCount, DialFailure, DialPath, DnsServer, Hairpin, KubeProxy,
    ListeningSocket, Lookup, LookupResult, NodeFacts, NodeSettings, PodListeners, PortState, Resolver, Rules,
    RunsAs,
};
use svcdiag_engine::{Facts, NodeReport, ProbeReport, plan, question_digest};
use svcdiag_objects::{EndpointSlice, IpFamily, Object, Pod, Protocol};

use crate::walkthrough::*;

pub(crate) use self::failing::*;

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
        labels: Arc::new([("kubernetes.io/hostname".to_owned(), name.to_owned())].into()),
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
        let report = asked.remove(&*name).map(|asked| ProbeReport {
            facts: Some(Arc::new(all_is_well(facts, &asked))),
            question: question_digest(&asked),
            asked,
            is_current: true,
            owed_since: None,
        });
        facts.nodes[i].probe = report.map(Box::new);
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
