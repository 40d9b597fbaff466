//! What every cluster has before anybody uses it: CRDs, Nodes, cluster DNS and the
//! `kubernetes` Service.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::Error;
use crate::error::{Context, optional, unless_exists};
use crate::faults::kinds::Kind;

/// The address that the `kubernetes` Service leads to. Loopback is refused in an EndpointSlice.
pub(crate) const ADVERTISED_ADDRESS: &str = "172.18.0.1";

/// Service addresses, IPv4 first.
pub(super) const SERVICE_RANGES: &str = "10.96.0.0/16,fd00:10:96::/112";
/// The nodes of the cluster.
pub const NODES: [&str; 3] = ["sandbox-1", "sandbox-2", "sandbox-3"];
/// The names under which we write, seen in managedFields.
const MANAGER: &str = "svcdiag-sandbox";
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

const DNS_DEPLOYMENT: &str = include_str!("../../manifests/coredns-deployment.yaml");
const DNS_SERVICE: &str = include_str!("../../manifests/coredns-service.yaml");

/// Whether the server is ready and has made its own namespaces.
pub(super) async fn is_ready(client: &Client) -> bool {
    let Ok(request) = http_get("/readyz") else {
        return false;
    };
    if client.request_text(request).await.is_err() {
        return false;
    }
    let namespaces = Api::<Namespace>::all(client.clone());
    for name in ["default", "kube-system"] {
        if !matches!(namespaces.get_opt(name).await, Ok(Some(_))) {
            return false;
        }
    }
    true
}

fn http_get(path: &str) -> Result<http::Request<Vec<u8>>, http::Error> {
    http::Request::get(path).body(Vec::new())
}

/// Installs every CRD manifest of a directory and waits until they are served.
pub(super) async fn install_crds(client: &Client, directory: &Path) -> Result<(), Error> {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    let mut names = Vec::new();
    for path in manifests(directory)? {
        let text = std::fs::read_to_string(&path).map_err(|source| Error::File {
            operation: "read",
            path: path.clone(),
            source,
        })?;
        let crd: CustomResourceDefinition =
            serde_saphyr::from_str(&text).map_err(|error| Error::Manifest {
                path: path.clone(),
                message: error.to_string(),
            })?;
        let name = crd.name_any();
        unless_exists(api.create(&PostParams::default(), &crd).await)
            .during("create", || format!("CustomResourceDefinition {name}"))?;
        names.push(name);
    }
    for name in names {
        wait_established(&api, &name).await?;
    }
    Ok(())
}

fn manifests(directory: &Path) -> Result<Vec<std::path::PathBuf>, Error> {
    let failed = |source| Error::File {
        operation: "list",
        path: directory.to_owned(),
        source,
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_yaml = path.extension().is_some_and(|extension| extension == "yaml");
        // That one is for `kubectl apply -k`.
        if is_yaml && !path.ends_with("kustomization.yaml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

async fn wait_established(api: &Api<CustomResourceDefinition>, name: &str) -> Result<(), Error> {
    let established = async {
        loop {
            let crd = api
                .get(name)
                .await
                .during("get", || format!("CustomResourceDefinition {name}"))?;
            let conditions = crd
                .status
                .and_then(|status| status.conditions)
                .unwrap_or_default();
            if conditions
                .iter()
                .any(|condition| condition.type_ == "Established" && condition.status == "True")
            {
                return Ok(());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    tokio::time::timeout(ESTABLISHED_WITHIN, established)
        .await
        .unwrap_or_else(|_| {
            Err(Error::Timeout {
                what: format!("serving CustomResourceDefinition {name}"),
                within: ESTABLISHED_WITHIN,
            })
        })
}

/// The address of a node, as in a small machine network.
fn node_address(number: usize) -> String {
    format!("172.18.0.{}", number + 1)
}

/// Creates the nodes, ready to take Pods.
pub(super) async fn create_nodes(client: &Client, dual_stack: bool) -> Result<(), Error> {
    let api = Api::<Node>::all(client.clone());
    for (index, name) in NODES.iter().enumerate() {
        let number = index + 1;
        let mut ranges = vec![format!("10.244.{number}.0/24")];
        if dual_stack {
            ranges.push(format!("fd00:10:244:{number}::/64"));
        }
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": name, "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "topology.kubernetes.io/region": "sandbox",
                "topology.kubernetes.io/zone": format!("zone-{number}"),
            }},
            "spec": { "podCIDR": ranges.first(), "podCIDRs": ranges },
        });
        let status = json!({ "apiVersion": "v1", "kind": "Node", "status": node_status(name, number) });
        let what = || format!("Node {name}");
        unless_exists(api.create(&PostParams::default(), &typed(node)?).await).during("create", what)?;
        api.patch_status(name, &PatchParams::apply(MANAGER), &Patch::Merge(status))
            .await
            .during("update the status of", what)?;
        // The real server's admission taints every new node until its node controller has seen it; we are that controller.
        let untaint = json!({ "spec": { "taints": null } });
        api.patch(name, &PatchParams::apply(MANAGER), &Patch::Merge(untaint))
            .await
            .during("untaint", what)?;
    }
    Ok(())
}

fn node_status(name: &str, number: usize) -> Value {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({ "type": kind, "status": status, "reason": reason, "message": message,
                "lastHeartbeatTime": now, "lastTransitionTime": now })
    };
    let resources = json!({ "cpu": "4", "memory": "8Gi", "pods": "250", "ephemeral-storage": "50Gi" });
    json!({
        "addresses": [
            { "type": "InternalIP", "address": node_address(number) },
            { "type": "Hostname", "address": name },
        ],
        "capacity": resources,
        "allocatable": resources,
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        ],
        "nodeInfo": {
            "architecture": "amd64", "operatingSystem": "linux", "osImage": "svcdiag sandbox",
            "kernelVersion": "6.12.0", "containerRuntimeVersion": "sandbox://1", "kubeletVersion": "v1.36.0",
            "kubeProxyVersion": "", "bootID": "", "machineID": "", "systemUUID": "",
        },
    })
}

/// Creates the Namespace that the agents' Leases are in.
pub(super) async fn create_agents_namespace(client: &Client) -> Result<(), Error> {
    ensure_namespace(client, "svcdiag-system").await
}

/// Creates the cluster DNS as kubeadm lays it out.
pub(super) async fn create_dns(client: &Client) -> Result<(), Error> {
    ensure_namespace(client, "kube-system").await?;
    for text in [DNS_DEPLOYMENT, DNS_SERVICE] {
        let object = manifest("coredns", text)?;
        create(client, &object).await?;
    }
    Ok(())
}

/// Creates the `kubernetes` Service and the EndpointSlice behind it; the real server makes its own.
pub(super) async fn create_kubernetes_service(client: &Client, url: &str) -> Result<(), Error> {
    ensure_namespace(client, "default").await?;
    let port: u16 = url
        .rsplit(':')
        .next()
        .and_then(|port| port.trim_end_matches('/').parse().ok())
        .unwrap_or(6443);
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "kubernetes", "namespace": "default",
            "labels": { "component": "apiserver", "provider": "kubernetes" } },
        "spec": { "type": "ClusterIP", "clusterIP": "10.96.0.1", "sessionAffinity": "None",
            "ports": [{ "name": "https", "port": 443, "protocol": "TCP", "targetPort": port }] },
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": "kubernetes", "namespace": "default",
            "labels": { "kubernetes.io/service-name": "kubernetes" } },
        "addressType": "IPv4",
        "ports": [{ "name": "https", "port": port, "protocol": "TCP" }],
        "endpoints": [{ "addresses": [ADVERTISED_ADDRESS], "conditions": { "ready": true } }],
    });
    for object in [service, slice] {
        create(client, &typed(object)?).await?;
    }
    Ok(())
}

async fn ensure_namespace(client: &Client, name: &str) -> Result<(), Error> {
    let api = Api::<Namespace>::all(client.clone());
    if optional(api.get(name).await)
        .during("get", || format!("Namespace {name}"))?
        .is_none()
    {
        let namespace =
            typed(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }))?;
        unless_exists(api.create(&PostParams::default(), &namespace).await)
            .during("create", || format!("Namespace {name}"))?;
    }
    Ok(())
}

async fn create(client: &Client, object: &DynamicObject) -> Result<(), Error> {
    let kind = object
        .types
        .as_ref()
        .map(|types| types.kind.clone())
        .unwrap_or_default();
    let name = object.name_any();
    let namespace = object.namespace().unwrap_or_default();
    let what = || format!("{kind} {namespace}/{name}");
    let known = Kind::parse(&kind).ok_or_else(|| Error::Manifest {
        path: name.clone().into(),
        message: format!("unknown kind {kind}"),
    })?;
    unless_exists(
        known
            .api(client, &namespace)
            .create(&PostParams::default(), object)
            .await,
    )
    .during("create", what)?;
    Ok(())
}

fn manifest<T: serde::de::DeserializeOwned>(name: &str, text: &str) -> Result<T, Error> {
    serde_saphyr::from_str(text).map_err(|error| Error::Manifest {
        path: name.into(),
        message: error.to_string(),
    })
}

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Error> {
    serde_json::from_value(value).map_err(|error| Error::Manifest {
        path: "built-in".into(),
        message: error.to_string(),
    })
}
