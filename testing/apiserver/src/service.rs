//! Services: defaults, addresses and node ports, and what a Service may not be.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::{
    cause::Cause,
    edit::{default, items},
    resources::Resource,
    store::{Key, State},
};

/// Service addresses, of which the lowest are left to be asked for by name.
const RANGES: [&str; 2] = ["10.96.0.0/16", "fd00:10:96::/112"];
const PREFIX_V4: &str = "10.96";
const PREFIX_V6: &str = "fd00:10:96::";
const NODE_PORTS: std::ops::RangeInclusive<i64> = 30000..=32767;
/// How long ClientIP affinity lasts.
const AFFINITY_SECONDS: i64 = 10_800;

/// Fields that an ExternalName Service does not have.
const NOT_OF_ALIASES: [&str; 9] = [
    "allocateLoadBalancerNodePorts",
    "clusterIP",
    "clusterIPs",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "internalTrafficPolicy",
    "ipFamilies",
    "ipFamilyPolicy",
    "loadBalancerClass",
];

fn has_node_ports(spec: &Value) -> bool {
    spec["type"] == "NodePort" || spec["type"] == "LoadBalancer"
}

/// Fills in what needs no look at other Services.
pub(crate) fn set_defaults(object: &mut Value) {
    let spec = &mut object["spec"];
    default(spec, "type", json!("ClusterIP"));
    default(spec, "sessionAffinity", json!("None"));
    if spec["sessionAffinity"] == "ClientIP" {
        default(
            spec,
            "sessionAffinityConfig",
            json!({ "clientIP": { "timeoutSeconds": AFFINITY_SECONDS } }),
        );
    }
    for port in items(spec, "ports") {
        default(port, "protocol", json!("TCP"));
        let number = port["port"].clone();
        default(port, "targetPort", number);
    }
    if spec["type"] == "ExternalName" {
        if let Some(fields) = spec.as_object_mut() {
            fields.retain(|name, _| !NOT_OF_ALIASES.contains(&name.as_str()));
        }
        items(spec, "ports")
            .filter_map(Value::as_object_mut)
            .for_each(|port| {
                port.remove("nodePort");
            });
    } else {
        default(spec, "internalTrafficPolicy", json!("Cluster"));
    }
    if has_node_ports(spec) {
        default(spec, "externalTrafficPolicy", json!("Cluster"));
    }
    if spec["type"] == "LoadBalancer" {
        default(spec, "allocateLoadBalancerNodePorts", json!(true));
    }
    if object["status"].is_null() {
        object["status"] = json!({ "loadBalancer": {} });
    }
    let balancer = object.pointer_mut("/status/loadBalancer");
    balancer
        .into_iter()
        .flat_map(|b| items(b, "ingress"))
        .filter(|ingress| ingress["ip"].is_string())
        .for_each(|ingress| default(ingress, "ipMode", json!("VIP")));
}

/// Addresses and node ports of other Services.
#[derive(Default)]
struct Taken {
    /// Where the search for what is free begins. It moves on with every write, so that what a Service gave
    /// back is not another's at once; the real server draws lots.
    first: usize,
    addresses: BTreeSet<String>,
    node_ports: BTreeSet<i64>,
}

fn taken(state: &mut State, resource: &Resource, own: &Key) -> Taken {
    let mut taken = Taken {
        first: usize::try_from(state.version).unwrap_or_default(),
        ..Taken::default()
    };
    for (key, service) in &state.table(resource).objects {
        if key == own {
            continue;
        }
        let spec = &service["spec"];
        let ips = spec["clusterIPs"].as_array().into_iter().flatten();
        taken
            .addresses
            .extend(ips.filter_map(|ip| ip.as_str().map(str::to_owned)));
        let ports = spec["ports"].as_array().into_iter().flatten();
        taken
            .node_ports
            .extend(ports.filter_map(|p| p["nodePort"].as_i64()));
        taken.node_ports.extend(spec["healthCheckNodePort"].as_i64());
    }
    taken
}

/// Gives a Service its addresses and node ports; an update keeps those it has.
pub(crate) fn allocate(
    state: &mut State,
    resource: &Resource,
    key: &Key,
    object: &mut Value,
    old: Option<&Value>,
) -> Vec<Cause> {
    let spec = &mut object["spec"];
    if spec["type"] == "ExternalName" || old.is_some_and(|old| keeps_all(spec, &old["spec"])) {
        return Vec::new();
    }
    let mut taken = taken(state, resource, key);
    let mut causes = Vec::new();
    addresses(spec, old, &mut taken, &mut causes);
    if has_node_ports(spec) {
        node_ports(spec, old, &mut taken, &mut causes);
    }
    causes
}

/// Whether an update leaves all that is allocated as it is, and asks for no more.
fn keeps_all(spec: &Value, old: &Value) -> bool {
    const ALLOCATES: [&str; 9] = [
        "type",
        "clusterIP",
        "clusterIPs",
        "ipFamilies",
        "ipFamilyPolicy",
        "ports",
        "externalTrafficPolicy",
        "allocateLoadBalancerNodePorts",
        "healthCheckNodePort",
    ];
    let has_all = old["clusterIP"].is_string() && old["ipFamilies"].is_array();
    has_all && ALLOCATES.iter().all(|field| spec[field] == old[field])
}

fn node_ports(spec: &mut Value, old: Option<&Value>, taken: &mut Taken, causes: &mut Vec<Cause>) {
    let old = old.map_or(&Value::Null, |old| &old["spec"]);
    for (i, port) in items(spec, "ports").enumerate() {
        let mut invalid = |number: i64, why: &str| {
            causes.push(Cause::invalid(
                format!("spec.ports[{i}].nodePort"),
                &json!(number),
                why,
            ));
        };
        let twin = old["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|p| p["port"] == port["port"]);
        let before = twin.and_then(|p| p["nodePort"].as_i64());
        match port["nodePort"].as_i64().filter(|n| *n != 0) {
            Some(asked) if !NODE_PORTS.contains(&asked) => {
                let why = "provided port is not in the valid range. The range of valid ports is 30000-32767";
                invalid(asked, why);
            }
            Some(asked) if taken.node_ports.contains(&asked) => {
                invalid(asked, "provided port is already allocated");
            }
            Some(_) => {}
            None => port["nodePort"] = json!(before.or_else(|| free_port(taken))),
        }
    }
    let local = spec["type"] == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local";
    if local && spec["healthCheckNodePort"].as_i64().unwrap_or(0) == 0 {
        let before = old["healthCheckNodePort"].as_i64().filter(|n| *n != 0);
        spec["healthCheckNodePort"] = json!(before.or_else(|| free_port(taken)));
    }
}

fn free_port(taken: &mut Taken) -> Option<i64> {
    let numbers = NODE_PORTS.count();
    let first = taken.first % numbers;
    let free = NODE_PORTS
        .cycle()
        .skip(first)
        .take(numbers)
        .find(|n| !taken.node_ports.contains(n));
    taken.node_ports.extend(free);
    free
}

/// Allocates the Service's addresses, one for each family; an update keeps them.
fn addresses(spec: &mut Value, old: Option<&Value>, taken: &mut Taken, causes: &mut Vec<Cause>) {
    let before = old.map(|o| &o["spec"]).filter(|s| s["clusterIP"].is_string());
    if let Some(before) = before {
        for name in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if spec[name].is_null() {
                spec[name] = before[name].clone();
            }
        }
    }
    families(spec);
    if spec["clusterIP"] == "None" {
        spec["clusterIPs"] = json!(["None"]);
        return;
    }
    let mut ips: Vec<Value> = spec["clusterIPs"].as_array().cloned().unwrap_or_default();
    if let (true, Some(first)) = (
        ips.is_empty(),
        spec["clusterIP"].as_str().filter(|ip| !ip.is_empty()),
    ) {
        ips.push(json!(first));
    }
    for ip in ips.iter().filter_map(Value::as_str).filter(|_| before.is_none()) {
        let outside = !RANGES.iter().any(|range| {
            range
                .parse::<IpNet>()
                .is_ok_and(|range| ip.parse::<IpAddr>().is_ok_and(|ip| range.contains(&ip)))
        });
        let why = if outside {
            "the provided network does not match the current range"
        } else if taken.addresses.contains(ip) {
            "provided IP is already allocated"
        } else {
            continue;
        };
        let why = format!("failed to allocate IP {ip}: {why}");
        causes.push(Cause::invalid("spec.clusterIPs", &json!(ips), why));
    }
    let families = spec["ipFamilies"].as_array().cloned().unwrap_or_default();
    for family in families.iter().skip(ips.len()) {
        let numbers = 256..65_000_usize;
        let first = taken.first % numbers.len();
        let mut free =
            numbers
                .clone()
                .cycle()
                .skip(first)
                .take(numbers.len())
                .map(|n| match family.as_str() {
                    Some("IPv6") => format!("{PREFIX_V6}{n:x}"),
                    _ => format!("{PREFIX_V4}.{}.{}", n / 256, n % 256),
                });
        if let Some(free) = free.find(|ip| !taken.addresses.contains(ip)) {
            taken.addresses.insert(free.clone());
            ips.push(json!(free));
        }
    }
    spec["clusterIP"] = ips.first().cloned().unwrap_or(Value::Null);
    spec["clusterIPs"] = Value::Array(ips);
}

/// The families of a Service's addresses: IPv4, unless it says otherwise.
fn families(spec: &mut Value) {
    // Nobody knows of which families the endpoints will be that somebody writes by hand.
    let any = spec["clusterIP"] == "None" && spec["selector"].as_object().is_none_or(|s| s.is_empty());
    default(
        spec,
        "ipFamilyPolicy",
        json!(if any { "RequireDualStack" } else { "SingleStack" }),
    );
    if spec["ipFamilies"].as_array().is_none_or(Vec::is_empty) {
        let given = spec["clusterIP"].as_str().is_some_and(|ip| ip.contains(':'));
        spec["ipFamilies"] = if given { json!(["IPv6"]) } else { json!(["IPv4"]) };
    }
    let dual = spec["ipFamilyPolicy"] != "SingleStack";
    if let Some(families) = spec["ipFamilies"].as_array_mut().filter(|f| dual && f.len() == 1) {
        families.push(json!(if families[0] == "IPv4" { "IPv6" } else { "IPv4" }));
    }
}

/// What is wrong with a Service beyond its types.
pub(crate) fn validate(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    let ports: Vec<&Value> = spec["ports"].as_array().into_iter().flatten().collect();
    let alias = spec["type"] == "ExternalName";
    if ports.is_empty() && !alias && spec["clusterIP"] != "None" {
        causes.push(Cause::required("spec.ports"));
    }
    if alias && spec["externalName"].as_str().is_none_or(str::is_empty) {
        causes.push(Cause::required("spec.externalName"));
    }
    for (field, supported) in [
        ("sessionAffinity", ["ClientIP", "None"].as_slice()),
        (
            "type",
            ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"].as_slice(),
        ),
    ] {
        if !supported.iter().any(|s| spec[field] == *s) {
            causes.push(Cause::unsupported(
                format!("spec.{field}"),
                &spec[field],
                supported,
            ));
        }
    }
    for i in 0..ports.len() {
        validate_port(&ports, i, causes);
    }
    let before = old.map(|o| &o["spec"]["clusterIP"]).filter(|ip| ip.is_string());
    if before.is_some_and(|ip| *ip != spec["clusterIP"] && !alias) {
        causes.push(Cause::invalid(
            "spec.clusterIPs[0]",
            &spec["clusterIPs"],
            "may not change once set",
        ));
    }
}

fn validate_port(ports: &[&Value], i: usize, causes: &mut Vec<Cause>) {
    let (port, earlier) = (ports[i], &ports[..i]);
    let path = |field: &str| format!("spec.ports[{i}].{field}");
    let in_range = |n: &Value| n.as_i64().is_some_and(|n| (1..=65535).contains(&n));
    const RANGE: &str = "must be between 1 and 65535, inclusive";
    if !in_range(&port["port"]) {
        causes.push(Cause::invalid(path("port"), &port["port"], RANGE));
    }
    let name = port["name"].as_str().unwrap_or_default();
    if name.is_empty() && ports.len() > 1 {
        causes.push(Cause::required(path("name")));
    }
    if !name.is_empty() && earlier.iter().any(|p| p["name"] == name) {
        causes.push(Cause::duplicate(path("name"), &json!(name)));
    }
    causes.extend(protocol_error(path("protocol"), &port["protocol"]));
    match &port["targetPort"] {
        number @ Value::Number(_) if !in_range(number) => {
            causes.push(Cause::invalid(path("targetPort"), number, RANGE));
        }
        Value::String(name) => causes.extend(
            port_name_error(name).map(|why| Cause::invalid(path("targetPort"), &port["targetPort"], why)),
        ),
        _ => {}
    }
    if earlier
        .iter()
        .any(|p| p["port"] == port["port"] && p["protocol"] == port["protocol"])
    {
        let value = json!({ "port": port["port"], "protocol": port["protocol"] });
        causes.push(Cause::duplicate(format!("spec.ports[{i}]"), &value));
    }
}

/// A protocol that there is not.
pub(crate) fn protocol_error(path: String, protocol: &Value) -> Option<Cause> {
    let supported = ["SCTP", "TCP", "UDP"];
    let known = supported.iter().any(|s| protocol == s);
    (!known).then(|| Cause::unsupported(path, protocol, &supported))
}

/// IANA_SVC_NAME, the form of port names (validation.IsValidPortName).
fn port_name_error(name: &str) -> Option<&'static str> {
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.len() > 15 {
        Some("must be no more than 15 characters")
    } else if name.is_empty() || !name.chars().all(valid) {
        Some("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    } else if !name.chars().any(|c| c.is_ascii_lowercase()) {
        Some("must contain at least one letter (a-z)")
    } else if name.starts_with('-') || name.ends_with('-') || name.contains("--") {
        Some("must not begin or end with a hyphen, or contain consecutive hyphens")
    } else {
        None
    }
}
