//! What the process of a Pod is to do, by the Pod's spec and annotations. Pure.

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::ResourceExt;

use super::annotations;
use crate::kernel::{PodSetup, Role};

/// Address of cluster DNS.
const CLUSTER_DNS: &str = "10.96.0.10";

/// resolv.conf of the nodes; nobody is there.
const NODE_RESOLV_CONF: &str = "nameserver 172.18.0.254\n";

/// What is to be started.
pub(super) fn setup(pod: &Pod, node: &str, addresses: &[String]) -> PodSetup {
    let spec = pod.spec.clone().unwrap_or_default();
    PodSetup {
        uid: pod.uid().unwrap_or_default(),
        name: pod.name_any(),
        node: node.to_owned(),
        addresses: addresses.to_vec(),
        host_network: spec.host_network == Some(true),
        resolv_conf: resolv_conf(pod, &spec),
        environment: environment(&spec),
        role: role(pod, &spec, addresses),
    }
}

/// Variables with plain values.
fn environment(spec: &PodSpec) -> Vec<(String, String)> {
    let variables = spec.containers.iter().flat_map(|c| c.env.iter().flatten());
    variables
        .filter_map(|variable| Some((variable.name.clone(), variable.value.clone()?)))
        .collect()
}

fn role(pod: &Pod, spec: &PodSpec, addresses: &[String]) -> Role {
    let annotation = |name: &str| pod.annotations().get(name).map(String::as_str);
    let number = |name: &str| annotation(name).and_then(|value| value.parse::<u64>().ok());
    if annotation(annotations::DNS) == Some("true") {
        return Role::Dns;
    }
    let declared = || {
        let ports = spec.containers.iter().flat_map(|c| c.ports.iter().flatten());
        let place = |protocol: &str, port| format!("{}://0.0.0.0:{port}", protocol.to_lowercase());
        ports
            .map(|port| place(port.protocol.as_deref().unwrap_or("TCP"), port.container_port))
            .collect()
    };
    let listed = |text: &str| {
        let own = addresses.first().map(String::as_str).unwrap_or_default();
        let text = text.replace("$POD_IP", own);
        let places = text.split(',').map(str::trim);
        places
            .filter(|place| !place.is_empty())
            .map(str::to_owned)
            .collect()
    };
    Role::Serve {
        listen: annotation(annotations::LISTEN).map_or_else(declared, listed),
        status: number(annotations::HTTP_STATUS)
            .and_then(|status| u16::try_from(status).ok())
            .unwrap_or(200),
        delay_milliseconds: number(annotations::ACCEPT_DELAY).unwrap_or(0),
        libc: annotation(annotations::LIBC).map(str::to_owned),
    }
}

/// As the kubelet makes it by dnsPolicy and dnsConfig.
fn resolv_conf(pod: &Pod, spec: &PodSpec) -> String {
    if let Some(text) = pod.annotations().get(annotations::RESOLV_CONF) {
        return text.clone();
    }
    let namespace = pod.namespace().unwrap_or_default();
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let of_host = spec.host_network == Some(true) && policy != "ClusterFirstWithHostNet";
    match policy {
        "None" => {
            let config = spec.dns_config.clone().unwrap_or_default();
            let mut text = String::new();
            for server in config.nameservers.unwrap_or_default() {
                text.push_str(&format!("nameserver {server}\n"));
            }
            text.push_str(&format!(
                "search {}\n",
                config.searches.unwrap_or_default().join(" ")
            ));
            for option in config.options.unwrap_or_default() {
                let (name, value) = (option.name.unwrap_or_default(), option.value);
                text.push_str(&match value {
                    Some(value) => format!("options {name}:{value}\n"),
                    None => format!("options {name}\n"),
                });
            }
            text
        }
        "Default" => NODE_RESOLV_CONF.to_owned(),
        _ if of_host => NODE_RESOLV_CONF.to_owned(),
        _ => {
            let mut search = format!("{namespace}.svc.cluster.local svc.cluster.local cluster.local");
            for suffix in spec.dns_config.iter().flat_map(|c| c.searches.iter().flatten()) {
                search.push(' ');
                search.push_str(suffix);
            }
            format!("search {search}\nnameserver {CLUSTER_DNS}\noptions ndots:5\n")
        }
    }
}
