//! What each rule and each element that a real kube-proxy wrote belongs to: when it is gone that is
//! reported, and nothing else.
//!
//! Nothing is reported for what no Service depends on to be reached: canaries, kubelet's chains, marks
//! and masquerading (judged by HairpinOK), counters, the way of localhost to node ports, the short cut
//! of Pods to external addresses (kube-proxy leaves it out where it does not know the Pods' addresses),
//! the memory of nftables' affinity sets, the addresses that node ports are served on, and the hooks of
//! the refusals, behind which no endpoint is.

use std::collections::BTreeSet;

use svcdiag::kube_proxy::{ExpectedPort, Gap, IpFamily, Purpose, RuleFault};

/// What a rule or element belongs to.
#[derive(Debug, PartialEq)]
pub(crate) enum Owner {
    Nobody,
    /// All Services.
    Everyone,
    /// All Services with a node port.
    NodePorts,
    /// One Service, and one endpoint of it where one is named.
    Service {
        name: String,
        faults: &'static [RuleFault],
        endpoint: Option<String>,
    },
}

const WAY: &[RuleFault] = &[RuleFault::RulesMissing, RuleFault::NodePortRulesMissing];
const ENDPOINT: &[RuleFault] = &[
    RuleFault::EndpointMissing,
    // Where it was the only one, or all of them.
    RuleFault::RulesMissing,
    RuleFault::NodePortRulesMissing,
    // Known clients do not come back to it either.
    RuleFault::Incomplete,
];
const REFINEMENT: &[RuleFault] = &[RuleFault::Incomplete];

fn service(name: Option<String>, faults: &'static [RuleFault], endpoint: Option<&str>) -> Owner {
    Owner::Service {
        name: name.expect("a rule that names its Service"),
        faults,
        endpoint: endpoint.map(str::to_owned),
    }
}

/// Compares what was found with what should be.
pub(crate) fn check(
    what: &str,
    owner: &Owner,
    family: IpFamily,
    expected: &[(String, ExpectedPort)],
    found: &[(String, Gap)],
) {
    let blamed: BTreeSet<&str> = found.iter().map(|(service, _)| service.as_str()).collect();
    let of_family = || expected.iter().filter(|(_, port)| port.family == family);
    let should: BTreeSet<&str> = match owner {
        Owner::Nobody => BTreeSet::new(),
        Owner::Everyone => of_family().map(|(name, _)| name.as_str()).collect(),
        Owner::NodePorts => of_family()
            .filter(|(_, port)| port.destinations.iter().any(|d| d.purpose == Purpose::NodePort))
            .map(|(name, _)| name.as_str())
            .collect(),
        Owner::Service { name, .. } => BTreeSet::from([name.as_str()]),
    };
    assert_eq!(blamed, should, "without {what} (of {owner:?}): {found:#?}");
    if let Owner::Service { faults, endpoint, .. } = owner {
        for (_, gap) in found {
            assert!(faults.contains(&gap.fault), "without {what}: {gap:?}");
            if let (Some(wanted), Some(blamed)) = (endpoint, gap.endpoint) {
                assert_eq!(*wanted, blamed.to_string(), "without {what}: {gap:?}");
            }
        }
    }
}

/// The Service that a text names: the first word with a slash, without a port's name.
fn named_service(text: &str) -> Option<String> {
    let word = text
        .split_whitespace()
        .find(|word| word.contains('/') && !word.starts_with(|c: char| c.is_ascii_digit()))?;
    Some(word.split(':').next()?.to_owned())
}

pub(crate) mod iptables {
    use super::*;

    /// The value behind a flag.
    fn value<'a>(rule: &'a str, flag: &str) -> Option<&'a str> {
        rule.split_once(&format!("{flag} "))?.1.split(' ').next()
    }

    fn comment(rule: &str) -> Option<&str> {
        rule.split_once("--comment \"")?.1.split('"').next()
    }

    /// The Service of a chain, by the comments of the rules that name the chain or stand in it.
    fn service_of(rules: &str, rule: &str) -> Option<String> {
        let own = comment(rule).and_then(named_service);
        own.or_else(|| {
            let chain = value(rule, "-A")?;
            let suffix = chain.rsplit('-').next()?;
            rules
                .lines()
                .filter(|line| line.contains(suffix))
                .find_map(|line| named_service(comment(line)?))
        })
    }

    pub(crate) fn owner(rules: &str, table: &str, rule: &str, has_local_endpoints: bool) -> Owner {
        let chain = value(rule, "-A").unwrap();
        let target = value(rule, "-j").unwrap_or_default();
        let name = || service_of(rules, rule);
        let kind = chain.get(..9).unwrap_or(chain);
        match (table, kind, target) {
            ("nat", _, "KUBE-MARK-MASQ") => Owner::Nobody,
            ("nat", "PREROUTIN" | "OUTPUT", "KUBE-SERVICES") => Owner::Everyone,
            ("nat", "KUBE-SERV", "KUBE-NODEPORTS") => Owner::NodePorts,
            ("nat", "KUBE-SERV", _) => service(name(), &[RuleFault::RulesMissing], None),
            ("nat", "KUBE-NODE", _) if rule.contains("-d 127.0.0.0/8") => Owner::Nobody,
            ("nat", "KUBE-NODE", _) => service(name(), &[RuleFault::NodePortRulesMissing], None),
            ("nat", "KUBE-SVC-" | "KUBE-SVL-", _) if rule.contains("-m recent") => {
                let endpoint = comment(rule).and_then(|c| c.split_once("-> "));
                service(name(), REFINEMENT, endpoint.map(|(_, e)| e))
            }
            ("nat", "KUBE-SVC-" | "KUBE-SVL-", _) => {
                let endpoint = comment(rule).and_then(|c| c.split_once("-> "));
                service(name(), ENDPOINT, endpoint.map(|(_, e)| e))
            }
            ("nat", "KUBE-SEP-", "DNAT") => service(name(), ENDPOINT, value(rule, "--to-destination")),
            ("nat", "KUBE-EXT-", _) if rule.contains(" -s ") => Owner::Nobody,
            // Where the endpoints on the node are all there are, the rule behind it does the same.
            ("nat", "KUBE-EXT-", _) if rule.contains("--src-type LOCAL") && has_local_endpoints => {
                Owner::Nobody
            }
            ("nat", "KUBE-EXT-", _) => service(name(), WAY, None),
            // The address itself is no source that anybody asked for.
            ("nat", "KUBE-FW-V", _) if rule.contains(" -s 198.51.100.51/32") || target.is_empty() => {
                Owner::Nobody
            }
            ("nat", "KUBE-FW-V", _) => service(name(), REFINEMENT, None),
            ("filter", "KUBE-SERV" | "KUBE-EXTE" | "KUBE-PROX", "REJECT" | "DROP") => {
                service(name(), REFINEMENT, None)
            }
            _ => Owner::Nobody,
        }
    }
}

pub(crate) mod nftables {
    use super::*;

    /// `external-CRMGJYG2-matrix/lb/tcp/` belongs to matrix/lb.
    fn service_of_chain(chain: &str) -> Option<String> {
        let mut parts = chain.splitn(3, '-').nth(2)?.split('/');
        Some(format!("{}/{}", parts.next()?, parts.next()?))
    }

    /// The endpoint in `endpoint-OK65PKDC-matrix/sticky/tcp/__10.244.0.10/9376`; IPv6 is not written like this.
    fn endpoint_of_chain(chain: &str) -> Option<String> {
        let (_, endpoint) = chain.split_once("__")?;
        let (ip, port) = endpoint.trim().split_once('/')?;
        Some(format!("{ip}:{port}"))
    }

    pub(crate) fn owner(chain: &str, rule: &str, has_local_endpoints: bool) -> Owner {
        let name = || service_of_chain(chain);
        match chain.split('-').next().unwrap() {
            "nat" if rule.ends_with("jump services") => Owner::Everyone,
            "services" if rule.ends_with("vmap @service-ips") => Owner::Everyone,
            "services" if rule.ends_with("vmap @service-nodeports") => Owner::NodePorts,
            "service" if chain.starts_with("service-endpoints") => Owner::Nobody,
            "service" | "local" if rule.contains("@affinity-") => {
                let endpoint = rule.split_whitespace().find_map(endpoint_of_chain);
                service(name(), REFINEMENT, endpoint.as_deref())
            }
            "service" | "local" => service(name(), WAY, None),
            "endpoint" if rule.starts_with("update") => Owner::Nobody,
            "endpoint" => service(name(), ENDPOINT, endpoint_of_chain(chain).as_deref()),
            "external" if rule.contains("mark set") || rule.starts_with("ip saddr") => Owner::Nobody,
            "external" if rule.starts_with("fib") && has_local_endpoints => Owner::Nobody,
            "external" => service(name(), WAY, None),
            "firewall" if chain == "firewall-check" => Owner::Nobody,
            "firewall" => service(name(), REFINEMENT, None),
            _ => Owner::Nobody,
        }
    }

    pub(crate) fn owner_of_element(map: &str, element: &str) -> Owner {
        let named = element
            .rsplit_once("goto ")
            .and_then(|(_, chain)| service_of_chain(chain))
            .or_else(|| named_service(element.split('"').nth(1)?));
        match map {
            "service-ips" => service(named, &[RuleFault::RulesMissing], None),
            "service-nodeports" => service(named, &[RuleFault::NodePortRulesMissing], None),
            "no-endpoint-services" | "no-endpoint-nodeports" | "firewall-ips" => {
                service(named, REFINEMENT, None)
            }
            _ => Owner::Nobody,
        }
    }

    pub(crate) fn family_of(table: &str) -> Option<IpFamily> {
        match table {
            "table ip kube-proxy {" => Some(IpFamily::V4),
            "table ip6 kube-proxy {" => Some(IpFamily::V6),
            _ => None,
        }
    }

    /// Table, set and elements, as `nft list ruleset` writes them.
    pub(crate) fn elements(rules: &str) -> Vec<(IpFamily, String, String)> {
        let (mut family, mut set, mut inside, mut all) = (None, String::new(), false, Vec::new());
        for line in rules.lines() {
            let mut text = line.trim();
            if line.starts_with("table ") {
                family = family_of(line);
            } else if let Some(name) = text.strip_prefix("set ").or_else(|| text.strip_prefix("map ")) {
                set = name.trim_end_matches(" {").to_owned();
            }
            if let Some(first) = text.strip_prefix("elements = {") {
                (inside, text) = (true, first);
            }
            let Some(family) = family.filter(|_| inside) else {
                continue;
            };
            inside = !text.ends_with('}');
            let list = text.trim_end_matches('}').split(',').map(str::trim);
            all.extend(
                list.filter(|e| !e.is_empty())
                    .map(|e| (family, set.clone(), e.to_owned())),
            );
        }
        all
    }
}
