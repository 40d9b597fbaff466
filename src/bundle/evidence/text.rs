//! A saved text, read once: what a file of a node or of a Pod says, as one typed value.
//!
//! Whatever is concluded from the files is concluded from these values; no text is looked into again.

use std::{fmt::Display, net::IpAddr};

use jiff::Timestamp;

use super::{
    super::Problem,
    files::{Form, TextFile},
    saved_rules::SavedRules,
};
use crate::{
    api::ListeningSocket,
    formats::{
        resolv::ResolvConf,
        rules::{
            forwarding::{Forwarding, of_listing},
            ipset::{self, IpSets},
            ipvsadm::{self, Listing},
        },
        text::{
            bridge::{self, Link},
            conntrack::{self, Entry},
            http::{self, Request},
            kernel_log::KernelLog,
            kube_proxy_log::KubeProxyLog,
            kubelet_config::KubeletConfig,
            kubelet_log::KubeletLog,
            names::{self, NameLookup},
            offload,
            prompt::prompted,
            ps::Ps,
            resolv_conf,
            routes::Routes,
            sockets,
            sysctl::Sysctl,
        },
    },
    kube_proxy::ProxyMode,
};

/// What a file says.
pub(super) enum Text {
    Processes(Ps),
    KubeProxyLog(Box<KubeProxyLog>),
    KubeProxyMode(ProxyMode),
    /// Whether livez answers that kube-proxy is well.
    KubeProxyLive(bool),
    KubeletLog {
        log: Option<KubeletLog>,
        /// Whether a plugin of CNI has the network: then the kubelet leaves bridges alone, whatever it logs of hairpins.
        is_cni: bool,
    },
    KubeletConfig(KubeletConfig),
    Rules(Box<SavedRules>),
    VirtualServers {
        listing: Option<Listing>,
        /// Whether a command asked for a part of the list.
        is_choice: bool,
    },
    IpSets(IpSets),
    Links(Vec<Link>),
    Settings(Sysctl),
    KernelLog(KernelLog),
    Conntrack(Vec<Entry>),
    Names(Vec<NameLookup>),
    Requests(Vec<Request>),
    ResolvConf(ResolvConf),
    Sockets(Vec<ListeningSocket>),
    /// What a listing shows of forwarded packets.
    Forwarding(Forwarding),
    Routes(Routes),
    /// Links, and whether they leave checksums to the card.
    Offload(Vec<(String, bool)>),
    /// Nothing that anything follows from.
    Unread,
}

/// A file that was read.
pub(super) struct Parsed<'a> {
    pub path: &'a str,
    pub form: Form,
    /// Whether the end is missing, so that what is not there proves nothing.
    pub is_cut: bool,
    pub text: Text,
    /// Why it was not understood, if so.
    pub problem: Option<Problem>,
}

/// What has to be known to read texts.
pub(super) struct Context {
    pub now: Timestamp,
    /// Addresses of the Service's endpoints.
    pub endpoints: Vec<IpAddr>,
}

impl<'a> Parsed<'a> {
    /// Reads a file.
    pub(super) fn of(file: &TextFile<'a>, context: &Context) -> Self {
        let (text, why) = parse(file, context);
        Self {
            path: file.path,
            form: file.form,
            is_cut: file.is_cut,
            text,
            problem: why.map(|why| file.problem(why)),
        }
    }

    pub(super) fn problem(&self, what: impl Into<String>) -> Problem {
        Problem {
            path: self.path.to_owned(),
            what: what.into(),
        }
    }
}

/// Why files of some forms were not understood, form after form.
pub(super) fn problems(files: &[Parsed<'_>], forms: &[Form]) -> Vec<Problem> {
    let of = |form: &Form| {
        let form = *form;
        files.iter().filter(move |file| file.form == form)
    };
    let files = forms.iter().flat_map(of);
    files.filter_map(|file| file.problem.clone()).collect()
}

/// What a text says; and why it was not understood, if so.
fn parse(file: &TextFile<'_>, context: &Context) -> (Text, Option<String>) {
    let text = file.text;
    match file.form {
        Form::Processes => read(Ps::parse(text), Text::Processes),
        Form::KubeProxyLog => read(KubeProxyLog::parse(text), |log| Text::KubeProxyLog(Box::new(log))),
        Form::KubeProxyMode => read(mode(text), Text::KubeProxyMode),
        Form::KubeProxyLive => (Text::KubeProxyLive(is_live(text)), None),
        Form::KubeletLog => {
            let (log, why) = split(KubeletLog::parse(text));
            let is_cni = text.contains("managed by cni");
            (Text::KubeletLog { log, is_cni }, why)
        }
        Form::KubeletConfig => read(KubeletConfig::parse(text), Text::KubeletConfig),
        Form::IptablesSave
        | Form::Ip6tablesSave
        | Form::NftSave
        | Form::LegacySave
        | Form::Nft
        | Form::NftJson => {
            let (rules, why) = SavedRules::parse(file, &context.endpoints);
            (Text::Rules(Box::new(rules)), why)
        }
        Form::VirtualServers => {
            let (listing, why) = split(ipvsadm::parse(text));
            let is_choice = text.lines().any(ipvsadm::is_choice);
            (Text::VirtualServers { listing, is_choice }, why)
        }
        // Of a set that was cut nobody knows what is not in it.
        Form::IpSets if file.is_cut => (Text::Unread, None),
        Form::IpSets => read(ipset::parse(text), Text::IpSets),
        Form::Links => read(bridge::parse(text), Text::Links),
        Form::Settings => read(Sysctl::parse(text), Text::Settings),
        Form::KernelLog => (Text::KernelLog(KernelLog::parse(text, context.now)), None),
        Form::Conntrack => read(conntrack::parse(text), Text::Conntrack),
        Form::Names => read(names::parse(text), Text::Names),
        Form::Requests => read(http::parse(text), Text::Requests),
        Form::ResolvConf => read(resolv_conf::parse(text), Text::ResolvConf),
        Form::Sockets => read(sockets::parse(text), Text::Sockets),
        Form::Listing => listing(text, &context.endpoints),
        Form::Routes => read(Routes::parse(text), Text::Routes),
        Form::Offload => read(offload::parse(text), Text::Offload),
        // These are of the whole cluster, and read before any node is.
        Form::CarrierConfig | Form::DnsLog => (Text::Unread, None),
    }
}

/// What the listing of a whole table filter shows. Of other tables, and of chosen lines, too much is missing.
fn listing(text: &str, endpoints: &[IpAddr]) -> (Text, Option<String>) {
    let is_other = |command: &str| {
        let mut words = command.split_whitespace();
        let is_other_table = words
            .find(|word| matches!(*word, "-t" | "--table"))
            .is_some_and(|_| words.next() != Some("filter"));
        is_other_table || command.contains('|')
    };
    let is_chosen = text.lines().filter_map(prompted).any(is_other);
    match of_listing(text, endpoints).filter(|_| !is_chosen) {
        Some(forwarding) => (Text::Forwarding(forwarding), None),
        None => {
            let why = "only the whole listing of table filter is read; save the output of `iptables-save`";
            (Text::Unread, Some(why.to_owned()))
        }
    }
}

fn read<T, E: Display>(parsed: Result<T, E>, text: impl FnOnce(T) -> Text) -> (Text, Option<String>) {
    let (value, why) = split(parsed);
    (value.map_or(Text::Unread, text), why)
}

/// A value, else why there is none.
fn split<T, E: Display>(parsed: Result<T, E>) -> (Option<T>, Option<String>) {
    match parsed {
        Ok(value) => (Some(value), None),
        Err(error) => (None, Some(error.to_string())),
    }
}

/// The mode that kube-proxy's port names on a line of its own.
fn mode(text: &str) -> Result<ProxyMode, &'static str> {
    let lines = text.lines().rev().map(str::trim);
    let last = lines.filter_map(ProxyMode::parse).find(ProxyMode::is_known);
    last.ok_or("no line names a mode of kube-proxy (iptables, nftables, ipvs, ...)")
}

/// `200`, or the body of a healthy livez, which is JSON in newer versions.
fn is_live(text: &str) -> bool {
    let has_status = text
        .lines()
        .any(|line| line.starts_with("HTTP/") && line.contains(" 200"));
    has_status
        || text.trim() == "ok"
        || text.contains("\"healthy\": true")
        || text.contains("\"healthy\":true")
}
