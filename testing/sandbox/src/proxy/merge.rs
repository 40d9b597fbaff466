//! What makes the present rules of iptables the wanted ones, as input of `iptables-restore --noflush`.
//!
//! What kube-proxy has there now and is not wanted goes; rules of others stay as they are. Chains that are wanted are
//! declared, which empties those that are there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

/// What kube-proxy has in a table now.
#[derive(Default)]
struct Present<'a> {
    chains: Vec<&'a str>,
    /// Jumps into its chains from those of others, as in `OUTPUT -j KUBE-SERVICES`.
    jumps: Vec<&'a str>,
}

/// What it is to have in a table.
#[derive(Default)]
struct Wanted<'a> {
    /// The line that begins the table.
    table: &'a str,
    declarations: Vec<&'a str>,
    /// Jumps from chains of others, which come before all rules there.
    jumps: Vec<&'a str>,
    rules: Vec<&'a str>,
}

/// The changes, given the output of `iptables-save` and the wanted chains, jumps and rules. Empty if there are none.
pub(super) fn changes(present: &str, wanted: &str) -> String {
    let present = read_present(present);
    let mut text = String::new();
    for table in read_wanted(wanted) {
        let found = present.get(table.table);
        // A table that holds nothing is not made.
        if found.is_some() || !table.declarations.is_empty() {
            write(&mut text, found.unwrap_or(&Present::default()), &table);
        }
    }
    text
}

fn write(text: &mut String, present: &Present<'_>, wanted: &Wanted<'_>) {
    let mut line = |words: &[&str]| {
        let _ = writeln!(text, "{}", words.concat());
    };
    line(&[wanted.table]);
    for declaration in &wanted.declarations {
        line(&[declaration]);
    }
    let kept: BTreeSet<&str> = wanted.declarations.iter().map(|line| declared(line)).collect();
    let stale: Vec<&&str> = present
        .chains
        .iter()
        .filter(|chain| !kept.contains(**chain))
        .collect();
    for chain in &stale {
        line(&[":", chain, " - [0:0]"]);
    }
    // A wanted jump that is there stays, once.
    let mut there = BTreeSet::new();
    for jump in &present.jumps {
        if !wanted.jumps.contains(jump) || !there.insert(*jump) {
            line(&["-D ", jump]);
        }
    }
    for jump in wanted.jumps.iter().filter(|jump| !there.contains(**jump)) {
        line(&["-I ", jump]);
    }
    for rule in &wanted.rules {
        line(&[rule]);
    }
    for chain in &stale {
        line(&["-X ", chain]);
    }
    line(&["COMMIT"]);
}

/// kube-proxy's chains and the jumps into them, by the line that begins their table.
fn read_present(text: &str) -> BTreeMap<&str, Present<'_>> {
    let mut tables = BTreeMap::<&str, Present<'_>>::new();
    let mut table = "";
    for line in text.lines() {
        if line.starts_with('*') {
            table = line;
            tables.entry(table).or_default();
        } else if line.starts_with(':') && is_ours(declared(line)) {
            tables.entry(table).or_default().chains.push(declared(line));
        } else if let Some(rule) = line.strip_prefix("-A ")
            && !rule.split_whitespace().next().is_some_and(is_ours)
            && target(rule).is_some_and(is_ours)
        {
            tables.entry(table).or_default().jumps.push(rule);
        }
    }
    tables
}

fn read_wanted(text: &str) -> Vec<Wanted<'_>> {
    let mut tables = Vec::<Wanted<'_>>::new();
    for line in text.lines() {
        if line.starts_with('*') {
            tables.push(Wanted {
                table: line,
                ..Wanted::default()
            });
        } else if let Some(table) = tables.last_mut() {
            if line.starts_with(':') {
                table.declarations.push(line);
            } else if let Some(jump) = line.strip_prefix("-I ") {
                table.jumps.push(jump);
            } else if line.starts_with("-A ") {
                table.rules.push(line);
            }
        }
    }
    tables
}

/// The chain that a line `:NAME POLICY [PACKETS:BYTES]` declares.
fn declared(line: &str) -> &str {
    let name = line.split_whitespace().next().unwrap_or_default();
    name.strip_prefix(':').unwrap_or(name)
}

/// The chain or target of a rule.
fn target(rule: &str) -> Option<&str> {
    let mut words = rule.split_whitespace();
    words.find(|word| matches!(*word, "-j" | "-g"))?;
    words.next()
}

/// Whether a chain is kube-proxy's. Those of the kubelet are not.
fn is_ours(chain: &str) -> bool {
    const OF_SERVICES: [&str; 5] = ["SVC-", "SVL-", "EXT-", "FW-", "SEP-"];
    const OTHERS: [&str; 8] = [
        "SERVICES",
        "EXTERNAL-SERVICES",
        "NODEPORTS",
        "FORWARD",
        "POSTROUTING",
        "MARK-MASQ",
        "PROXY-FIREWALL",
        "PROXY-CANARY",
    ];
    chain.strip_prefix("KUBE-").is_some_and(|name| {
        OTHERS.contains(&name) || OF_SERVICES.iter().any(|of_service| name.starts_with(of_service))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRESENT: &str = "\
# Generated by iptables-nft-save
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [3:180]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-GONE - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A PREROUTING -p tcp -j DOCKER
-A OUTPUT -j KUBE-SVC-GONE
-A KUBE-SERVICES -d 10.96.0.7/32 -p tcp -j KUBE-SVC-GONE
COMMIT
";

    #[test]
    fn what_is_not_wanted_goes_and_rules_of_others_stay() {
        let wanted = "\
*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-NEW - [0:0]
-I OUTPUT -j KUBE-SERVICES
-I PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.0.8/32 -p tcp -j KUBE-SVC-NEW
COMMIT
";
        assert_eq!(
            changes(PRESENT, wanted),
            "\
*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-NEW - [0:0]
:KUBE-SVC-GONE - [0:0]
-D PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-D OUTPUT -j KUBE-SVC-GONE
-I OUTPUT -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.0.8/32 -p tcp -j KUBE-SVC-NEW
-X KUBE-SVC-GONE
COMMIT
"
        );
    }

    #[test]
    fn where_nothing_is_wanted_everything_of_kube_proxy_goes() {
        let changes = changes(PRESENT, "*filter\nCOMMIT\n*nat\nCOMMIT\n");
        let removed: Vec<&str> = changes.lines().filter(|line| line.starts_with("-X")).collect();
        assert_eq!(removed, ["-X KUBE-SERVICES", "-X KUBE-SVC-GONE"]);
        assert!(
            !changes.contains("DOCKER") && !changes.contains("KUBELET"),
            "{changes}"
        );
        assert!(
            !changes.contains("*filter"),
            "a table that is not there is not made"
        );
    }

    #[test]
    fn nothing_is_changed_where_nothing_is_there_and_nothing_wanted() {
        assert_eq!(changes("", "*nat\nCOMMIT\n"), "");
    }
}
