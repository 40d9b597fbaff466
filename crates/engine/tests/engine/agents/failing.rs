//! What agents report once something is broken.

use super::*;

/// Changes what a node saw.
pub(crate) fn on(facts: &mut Facts, node: &str, change: impl FnOnce(&mut NodeFacts)) {
    let report = facts.nodes.iter_mut().find(|n| *n.name == *node).unwrap();
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
