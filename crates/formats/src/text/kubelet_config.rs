//! The kubelet's configuration: its file, the ConfigMap of kubeadm, or what /configz answers.
//!
//! Source: k8s.io/kubelet/config/v1beta1 (`KubeletConfiguration`).

use std::net::IpAddr;

use serde::Deserialize;

use super::{ParseError, kubelet_log::HairpinMode, prompt::prompted};

/// What the configuration says of Services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubeletConfig {
    /// clusterDNS: name servers of Pods.
    pub cluster_dns: Vec<IpAddr>,
    /// clusterDomain: suffix of Services' names.
    pub cluster_domain: Option<String>,
    /// hairpinMode; runtimes other than Docker do not care.
    pub hairpin_mode: Option<HairpinMode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    kind: Option<String>,
    #[serde(rename = "clusterDNS")]
    cluster_dns: Option<Vec<String>>,
    cluster_domain: Option<String>,
    hairpin_mode: Option<String>,
    /// What /configz wraps it in.
    kubeletconfig: Option<Box<Fields>>,
    /// A ConfigMap's.
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    kubelet: Option<String>,
}

impl KubeletConfig {
    /// Reads YAML or JSON.
    ///
    /// # Errors
    /// When it is neither, or not the kubelet's.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        // Blank lines in their place keep the numbers of those behind.
        let lines = text
            .lines()
            .map(|line| if prompted(line).is_some() { "" } else { line });
        let fields = read(&lines.collect::<Vec<_>>().join("\n"))?;
        fields
            .config()?
            .ok_or_else(|| ParseError::nothing(text, "a KubeletConfiguration"))
    }
}

impl Fields {
    fn config(self) -> Result<Option<KubeletConfig>, ParseError> {
        if let Some(inner) = self.kubeletconfig {
            return inner.config();
        }
        if let Some(file) = self.data.and_then(|data| data.kubelet) {
            let inner = read(&file)?;
            // A file in a file in a file is nobody's.
            return if inner.data.is_some() {
                Ok(None)
            } else {
                inner.config()
            };
        }
        let is_its = match &self.kind {
            Some(kind) => kind == "KubeletConfiguration",
            None => {
                self.cluster_dns.is_some() || self.cluster_domain.is_some() || self.hairpin_mode.is_some()
            }
        };
        let servers = self.cluster_dns.unwrap_or_default();
        Ok(is_its.then(|| KubeletConfig {
            cluster_dns: servers
                .iter()
                .filter_map(|address| address.parse().ok())
                .collect(),
            cluster_domain: self.cluster_domain.filter(|domain| !domain.is_empty()),
            hairpin_mode: self
                .hairpin_mode
                .filter(|m| !m.is_empty())
                .map(|m| HairpinMode::parse(&m)),
        }))
    }
}

fn read(text: &str) -> Result<Fields, ParseError> {
    let expected = |line: usize, why: &dyn std::fmt::Display| ParseError {
        line: line.max(1),
        what: format!("expected a KubeletConfiguration in YAML or JSON: {why}"),
    };
    let is_json = text.trim_start().starts_with('{');
    if let (true, Some(start), Some(end)) = (is_json, text.find('{'), text.rfind('}')) {
        let before = text.get(..start).map_or(0, |before| before.matches('\n').count());
        let json = text.get(start..=end).unwrap_or_default();
        return serde_json::from_str(json).map_err(|error| expected(before + error.line(), &error));
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map_or(1, |at| at.line());
        expected(usize::try_from(line).unwrap_or(1), &error.without_snippet())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "u@node$ cat /var/lib/kubelet/config.yaml\napiVersion: kubelet.config.k8s.io/v1beta1\n\
        kind: KubeletConfiguration\nauthentication:\n  anonymous: {enabled: false}\nclusterDNS: [10.96.0.10, nonsense]\n\
        clusterDomain: cluster.local\nevictionHard: {memory.available: 100Mi, nodefs.available: 1%}\nhairpinMode: hairpin-veth\n";

    #[test]
    fn the_file_is_read() {
        let config = KubeletConfig::parse(FILE).unwrap();
        assert_eq!(config.cluster_dns, ["10.96.0.10".parse::<IpAddr>().unwrap()]);
        assert_eq!(config.cluster_domain.as_deref(), Some("cluster.local"));
        assert_eq!(config.hairpin_mode, Some(HairpinMode::HairpinVeth));
    }

    #[test]
    fn configz_and_the_config_map_are_read() {
        let configz = r#"{"kubeletconfig":{"kind":"KubeletConfiguration","enableServer":true,"port":10250,"clusterDomain":"cluster.local","clusterDNS":["10.96.0.10"],"hairpinMode":"promiscuous-bridge"}}"#;
        let config = KubeletConfig::parse(&format!(
            "# kubectl get --raw /api/v1/nodes/n/proxy/configz\n{configz}\n"
        ))
        .unwrap();
        assert_eq!(config.hairpin_mode, Some(HairpinMode::PromiscuousBridge));
        let map = "apiVersion: v1\nkind: ConfigMap\ndata:\n  kubelet: |\n    kind: KubeletConfiguration\n    clusterDomain: corp.example\n";
        assert_eq!(
            KubeletConfig::parse(map).unwrap().cluster_domain.as_deref(),
            Some("corp.example")
        );
    }

    #[test]
    fn what_is_not_the_kubelets_is_an_error() {
        for text in [
            "",
            "kind: Pod\n",
            "just words",
            "{\"a\": 1}",
            "a: [",
            "{",
            "kind: ConfigMap\ndata: {}\n",
        ] {
            assert!(KubeletConfig::parse(text).is_err(), "{text}");
        }
        let broken = FILE.replace("clusterDomain: cluster.local", "clusterDomain: [");
        assert!(KubeletConfig::parse(&broken).unwrap_err().line >= 7);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(?s).{0,200}") {
            let _ = KubeletConfig::parse(&text);
        }

        #[test]
        fn damaged_files_are_survived(at in 0_usize..330, c: char, cut in 0_usize..400) {
            let mut chars: Vec<char> = FILE.chars().take(cut).collect();
            if let Some(place) = chars.get_mut(at) {
                *place = c;
            }
            let _ = KubeletConfig::parse(&chars.into_iter().collect::<String>());
        }
    }
}
