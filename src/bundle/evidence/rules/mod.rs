//! The saved rules of a node, compared with what the EndpointSlices ask for.
//!
//! [`read`] sorts them by backend, chooses the one that is kube-proxy's, and compares. Where nobody can tell which one
//! that is, nothing is compared, and a problem says what would tell.

mod backends;
mod ipvs;
mod mode;
mod userspace;

use std::net::IpAddr;

use self::backends::Backends;
pub(super) use self::mode::Mode;
use super::text::Parsed;
use crate::{
    api::{DeadEndRule, Rules},
    bundle::Problem,
    engine::{Facts, dead_ends_of, rule_gap},
    kube_proxy::{
        Backend, ExpectedPort, Gap, ProxyMode, Purpose, ReadError, Ruleset, Vantage, audit, expected,
        hairpin_is_masqueraded, holds,
    },
    objects::EndpointSlice,
};

/// Most differences that a report holds.
const MAX_GAPS: usize = 32;

/// Label of a node's zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// What the rules of a node are.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// The comparison; None where no file holds rules that can be compared.
    pub rules: Option<Rules>,
    /// What holds the rules that were compared.
    pub backend: Option<Backend>,
    /// In userspace mode, the port of the node on which kube-proxy takes the Service's packets.
    pub proxy_port: Option<u16>,
    /// Rules at which every packet of the node ends.
    pub dead_ends: Vec<DeadEndRule>,
    /// In ipvs mode, whether every endpoint's packets to itself are masqueraded.
    pub hairpin_set: Option<bool>,
    /// In other modes, whether those of all endpoints of the node are.
    pub masquerades: Option<bool>,
}

impl Compared {
    /// What was found where a backend holds kube-proxy's rules.
    fn of(backend: Backend, compared: u32, gaps: Vec<Gap>) -> Self {
        Self {
            backend: Some(backend),
            rules: Some(Rules {
                layout: backend.to_string(),
                compared,
                gaps: gaps.into_iter().take(MAX_GAPS).map(rule_gap).collect(),
                conflict: None,
            }),
            ..Self::default()
        }
    }

    fn in_conflict_with(mut self, other: Option<Backend>) -> Self {
        if let Some(rules) = &mut self.rules {
            rules.conflict = other.map(|other| other.to_string());
        }
        self
    }
}

/// Compares the rules in a node's files; with what kept them from being compared.
pub(super) fn read(
    facts: &Facts,
    node: &str,
    mode: Mode<'_>,
    files: Vec<Parsed<'_>>,
) -> (Compared, Vec<Problem>) {
    let (saved, contradiction) = Backends::of(files, mode.known);
    let mut problems: Vec<Problem> = contradiction.into_iter().collect();
    let (mut compared, why_not) = compare(&saved, facts, node, mode);
    problems.extend(why_not.into_iter().map(|why| Problem {
        path: format!("nodes/{node}"),
        what: format!("the rules were not compared: {why}"),
    }));
    let saves = [saved.iptables.as_ref(), saved.legacy.as_ref()];
    compared.dead_ends = saves
        .into_iter()
        .flatten()
        .flat_map(|save| dead_ends_of(save))
        .collect();
    (compared, problems)
}

/// What is asked of a node's rules.
struct Asked<'a> {
    facts: &'a Facts,
    node: &'a str,
    /// What the node has to hold for each port of the Service.
    ports: Vec<ExpectedPort>,
}

fn compare(saved: &Backends, facts: &Facts, node: &str, mode: Mode<'_>) -> (Compared, Vec<String>) {
    let ports = match ports(facts, node) {
        Ok(Some(ports)) => ports,
        Ok(None) => return (Compared::default(), Vec::new()),
        Err(why) => return (Compared::default(), vec![why]),
    };
    let asked = Asked { facts, node, ports };
    // Every question about one Service is asked with its name: lines may have been chosen by it.
    let name = format!("{}/{}", facts.namespace, facts.spec.service_name);
    let iptables = saved.iptables.as_ref().map(|save| save.of_service(&name));
    let legacy = saved.legacy.as_ref().map(|save| save.of_service(&name));
    let rulesets: [(Backend, Option<&dyn Ruleset>); 3] = [
        (Backend::Nftables, saved.nftables()),
        (Backend::IptablesNft, iptables.as_ref().map(|rules| rules as _)),
        (Backend::IptablesLegacy, legacy.as_ref().map(|rules| rules as _)),
    ];
    let all: Vec<(Backend, &dyn Ruleset)> = rulesets
        .into_iter()
        .filter_map(|(backend, rules)| Some((backend, rules?)))
        .collect();
    let holding = asked.holding(saved, &all);
    let mode = match mode.settled(&holding, saved) {
        Ok(mode) => mode,
        Err(error) => return (Compared::default(), vec![error.to_string()]),
    };
    if let Some(portals) = userspace::portals(saved, mode) {
        return userspace::compare(&portals, &name, &asked.ports);
    }
    let found = match ipvs::listing(saved, mode, &asked) {
        Some(listing) => ipvs::compare(saved, listing, &asked, &all),
        None => asked.choose(saved, &all, mode),
    };
    match found {
        Ok(compared) => (compared, Vec::new()),
        Err(error) => (Compared::default(), vec![error.to_string()]),
    }
}

/// What a node has to hold; None without a Service. An error where it depends on what is not known.
fn ports(facts: &Facts, node: &str) -> Result<Option<Vec<ExpectedPort>>, String> {
    let Some(service) = facts.service.as_deref() else {
        return Ok(None);
    };
    let labels = facts.nodes.iter().find(|n| *n.name == *node).map(|n| &n.labels);
    let zone = labels.and_then(|labels| labels.get(ZONE_LABEL));
    let slices: Vec<&EndpointSlice> = facts.slices.iter().map(AsRef::as_ref).collect();
    let mut endpoints = slices.iter().flat_map(|s| &s.endpoints);
    if zone.is_none() && endpoints.any(|e| !e.hinted_zones().is_empty()) {
        return Err(format!(
            "endpoints are chosen by zone, and the bundle does not have the zone of Node {node}; add `kubectl get nodes -o json`"
        ));
    }
    let vantage = Vantage {
        node,
        zone: zone.map(String::as_str),
    };
    Ok(Some(expected(service, &slices, vantage)))
}

impl Asked<'_> {
    /// Modes of which there are rules of the Service.
    fn holding(&self, saved: &Backends, all: &[(Backend, &dyn Ruleset)]) -> Vec<ProxyMode> {
        let holding = all.iter().filter(|(_, rules)| self.is_held_by(*rules));
        let servers = saved.servers.iter().filter(|listing| ipvs::lists(listing, self));
        holding
            .map(|(backend, _)| backend.mode())
            .chain(servers.map(|_| ProxyMode::Ipvs))
            .collect()
    }

    /// Whether rules take packets to the Service anywhere.
    fn is_held_by(&self, rules: &dyn Ruleset) -> bool {
        self.ports.iter().any(|port| holds(rules, port).unwrap_or(false))
    }

    /// The comparison with rules of iptables or nftables: those that are kube-proxy's.
    fn choose(
        &self,
        saved: &Backends,
        all: &[(Backend, &dyn Ruleset)],
        mode: Option<&ProxyMode>,
    ) -> Result<Compared, ReadError> {
        let fits = |backend: Backend| match mode {
            Some(ProxyMode::Nftables) => backend == Backend::Nftables,
            Some(ProxyMode::Iptables) => backend.is_iptables(),
            Some(_) => false,
            None => true,
        };
        // Of several that fit, those that lead anywhere for the Service are kube-proxy's; else none can be blamed.
        let fitting: Vec<_> = all.iter().filter(|(backend, _)| fits(*backend)).collect();
        let in_use = fitting.iter().find(|(_, rules)| self.is_held_by(*rules));
        let is_elsewhere = |backend: Backend| backend.is_iptables() && saved.warns_of_legacy;
        let only = fitting
            .first()
            .filter(|(backend, _)| fitting.len() == 1 && mode.is_some() && !is_elsewhere(*backend));
        let Some((backend, rules)) = in_use.or(only) else {
            return match fitting.iter().find_map(|(_, rules)| self.unread(*rules)) {
                Some(error) => Err(error),
                None if fitting.is_empty() => Ok(Compared::default()),
                None => Err(ReadError {
                    what: "the rules of kube-proxy".to_owned(),
                    why: "no file mentions the Service, and the mode of kube-proxy is not known; save `curl localhost:10249/proxyMode` as proxymode.txt".to_owned(),
                }),
            };
        };
        let (compared, gaps) = differences(*rules, &self.ports)?;
        if compared == 0 {
            return Ok(Compared::default());
        }
        let is_another = |other: Backend| {
            let both_iptables = other.is_iptables() && backend.is_iptables();
            other != *backend && (saved.are_two || !both_iptables)
        };
        let other = all
            .iter()
            .find(|(other, rules)| is_another(*other) && self.is_held_by(*rules));
        Ok(Compared {
            masquerades: self.masquerades(*rules),
            ..Compared::of(*backend, compared, gaps).in_conflict_with(other.map(|(other, _)| *other))
        })
    }

    /// Why nothing is known of any port, if so.
    fn unread(&self, rules: &dyn Ruleset) -> Option<ReadError> {
        let known = self.ports.iter().map(|port| holds(rules, port).err());
        known.collect::<Option<Vec<_>>>()?.into_iter().next()
    }

    /// Whether packets of each endpoint of the node to itself are masqueraded; None if the rules do not tell.
    fn masquerades(&self, rules: &dyn Ruleset) -> Option<bool> {
        let mut all = None;
        for port in &self.ports {
            let clusters = port
                .destinations
                .iter()
                .filter(|d| d.purpose == Purpose::ClusterIp);
            for service in clusters.filter_map(|d| Some((d.address?, d.port))) {
                for endpoint in port.serving.iter().filter(|e| self.is_local(e.ip())) {
                    let one = hairpin_is_masqueraded(rules, service, port.protocol, *endpoint).ok()?;
                    all = Some(all.unwrap_or(true) && one);
                }
            }
        }
        all
    }

    /// Whether an address is of an endpoint on the node.
    fn is_local(&self, ip: IpAddr) -> bool {
        let mut own = self
            .facts
            .slices
            .iter()
            .flat_map(|s| &s.endpoints)
            .filter(|e| e.node_name.as_deref() == Some(self.node));
        own.any(|e| e.addresses.iter().any(|a| a.parse() == Ok(ip)))
    }
}

/// How many ports were compared, and the differences. A family of which there is no file is left out.
fn differences(rules: &dyn Ruleset, ports: &[ExpectedPort]) -> Result<(u32, Vec<Gap>), ReadError> {
    let (mut compared, mut gaps, mut unread) = (0, Vec::new(), None);
    for port in ports {
        match audit(rules, port) {
            Ok(found) => {
                compared += 1;
                gaps.extend(found);
            }
            Err(error) => unread = Some(error),
        }
    }
    match unread {
        Some(error) if compared == 0 => Err(error),
        _ => Ok((compared, gaps)),
    }
}
