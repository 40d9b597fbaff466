//! Configuration files of programs that carry kube-proxy: of k3s and rke2 (`/etc/rancher/*/config.yaml`) and
//! of k0s (`/etc/k0s/k0s.yaml`). In their processes' arguments little of it is to be seen.

use serde::Deserialize;
use serde_json::Value;

use super::{ParseError, prompt::prompted};

/// What the file says of kube-proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CarrierConfig {
    /// Whether it is left out.
    pub leaves_proxy_out: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Fields {
    disable_kube_proxy: Value,
    spec: Value,
}

impl CarrierConfig {
    /// Reads YAML.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        // Blank lines in their place keep the numbers of those behind.
        let lines = text
            .lines()
            .map(|line| if prompted(line).is_some() { "" } else { line });
        let text = lines.collect::<Vec<_>>().join("\n");
        let fields: Fields = serde_saphyr::from_str(&text).map_err(|error| {
            let line = error.location().map_or(1, |at| at.line());
            ParseError {
                line: usize::try_from(line).unwrap_or(1).max(1),
                what: format!("expected a configuration in YAML: {}", error.without_snippet()),
            }
        })?;
        let of_k0s = fields.spec.pointer("/network/kubeProxy/disabled");
        Ok(Self {
            leaves_proxy_out: is_on(&fields.disable_kube_proxy) || of_k0s.is_some_and(is_on),
        })
    }
}

/// A flag's value, which may be in quotes.
fn is_on(value: &Value) -> bool {
    value.as_bool() == Some(true) || value.as_str() == Some("true")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn files_of_all_programs_are_read() {
        for (text, leaves_proxy_out) in [
            (
                "$ cat /etc/rancher/k3s/config.yaml\ndisable-kube-proxy: true\ncluster-cidr: 10.42.0.0/16\n",
                true,
            ),
            ("disable-kube-proxy: \"true\"\n", true),
            ("disable-kube-proxy: false\n", false),
            ("flannel-backend: none\ndisable:\n- traefik\n", false),
            (
                "kind: ClusterConfig\nspec:\n  network:\n    kubeProxy:\n      disabled: true\n",
                true,
            ),
            (
                "kind: ClusterConfig\nspec:\n  network:\n    kubeProxy:\n      mode: ipvs\n",
                false,
            ),
        ] {
            let config = CarrierConfig::parse(text).unwrap();
            assert_eq!(config.leaves_proxy_out, leaves_proxy_out, "{text}");
        }
        let error = CarrierConfig::parse("a: 1\ndisable-kube-proxy: [\n").unwrap_err();
        assert!(error.line >= 2, "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(disable-kube-proxy|spec|: |true|\\PC|\n|  |\\[){0,40}") {
            let _ = CarrierConfig::parse(&text);
        }
    }
}
