//! Which files of a bundle hold what.

use std::collections::BTreeMap;

use super::super::{Problem, files::File};

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Processes,
    KubeProxyLog,
    KubeProxyMode,
    KubeProxyLive,
    KubeletLog,
    KubeletConfig,
    /// Of a program that carries kube-proxy.
    CarrierConfig,
    /// Of the backend that the node's iptables is set to, whichever that is.
    IptablesSave,
    Ip6tablesSave,
    NftSave,
    LegacySave,
    Nft,
    NftJson,
    VirtualServers,
    IpSets,
    Links,
    Settings,
    Conntrack,
    Names,
    Requests,
    ResolvConf,
    KernelLog,
    Sockets,
}

/// The beginnings of file names, the longer ones first where one begins another.
const FORMS: [(&str, Form); 38] = [
    ("ps", Form::Processes),
    ("kube-proxy.log", Form::KubeProxyLog),
    ("kube-proxy-log", Form::KubeProxyLog),
    ("proxymode", Form::KubeProxyMode),
    ("proxy-mode", Form::KubeProxyMode),
    ("proxy-10256-livez", Form::KubeProxyLive),
    ("livez", Form::KubeProxyLive),
    ("kubelet.log", Form::KubeletLog),
    ("kubelet-log", Form::KubeletLog),
    ("kubelet-config", Form::KubeletConfig),
    ("k3s-config", Form::CarrierConfig),
    ("rke2-config", Form::CarrierConfig),
    ("k0s-config", Form::CarrierConfig),
    ("iptables-legacy-save", Form::LegacySave),
    ("iptables-save", Form::IptablesSave),
    ("iptables-nft-save", Form::NftSave),
    ("ip6tables-save", Form::Ip6tablesSave),
    ("nft", Form::Nft),
    ("ipvsadm", Form::VirtualServers),
    ("ip_vs", Form::VirtualServers),
    ("ipset", Form::IpSets),
    ("hairpin_mode", Form::Links),
    ("bridge-link", Form::Links),
    ("ip-d-link", Form::Links),
    ("ip-link", Form::Links),
    ("ifconfig", Form::Links),
    ("sysctl", Form::Settings),
    ("conntrack", Form::Conntrack),
    ("nslookup", Form::Names),
    ("dig", Form::Names),
    ("curl", Form::Requests),
    ("wget", Form::Requests),
    ("resolv.conf", Form::ResolvConf),
    ("ss", Form::Sockets),
    ("netstat", Form::Sockets),
    ("dmesg", Form::KernelLog),
    ("kern.log", Form::KernelLog),
    ("journalctl-k", Form::KernelLog),
];

impl Form {
    /// By the name of the file, whatever its ending.
    fn of(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        // Of the tables' names alone nothing follows, and the kubelet is not the kernel.
        if name.starts_with("nft-list-tables") || name.starts_with("journalctl-ku") {
            return None;
        }
        let form = FORMS.iter().find(|(start, _)| name.starts_with(start))?.1;
        Some(match form {
            Self::Nft if name.ends_with(".json") => Self::NftJson,
            other => other,
        })
    }
}

/// A file of a node or of a Pod.
#[derive(Clone, Copy, Debug)]
pub(super) struct TextFile<'a> {
    pub path: &'a str,
    pub text: &'a str,
    pub form: Form,
    /// Whether the end is missing, so that what is not there proves nothing.
    pub is_cut: bool,
}

impl TextFile<'_> {
    pub(super) fn problem(&self, why: impl ToString) -> Problem {
        Problem {
            path: self.path.to_owned(),
            what: why.to_string(),
        }
    }
}

/// The text files of a bundle, by whom they are of.
#[derive(Debug, Default)]
pub(super) struct Evidence<'a> {
    pub nodes: BTreeMap<&'a str, Vec<TextFile<'a>>>,
    /// By namespace and name.
    pub pods: BTreeMap<(&'a str, &'a str), Vec<TextFile<'a>>>,
}

impl<'a> Evidence<'a> {
    pub(super) fn of(files: &'a [File]) -> Self {
        let mut evidence = Self::default();
        for file in files {
            let parts: Vec<&str> = file.path.split('/').collect();
            let Some(form) = parts.last().and_then(|name| Form::of(name)) else {
                continue;
            };
            let (text, is_cut) = lines(&file.text, form);
            let text = TextFile {
                path: &file.path,
                text,
                form,
                is_cut,
            };
            match parts.as_slice() {
                ["nodes", node, _] => evidence.nodes.entry(node).or_default().push(text),
                ["pods", namespace, pod, _] => {
                    evidence.pods.entry((namespace, pod)).or_default().push(text);
                }
                _ => {}
            }
        }
        evidence
    }
}

/// The whole lines of a text, and whether there is more behind them: commands end their last line.
fn lines(text: &str, form: Form) -> (&str, bool) {
    // These two are a word without a line's end, and JSON that was cut is no JSON.
    let is_other = matches!(
        form,
        Form::KubeProxyMode | Form::KubeProxyLive | Form::NftJson | Form::KubeletConfig | Form::CarrierConfig
    );
    let end = text.rfind('\n').map_or(0, |at| at + 1);
    if is_other || end == text.len() {
        (text, false)
    } else {
        (text.get(..end).unwrap_or_default(), true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_the_beginning_of_their_names() {
        let forms = [
            ("ps-auxw.txt", Some(Form::Processes)),
            ("kube-proxy.log.head.txt", Some(Form::KubeProxyLog)),
            ("kube-proxy-config.yaml", None),
            ("proxyMode.txt", Some(Form::KubeProxyMode)),
            ("iptables-save-c.txt", Some(Form::IptablesSave)),
            ("iptables-legacy-save.txt", Some(Form::LegacySave)),
            ("nft-list-ruleset.json", Some(Form::NftJson)),
            ("nft-list-tables.txt", None),
            ("resolv.conf", Some(Form::ResolvConf)),
            ("dmesg-T.txt", Some(Form::KernelLog)),
            ("journalctl-kubelet.txt", None),
            ("README", None),
        ];
        for (name, form) in forms {
            assert_eq!(Form::of(name), form, "{name}");
        }
    }
}
