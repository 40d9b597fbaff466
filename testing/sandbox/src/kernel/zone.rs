//! What each server of cluster DNS answers, by the API's objects. Pure, but for [`write`].
//!
//! ```text
//! Services, EndpointSlices -> names() -> for_server() -> zone.json in the server's root directory
//! ConfigMaps sandbox-dns ------^-------------^
//! ```
//!
//! The ConfigMap `sandbox-dns` makes cluster DNS err: faults are plain edits of objects. In a namespace of its
//! own it is about the names of the Services there:
//!
//! - `omitted`: names of Services that are not answered,
//! - `frozen`: `name=address`, an answer that stays as it was,
//! - `wildcards`: `domain=address`, a domain beyond the cluster that has every name;
//!
//! and in kube-system about the servers:
//!
//! - `failing`: `true`, they have no names to give and say so (SERVFAIL),
//! - `domain`: the domain that they have the cluster's names in,
//! - `silentServers`: `all`, or how many of the servers answer nothing,
//! - `delayMilliseconds`: how long they wait before they answer.

use std::{
    collections::BTreeMap,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use k8s_openapi::api::{
    core::v1::{ConfigMap, Service},
    discovery::v1::EndpointSlice,
};
use kube::ResourceExt;

use crate::workload::dns::{Entry, Zone};

/// Name of the ConfigMaps that make cluster DNS err.
pub(super) const SWITCHES: &str = "sandbox-dns";
const DOMAIN: &str = "cluster.local";
const SYSTEM: &str = "kube-system";
/// The zone, in the root directory of its server.
const FILE: &str = "zone.json";
/// The label by which a slice belongs to a Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Servers whose names begin otherwise are not of the cluster and know none of its names.
const SERVER_PREFIX: &str = "coredns-";

/// All names of the cluster, as Kubernetes' specification of DNS-based service discovery has them.
pub(super) fn names(
    services: &[Service],
    slices: &[EndpointSlice],
    switches: &[ConfigMap],
) -> BTreeMap<String, Entry> {
    let mut names = BTreeMap::new();
    for service in services {
        let (name, namespace) = (service.name_any(), service.namespace().unwrap_or_default());
        let switch = switch(switches, &namespace);
        let full = format!("{name}.{namespace}.svc.{DOMAIN}");
        if words(switch, "omitted").any(|omitted| omitted == name) {
            continue;
        }
        let frozen: Vec<IpAddr> = words(switch, "frozen")
            .filter_map(|word| word.split_once('='))
            .filter(|(of, _)| *of == name)
            .filter_map(|(_, address)| address.parse().ok())
            .collect();
        if !frozen.is_empty() {
            names.insert(full, Entry::Addresses(frozen));
            continue;
        }
        let spec = service.spec.clone().unwrap_or_default();
        if spec.type_.as_deref() == Some("ExternalName") {
            names.extend(spec.external_name.map(|other| (full, Entry::Alias(other))));
            continue;
        }
        let own: Vec<IpAddr> = spec
            .cluster_ips
            .or(spec.cluster_ip.map(|address| vec![address]))
            .unwrap_or_default()
            .iter()
            .filter_map(|address| address.parse().ok())
            .collect();
        if own.is_empty() {
            endpoints(&mut names, &full, &name, &namespace, slices);
        } else {
            names.insert(full, Entry::Addresses(own));
        }
    }
    names
}

/// A headless Service has the addresses of its ready endpoints; one with a host name has its own name too.
fn endpoints(
    names: &mut BTreeMap<String, Entry>,
    full: &str,
    service: &str,
    namespace: &str,
    slices: &[EndpointSlice],
) {
    let mine = slices.iter().filter(|slice| {
        slice.metadata.namespace.as_deref() == Some(namespace)
            && slice.labels().get(SERVICE_NAME).map(String::as_str) == Some(service)
    });
    for endpoint in mine.flat_map(|slice| slice.endpoints.iter().flatten()) {
        let ready = endpoint
            .conditions
            .as_ref()
            .and_then(|conditions| conditions.ready);
        if ready == Some(false) {
            continue;
        }
        let addresses = endpoint
            .addresses
            .iter()
            .filter_map(|address| address.parse().ok());
        let own = endpoint.hostname.as_ref().map(|host| format!("{host}.{full}"));
        for address in addresses {
            for name in own.clone().into_iter().chain([full.to_owned()]) {
                let entry = names.entry(name).or_insert_with(|| Entry::Addresses(Vec::new()));
                if let Entry::Addresses(known) = entry
                    && !known.contains(&address)
                {
                    known.push(address);
                }
            }
        }
    }
}

/// What a server answers, which is the `index`th of those that are left in alphabetical order.
pub(super) fn for_server(
    server: &str,
    index: usize,
    names: &BTreeMap<String, Entry>,
    switches: &[ConfigMap],
) -> Zone {
    if !server.starts_with(SERVER_PREFIX) {
        // All names are its own, and none exists.
        return Zone::default();
    }
    let switch = switch(switches, SYSTEM);
    let silent = words(switch, "silentServers").next().unwrap_or("0");
    let delay = words(switch, "delayMilliseconds").next();
    let domain = words(switch, "domain").next().unwrap_or(DOMAIN);
    let moved = |name: &String| match name.strip_suffix(DOMAIN) {
        Some(start) => format!("{start}{domain}"),
        None => name.clone(),
    };
    let wildcards = switches.iter().flat_map(|map| words(Some(map), "wildcards"));
    let wildcards = wildcards.filter_map(|word| word.split_once('='));
    Zone {
        domain: domain.to_owned(),
        names: names
            .iter()
            .map(|(name, entry)| (moved(name), entry.clone()))
            .collect(),
        wildcards: wildcards
            .filter_map(|(domain, address)| Some((domain.to_owned(), address.parse().ok()?)))
            .collect(),
        failing: words(switch, "failing").next() == Some("true"),
        silent: silent == "all" || silent.parse::<usize>().is_ok_and(|count| index < count),
        delay_milliseconds: delay.and_then(|delay| delay.parse().ok()).unwrap_or(0),
    }
}

fn switch<'a>(switches: &'a [ConfigMap], namespace: &str) -> Option<&'a ConfigMap> {
    let mut here = switches
        .iter()
        .filter(|map| map.metadata.namespace.as_deref() == Some(namespace));
    here.find(|map| map.metadata.name.as_deref() == Some(SWITCHES))
}

fn words<'a>(switch: Option<&'a ConfigMap>, key: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let text = switch.and_then(|map| map.data.as_ref()?.get(key));
    text.map(String::as_str).unwrap_or_default().split_whitespace()
}

/// Puts the zones of all servers, by name and root directory, in the places of the last ones.
pub(super) fn write(
    mut servers: Vec<(String, PathBuf)>,
    services: &[Service],
    slices: &[EndpointSlice],
    switches: &[ConfigMap],
) -> io::Result<()> {
    servers.sort();
    let names = names(services, slices, switches);
    let (ours, foreign): (Vec<_>, Vec<_>) = servers
        .into_iter()
        .partition(|(name, _)| name.starts_with(SERVER_PREFIX));
    for (index, (name, root)) in ours.into_iter().chain(foreign).enumerate() {
        put(&root, &for_server(&name, index, &names, switches))?;
    }
    Ok(())
}

/// Whether a server has no zone yet.
pub(super) fn is_missing(servers: &[(String, PathBuf)]) -> bool {
    servers.iter().any(|(_, root)| !root.join(FILE).exists())
}

fn put(root: &Path, zone: &Zone) -> io::Result<()> {
    let text = serde_json::to_string(zone)?;
    let path = root.join(FILE);
    if fs::read_to_string(&path).is_ok_and(|last| last == text) {
        return Ok(());
    }
    let fresh = root.join("zone.json.new");
    fs::write(&fresh, text)?;
    fs::rename(&fresh, &path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    fn object<T: DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn service(name: &str, spec: Value) -> Service {
        object(json!({ "metadata": { "name": name, "namespace": "shop" }, "spec": spec }))
    }

    fn slice(of: &str, endpoints: Value) -> EndpointSlice {
        object(json!({
            "metadata": { "name": format!("{of}-x"), "namespace": "shop", "labels": { SERVICE_NAME: of } },
            "addressType": "IPv4", "endpoints": endpoints,
        }))
    }

    fn switches(namespace: &str, data: Value) -> ConfigMap {
        object(json!({ "metadata": { "name": SWITCHES, "namespace": namespace }, "data": data }))
    }

    fn addresses(texts: &[&str]) -> Option<Entry> {
        Some(Entry::Addresses(
            texts.iter().map(|text| text.parse().unwrap()).collect(),
        ))
    }

    fn cluster() -> (Vec<Service>, Vec<EndpointSlice>) {
        let services = vec![
            service(
                "web",
                json!({ "clusterIP": "10.96.3.4", "clusterIPs": ["10.96.3.4", "fd00:10:96::34"] }),
            ),
            service("ring", json!({ "clusterIP": "None", "clusterIPs": ["None"] })),
            service("empty", json!({ "clusterIP": "None" })),
            service(
                "db",
                json!({ "type": "ExternalName", "externalName": "db.example.org" }),
            ),
        ];
        let slices = vec![slice(
            "ring",
            json!([
                { "addresses": ["10.244.1.7"], "conditions": { "ready": true }, "hostname": "ring-0" },
                { "addresses": ["10.244.2.7"], "conditions": { "ready": false } },
                { "addresses": ["10.244.3.7"] },
            ]),
        )];
        (services, slices)
    }

    #[test]
    fn names_are_those_of_the_specification() {
        let (services, slices) = cluster();
        let names = names(&services, &slices, &[]);
        let of = |name: &str| names.get(&format!("{name}.shop.svc.cluster.local")).cloned();
        assert_eq!(of("web"), addresses(&["10.96.3.4", "fd00:10:96::34"]));
        assert_eq!(of("ring"), addresses(&["10.244.1.7", "10.244.3.7"]));
        assert_eq!(of("ring-0.ring"), addresses(&["10.244.1.7"]));
        assert_eq!(of("db"), Some(Entry::Alias("db.example.org".to_owned())));
        assert_eq!(of("empty"), None);
    }

    #[test]
    fn names_are_left_out_and_kept_as_they_were() {
        let (services, slices) = cluster();
        let here = switches("shop", json!({ "omitted": "ring", "frozen": "web=10.96.9.9" }));
        let elsewhere = switches("office", json!({ "omitted": "db" }));
        let names = names(&services, &slices, &[elsewhere, here]);
        let of = |name: &str| names.get(&format!("{name}.shop.svc.cluster.local")).cloned();
        assert_eq!(of("web"), addresses(&["10.96.9.9"]));
        assert_eq!(of("ring"), None);
        assert!(of("db").is_some());
    }

    #[test]
    fn some_servers_are_silent() {
        let one = [switches(
            SYSTEM,
            json!({ "silentServers": "1", "delayMilliseconds": "250" }),
        )];
        let zone = |index| for_server("coredns-a", index, &BTreeMap::new(), &one);
        assert!(zone(0).silent);
        assert!(!zone(1).silent);
        assert_eq!(zone(1).delay_milliseconds, 250);
        let all = [switches(SYSTEM, json!({ "silentServers": "all" }))];
        assert!(for_server("coredns-a", 7, &BTreeMap::new(), &all).silent);
        // A server that is not of the cluster has no part in it.
        assert_eq!(for_server("resolver", 0, &BTreeMap::new(), &all), Zone::default());
    }

    #[test]
    fn servers_err_as_they_are_told() {
        let (services, slices) = cluster();
        let names = names(&services, &slices, &[]);
        let all = [
            switches(SYSTEM, json!({ "failing": "true", "domain": "corp.local" })),
            switches("shop", json!({ "wildcards": "wild.test=203.0.113.9" })),
        ];
        let zone = for_server("coredns-a", 0, &names, &all);
        assert!(zone.failing && zone.domain == "corp.local");
        assert!(zone.names.contains_key("web.shop.svc.corp.local"));
        assert_eq!(
            zone.wildcards.get("wild.test"),
            Some(&IpAddr::from([203, 0, 113, 9]))
        );
    }

    #[test]
    fn every_server_gets_its_zone() {
        let directory = tempfile::tempdir().unwrap();
        let root = |name: &str| directory.path().join(name);
        let servers = ["coredns-b", "coredns-a", "a-resolver"].map(|name| {
            fs::create_dir(root(name)).unwrap();
            (name.to_owned(), root(name))
        });
        let (services, slices) = cluster();
        let one = [switches(SYSTEM, json!({ "silentServers": "1" }))];
        write(servers.to_vec(), &services, &slices, &one).unwrap();
        let zone = |name: &str| -> Zone {
            serde_json::from_str(&fs::read_to_string(root(name).join("zone.json")).unwrap()).unwrap()
        };
        assert!(zone("coredns-a").silent);
        assert!(!zone("coredns-b").silent);
        assert_eq!(zone("coredns-b").names.len(), 4);
        assert!(zone("a-resolver").names.is_empty());
    }
}
