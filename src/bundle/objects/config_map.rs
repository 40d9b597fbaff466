//! kube-proxy's ConfigMap, as kubeadm makes it and `collect` takes it along.
//!
//! Source: k8s.io/kube-proxy/config/v1alpha1 (`KubeProxyConfiguration`).

use serde::Deserialize;
use serde_json::Value;

use super::text;

#[derive(Deserialize)]
struct Configuration {
    mode: Option<String>,
}

/// The mode that kube-proxy's configuration names; None where it leaves it to kube-proxy, or the ConfigMap is
/// another's.
pub(super) fn mode(config_map: &Value) -> Result<Option<String>, String> {
    let is_its = text(config_map, "/metadata/namespace") == "kube-system"
        && text(config_map, "/metadata/name") == "kube-proxy";
    let file = config_map["data"]["config.conf"].as_str();
    let Some(file) = file.filter(|_| is_its) else {
        return Ok(None);
    };
    let read: Result<Configuration, _> = serde_saphyr::from_str(file);
    let configuration = read.map_err(|error| error.without_snippet().to_string())?;
    let mode = configuration.mode.map(|mode| mode.trim().to_ascii_lowercase());
    Ok(mode.filter(|mode| !mode.is_empty()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn of(name: &str, file: &str) -> Result<Option<String>, String> {
        mode(
            &json!({ "metadata": { "name": name, "namespace": "kube-system" }, "data": { "config.conf": file } }),
        )
    }

    #[test]
    fn the_mode_is_that_of_the_configuration() {
        let file = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nconntrack:\n  min: 0\nkind: KubeProxyConfiguration\nmode: nftables\n";
        assert_eq!(of("kube-proxy", file), Ok(Some("nftables".to_owned())));
        assert_eq!(of("coredns", file), Ok(None));
        assert_eq!(of("kube-proxy", "mode: \"\"\n"), Ok(None));
        assert_eq!(of("kube-proxy", "kind: KubeProxyConfiguration\n"), Ok(None));
        let error = of("kube-proxy", "kind: x\nmode: [\n").unwrap_err();
        assert!(error.contains("line "), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(mode: |\\PC|\n|- |&a |\\*a|\\[){0,40}") {
            let _ = of("kube-proxy", &text);
        }
    }
}
