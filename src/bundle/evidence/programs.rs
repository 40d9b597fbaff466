//! The programs of a node, as lists of processes, logs and configurations show them.

use super::{
    files::Form,
    text::{Parsed, Text},
};
use crate::{
    formats::text::{
        kube_proxy_log::KubeProxyLog,
        kubelet_config::KubeletConfig,
        kubelet_log::KubeletLog,
        ps::{Process, Ps},
    },
    kube_proxy::ProxyMode,
};

/// What is known of kube-proxy and of the kubelet.
#[derive(Default)]
pub(super) struct Programs<'a> {
    /// Of several lists each may show what others leave out.
    pub processes: Vec<&'a Ps>,
    /// Whether a list of processes was cut.
    pub is_cut: bool,
    /// Whether the program that would carry kube-proxy was told to leave it out.
    pub leaves_proxy_out: bool,
    /// kube-proxy's log and its file. Rotated logs have longer names, which come behind.
    pub log: Option<(&'a Parsed<'a>, &'a KubeProxyLog)>,
    /// The mode of kube-proxy as its own port says.
    pub said_mode: Option<&'a ProxyMode>,
    /// Whether its livez answered that it is well.
    pub lives: bool,
    pub kubelet_log: Option<&'a KubeletLog>,
    pub kubelet_config: Option<&'a KubeletConfig>,
    /// Whether the kubelet leaves bridges to a plugin of CNI, as its log says.
    pub is_cni: bool,
}

impl<'a> Programs<'a> {
    /// Their forms, in the order in which they are told of.
    pub(super) const FORMS: [Form; 5] = [
        Form::Processes,
        Form::KubeProxyLog,
        Form::KubeProxyMode,
        Form::KubeletLog,
        Form::KubeletConfig,
    ];

    pub(super) fn of(files: &'a [Parsed<'a>], leaves_proxy_out: bool) -> Self {
        let mut programs = Self {
            leaves_proxy_out,
            is_cut: files.iter().any(|f| f.form == Form::Processes && f.is_cut),
            ..Self::default()
        };
        for file in files {
            match &file.text {
                Text::Processes(ps) => programs.processes.push(ps),
                Text::KubeProxyLog(log) => programs.log = programs.log.or(Some((file, log))),
                Text::KubeProxyMode(mode) => programs.said_mode = programs.said_mode.or(Some(mode)),
                Text::KubeProxyLive(lives) => programs.lives |= lives,
                Text::KubeletLog { log, is_cni } => {
                    programs.kubelet_log = programs.kubelet_log.or(log.as_ref());
                    programs.is_cni |= is_cni;
                }
                Text::KubeletConfig(config) => programs.kubelet_config = Some(config),
                _ => {}
            }
        }
        programs
    }

    /// The mode of kube-proxy: what it says comes before what it logged, and that before what it was told.
    pub(super) fn mode(&self) -> Option<ProxyMode> {
        let logged = || self.kube_proxy_log()?.mode.clone();
        let configured = || ProxyMode::parse(self.kube_proxy()?.flag("proxy-mode")?);
        self.said_mode.cloned().or_else(logged).or_else(configured)
    }

    /// kube-proxy, or the program that carries it.
    pub(super) fn kube_proxy(&self) -> Option<&'a Process> {
        let is_it = |p: &&Process| p.program() == "kube-proxy" || !self.leaves_proxy_out;
        self.processes.iter().filter_map(|ps| ps.kube_proxy()).find(is_it)
    }

    /// Its log.
    pub(super) fn kube_proxy_log(&self) -> Option<&'a KubeProxyLog> {
        self.log.map(|(_, log)| log)
    }

    /// The kubelet's process.
    pub(super) fn kubelet(&self) -> Option<&'a Process> {
        self.processes.iter().find_map(|ps| ps.program("kubelet"))
    }

    /// What the log says of kube-proxy not knowing which addresses are Pods'.
    pub(super) fn masquerades_nothing(&self) -> Option<String> {
        let (line, words) = self.kube_proxy_log()?.undetected.as_ref()?;
        Some(format!("line {line} of its log says \"{words}\""))
    }
}
