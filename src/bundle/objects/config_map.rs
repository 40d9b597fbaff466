//! ConfigMaps of kube-proxy and of CoreDNS, as kubeadm makes them and `collect` takes them along.
//!
//! Sources: k8s.io/kube-proxy/config/v1alpha1 (`KubeProxyConfiguration`), CoreDNS' plugin/kubernetes.

use serde::Deserialize;
use serde_json::Value;

use super::identity::text;
use crate::{formats::text::corefile, kube_proxy::ProxyMode};

#[derive(Deserialize)]
struct Configuration {
    mode: Option<String>,
}

/// The mode that kube-proxy's configuration names; None where it leaves it to kube-proxy, or the ConfigMap is
/// another's.
pub(super) fn mode(config_map: &Value) -> Result<Option<ProxyMode>, String> {
    let is_its = text(config_map, "/metadata/namespace") == "kube-system"
        && text(config_map, "/metadata/name") == "kube-proxy";
    let file = config_map["data"]["config.conf"].as_str();
    let Some(file) = file.filter(|_| is_its) else {
        return Ok(None);
    };
    let read: Result<Configuration, _> = serde_saphyr::from_str(file);
    let configuration = read.map_err(|error| error.without_snippet().to_string())?;
    Ok(configuration.mode.and_then(|mode| ProxyMode::parse(mode.trim())))
}

/// The domain of the cluster's names in a Corefile. None where there is none, or the ConfigMap is another's.
pub(super) fn dns_domain(config_map: &Value) -> Option<&str> {
    if text(config_map, "/metadata/namespace") != "kube-system" {
        return None;
    }
    corefile::domain(config_map["data"]["Corefile"].as_str()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn of(name: &str, file: &str) -> Result<Option<ProxyMode>, String> {
        mode(
            &json!({ "metadata": { "name": name, "namespace": "kube-system" }, "data": { "config.conf": file } }),
        )
    }

    #[test]
    fn the_mode_is_that_of_the_configuration() {
        let file = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nconntrack:\n  min: 0\nkind: KubeProxyConfiguration\nmode: nftables\n";
        assert_eq!(of("kube-proxy", file), Ok(Some(ProxyMode::Nftables)));
        assert_eq!(of("coredns", file), Ok(None));
        assert_eq!(of("kube-proxy", "mode: \"\"\n"), Ok(None));
        assert_eq!(of("kube-proxy", "kind: KubeProxyConfiguration\n"), Ok(None));
        let error = of("kube-proxy", "kind: x\nmode: [\n").unwrap_err();
        assert!(error.contains("line "), "{error}");
    }

    #[test]
    fn the_domain_is_that_of_the_corefile() {
        let of = |file: &str| {
            let map = json!({ "metadata": { "name": "coredns", "namespace": "kube-system" }, "data": { "Corefile": file } });
            dns_domain(&map).map(str::to_owned)
        };
        let corefile = ".:53 {\n    errors\n    kubernetes corp.local. in-addr.arpa ip6.arpa {\n        pods insecure\n    }\n}\n";
        assert_eq!(of(corefile).as_deref(), Some("corp.local"));
        assert_eq!(
            of(".:53 {\n  kubernetes 10.0.0.0/8 {\n  }\n  forward . 1.1.1.1\n}\n"),
            None
        );
        assert_eq!(of(""), None);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(mode: |\\PC|\n|- |&a |\\*a|\\[){0,40}") {
            let _ = of("kube-proxy", &text);
            let _ = dns_domain(&json!({ "metadata": { "namespace": "kube-system" }, "data": { "Corefile": text } }));
        }
    }
}
