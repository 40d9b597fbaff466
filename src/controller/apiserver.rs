//! Publishes the addresses behind the `kubernetes` Service, for the agents and for the controller's own client.
//!
//! Who runs on a node with a broken kube-proxy cannot use a Service. So the addresses in that Service's EndpointSlices
//! are kept in a ConfigMap, which the kubelet mounts for the agents without any Service. It is written only when they
//! change.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{Patch, PatchParams},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde_json::json;
use tokio::sync::watch;

use super::Context;
use crate::{
    api::{APISERVER_CONFIG_MAP, APISERVER_KEY, FIELD_MANAGER},
    client::Pauses,
    inventory::MANAGED_BY,
    objects::{EndpointSlice, Object},
};

/// The Service of the API server, in every cluster.
const SERVICE: (&str, &str) = ("default", "kubernetes");

/// Timeout of a request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(60);

/// Runs until the controller stops; the controller's own client learns the addresses from `own`.
pub(super) async fn run(context: Arc<Context>, own: watch::Sender<String>) {
    let api: Api<EndpointSlice> = Api::namespaced(context.client.clone(), SERVICE.0);
    let of_service =
        watcher::Config::default().labels(&format!("{}={}", EndpointSlice::SERVICE_LABEL, SERVICE.1));
    let mut events = std::pin::pin!(watcher(api, of_service).backoff(Pauses::default()));
    let mut slices: BTreeMap<String, EndpointSlice> = BTreeMap::new();
    let mut listed = false;
    let mut retry = false;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = tokio::time::sleep(RETRY), if retry => None,
        };
        match event {
            Some(Ok(Event::Init)) => {
                slices.clear();
                listed = false;
            }
            Some(Ok(Event::InitApply(slice) | Event::Apply(slice))) => {
                slices.insert(slice.name().to_owned(), slice);
            }
            Some(Ok(Event::Delete(slice))) => {
                slices.remove(slice.name());
            }
            Some(Ok(Event::InitDone)) => listed = true,
            Some(Err(error)) => {
                tracing::debug!(
                    "The EndpointSlices of Service default/kubernetes could not be watched: {error}."
                );
            }
            None => {}
        }
        let addresses = addresses(slices.values());
        // The API server always has an address: if none is listed, the old ones are the better guess.
        if listed && !addresses.is_empty() {
            own.send_replace(addresses.clone());
            retry = match publish(&context, &addresses).await {
                Ok(()) => false,
                Err(why) => {
                    if !retry {
                        tracing::warn!(
                            "Could not publish the API server's own addresses for the agents: {why}."
                        );
                    }
                    true
                }
            };
        }
    }
}

/// Whether a URL is that of the `kubernetes` Service, whose address Pods have in their environment. Only around that do the
/// addresses behind it lead: a kubeconfig may name a proxy, and its credentials are for nobody else.
pub(super) fn is_its_service(url: &http::Uri, host_of_service: Option<&str>) -> bool {
    let bare = |host: &str| host.trim_matches(['[', ']']).to_owned();
    url.host()
        .is_some_and(|host| host_of_service.is_some_and(|service| bare(service) == bare(host)))
}

/// The addresses, one per line.
fn addresses<'a>(slices: impl Iterator<Item = &'a EndpointSlice>) -> String {
    let mut found: BTreeSet<String> = BTreeSet::new();
    for slice in slices {
        let https = slice
            .ports
            .iter()
            .filter(|p| p.name() == "https")
            .filter_map(|p| p.port);
        for port in https {
            let ready = slice.endpoints.iter().filter(|e| e.is_ready());
            for address in ready.flat_map(|e| &e.addresses) {
                found.insert(match address.contains(':') {
                    true => format!("[{address}]:{port}"),
                    false => format!("{address}:{port}"),
                });
            }
        }
    }
    found.into_iter().map(|address| address + "\n").collect()
}

/// Writes the addresses if they have changed.
async fn publish(context: &Context, addresses: &str) -> Result<(), String> {
    let namespace = &context.options.agent_namespace;
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
    let told = tokio::time::timeout(TIMEOUT, api.get_opt(APISERVER_CONFIG_MAP)).await;
    let told = told
        .map_err(|_| "no answer".to_owned())?
        .map_err(|e| e.to_string())?;
    let known = told.and_then(|map| map.data?.remove(APISERVER_KEY));
    if known.as_deref() == Some(addresses) {
        return Ok(());
    }
    let patch = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": APISERVER_CONFIG_MAP, "namespace": namespace, "labels": { MANAGED_BY.0: MANAGED_BY.1 } },
        "data": { APISERVER_KEY: addresses },
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let patch = Patch::Apply(patch);
    let written = tokio::time::timeout(TIMEOUT, api.patch(APISERVER_CONFIG_MAP, &params, &patch)).await;
    match written {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_around_is_taken_for_the_service_only() {
        let is = |url: &str, host| is_its_service(&url.parse().unwrap(), host);
        assert!(is("https://10.96.0.1:443/", Some("10.96.0.1")));
        assert!(is("https://[fd00::1]:443/", Some("fd00::1")));
        // In a Pod, with the kubeconfig of another cluster, and outside of any.
        assert!(!is("https://rancher.example/k8s/clusters/c-1", Some("10.96.0.1")));
        assert!(!is("http://127.0.0.1:8001/", None));
    }

    #[test]
    fn the_addresses_of_all_families_are_told_with_their_port() {
        let slice = |family: &str, addresses: &[&str], port: &str, ready: bool| -> EndpointSlice {
            serde_json::from_value(json!({
                "metadata": { "name": family }, "addressType": family,
                "ports": [{ "name": port, "port": 6443, "protocol": "TCP" }],
                "endpoints": [{ "addresses": addresses, "conditions": { "ready": ready } }],
            }))
            .unwrap()
        };
        let slices = [
            slice("IPv6", &["fd00::1"], "https", true),
            slice("IPv4", &["192.0.2.2"], "https", true),
            slice("IPv4", &["192.0.2.1"], "https", true),
            slice("IPv4", &["192.0.2.3"], "metrics", true),
            slice("IPv4", &["192.0.2.4"], "https", false),
        ];
        assert_eq!(
            addresses(slices.iter()),
            "192.0.2.1:6443\n192.0.2.2:6443\n[fd00::1]:6443\n"
        );
    }
}
