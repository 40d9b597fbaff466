//! What a bundle has in addition to what `svcdiag check` reads, for its readers. All of it is optional.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::redact;
use crate::{
    check::Gathered,
    cluster::{Request, RequestError, ask},
    engine::Unreadable,
};

/// What is kept of a configuration.
type Kept = fn(&str) -> String;

/// Configurations that explain what kube-proxy and cluster DNS do: name of the ConfigMap in kube-system, the only key that
/// is read (kube-proxy's also has a kubeconfig), and what is kept of it.
const CONFIGURATIONS: [(&str, &str, Kept); 2] = [
    ("kube-proxy", "config.conf", redact::kube_proxy),
    ("coredns", "Corefile", redact::corefile),
];

/// Where they are.
const NAMESPACE: &str = "kube-system";

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Extras {
    /// Version of the API server.
    pub kubernetes_version: Option<String>,
    /// ConfigMaps with the keys that are read.
    pub config_maps: Vec<Value>,
}

/// Reads it.
pub(super) async fn read(client: &Client, gathered: &mut Gathered) -> Result<Extras, RequestError> {
    let mut extras = Extras::default();
    let version = ask(client.apiserver_version(), Request::version).await;
    extras.kubernetes_version = version.ok().map(|v| v.git_version);
    for (name, key, kept) in CONFIGURATIONS {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
        let found = ask(api.get_opt(name), || Request::get::<ConfigMap>(name)).await;
        let found = or_gap(found, "configmaps", gathered)?.flatten();
        let data = found.and_then(|c| c.data);
        if let Some(text) = data.as_ref().and_then(|d| d.get(key)) {
            extras.config_maps.push(config_map(name, key, &kept(text)));
        }
    }
    Ok(extras)
}

fn or_gap<T>(
    read: Result<T, RequestError>,
    resource: &str,
    gathered: &mut Gathered,
) -> Result<Option<T>, RequestError> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(error @ RequestError::Forbidden { .. }) => {
            gathered.gaps.push(Unreadable {
                resource: resource.to_owned(),
                why: error.to_string(),
            });
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn config_map(name: &str, key: &str, text: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "namespace": NAMESPACE },
        "data": { key: text } })
}
