//! kube-proxy's log: its mode, the endpoints that it set, its way to the API server, the conntrack binary.
//!
//! Sources: Kubernetes' cmd/kube-proxy/app/server*.go (modes and fall-backs, 1.1 to 1.36),
//! pkg/proxy/endpointslicecache.go and older pkg/proxy/iptables/proxier.go (endpoints), client-go's
//! tools/cache/reflector.go (errors), pkg/proxy/conntrack (the binary, which 1.32 no longer runs).

use std::{collections::BTreeMap, net::SocketAddr};

use svcdiag_kube_proxy::ProxyMode;

pub use super::api_errors::{ApiError, ApiErrorKind};
use super::{
    LogTime, ParseError,
    api_errors::{api_error, is_from_api},
    klog::{self, Entry},
    kube_proxy_faults::Faults,
};

/// What kube-proxy logs when it starts, each once but for the flags. Newer versions name the version behind the
/// mode, and look for their Node before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Flag,
    Container,
    /// `"Using iptables proxy"`, since 1.24.
    Opening,
    /// `"Using iptables Proxier"`.
    Mode,
    Version,
}

impl Sign {
    fn of(message: &str) -> Option<Self> {
        [
            ("FLAG: --", Self::Flag),
            ("Running in resource-only container", Self::Container),
            ("Version info", Self::Version),
        ]
        .into_iter()
        .find(|(words, _)| message.contains(words))
        .map(|(_, sign)| sign)
        .or_else(|| mode(message, " Proxier").map(|_| Self::Mode))
        .or_else(|| opening(message).map(|_| Self::Opening))
    }
}

fn opening(message: &str) -> Option<ProxyMode> {
    mode(message, " proxy").filter(ProxyMode::is_known)
}

/// The mode of `Using MODE Proxier`.
fn mode(message: &str, behind: &str) -> Option<ProxyMode> {
    let name = between(message, "Using ", behind)?;
    let is_word = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric());
    ProxyMode::parse(name).filter(|_| is_word)
}

/// What a log says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubeProxyLog {
    /// The mode, as kube-proxy last said it.
    pub mode: Option<ProxyMode>,
    /// The mode that was asked for and that it fell back from.
    pub fell_back_from: Option<ProxyMode>,
    /// The endpoints that it last set, by Service port. Empty where it logs too little (below -v=3), which
    /// proves nothing. Newer versions do not log that the last endpoint went.
    pub endpoints: BTreeMap<ServicePortName, Vec<SocketAddr>>,
    /// The last error of its way to the API server.
    pub api: Option<ApiError>,
    /// The first line since the last start that says that the conntrack binary is missing.
    pub conntrack_missing: Option<usize>,
    /// The line since the last start that says that it does not know which addresses are Pods', and its words.
    pub undetected: Option<(usize, String)>,
    /// Its own trouble since the last start.
    pub faults: Faults,
    /// Whether anything ever came from the API server.
    pub heard: bool,
    /// The signs of the last start that were read.
    start: Vec<Sign>,
}

/// Most of a line's words that are kept.
const MAX_WORDS: usize = 160;

/// A port of a Service as kube-proxy calls it: namespace/name:port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePortName {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub name: String,
    /// Name of the port; empty where it has none.
    pub port: String,
}

impl ServicePortName {
    fn parse(text: &str) -> Option<Self> {
        let (namespace, rest) = text.trim_matches('"').split_once('/')?;
        let (name, port) = rest.split_once(':').unwrap_or((rest, ""));
        Some(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            port: port.to_owned(),
        })
    }
}

impl KubeProxyLog {
    /// Reads a log.
    ///
    /// # Errors
    /// When no line looks like one of kube-proxy.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut log = Self::default();
        klog::read_all(text, "a log of kube-proxy", |line, entry| log.read(line, entry))?;
        Ok(log)
    }

    /// The endpoints last set for a Service port; None where the log does not say.
    #[must_use]
    pub fn endpoints_of(&self, namespace: &str, name: &str, port: &str) -> Option<&[SocketAddr]> {
        let [namespace, name, port] = [namespace, name, port].map(str::to_owned);
        let key = ServicePortName {
            namespace,
            name,
            port,
        };
        self.endpoints.get(&key).map(Vec::as_slice)
    }

    /// Takes in a line; false where it says nothing.
    fn read(&mut self, line: usize, entry: &Entry<'_>) -> bool {
        let message = entry.message.as_ref();
        let sign = Sign::of(message);
        if let Some(sign) = sign {
            self.begin(sign);
        }
        // A right that is denied is an error on the way to the API server as well.
        let is_trouble = self.faults.read(line, entry);
        if message.contains("etect-local-mode") && message.contains(", but no ") {
            let words: String = message.chars().take(MAX_WORDS).collect();
            self.undetected = Some((line, words.trim_matches('"').to_owned()));
        } else if let Some(mode) = mode(message, " Proxier").or_else(|| opening(message)) {
            self.mode = Some(mode);
        } else if sign.is_some() {
            // It tells of a start and no more.
        } else if let Some(asked) = fell_back_from(entry) {
            self.fell_back_from = ProxyMode::parse(asked);
        } else if let Some((port, endpoints)) = endpoints(entry) {
            self.set(port, endpoints);
            self.alive(line, entry.at);
        } else if let Some(kind) = api_error(message) {
            self.api = Some(ApiError {
                kind,
                line,
                at: entry.at,
                recovered: None,
            });
        } else if message.contains("conntrack")
            && (message.contains("executable file not found") || message.contains("is not installed"))
        {
            self.conntrack_missing.get_or_insert(line);
        } else if is_from_api(message) {
            self.alive(line, entry.at);
        } else {
            return is_trouble;
        }
        true
    }

    /// Takes in a sign of a start. One that is there already is of another start, which has none of the earlier
    /// one's trouble.
    fn begin(&mut self, sign: Sign) {
        let is_another = match sign {
            // Whatever stands before these is of an earlier start.
            Sign::Flag => self.start.iter().any(|known| *known != Sign::Flag) || self.start.is_empty(),
            Sign::Container | Sign::Opening => {
                [sign, Sign::Mode].iter().any(|known| self.start.contains(known)) || self.start.is_empty()
            }
            Sign::Mode | Sign::Version => self.start.contains(&sign),
        };
        if is_another {
            self.start.clear();
            self.conntrack_missing = None;
            self.undetected = None;
            self.faults = Faults::default();
        }
        if !self.start.contains(&sign) {
            self.start.push(sign);
        }
    }

    fn set(&mut self, port: ServicePortName, new: Vec<SocketAddr>) {
        let known = self.endpoints.entry(port).or_default();
        // With two IP families each is set on a line of its own.
        let (v4, v6) = (
            new.iter().any(SocketAddr::is_ipv4),
            new.iter().any(SocketAddr::is_ipv6),
        );
        known.retain(|old| (v4 && !v6 && old.is_ipv6()) || (v6 && !v4 && old.is_ipv4()));
        known.extend(new);
    }

    fn alive(&mut self, line: usize, at: Option<LogTime>) {
        self.heard = true;
        if let Some(error) = &mut self.api {
            error.recovered = Some((line, at));
        }
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0)
}

/// The mode that was asked for, where the line says that another is taken; empty for none.
fn fell_back_from<'a>(entry: &'a Entry<'_>) -> Option<&'a str> {
    let message = entry.message.as_ref();
    if message.contains("assuming iptables proxy") {
        // `Flag proxy-mode="x" unknown`, `Unknown proxy mode "x"`, `"Unknown proxy mode, ..." proxyMode="x"`.
        return entry
            .value("proxyMode")
            .or_else(|| between(message, "proxy-mode=\"", "\""))
            .or_else(|| between(message, "proxy mode \"", "\""));
    }
    let lower = message.find("an't use ").and_then(|at| message.get(at + 9..))?;
    let mode = lower.trim_start_matches("the ").split_once(" proxier")?.0;
    (message.contains("trying ") || message.contains("using ") || message.contains("fall")).then_some(mode)
}

/// `Setting endpoints for "ns/name:port" to [a:p]`, the same without quotes, and
/// `"Setting endpoints for service port name" portName="ns/name:port" endpoints=["a:p"]`; removals too.
fn endpoints(entry: &Entry<'_>) -> Option<(ServicePortName, Vec<SocketAddr>)> {
    let message = entry.message.as_ref();
    let is_removal = message.contains("Removing endpoints");
    if !is_removal && !message.contains("Setting endpoints") {
        return None;
    }
    let structured = entry.value("portName").or_else(|| entry.value("servicePortName"));
    let port = match structured {
        Some(port) => port,
        None => message
            .split_once(" endpoints for ")?
            .1
            .split_whitespace()
            .next()?,
    };
    let port = ServicePortName::parse(port)?;
    if is_removal {
        return Some((port, Vec::new()));
    }
    let list = match structured {
        Some(_) => message.split_once("endpoints=")?.1,
        None => message.split_once(" to ")?.1,
    };
    Some((port, addresses(list.strip_prefix('[')?)))
}

/// Addresses up to the end of the list: IPv6 ones have brackets of their own, old versions wrote
/// `{10.0.0.1:80 true}`.
fn addresses(list: &str) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for word in list.split([' ', ',']) {
        let word = word.trim_matches(['"', '{', '}', '\\']);
        let address = word.parse().or_else(|_| {
            word.trim_end_matches(']')
                .trim_matches(['"', '{', '}', '\\'])
                .parse()
        });
        match address {
            Ok(address) => found.push(address),
            Err(_) if matches!(word, "true" | "false" | "") => {}
            Err(_) => break,
        }
    }
    found
}

#[cfg(test)]
#[path = "kube_proxy_log_tests.rs"]
mod tests;
