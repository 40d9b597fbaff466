//! Settings of the kernel: `sysctl -a`, `key = value`, `key: value`, `/proc/sys/...:value` as grep prints it,
//! `==> /proc/sys/... <==` as head prints it, and `cat /proc/sys/...` or `sysctl -n KEY` behind a prompt.
//!
//! Sources: sysctl(8) of procps; the kernel's Documentation/networking/ip-sysctl.rst and
//! nf_conntrack-sysctl.rst.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ParseError,
    prompt::{Piece, invocation, pieces_of},
};
use crate::connection::is_full;
use svcdiag_api::NodeSettings;

/// Whether rules see what a bridge passes on.
const BRIDGE_NETFILTER: &str = "net.bridge.bridge-nf-call-iptables";

/// Settings of a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sysctl {
    /// Values, by key with dots.
    values: BTreeMap<String, String>,
    /// Keys that the kernel does not have.
    absent: BTreeSet<String>,
}

impl Sysctl {
    /// Reads settings.
    ///
    /// # Errors
    /// When no line is one.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut read = Self::default();
        for piece in pieces_of(text, &["sysctl", "cat"]) {
            read.add(&piece);
        }
        if read == Self::default() {
            return Err(ParseError::nothing(text, "output of sysctl, as `key = value`"));
        }
        Ok(read)
    }

    /// A value, by its key with dots.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<i64> {
        self.values.get(key)?.parse().ok()
    }

    /// Whether br_netfilter is not loaded: without it its settings do not exist.
    #[must_use]
    pub fn lacks_bridge_netfilter(&self) -> bool {
        self.absent.contains(BRIDGE_NETFILTER)
    }

    fn add(&mut self, piece: &Piece<'_>) {
        let mut pending = piece.command.map(bare_keys).unwrap_or_default();
        for (_, line) in &piece.output {
            let line = line.trim();
            if let Some(path) = line
                .strip_prefix("==> ")
                .and_then(|rest| rest.strip_suffix(" <=="))
            {
                pending = key_of(path).into_iter().collect();
            } else if let Some((key, value)) = pair(line) {
                self.values.insert(key, value.to_owned());
            } else if line.starts_with("cat:") || line.starts_with("sysctl:") {
                pending.retain(|key| !line.replace('/', ".").contains(key.as_str()));
                self.absent.extend(absent_key(line));
            } else if is_value(line)
                && let Some(key) = pending.pop()
            {
                self.values.insert(key, line.to_owned());
            }
        }
    }

    /// What the text tells of the settings that explain lost packets. What drops packets, as opposed to what
    /// may, cannot be told by sysctl.
    #[must_use]
    pub fn settings(&self) -> NodeSettings {
        let first = |keys: &[&str]| keys.iter().find_map(|key| self.number(key));
        let is_on = |keys: &[&str]| first(keys).map(|value| value != 0);
        let count = first(&[
            "net.netfilter.nf_conntrack_count",
            "net.ipv4.netfilter.ip_conntrack_count",
        ]);
        let max = first(&[
            "net.netfilter.nf_conntrack_max",
            "net.nf_conntrack_max",
            "net.ipv4.netfilter.ip_conntrack_max",
        ]);
        NodeSettings {
            ipv4_forwarding: is_on(&["net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding"]),
            ipv6_forwarding: is_on(&["net.ipv6.conf.all.forwarding"]),
            bridge_netfilter: is_on(&[BRIDGE_NETFILTER]),
            forward_drops: None,
            dead_ends: Vec::new(),
            conntrack_full: count.zip(max).map(|(count, max)| is_full(count, max)),
            reverse_path_drops: None,
        }
    }

    /// Interfaces on which the kernel drops packets that come in by another way than their answers would
    /// leave: the greater one of conf.all and the interface's own rp_filter counts, and 1 is strict.
    #[must_use]
    pub fn strict_reverse_path(&self) -> Vec<&str> {
        let all = self.number("net.ipv4.conf.all.rp_filter").unwrap_or(0);
        let is_strict = |name: &&str| {
            let own = self.number(&format!("net.ipv4.conf.{name}.rp_filter"));
            !matches!(*name, "all" | "default") && own.is_some_and(|own| own.max(all) == 1)
        };
        let interface = |key| str::strip_prefix(key, "net.ipv4.conf.")?.strip_suffix(".rp_filter");
        self.values
            .keys()
            .filter_map(|key| interface(key))
            .filter(is_strict)
            .collect()
    }
}

/// The keys whose values a command prints alone, each on a line, the next one last.
fn bare_keys(command: &str) -> Vec<String> {
    let keys = match invocation(command, &["cat", "sysctl"]) {
        Some(("sysctl", arguments)) if !arguments.contains(&"-n") => Vec::new(),
        Some((_, arguments)) => arguments,
        None => Vec::new(),
    };
    keys.iter().rev().filter_map(|key| key_of(key)).collect()
}

/// The key that a line says does not exist: `cat: /proc/sys/KEY: No such file or directory`, `sysctl: cannot stat
/// /proc/sys/KEY: No such file or directory`, `sysctl: error: 'KEY' is an unknown key`.
fn absent_key(line: &str) -> Option<String> {
    let is_absent = line.ends_with("No such file or directory") || line.ends_with("is an unknown key");
    let mut words = line
        .split_whitespace()
        .map(|word| word.trim_matches([':', '\'', '"']));
    words.find_map(key_of).filter(|_| is_absent)
}

fn pair(line: &str) -> Option<(String, &str)> {
    let (key, value) = line.split_once(['=', ':'])?;
    Some((key_of(key)?, value.trim()))
}

fn is_value(line: &str) -> bool {
    !line.is_empty()
        && line
            .bytes()
            .all(|b| b.is_ascii_digit() || b == b'-' || b == b'\t' || b == b' ')
}

/// A key with dots, from one with dots or slashes; an interface's own dots come out the same either way.
fn key_of(text: &str) -> Option<String> {
    let text = text.trim();
    let key = text.strip_prefix("/proc/sys/").unwrap_or(text).replace('/', ".");
    let is_fit = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
    let is_key = ["net.", "kernel.", "vm.", "fs."]
        .iter()
        .any(|first| key.starts_with(first));
    (is_key && key.chars().all(is_fit)).then_some(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CAPTURE: &str = "net.bridge.bridge-nf-call-iptables = 1\nnet.ipv4.conf.all.forwarding = 1\nnet.ipv4.conf.all.rp_filter = 0\n\
        net.ipv4.conf.cni0.rp_filter = 0\nnet.ipv4.ip_forward = 1\nnet.ipv6.conf.all.forwarding = 1\n\
        net.netfilter.nf_conntrack_count = 185\nnet.netfilter.nf_conntrack_max = 262144\n";

    #[test]
    fn a_capture_is_read() {
        let settings = Sysctl::parse(CAPTURE).unwrap().settings();
        let expected = NodeSettings {
            ipv4_forwarding: Some(true),
            ipv6_forwarding: Some(true),
            bridge_netfilter: Some(true),
            conntrack_full: Some(false),
            ..NodeSettings::default()
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn all_notations_are_read() {
        for text in [
            "net.ipv4.ip_forward=0",
            "net.ipv4.ip_forward: 0",
            "net/ipv4/ip_forward = 0",
            "/proc/sys/net/ipv4/ip_forward:0",
            "==> /proc/sys/net/ipv4/ip_forward <==\n0\n",
            "u@node$ cat /proc/sys/net/ipv4/ip_forward\n0\n",
            "# sysctl -n net.ipv4.ip_forward\n0\n",
            "cat /proc/sys/net/ipv4/ip_forward\n0\n",
            "u@node$ cat /proc/sys/net/bridge/bridge-nf-call-iptables /proc/sys/net/ipv4/ip_forward\n\
             cat: /proc/sys/net/bridge/bridge-nf-call-iptables: No such file or directory\n0\n",
        ] {
            let settings = Sysctl::parse(text).unwrap().settings();
            assert_eq!(settings.ipv4_forwarding, Some(false), "{text}");
            assert_eq!(settings.bridge_netfilter, None, "{text}");
        }
    }

    #[test]
    fn a_full_table_and_strict_interfaces_are_told() {
        let text = "net.netfilter.nf_conntrack_count = 9\nnet.nf_conntrack_max = 9\nnet.ipv4.conf.all.rp_filter = 1\n\
                    net.ipv4.conf.default.rp_filter = 1\nnet.ipv4.conf.eth0.rp_filter = 0\nnet.ipv4.conf.eth1.rp_filter = 2\n";
        let sysctl = Sysctl::parse(text).unwrap();
        assert_eq!(sysctl.settings().conntrack_full, Some(true));
        assert_eq!(sysctl.strict_reverse_path(), ["eth0"]);
    }

    #[test]
    fn without_br_netfilter_its_settings_do_not_exist() {
        for text in [
            "# sysctl net.bridge.bridge-nf-call-iptables\n\
             sysctl: cannot stat /proc/sys/net/bridge/bridge-nf-call-iptables: No such file or directory\n",
            "cat: /proc/sys/net/bridge/bridge-nf-call-iptables: No such file or directory\n",
            "sysctl: error: 'net.bridge.bridge-nf-call-iptables' is an unknown key\n",
        ] {
            assert!(Sysctl::parse(text).unwrap().lacks_bridge_netfilter(), "{text}");
        }
        for text in [
            "net.bridge.bridge-nf-call-iptables = 0\n",
            "net.ipv4.ip_forward = 1\n",
            "net.ipv4.ip_forward = 1\nsysctl: permission denied on key 'net.bridge.bridge-nf-call-iptables'\n",
        ] {
            assert!(!Sysctl::parse(text).unwrap().lacks_bridge_netfilter(), "{text}");
        }
    }

    #[test]
    fn what_is_not_of_sysctl_is_an_error() {
        for text in ["", "hello: 1\n", "sysctl: command not found", "0\n"] {
            assert!(Sysctl::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(?s).{0,300}") {
            let _ = Sysctl::parse(&text).map(|s| (s.settings(), s.strict_reverse_path().len()));
        }

        #[test]
        fn any_value_is_survived(name in "[a-z.é/]{0,10}", value in ".{0,20}") {
            let text = format!("net.ipv4.conf.{name}.rp_filter = {value}\nnet.ipv4.ip_forward = {value}");
            let _ = Sysctl::parse(&text).map(|s| (s.settings(), s.strict_reverse_path().len()));
        }
    }
}
