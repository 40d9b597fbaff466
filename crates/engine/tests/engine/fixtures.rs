//! Changes of the walk-through that several tests make.

use std::sync::Arc;

use serde_json::{Value, json};
use svcdiag_api::{GapKind, LookupResult, PortState, RuleGap, StaleConnection};
use svcdiag_engine::{ClientNamespace, Facts};

use crate::{agents::*, walkthrough::*};

/// Running and once ready, but no longer.
pub(crate) fn failing_probe() -> Value {
    json!({ "name": "app", "ready": false, "started": true, "state": { "running": { "startedAt": ago(3650) } } })
}

/// An EndpointSlice that somebody wrote by hand, with this port and readiness.
pub(crate) fn manual(facts: &mut Facts, port: &str, ready: &[bool]) {
    service(facts, json!({ "spec": { "selector": null } }));
    let endpoint = |(i, ready): (usize, &bool)| json!({ "addresses": [format!("192.0.2.{i}")], "conditions": { "ready": ready } });
    facts.slices = vec![Arc::new(object(json!({
        "metadata": { "name": "hostnames-manual", "namespace": NS, "labels": { "kubernetes.io/service-name": "hostnames" } },
        "addressType": "IPv4",
        "endpoints": ready.iter().enumerate().map(endpoint).collect::<Vec<_>>(),
        "ports": [{ "name": port, "port": 9376, "protocol": "TCP" }],
    })))];
}

/// Makes the Service an alias.
pub(crate) fn external_name(facts: &mut Facts, name: &str) {
    service(
        facts,
        json!({ "spec": { "type": "ExternalName", "externalName": name, "selector": null, "ports": null,
        "clusterIP": null, "clusterIPs": null, "ipFamilies": null } }),
    );
    facts.slices.clear();
}

/// Clients may talk to the Service's Pods and to nobody else.
pub(crate) fn egress_to_app() -> Value {
    let rule = json!({ "to": [{ "podSelector": { "matchLabels": { "app": "hostnames" } } }], "ports": [{ "port": 9376 }] });
    json!({ "podSelector": { "matchLabels": { "app": "client" } }, "policyTypes": ["Egress"], "egress": [rule] })
}

/// Traffic of the cluster stays on its node; the Pods of the Service are on n2 and n3 only.
pub(crate) fn local(facts: &mut Facts) {
    service(facts, json!({ "spec": { "internalTrafficPolicy": "Local" } }));
    facts.pods.remove(0);
    resync(facts);
}

/// Sets the Service's targetPort.
pub(crate) fn target_port(facts: &mut Facts, target: Value) {
    service(
        facts,
        json!({ "spec": { "ports": [{ "name": "default", "protocol": "TCP", "port": 80, "targetPort": target }] } }),
    );
}

pub(crate) const E1: &str = "10.244.1.5:9376";

pub(crate) const E2: &str = "10.244.2.6:9376";

pub(crate) fn gone(facts: &mut svcdiag_api::NodeFacts) {
    let proxy = facts.kube_proxy.as_mut().unwrap();
    proxy.process = None;
    proxy.livez = PortState::Closed;
    proxy.metrics = PortState::Closed;
}

pub(crate) fn gap(kind: GapKind, destination: &str, endpoint: Option<&str>) -> RuleGap {
    RuleGap {
        kind,
        destination: destination.into(),
        endpoint: endpoint.map(str::to_owned),
        detail: "nothing".into(),
    }
}

pub(crate) fn node_port(facts: &mut Facts) {
    service(
        facts,
        json!({ "spec": { "type": "NodePort", "ports": [
            { "name": "default", "protocol": "TCP", "port": 80, "targetPort": 9376, "nodePort": 30080 },
        ] } }),
    );
}

pub(crate) fn stale(endpoint: &str) -> StaleConnection {
    StaleConnection {
        destination: VIP.into(),
        endpoint: endpoint.into(),
        source: "10.244.1.9:41000".into(),
    }
}

pub(crate) const NAMES: [&str; 4] = [
    "hostnames",
    "hostnames.shop",
    "hostnames.shop.svc.cluster.local",
    "kubernetes.default",
];

/// The client's servers, with what they answer to both questions.
pub(crate) fn servers(facts: &mut Facts, address: &str, control: LookupResult, result: LookupResult) {
    client_dns(facts, |r| r.servers = vec![address.to_owned()]);
    on(facts, "n1", |n| {
        n.dns_servers.retain(|s| s.from.is_none() || s.endpoint);
        let mut asked = server(Some(CLIENT.into()), address, false);
        (asked.control, asked.result) = (control, result);
        n.dns_servers.push(asked);
    });
}

pub(crate) fn silent(facts: &mut Facts) {
    client_dns(facts, |r| {
        for lookup in &mut r.lookups {
            lookup.result = LookupResult::TimedOut;
            lookup.addresses.clear();
        }
    });
}

/// The servers that cluster DNS forwards to cannot tell of names that are none of the cluster's.
pub(crate) fn fails_beyond(facts: &mut Facts) {
    client_dns(facts, |r| {
        for lookup in r.lookups.iter_mut().filter(|l| l.name == NAMES[0]) {
            lookup.result = LookupResult::Failed;
            lookup.code = Some("SERVFAIL".into());
            lookup.addresses.clear();
            lookup.found_as = None;
        }
    });
}

pub(crate) fn old_address(facts: &mut Facts) {
    client_dns(facts, |r| {
        for lookup in r.lookups.iter_mut().take(3) {
            lookup.addresses = vec!["10.96.7.7".into()];
        }
    });
}

pub(crate) fn no_record(facts: &mut Facts) {
    not_found(facts, &NAMES[..3]);
    everywhere(facts, |n| {
        n.dns_servers
            .iter_mut()
            .for_each(|s| s.result = LookupResult::NotFound)
    });
}

pub(crate) fn dns_is_silent(facts: &mut Facts) {
    silent(facts);
    everywhere(facts, |n| {
        for s in &mut n.dns_servers {
            (s.control, s.result) = (LookupResult::TimedOut, LookupResult::TimedOut);
        }
    });
}

/// What every look-up of the client and every server answers.
pub(crate) fn answer_everywhere(facts: &mut Facts, result: LookupResult, code: Option<&str>) {
    let code = code.map(str::to_owned);
    client_dns(facts, |r| {
        for lookup in &mut r.lookups {
            (lookup.result, lookup.code) = (result, code.clone());
            lookup.addresses.clear();
        }
    });
    everywhere(facts, |n| {
        for s in &mut n.dns_servers {
            (s.control, s.result, s.code) = (result, result, code.clone());
        }
    });
}

/// Makes the Service stand for a name; the client looks that up as well.
pub(crate) fn external(facts: &mut Facts, result: LookupResult) {
    service(
        facts,
        json!({ "spec": { "type": "ExternalName", "clusterIP": null, "clusterIPs": null, "externalName": "db.example", "selector": null } }),
    );
    facts.slices.clear();
    look(facts);
    client_dns(facts, |r| {
        let mut target = missing("db.example");
        target.result = result;
        r.lookups.insert(3, target);
    });
}

/// A wildcard domain in the search list answers for the full name.
pub(crate) fn wildcard(facts: &mut Facts) {
    client_dns(facts, |r| {
        r.search.push("wild.example".into());
        r.lookups[2].addresses = vec!["203.0.113.9".into()];
        r.lookups[2].found_as = Some(format!("{}.wild.example", NAMES[2]));
    });
}

/// The client has two servers, of which 10.96.0.9 is silent.
pub(crate) fn spare(facts: &mut Facts, servers: &[&str; 2]) {
    client_dns(facts, |r| r.servers = servers.map(str::to_owned).to_vec());
    on(facts, "n1", |n| {
        let mut silent = server(Some(CLIENT.into()), "10.96.0.9", false);
        (silent.control, silent.result) = (LookupResult::TimedOut, LookupResult::TimedOut);
        n.dns_servers.push(silent);
    });
}

pub(crate) fn default_deny(facts: &mut Facts) {
    policy(
        facts,
        "default-deny",
        json!({ "podSelector": { "matchLabels": { "app": "hostnames" } }, "policyTypes": ["Ingress"] }),
    );
}

/// Moves the client to another Namespace, which lends its Pods.
pub(crate) fn client_elsewhere(facts: &mut Facts) {
    let mut client = facts.pods.pop().unwrap();
    Arc::make_mut(&mut client).metadata.namespace = Some("web".into());
    facts.client_namespace = Some(ClientNamespace {
        name: "web".into(),
        granted: true,
        pods: vec![client],
    });
    facts.namespaces.push(namespace("web"));
    patch(&mut facts.spec, json!({ "clients": { "namespace": "web" } }));
    look(facts);
}

/// No kube-proxy, no rule of one, and no program that is known to do its work.
pub(crate) fn nothing_of_kube_proxy(facts: &mut Facts) {
    everywhere(facts, |n| {
        let proxy = n.kube_proxy.as_mut().unwrap();
        (proxy.process, proxy.mode) = (None, None);
        (proxy.livez, proxy.metrics) = (PortState::Closed, PortState::Closed);
        n.rules = None;
    });
}

pub(crate) fn add_gap(facts: &mut Facts, kind: GapKind, endpoint: Option<&str>) {
    on(facts, "n1", |n| {
        n.rules.as_mut().unwrap().gaps.push(RuleGap {
            kind,
            destination: "10.96.1.175:80/TCP".into(),
            endpoint: endpoint.map(str::to_owned),
            detail: "session affinity is not kept".into(),
        });
    });
}

/// Has a Pod go away.
pub(crate) fn ending(facts: &mut Facts, which: usize) {
    patch(
        Arc::make_mut(&mut facts.pods[which]),
        json!({ "metadata": { "deletionTimestamp": ago(1) } }),
    );
}

/// The Service has got another address, and DNS knows it.
pub(crate) fn readdressed(facts: &mut Facts) {
    service(
        facts,
        json!({ "spec": { "clusterIP": "10.96.2.2", "clusterIPs": ["10.96.2.2"] } }),
    );
    client_dns(facts, |r| {
        for lookup in r.lookups.iter_mut().take(3) {
            lookup.addresses = vec!["10.96.2.2".into()];
        }
    });
}

pub(crate) fn block(facts: &mut Facts) {
    policy(
        facts,
        "block",
        json!({ "podSelector": { "matchLabels": { "app": "hostnames" } },
            "ingress": [{ "from": [{ "ipBlock": { "cidr": "10.244.0.0/16" } }] }] }),
    );
    look(facts);
}

/// Lets the client out to the Service's Pods only, not to DNS.
pub(crate) fn add_egress_policy(facts: &mut Facts) {
    policy(
        facts,
        "egress",
        json!({ "podSelector": { "matchLabels": { "app": "client" } }, "policyTypes": ["Egress"],
            "egress": [{ "to": [{ "podSelector": { "matchLabels": { "app": "hostnames" } } }] }] }),
    );
}
