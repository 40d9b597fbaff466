//! What a bundle has beyond what `svcdiag check` reads, for people who look into it. None of it is
//! indispensable.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::{
    check::{GatherError, Gathered, Request, ask},
    diagnosis::Unreadable,
};

/// Configurations that explain what kube-proxy and cluster DNS do: name of the ConfigMap in
/// kube-system, and the only key that is taken. kube-proxy's has a kubeconfig, too.
const CONFIGURATIONS: [(&str, &str); 2] = [("kube-proxy", "config.conf"), ("coredns", "Corefile")];

/// Where they are.
const NAMESPACE: &str = "kube-system";

/// Words in the names of options whose values nobody should see. Plugins of CoreDNS that ask clouds
/// or etcd take such.
const SECRET: [&str; 6] = [
    "credential",
    "secret",
    "password",
    "token",
    "access_key",
    "apikey",
];

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Extras {
    /// Version of the API server.
    pub kubernetes_version: Option<String>,
    /// ConfigMaps with the keys that are taken.
    pub config_maps: Vec<Value>,
}

/// Reads it.
pub(super) async fn read(client: &Client, gathered: &mut Gathered) -> Result<Extras, GatherError> {
    let mut extras = Extras::default();
    let version = ask(client.apiserver_version(), Request::version).await;
    extras.kubernetes_version = version.ok().map(|v| v.git_version);
    for (name, key) in CONFIGURATIONS {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
        let found = ask(api.get_opt(name), || Request::get::<ConfigMap>(name)).await;
        let found = or_gap(found, "configmaps", gathered)?.flatten();
        let data = found.and_then(|c| c.data);
        if let Some(text) = data.as_ref().and_then(|d| d.get(key)) {
            extras.config_maps.push(config_map(name, key, text));
        }
    }
    Ok(extras)
}

fn or_gap<T>(
    read: Result<T, GatherError>,
    resource: &str,
    gathered: &mut Gathered,
) -> Result<Option<T>, GatherError> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(error @ GatherError::Forbidden { .. }) => {
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
        "data": { key: without_secrets(text) } })
}

/// The text without the values of options that may be secret.
fn without_secrets(text: &str) -> String {
    let line = |line: &str| {
        let option = line.split_whitespace().next().unwrap_or_default();
        let lower = option.to_lowercase();
        match SECRET.iter().any(|word| lower.contains(word)) {
            true => format!(
                "{}{option} (left out)\n",
                &line[..line.len() - line.trim_start().len()]
            ),
            false => format!("{line}\n"),
        }
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_may_be_secret_are_left_out_of_configurations() {
        let corefile = ".:53 {\n  etcd {\n    credentials root hunter2\n  }\n  route53 example.org.:Z1 {\n    aws_access_key AKIA hunter2\n  }\n  forward . 1.1.1.1\n}\n";
        let text = without_secrets(corefile);
        assert!(
            !text.contains("hunter2") && text.contains("    credentials (left out)\n"),
            "{text}"
        );
        assert!(text.contains("  forward . 1.1.1.1\n"));
    }
}
