//! What a namespace holds, as the tools list it, and how two lists differ.

use super::*;

/// The rules of chains and the elements of sets, by the names of these.
pub(super) type Listing = BTreeMap<String, Vec<String>>;

/// What the namespace of the calling thread holds.
pub(super) fn listing(mode: ProxyMode) -> Listing {
    match mode {
        ProxyMode::Nftables | ProxyMode::NftablesOld => nftables(&output(&["nft", "list", "ruleset"])),
        ProxyMode::Iptables => ["iptables-nft-save", "ip6tables-nft-save"]
            .into_iter()
            .flat_map(|tool| iptables(tool, &output(&[tool])))
            .collect(),
        ProxyMode::IptablesLegacy => ["iptables-legacy-save", "ip6tables-legacy-save"]
            .into_iter()
            .flat_map(|tool| iptables(tool, &output(&[tool])))
            .collect(),
    }
}

/// Reads `nft list ruleset`.
fn nftables(text: &str) -> Listing {
    let mut listing = Listing::new();
    let (mut table, mut block) = (String::new(), None);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches(" {").to_owned();
        } else if line == "\t}" {
            block = None;
        } else if let Some(name) = &block {
            let lines: &mut Vec<String> = listing.get_mut(name).unwrap();
            if line.starts_with("\t\t\t") || line.starts_with("\t\telements = {") {
                // Elements come in any order.
                let line = line.trim().trim_start_matches("elements = { ");
                let elements = line.trim_end_matches(" }").split(',').map(str::trim);
                lines.extend(elements.filter(|e| !e.is_empty()).map(str::to_owned));
                lines.sort();
            } else {
                lines.push(line.trim().to_owned());
            }
        } else if line.starts_with('\t') && line.ends_with('{') {
            let name = format!("{table} {}", line.trim().trim_end_matches(" {"));
            listing.insert(name.clone(), Vec::new());
            block = Some(name);
        }
    }
    listing
}

/// Chains whose rules kube-proxy writes in the order in which it happens to come to the Services.
const UNORDERED: [&str; 4] = [
    "KUBE-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-PROXY-FIREWALL",
];

/// Reads the output of `iptables-save`.
fn iptables(tool: &str, text: &str) -> Listing {
    let mut listing = Listing::new();
    let mut table = "";
    let mut last_of_services = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(chain) = line.strip_prefix(':') {
            let chain = chain.split(' ').next().unwrap();
            listing.insert(format!("{tool} {table} {chain}"), Vec::new());
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let (chain, rule) = rule.split_once(' ').unwrap();
            let rules = listing.get_mut(&format!("{tool} {table} {chain}")).unwrap();
            rules.push(rule.to_owned());
            if UNORDERED.contains(&chain) {
                rules.sort();
            }
            if (table, chain) == ("nat", "KUBE-SERVICES") {
                last_of_services = Some(rule.to_owned());
            }
        }
    }
    listing.insert(
        format!("{tool} last of KUBE-SERVICES"),
        last_of_services.into_iter().collect(),
    );
    listing
}

/// Leaves out what is not kube-proxy's, and the one rule that it writes only where the kernel can count
/// packets by nfacct: its way of localhost to node ports, which the rule after it leads to as well.
pub(super) fn of_kube_proxy(listing: Listing) -> Listing {
    let is_foreign = |name: &str| {
        ["KUBE-FIREWALL", "KUBE-KUBELET-CANARY", "KUBE-IPTABLES-HINT"]
            .iter()
            .any(|chain| name.ends_with(chain))
    };
    listing
        .into_iter()
        .filter(|(name, _)| name.contains("tables-") || name.contains(" kube-proxy "))
        .filter(|(name, _)| !is_foreign(name))
        .map(|(name, rules)| {
            let kept = rules
                .into_iter()
                .filter(|rule| !is_foreign(rule) && !rule.starts_with("-d 127.0.0.0/8 "));
            (name, kept.collect())
        })
        .collect()
}

/// The same kube-proxy, or else what differs.
pub(super) fn assert_same(what: &str, found: &Listing, wanted: &Listing) {
    let names: BTreeSet<&String> = found.keys().chain(wanted.keys()).collect();
    let differences: Vec<String> = names
        .into_iter()
        .filter(|name| found.get(*name) != wanted.get(*name))
        .map(|name| {
            format!(
                "{name}\n  {:#?}\n  instead of {:#?}",
                found.get(name),
                wanted.get(name)
            )
        })
        .collect();
    assert!(differences.is_empty(), "{what}: {}", differences.join("\n"));
    assert!(wanted.len() > 10, "{what}: {} chains and sets", wanted.len());
}
