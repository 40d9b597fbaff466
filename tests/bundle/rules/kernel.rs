//! Texts say what the kernel says of the same rules.

use svcdiag::kube_proxy::{IpFamily, Match, Rule, Ruleset, Table, Target};

use super::{IPTABLES, NFTABLES, listed, saved_of};
use crate::{
    captures::{Backend, Capture},
    namespace::in_new_namespace,
};

/// The order of conditions, and names for what is not understood, are the kernel's own.
fn plain(rules: Option<Vec<Rule>>) -> Option<Vec<(Vec<String>, Target)>> {
    let name = |condition: &Match| match condition {
        Match::Other(_) => "other".to_owned(),
        // The kernel's expressions tell a key of several fields by its first one only.
        Match::Affinity(set) if set == "hairpin-connections" => "other".to_owned(),
        known => format!("{known:?}"),
    };
    let plain = |rule: Rule| {
        let mut matches: Vec<String> = rule.matches.iter().map(name).collect();
        matches.sort();
        matches.dedup();
        let target = match rule.target {
            Target::OneOf(mut chains) => {
                chains.sort();
                Target::OneOf(chains)
            }
            Target::Dnat(mut endpoints) => {
                endpoints.sort();
                Target::Dnat(endpoints)
            }
            Target::Other(_) => Target::Other(String::new()),
            other => other,
        };
        (matches, target)
    };
    rules.map(|rules| rules.into_iter().map(plain).collect())
}

fn assert_same(name: &str, text: &dyn Ruleset, kernel: &dyn Ruleset, chains: &[(IpFamily, Table, String)]) {
    assert!(chains.len() > 20, "{name}");
    for (family, table, chain) in chains {
        let ask = |rules: &dyn Ruleset| plain(rules.chain(*family, *table, chain).unwrap());
        assert_eq!(ask(text), ask(kernel), "{name}: {chain} of {}", table.name());
    }
}

#[test]
fn saved_rules_are_those_of_the_kernel() {
    for (name, node, backend, _) in IPTABLES {
        let capture = Capture::load(name, node, backend);
        let text = saved_of(&capture);
        let mut chains = Vec::new();
        let texts = [
            (IpFamily::V4, Some(&capture.rules)),
            (IpFamily::V6, capture.rules_v6.as_ref()),
        ];
        for (family, rules) in texts {
            let mut table = None;
            for line in rules.into_iter().flat_map(|rules| rules.lines()) {
                if let Some(name) = line.strip_prefix('*') {
                    table = [Table::Nat, Table::Filter].into_iter().find(|t| t.name() == name);
                }
                let declared = line.strip_prefix(':').and_then(|l| l.split(' ').next());
                chains.extend(
                    table
                        .zip(declared)
                        .map(|(table, chain)| (family, table, chain.to_owned())),
                );
            }
        }
        in_new_namespace(|| {
            capture.apply_all();
            assert_same(name, &text, capture.open().as_ref(), &chains);
        });
    }
}

#[test]
fn listed_rules_are_those_of_the_kernel() {
    for (name, node, _) in NFTABLES {
        let capture = Capture::load(name, node, Backend::Nftables);
        let mut chains = Vec::new();
        let mut family = None;
        for line in capture.rules.lines() {
            if line.starts_with("table ") {
                family = crate::owners::nftables::family_of(line);
            }
            let chain = line
                .trim()
                .strip_prefix("chain ")
                .and_then(|l| l.strip_suffix(" {"));
            chains.extend(
                family
                    .zip(chain)
                    .map(|(f, c)| (f, Table::KubeProxy, c.to_owned())),
            );
        }
        in_new_namespace(|| {
            capture.apply_all();
            let kernel = capture.open();
            assert_same(name, &listed(&capture.rules), kernel.as_ref(), &chains);
            if name == "nftables" {
                let json = super::file(name, "nft-list-ruleset.json");
                let json = svcdiag::formats::rules::nft_json::NftJson::parse(&json).unwrap();
                assert_same(name, &json, kernel.as_ref(), &chains);
            }
        });
    }
}
