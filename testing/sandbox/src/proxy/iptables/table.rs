//! A table as `iptables-restore` reads it, with the jumps from its base chains.

use std::fmt::Write;

/// Jumps from the base chains, in the order in which kube-proxy puts each before all others: the table, the
/// base chain, the condition, the comment and the chain.
const JUMPS: [(&str, &str, &str, &str, &str); 12] = {
    const NEW: &str = "-m conntrack --ctstate NEW ";
    const EXTERNAL: &str = "kubernetes externally-visible service portals";
    const PORTALS: &str = "kubernetes service portals";
    const FIREWALL: &str = "kubernetes load balancer firewall";
    [
        ("filter", "INPUT", NEW, EXTERNAL, "KUBE-EXTERNAL-SERVICES"),
        ("filter", "FORWARD", NEW, EXTERNAL, "KUBE-EXTERNAL-SERVICES"),
        (
            "filter",
            "INPUT",
            "",
            "kubernetes health check service ports",
            "KUBE-NODEPORTS",
        ),
        ("filter", "FORWARD", NEW, PORTALS, "KUBE-SERVICES"),
        ("filter", "OUTPUT", NEW, PORTALS, "KUBE-SERVICES"),
        (
            "filter",
            "FORWARD",
            "",
            "kubernetes forwarding rules",
            "KUBE-FORWARD",
        ),
        ("filter", "INPUT", NEW, FIREWALL, "KUBE-PROXY-FIREWALL"),
        ("filter", "OUTPUT", NEW, FIREWALL, "KUBE-PROXY-FIREWALL"),
        ("filter", "FORWARD", NEW, FIREWALL, "KUBE-PROXY-FIREWALL"),
        ("nat", "OUTPUT", "", PORTALS, "KUBE-SERVICES"),
        ("nat", "PREROUTING", "", PORTALS, "KUBE-SERVICES"),
        (
            "nat",
            "POSTROUTING",
            "",
            "kubernetes postrouting rules",
            "KUBE-POSTROUTING",
        ),
    ]
};

/// A table's chains and rules.
#[derive(Default)]
pub(super) struct Table {
    chains: Vec<String>,
    rules: String,
}

impl Table {
    pub(super) fn with_chains(chains: &[&str]) -> Self {
        Self {
            chains: chains.iter().map(|chain| (*chain).to_owned()).collect(),
            rules: String::new(),
        }
    }

    pub(super) fn chain(&mut self, name: &str) {
        self.chains.push(name.to_owned());
    }

    /// Adds a rule; conditions come in the order in which the tools list them, parts that are empty are left
    /// out.
    pub(super) fn rule(&mut self, chain: &str, parts: &[&str]) {
        let parts: Vec<_> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
        let _ = writeln!(self.rules, "-A {chain} {}", parts.join(" "));
    }

    pub(super) fn render(&self, name: &str) -> String {
        let mut text = format!("*{name}\n");
        for chain in &self.chains {
            let _ = writeln!(text, ":{chain} - [0:0]");
        }
        for (table, base, condition, comment, chain) in JUMPS {
            if table == name {
                let comment = comment_of(comment);
                let _ = writeln!(text, "-I {base} {condition}{comment} -j {chain}");
            }
        }
        text + &self.rules + "COMMIT\n"
    }
}

pub(super) fn comment_of(text: &str) -> String {
    format!("-m comment --comment \"{text}\"")
}
