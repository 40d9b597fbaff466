//! Shell scripts in the network namespaces of nodes and Pods, with what they need to know of the fixture.
//!
//! Of all nodes and Pods:
//!
//! | variable | meaning |
//! |---|---|
//! | `VIP`, `VIP_PORT`, `PROTOCOL`, `NODEPORT` | the Service's IPv4 address, its first port, `tcp` or `udp`, and its node port, if it has one |
//! | `ENDPOINTS`, `ENDPOINT_1`, ... | ready IPv4 endpoints as address:port, in the order of their addresses |
//! | `ENDPOINT_IPS`, `ENDPOINT_IP_1`, ... | the same without the port |
//! | `POD_IPS`, `CLIENT_IPS` | IPv4 addresses of the Service's Pods and of the clients |
//! | `NODE_IPS` | IPv4 addresses of all nodes |
//! | `PID_OF_sandbox_1`, ... | a process in the namespace of a node, for `ip link ... netns` |
//! | `DNS_ENDPOINT_IP` | IPv4 address of a server of cluster DNS |
//! | `MODE`, `WIRING`, `IPTABLES` | `nftables`, ...; `bridge` or `ptp`; the iptables program of the mode |
//! | `STATE` | a directory of the fixture for what scripts have to remember |
//! | `SANDBOX`, `SANDBOX_PID` | our program, and the process without which nothing of it has to run |
//!
//! Of a node: `NODE_NAME`, `NODE_IP`; `LOCAL_POD_IPS`, `LOCAL_CLIENT_IPS`, `LOCAL_VETHS` (of the Service's Pods) and,
//! for every Pod of the namespace that is there, `VETH_OF_10_244_1_2`. Of a Pod: `POD_NAME`, `POD_IP`.
//! Lists are words with spaces between them. `$NAMESPACE` is put in as in every step.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Api, ResourceExt, api::ListParams};
use serde::{Deserialize, Serialize};

use super::{
    Error, Fixture, journal,
    place::{Place, Undo, Variables, failed, kernel, run},
};
use crate::{
    error::Context,
    kernel::{Kernel, Wiring},
    proxy::ProxyMode,
};

/// A script for the network namespaces of nodes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OnNode {
    /// Which nodes.
    nodes: Nodes,
    /// In every mode of kube-proxy.
    #[serde(default, rename = "do")]
    run: String,
    /// Where it depends on the mode: `nftables`, `nftables-old`, `iptables`. Modes that are not named take what
    /// their kin has.
    #[serde(default)]
    do_by_mode: BTreeMap<String, String>,
    /// The way back.
    #[serde(default)]
    undo: String,
}

/// Names of nodes, or `all`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum Nodes {
    Names(Vec<String>),
    All(All),
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
enum All {
    All,
}

/// A script for the network namespaces of Pods.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InPod {
    /// Which Pods: `app=client`.
    labels: String,
    /// In how many of them at most; in all by default.
    #[serde(default)]
    at_most: Option<usize>,
    /// In every mode of kube-proxy.
    #[serde(default, rename = "do")]
    run: String,
    /// Where it depends on the mode: `nftables`, `nftables-old`, `iptables`. Modes that are not named take what
    /// their kin has.
    #[serde(default)]
    do_by_mode: BTreeMap<String, String>,
    /// The way back.
    #[serde(default)]
    undo: String,
}

/// What to do, and how it is undone.
#[derive(Clone, Copy)]
struct Script<'a> {
    run: &'a str,
    by_mode: &'a BTreeMap<String, String>,
    undo: &'a str,
}

impl OnNode {
    fn script(&self) -> Script<'_> {
        Script {
            run: &self.run,
            by_mode: &self.do_by_mode,
            undo: &self.undo,
        }
    }
}

impl InPod {
    fn script(&self) -> Script<'_> {
        Script {
            run: &self.run,
            by_mode: &self.do_by_mode,
            undo: &self.undo,
        }
    }
}

impl Script<'_> {
    fn for_mode(&self, mode: ProxyMode) -> Option<&str> {
        let other = match mode {
            ProxyMode::IptablesLegacy => "iptables",
            ProxyMode::NftablesOld => "nftables",
            ProxyMode::Nftables | ProxyMode::Iptables => "",
        };
        let by_mode = self.by_mode.get(&mode.to_string());
        let found = by_mode.or_else(|| self.by_mode.get(other));
        let found = found.map_or(self.run, String::as_str);
        (!found.trim().is_empty()).then_some(found)
    }
}

/// Runs the script of a step on nodes.
pub(super) async fn on_nodes(fixture: &Fixture, step: &OnNode) -> Result<(), Error> {
    let kernel = kernel(fixture)?;
    let surroundings = Surroundings::of(fixture, kernel).await?;
    let names = match &step.nodes {
        Nodes::Names(names) => names.clone(),
        Nodes::All(All::All) => kernel.nodes().iter().map(|node| node.name().to_owned()).collect(),
    };
    for name in names {
        let node = kernel.node(&name).ok_or_else(|| failed(&name, "no such node"))?;
        let variables = surroundings.on_node(kernel, &name, &node.address().to_string());
        perform(fixture, kernel, Place::Node(name), step.script(), variables).await?;
    }
    Ok(())
}

/// Runs the script of a step in Pods, the first ones by their names.
pub(super) async fn in_pods(fixture: &Fixture, step: &InPod) -> Result<(), Error> {
    let kernel = kernel(fixture)?;
    let surroundings = Surroundings::of(fixture, kernel).await?;
    let mut pods = list::<Pod>(fixture, &ListParams::default().labels(&step.labels)).await?;
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    pods.sort_by_key(ResourceExt::name_any);
    if pods.is_empty() {
        return Err(failed(&step.labels, "no such Pod"));
    }
    for pod in pods.iter().take(step.at_most.unwrap_or(usize::MAX)) {
        let mut variables = surroundings.common.clone();
        push(&mut variables, "POD_NAME", pod.name_any());
        push(&mut variables, "POD_IP", address_of(pod).unwrap_or_default());
        let place = Place::Pod(pod.uid().unwrap_or_default(), pod.name_any());
        perform(fixture, kernel, place, step.script(), variables).await?;
    }
    Ok(())
}

/// Notes the way back, then runs the script: one that fails half way is undone too.
async fn perform(
    fixture: &Fixture,
    kernel: &Kernel,
    place: Place,
    script: Script<'_>,
    variables: Variables,
) -> Result<(), Error> {
    let Some(text) = script.for_mode(kernel.data_path().proxy) else {
        let mode = kernel.data_path().proxy;
        return Err(failed("a script", &format!("nothing to do in mode {mode}")));
    };
    if !script.undo.trim().is_empty() {
        let undo = Undo::new(place.clone(), script.undo.to_owned(), variables.clone());
        journal::note_script(fixture, undo).await;
    }
    run(kernel, &place, text, &variables).await
}

fn push(variables: &mut Variables, name: &str, value: impl Into<String>) {
    variables.push((name.to_owned(), value.into()));
}

/// The fixture as it is now, in variables.
struct Surroundings {
    common: Variables,
    pods: Vec<Pod>,
}

impl Surroundings {
    async fn of(fixture: &Fixture, kernel: &Kernel) -> Result<Self, Error> {
        let services = list::<Service>(fixture, &named(Fixture::NAME)).await?;
        let slices = ListParams::default().labels(&format!("kubernetes.io/service-name={}", Fixture::NAME));
        let endpoints = endpoints(&list::<EndpointSlice>(fixture, &slices).await?);
        let mut pods = list::<Pod>(fixture, &ListParams::default()).await?;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        pods.sort_by_key(ResourceExt::name_any);

        let mut common = service_variables(services.first());
        push(&mut common, "ENDPOINTS", endpoints.join(" "));
        let ips: Vec<&str> = endpoints
            .iter()
            .filter_map(|e| Some(e.split_once(':')?.0))
            .collect();
        push(&mut common, "ENDPOINT_IPS", ips.join(" "));
        for (number, (endpoint, ip)) in (1..).zip(endpoints.iter().zip(&ips)) {
            push(&mut common, &format!("ENDPOINT_{number}"), endpoint);
            push(&mut common, &format!("ENDPOINT_IP_{number}"), *ip);
        }
        push(&mut common, "POD_IPS", addresses(&pods, Fixture::NAME, None));
        push(&mut common, "CLIENT_IPS", addresses(&pods, Fixture::CLIENT, None));
        let nodes: Vec<String> = kernel
            .nodes()
            .iter()
            .map(|node| node.address().to_string())
            .collect();
        push(&mut common, "NODE_IPS", nodes.join(" "));
        for node in kernel.nodes() {
            let pid = node.netns_path();
            let pid = pid.iter().nth(2).unwrap_or_default().to_string_lossy();
            push(
                &mut common,
                &format!("PID_OF_{}", node.name().replace('-', "_")),
                pid,
            );
        }
        let servers = Api::<Pod>::namespaced(fixture.client().clone(), "kube-system")
            .list(&ListParams::default().labels("k8s-app=kube-dns"))
            .await
            .during("list", || "the Pods of cluster DNS".to_owned())?;
        let server = servers.items.iter().find_map(address_of);
        push(&mut common, "DNS_ENDPOINT_IP", server.unwrap_or_default());
        let data_path = kernel.data_path();
        push(&mut common, "MODE", data_path.proxy.to_string());
        let wiring = match data_path.wiring {
            Wiring::Bridge => "bridge",
            Wiring::PointToPoint => "ptp",
        };
        push(&mut common, "WIRING", wiring);
        let iptables = match data_path.proxy {
            ProxyMode::IptablesLegacy => "iptables-legacy",
            _ => "iptables-nft",
        };
        push(&mut common, "IPTABLES", iptables);
        push(
            &mut common,
            "STATE",
            kernel.scratch(fixture.namespace())?.to_string_lossy(),
        );
        push(&mut common, "SANDBOX", kernel.program().to_string_lossy());
        push(&mut common, "SANDBOX_PID", std::process::id().to_string());
        Ok(Self { common, pods })
    }

    fn on_node(&self, kernel: &Kernel, name: &str, address: &str) -> Variables {
        let mut variables = self.common.clone();
        push(&mut variables, "NODE_NAME", name);
        push(&mut variables, "NODE_IP", address);
        push(
            &mut variables,
            "LOCAL_POD_IPS",
            addresses(&self.pods, Fixture::NAME, Some(name)),
        );
        push(
            &mut variables,
            "LOCAL_CLIENT_IPS",
            addresses(&self.pods, Fixture::CLIENT, Some(name)),
        );
        let mut veths = Vec::new();
        for pod in self
            .pods
            .iter()
            .filter(|pod| is_on(pod, name) && !is_host_network(pod))
        {
            let veth = kernel.veth(&pod.uid().unwrap_or_default());
            if let Some(address) = address_of(pod) {
                push(
                    &mut variables,
                    &format!("VETH_OF_{}", address.replace('.', "_")),
                    veth.clone(),
                );
            }
            if is_app(pod, Fixture::NAME) {
                veths.push(veth);
            }
        }
        push(&mut variables, "LOCAL_VETHS", veths.join(" "));
        variables
    }
}

async fn list<K>(fixture: &Fixture, params: &ListParams) -> Result<Vec<K>, Error>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug,
{
    let api = Api::<K>::namespaced(fixture.client().clone(), fixture.namespace());
    let what = || format!("the {} objects of {}", K::kind(&()), fixture.namespace());
    Ok(api.list(params).await.during("list", what)?.items)
}

fn named(name: &str) -> ListParams {
    ListParams::default().fields(&format!("metadata.name={name}"))
}

fn service_variables(service: Option<&Service>) -> Variables {
    let spec = service
        .and_then(|service| service.spec.clone())
        .unwrap_or_default();
    let port = spec
        .ports
        .unwrap_or_default()
        .into_iter()
        .next()
        .unwrap_or_default();
    let addresses = spec.cluster_ips.unwrap_or_default();
    let address = addresses.into_iter().find(|address| address.contains('.'));
    let mut variables = Variables::new();
    push(&mut variables, "VIP", address.unwrap_or_default());
    push(&mut variables, "VIP_PORT", port.port.to_string());
    push(
        &mut variables,
        "PROTOCOL",
        port.protocol.unwrap_or_default().to_lowercase(),
    );
    let node_port = port.node_port.map(|port| port.to_string());
    push(&mut variables, "NODEPORT", node_port.unwrap_or_default());
    variables
}

/// Ready IPv4 endpoints of the first port.
fn endpoints(slices: &[EndpointSlice]) -> Vec<String> {
    let mut all = Vec::new();
    for slice in slices.iter().filter(|slice| slice.address_type == "IPv4") {
        let Some(port) = slice.ports.iter().flatten().find_map(|port| port.port) else {
            continue;
        };
        for endpoint in slice.endpoints.iter().flatten() {
            let ready = endpoint
                .conditions
                .as_ref()
                .and_then(|conditions| conditions.ready);
            if ready != Some(false) {
                all.extend(
                    endpoint
                        .addresses
                        .iter()
                        .map(|address| format!("{address}:{port}")),
                );
            }
        }
    }
    all.sort();
    all.dedup();
    all
}

fn addresses(pods: &[Pod], app: &str, node: Option<&str>) -> String {
    let wanted = pods
        .iter()
        .filter(|pod| is_app(pod, app) && node.is_none_or(|node| is_on(pod, node)));
    wanted.filter_map(address_of).collect::<Vec<_>>().join(" ")
}

fn is_app(pod: &Pod, app: &str) -> bool {
    pod.labels().get("app").is_some_and(|value| value == app)
}

fn is_on(pod: &Pod, node: &str) -> bool {
    let spec = pod.spec.as_ref();
    spec.and_then(|spec| spec.node_name.as_deref()) == Some(node)
}

fn is_host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true)
}

fn address_of(pod: &Pod) -> Option<String> {
    let addresses = pod.status.as_ref()?.pod_ips.iter().flatten();
    let mut addresses = addresses.map(|address| address.ip.clone());
    addresses.find(|address| address.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_mode_has_the_script_of_its_kin() {
        let step: OnNode = serde_json::from_value(json!({
            "nodes": "all", "do": "any", "doByMode": { "nftables": "new", "nftables-old": "old" }, "undo": "back",
        }))
        .unwrap();
        let script = step.script();
        assert_eq!(script.for_mode(ProxyMode::Nftables), Some("new"));
        assert_eq!(script.for_mode(ProxyMode::NftablesOld), Some("old"));
        assert_eq!(script.for_mode(ProxyMode::IptablesLegacy), Some("any"));
    }

    #[test]
    fn endpoints_that_are_ready_come_in_order() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {}, "addressType": "IPv4", "ports": [{ "port": 8080 }],
            "endpoints": [
                { "addresses": ["10.244.3.7"], "conditions": { "ready": true } },
                { "addresses": ["10.244.1.7"] },
                { "addresses": ["10.244.2.7"], "conditions": { "ready": false } },
            ],
        }))
        .unwrap();
        assert_eq!(endpoints(&[slice]), ["10.244.1.7:8080", "10.244.3.7:8080"]);
    }
}
