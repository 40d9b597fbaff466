//! Redaction of text in a bundle: everything that may be a secret, rather too much than too little.
//!
//! A bundle is sent to strangers. Of configurations, only what is known to be harmless is kept ([`corefile`],
//! [`kube_proxy`]); in all other text, anything that looks like a secret is replaced ([`text`]).

use std::sync::OnceLock;

use regex::Regex;
use serde_json::Value;

/// Replacement for a secret.
const LEFT_OUT: &str = "(left out)";

/// Plugins of CoreDNS whose arguments are addresses, names, numbers and durations, with their options. Plugins that use
/// credentials for clouds, databases or other servers are not included.
const PLUGINS: [(&str, &[&str]); 21] = [
    ("autopath", &[]),
    ("bind", &["except"]),
    ("bufsize", &[]),
    (
        "cache",
        &[
            "success",
            "denial",
            "prefetch",
            "serve_stale",
            "servfail",
            "disable",
            "keepttl",
        ],
    ),
    ("cancel", &[]),
    ("errors", &["consolidate", "stacktrace"]),
    (
        "forward",
        &[
            "except",
            "force_tcp",
            "prefer_udp",
            "expire",
            "max_fails",
            "max_idle_conns",
            "policy",
            "health_check",
            "max_concurrent",
            "next",
            "failfast_all_unhealthy_upstreams",
        ],
    ),
    ("health", &["lameduck"]),
    ("hosts", &["ttl", "no_reverse", "reload", "fallthrough"]),
    ("import", &[]),
    (
        "kubernetes",
        &[
            "namespaces",
            "namespace_labels",
            "labels",
            "pods",
            "endpoint_pod_names",
            "ttl",
            "noendpoints",
            "fallthrough",
            "ignore",
            "multicluster",
            "startup_timeout",
            "apiserver_qps",
            "apiserver_burst",
        ],
    ),
    ("loadbalance", &[]),
    ("local", &[]),
    ("log", &["class"]),
    ("loop", &[]),
    ("minimal", &[]),
    ("nsid", &[]),
    ("prometheus", &[]),
    ("ready", &[]),
    ("reload", &[]),
    ("rewrite", &[]),
];

/// Keys of kube-proxy's configuration that are kept, with the kept keys below them.
const OF_KUBE_PROXY: [&str; 58] = [
    "apiVersion",
    "kind",
    "bindAddress",
    "bindAddressHardFail",
    "bridgeInterface",
    "burst",
    "clientConnection",
    "clusterCIDR",
    "configSyncPeriod",
    "conntrack",
    "contentType",
    "acceptContentTypes",
    "qps",
    "detectLocal",
    "detectLocalMode",
    "interfaceNamePrefix",
    "enableProfiling",
    "excludeCIDRs",
    "healthzBindAddress",
    "hostnameOverride",
    "iptables",
    "ipvs",
    "kubeconfig",
    "localhostNodePorts",
    "masqueradeAll",
    "masqueradeBit",
    "maxPerCore",
    "max",
    "metricsBindAddress",
    "min",
    "minSyncPeriod",
    "mode",
    "nftables",
    "nodePortAddresses",
    "oomScoreAdj",
    "portRange",
    "scheduler",
    "showHiddenMetricsForVersion",
    "strictARP",
    "syncPeriod",
    "tcpBeLiberal",
    "tcpCloseWaitTimeout",
    "tcpEstablishedTimeout",
    "tcpFinTimeout",
    "tcpTimeout",
    "udpIdleTimeout",
    "udpStreamTimeout",
    "udpTimeout",
    "winkernel",
    "windowsRunAsService",
    "enableDSR",
    "forwardHealthCheckVip",
    "networkName",
    "rootHnsEndpointName",
    "sourceVip",
    "logging",
    "verbosity",
    "format",
];

fn expression(cell: &'static OnceLock<Option<Regex>>, pattern: &str) -> Option<&'static Regex> {
    cell.get_or_init(|| Regex::new(pattern).ok()).as_ref()
}

/// A text without users and queries of URLs, tokens and keys, and in messages without values assigned to words like
/// password.
fn text(text: &str) -> String {
    static URL: OnceLock<Option<Regex>> = OnceLock::new();
    static QUERY: OnceLock<Option<Regex>> = OnceLock::new();
    static KEY: OnceLock<Option<Regex>> = OnceLock::new();
    static ASSIGNED: OnceLock<Option<Regex>> = OnceLock::new();
    let mut clean = text.to_owned();
    let mut replace = |expression: Option<&Regex>, by: &str| match expression {
        Some(found) => clean = found.replace_all(&clean, by).into_owned(),
        // Any part of it may be a secret.
        None => LEFT_OUT.clone_into(&mut clean),
    };
    replace(
        expression(&QUERY, r#"(://[^\s"'<>?]*)\?[^\s"'<>]*"#),
        "$1?(left out)",
    );
    // Up to the last @ before the path: a password may have one itself.
    replace(expression(&URL, r#"://[^/\s"'<>]*@"#), "://(left out)@");
    // JSON Web Tokens, keys of clouds and forges, private keys.
    let key = r"eyJ[\w-]+\.[\w-]*\.?[\w-]*|\b(?:AKIA|ASIA)[0-9A-Z]{12,}|\bgh[pousr]_\w{16,}|\bxox[a-z]-[\w-]{8,}|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*";
    replace(expression(&KEY, key), LEFT_OUT);
    if text.contains(char::is_whitespace) || text.contains('=') {
        let assigned = r#"(?i)([\w.-]*(?:passw(?:or)?d|passphrase|pwd|secret|token|credentials?|api[-_]?key|access[-_]?key|private[-_]?key|authorization)[\w.-]*["']?\s*[=:]\s*)(?:(?:basic|bearer)\s+)?("[^"]*"|'[^']*'|[^\s"',;)]+)"#;
        replace(expression(&ASSIGNED, assigned), "${1}(left out)");
    }
    clean
}

/// The same for every string of an object. Label names and the like never match.
pub(super) fn object(value: &mut Value) {
    match value {
        Value::String(found) => *found = text(found),
        Value::Array(items) => items.iter_mut().for_each(object),
        Value::Object(fields) => {
            if let Some(Value::String(found)) = fields.get_mut("image") {
                *found = image(found);
            }
            fields.values_mut().for_each(object);
        }
        _ => {}
    }
}

/// An image without credentials. No valid name has any, but the API server accepts any text; the only `@` of a valid name
/// precedes its digest.
fn image(name: &str) -> String {
    let is_digest = |text: &str| {
        let hex = text.split_once(':').map(|(_, hex)| hex);
        hex.is_some_and(|hex| hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let tagged = match name.rsplit_once('@') {
        Some((tagged, digest)) if is_digest(digest) => tagged,
        _ => name,
    };
    match tagged.rfind('@') {
        Some(at) => format!("{LEFT_OUT}{}", &name[at..]),
        None => name.to_owned(),
    }
}

/// A Corefile with the known plugins and those of their arguments that are addresses, names and numbers. Of other plugins
/// only the name is kept, so that a reader sees that there is one.
pub(super) fn corefile(file: &str) -> String {
    let mut kept = String::new();
    // Depth of a block that is dropped.
    let mut hidden = 0_usize;
    let mut blocks: Vec<&str> = Vec::new();
    for line in file.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words: Vec<&str> = line.split_whitespace().collect();
        let (Some(first), opens) = (words.first().copied(), words.last() == Some(&"{")) else {
            continue;
        };
        if first == "}" {
            if hidden > 0 {
                hidden -= 1;
                if hidden > 0 {
                    continue;
                }
            } else {
                blocks.pop();
                kept.push_str(&format!("{}}}\n", "    ".repeat(blocks.len())));
            }
            continue;
        }
        if hidden > 0 {
            hidden += usize::from(opens);
            continue;
        }
        if opens {
            words.pop();
        }
        let indent = "    ".repeat(blocks.len());
        let is_known = match blocks.as_slice() {
            [] => true,
            [_] => PLUGINS.iter().any(|(name, _)| *name == first),
            [_, plugin, ..] => {
                let of = PLUGINS.iter().find(|(name, _)| name == plugin);
                of.is_some_and(|(_, options)| options.contains(&first))
            }
        };
        if !is_known {
            let name = if blocks.len() < 2 {
                argument(first)
            } else {
                LEFT_OUT
            };
            kept.push_str(&format!(
                "{indent}{name}{}\n",
                if name == LEFT_OUT { "" } else { " (left out)" }
            ));
            hidden += usize::from(opens);
            continue;
        }
        let words: Vec<&str> = words.into_iter().map(argument).collect();
        kept.push_str(&format!(
            "{indent}{}{}\n",
            words.join(" "),
            if opens { " {" } else { "" }
        ));
        if opens {
            blocks.push(first);
        }
    }
    kept
}

/// An argument, if it can only be an address, a name, a number or a path.
fn argument(word: &str) -> &str {
    let is_plain = |c: char| {
        c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '/' | '-' | '_' | '*' | '[' | ']' | ',')
    };
    // A long word without a separator is more likely a key than a name.
    let is_key = word.len() > 32 && !word.contains(['.', ':', '/']);
    if word.chars().all(is_plain) && !is_key {
        word
    } else {
        LEFT_OUT
    }
}

/// kube-proxy's configuration, reduced to known keys.
pub(super) fn kube_proxy(file: &str) -> String {
    let mut kept = String::new();
    // The indentation of the key below which everything is dropped.
    let mut hidden: Option<usize> = None;
    for line in file.lines() {
        let indent = line.len() - line.trim_start().len();
        let content = line.trim();
        let is_item = content.starts_with('-');
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if hidden.is_some_and(|at| indent > at || is_item && indent == at) {
            continue;
        }
        hidden = None;
        let key = content.split(':').next().unwrap_or_default();
        if is_item && !content.contains(": ") || OF_KUBE_PROXY.contains(&key) {
            kept.push_str(&format!("{}\n", text(line)));
        } else {
            hidden = Some(indent);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_corefile_what_resolves_names_is_kept_as_it_is() {
        let file = ".:53 {\n    errors\n    health {\n        lameduck 5s\n    }\n    ready\n    kubernetes cluster.local in-addr.arpa ip6.arpa {\n        pods insecure\n        fallthrough in-addr.arpa ip6.arpa\n        ttl 30\n    }\n    prometheus :9153\n    forward . /etc/resolv.conf {\n        max_concurrent 1000\n    }\n    cache 30\n    loop\n    reload\n    loadbalance\n}\nexample.org:53 {\n    forward . 10.0.0.53 [fd00::53]:53\n}\n";
        assert_eq!(corefile(file), file);
    }

    #[test]
    fn of_a_corefile_what_may_be_secret_is_left_out() {
        let file = "# hunter2\n.:53 {\n  etcd skydns.local {\n    endpoint https://root:hunter2@etcd:2379\n    credentials root hunter2\n    tls {\n      hunter2\n    }\n  }\n  mysql {\n    dsn root:hunter2@tcp(db:3306)/dns\n  }\n  route53 example.org.:Z1 {\n    aws_access_key AKIA hunter2\n  }\n  forward . tls://u:hunter2@9.9.9.9 {\n    tls_servername hunter2\n    policy sequential\n  }\n  pdsql postgres \"host=db password=hunter2\"\n  hosts {\n    10.0.0.1 hunter2\n    ttl 5\n  }\n  template ANY ANY { answer hunter2 }\n  cache 30 # hunter2\n  hunter2hunter2hunter2hunter2hunter2hunter2\n}\n";
        let kept = corefile(file);
        assert!(!kept.contains("hunter2"), "{kept}");
        for line in [
            "    mysql (left out)\n",
            "    forward . (left out) {\n",
            "        policy sequential\n",
            "    cache 30\n",
        ] {
            assert!(kept.contains(line), "{line}{kept}");
        }
        assert!(kept.ends_with("}\n"));
    }

    #[test]
    fn of_kube_proxy_only_known_keys_are_kept() {
        let file = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nclientConnection:\n  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf\n  token: hunter2\n  unknown:\n    mode: hunter2\n  qps: 5\nmode: nftables\nnodePortAddresses:\n- 10.0.0.0/8\nusers:\n- name: hunter2\n- user:\n    token: hunter2\nclusterCIDR: 10.244.0.0/16\n";
        assert_eq!(
            kube_proxy(file),
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nclientConnection:\n  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf\n  qps: 5\nmode: nftables\nnodePortAddresses:\n- 10.0.0.0/8\nclusterCIDR: 10.244.0.0/16\n"
        );
    }

    #[test]
    fn secrets_are_taken_out_of_messages_and_the_rest_stays() {
        for secret in [
            "dial postgres://root:hunter2@db:5432/x failed",
            "GET https://u:p@ss-hunter2@registry.example/v2/ 401",
            "GET https://registry.example/v2/?token=hunter2&x=1 403",
            "invalid option --db-password=hunter2",
            "config: {\"apiKey\": \"hunter2\"}",
            "Authorization: Bearer hunter2 was refused",
            "PASSWORD: 'hunter2 with spaces' is wrong",
            "token eyJhbGciOiJIUzI1NiJ9.aHVudGVyMg.hunter2 has expired",
        ] {
            let clean = text(secret);
            assert!(
                !clean.contains("hunter2") && clean.contains(LEFT_OUT),
                "{secret}: {clean}"
            );
        }
        for harmless in [
            "10.244.1.5:9376",
            "myorg/token-service:v1",
            "registry.example:5000/secret:v2",
            "secret \"tls\" not found",
            "http://web.shop.svc/healthz",
            "kubernetes.io/service-name",
            "0/3 nodes are available: 3 Insufficient cpu.",
        ] {
            assert_eq!(text(harmless), harmless);
        }
    }
}
