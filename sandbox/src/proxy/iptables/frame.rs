//! What the tables hold whatever Services there are, and the text of it all.

use super::{Tables, comment};
use crate::proxy::Family;

/// The mark of packets to be masqueraded.
const MARK: &str = "0x4000/0x4000";

/// Chains that are there whatever Services there are, by table. kube-proxy watches the canaries to learn that
/// somebody flushed a table.
const CHAINS: [(&str, &[&str]); 3] = [
    ("mangle", &["KUBE-PROXY-CANARY"]),
    (
        "nat",
        &[
            "KUBE-SERVICES",
            "KUBE-NODEPORTS",
            "KUBE-POSTROUTING",
            "KUBE-MARK-MASQ",
            "KUBE-PROXY-CANARY",
        ],
    ),
    (
        "filter",
        &[
            "KUBE-SERVICES",
            "KUBE-EXTERNAL-SERVICES",
            "KUBE-FORWARD",
            "KUBE-NODEPORTS",
            "KUBE-PROXY-FIREWALL",
            "KUBE-PROXY-CANARY",
        ],
    ),
];

/// Match of a connection's first packet.
const NEW: &str = "-m conntrack --ctstate NEW ";

/// Jumps from base chains: table, base chain, chain, match and comment. Each is put before those that are
/// there, so that the last is the first in its chain.
const JUMPS: [(&str, &str, &str, &str, &str); 12] = {
    const EXTERNAL: (&str, &str) = (
        "KUBE-EXTERNAL-SERVICES",
        "kubernetes externally-visible service portals",
    );
    const SERVICES: (&str, &str) = ("KUBE-SERVICES", "kubernetes service portals");
    const FIREWALL: (&str, &str) = ("KUBE-PROXY-FIREWALL", "kubernetes load balancer firewall");
    const HEALTH: (&str, &str) = ("KUBE-NODEPORTS", "kubernetes health check service ports");
    const FORWARD: (&str, &str) = ("KUBE-FORWARD", "kubernetes forwarding rules");
    const POSTROUTING: (&str, &str) = ("KUBE-POSTROUTING", "kubernetes postrouting rules");
    [
        ("filter", "INPUT", EXTERNAL.0, NEW, EXTERNAL.1),
        ("filter", "FORWARD", EXTERNAL.0, NEW, EXTERNAL.1),
        ("filter", "INPUT", HEALTH.0, "", HEALTH.1),
        ("filter", "FORWARD", SERVICES.0, NEW, SERVICES.1),
        ("filter", "OUTPUT", SERVICES.0, NEW, SERVICES.1),
        ("filter", "FORWARD", FORWARD.0, "", FORWARD.1),
        ("filter", "INPUT", FIREWALL.0, NEW, FIREWALL.1),
        ("filter", "OUTPUT", FIREWALL.0, NEW, FIREWALL.1),
        ("filter", "FORWARD", FIREWALL.0, NEW, FIREWALL.1),
        ("nat", "OUTPUT", SERVICES.0, "", SERVICES.1),
        ("nat", "PREROUTING", SERVICES.0, "", SERVICES.1),
        ("nat", "POSTROUTING", POSTROUTING.0, "", POSTROUTING.1),
    ]
};

/// Rules of nat that mark and masquerade.
pub(super) fn nat() -> Vec<String> {
    vec![
        format!("-A KUBE-MARK-MASQ -j MARK --set-xmark {MARK}"),
        format!("-A KUBE-POSTROUTING -m mark ! --mark {MARK} -j RETURN"),
        // Taken away, so that the packet is not masqueraded again when it comes by once more.
        "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000".to_owned(),
        format!(
            "-A KUBE-POSTROUTING {}-j MASQUERADE --random-fully",
            comment("kubernetes service traffic requiring SNAT")
        ),
    ]
}

/// Rules of filter that let through what is masqueraded or known.
pub(super) fn filter() -> Vec<String> {
    vec![
        "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP".to_owned(),
        format!(
            "-A KUBE-FORWARD {}-m mark --mark {MARK} -j ACCEPT",
            comment("kubernetes forwarding rules")
        ),
        format!(
            "-A KUBE-FORWARD {}-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            comment("kubernetes forwarding conntrack rule")
        ),
    ]
}

impl Tables<'_> {
    /// All chains, by table.
    fn chains(&self) -> impl Iterator<Item = (&'static str, Vec<&str>)> {
        CHAINS.into_iter().map(|(table, fixed)| {
            let services = self.chains.iter().filter(move |_| table == "nat");
            let all = fixed.iter().copied().chain(services.map(String::as_str));
            (table, all.collect())
        })
    }

    /// What the restore reads.
    pub(super) fn text(&self) -> String {
        let node_ports = format!(
            "-A KUBE-SERVICES {}{}-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS",
            comment("kubernetes service nodeports; NOTE: this must be the last rule in this chain"),
            // IPv4 can have NodePorts on loopback (route_localnet); IPv6 cannot.
            if self.family == Family::V6 {
                "! -d ::1/128 "
            } else {
                ""
            }
        );
        let mut lines = Vec::new();
        for (table, chains) in self.chains() {
            lines.push(format!("*{table}"));
            lines.extend(chains.iter().map(|chain| format!(":{chain} - [0:0]")));
            match table {
                "nat" => {
                    lines.extend_from_slice(&self.nat);
                    lines.push(node_ports.clone());
                }
                "filter" => lines.extend_from_slice(&self.filter),
                _ => {}
            }
            lines.push("COMMIT\n".to_owned());
        }
        lines.join("\n")
    }

    /// What [`TIDY`] reads.
    pub(super) fn wanted(&self) -> String {
        let chains = self.chains().flat_map(|(table, chains)| {
            chains
                .into_iter()
                .map(move |chain| format!("chain {table} {chain}\n"))
        });
        let jumps = JUMPS.iter().map(|(table, base, chain, matches, what)| {
            let rule = format!("{matches}{}", comment(what));
            format!("jump {table} {base} {chain} {}\n", rule.trim_end())
        });
        chains.chain(jumps).collect()
    }
}
