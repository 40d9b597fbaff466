//! The rules in a node's files, compared with what the EndpointSlices ask for.

use std::net::{IpAddr, SocketAddr};

use super::{
    super::Problem,
    files::{Form, TextFile},
    mode::Mode,
    saved_rules::Texts,
};
use crate::formats::rules::{
    ipset::IpSets,
    ipvsadm::{self, Listing},
    portals::Portals,
};
use crate::{
    api::{DeadEndRule, Rules},
    diagnosis::dead_ends_of,
    diagnosis::{Facts, rule_gap},
    objects::{EndpointSlice, Object},
    proxy::{
        Backend, ExpectedPort, Gap, IpFamily, ProxyMode, Purpose, ReadError, Ruleset, Vantage, audit,
        expected, hairpin_is_masqueraded, holds,
    },
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
    /// What holds the rules that were compared.
    pub(super) fn backend(&self) -> Option<Backend> {
        Backend::parse(&self.rules.as_ref()?.layout)
    }
}

/// Reads the rules of a node.
pub(super) fn read(
    facts: &Facts,
    node: &str,
    mode: Mode<'_>,
    files: &[TextFile<'_>],
    problems: &mut Vec<Problem>,
) -> Compared {
    let texts = Texts::of(files, mode.known, problems);
    let saves = [texts.iptables.as_ref(), texts.legacy.as_ref()];
    let dead_ends = saves
        .into_iter()
        .flatten()
        .flat_map(|s| dead_ends_of(s))
        .collect();
    Compared {
        dead_ends,
        ..compare(&texts, facts, node, mode, files, problems)
    }
}

fn compare(
    texts: &Texts,
    facts: &Facts,
    node: &str,
    mode: Mode<'_>,
    files: &[TextFile<'_>],
    problems: &mut Vec<Problem>,
) -> Compared {
    let Some(service) = facts.service.as_deref() else {
        return Compared::default();
    };
    let labels = facts.nodes.iter().find(|n| n.name == node).map(|n| &n.labels);
    let zone = labels.and_then(|labels| labels.get(ZONE_LABEL));
    let vantage = Vantage {
        node,
        zone: zone.map(String::as_str),
    };
    let slices: Vec<&EndpointSlice> = facts.slices.iter().map(AsRef::as_ref).collect();
    let ports = expected(service, &slices, vantage);
    let are_hinted = slices
        .iter()
        .flat_map(|s| &s.endpoints)
        .any(|e| !e.hinted_zones().is_empty());
    if are_hinted && zone.is_none() {
        problems.push(Problem {
            path: format!("nodes/{node}"),
            what: format!("the rules were not compared: endpoints are chosen by zones, and the zone of Node {node} is not among the objects; add `kubectl get nodes -o json`"),
        });
        return Compared::default();
    }
    let name = format!("{}/{}", service.namespace(), service.name());
    let mut note = |error: &ReadError| {
        problems.push(Problem {
            path: format!("nodes/{node}"),
            what: format!("the rules were not compared: {error}"),
        });
    };
    let iptables = texts.iptables.as_ref().map(|save| save.of_service(&name));
    let iptables = iptables.as_ref().map(|rules| rules as &dyn Ruleset);
    let legacy = texts.legacy.as_ref().map(|save| save.of_service(&name));
    let legacy = legacy.as_ref().map(|rules| rules as &dyn Ruleset);
    let all: Vec<(Backend, &dyn Ruleset)> = [
        (Backend::Nftables, texts.nftables()),
        (Backend::IptablesNft, iptables),
        (Backend::IptablesLegacy, legacy),
    ]
    .into_iter()
    .filter_map(|(backend, rules)| Some((backend, rules?)))
    .collect();
    let lists_it = |listing: &Listing| ports.iter().any(|port| is_listed(listing, port));
    let mut holding: Vec<ProxyMode> = all
        .iter()
        .filter(|(_, rules)| hold(*rules, &ports))
        .map(|(backend, _)| backend.mode())
        .collect();
    holding.extend(
        texts
            .servers
            .as_ref()
            .filter(|l| lists_it(l))
            .map(|_| ProxyMode::Ipvs),
    );
    let mode = match mode.settled(&holding, files) {
        Ok(mode) => mode,
        Err(error) => {
            note(&error);
            return Compared::default();
        }
    };
    if let Some(save) = &texts.iptables
        && mode.is_none_or(|mode| *mode == ProxyMode::Userspace)
        && let Ok(portals) = Portals::of(save, IpFamily::V4)
        && (mode.is_some() || !portals.is_empty() || holds_portals(files))
    {
        return in_userspace(&portals, &name, &ports, &mut note);
    }
    // Where nothing tells the mode, virtual servers of others may be somebody else's.
    let is_ipvs =
        |listing: &&Listing| mode.map_or_else(|| lists_it(listing), |mode| *mode == ProxyMode::Ipvs);
    if let Some(listing) = texts.servers.as_ref().filter(is_ipvs) {
        let lists = || files.iter().filter(|f| f.form == Form::VirtualServers);
        if lists().any(|f| f.is_cut) || lists().flat_map(|f| f.text.lines()).any(ipvsadm::is_choice) {
            note(&ReadError {
                what: "the virtual servers".to_owned(),
                why: "only a part of them was listed; save `ipvsadm -ln` whole".to_owned(),
            });
            return Compared::default();
        }
        return in_ipvs(facts, node, listing, texts.sets.as_ref(), &ports, &all);
    }
    let fits = |backend: Backend| match mode {
        Some(ProxyMode::Nftables) => backend == Backend::Nftables,
        Some(ProxyMode::Iptables) => backend.is_iptables(),
        Some(_) => false,
        None => true,
    };
    // Of several that fit, those that lead anywhere for the Service are kube-proxy's; else none can be blamed.
    let fitting: Vec<_> = all
        .iter()
        .copied()
        .filter(|(backend, _)| fits(*backend))
        .collect();
    let in_use = fitting.iter().find(|(_, rules)| hold(*rules, &ports));
    let only = fitting
        .first()
        .filter(|(backend, _)| fitting.len() == 1 && mode.is_some() && !is_elsewhere(files, *backend));
    let Some((backend, rules)) = in_use.or(only) else {
        let unread = fitting.iter().find_map(|(_, rules)| unread(*rules, &ports));
        if let Some(error) = unread {
            note(&error);
        } else if !fitting.is_empty() {
            note(&ReadError {
                what: "the rules of kube-proxy".to_owned(),
                why: "no file mentions the Service, and which rules kube-proxy writes is not known; save `curl localhost:10249/proxyMode` as proxymode.txt".to_owned(),
            });
        }
        return Compared::default();
    };
    let chosen = *rules;
    let mut rules = match differences(chosen, &ports) {
        Ok((compared, gaps)) if compared > 0 => told(*backend, compared, gaps),
        Ok(_) => return Compared::default(),
        Err(error) => {
            note(&error);
            return Compared::default();
        }
    };
    let is_another = |other: Backend| {
        let both_iptables = other.is_iptables() && backend.is_iptables();
        other != *backend && (texts.are_two || !both_iptables)
    };
    let other = all
        .iter()
        .find(|(backend, rules)| is_another(*backend) && hold(*rules, &ports));
    rules.conflict = other.map(|(backend, _)| backend.to_string());
    Compared {
        rules: Some(rules),
        masquerades: masquerades(chosen, facts, node, &ports),
        ..Compared::default()
    }
}

/// Whether packets of each endpoint of the node to itself are masqueraded; None if the rules do not tell.
fn masquerades(rules: &dyn Ruleset, facts: &Facts, node: &str, ports: &[ExpectedPort]) -> Option<bool> {
    let mut all = None;
    for port in ports {
        let clusters = port
            .destinations
            .iter()
            .filter(|d| d.purpose == Purpose::ClusterIp);
        for service in clusters.filter_map(|d| Some((d.address?, d.port))) {
            for endpoint in port.serving.iter().filter(|e| is_local(facts, node, e.ip())) {
                let one = hairpin_is_masqueraded(rules, service, port.protocol, *endpoint).ok()?;
                all = Some(all.unwrap_or(true) && one);
            }
        }
    }
    all
}

/// Whether the saved rules are those of userspace mode, though they hold none for any Service.
fn holds_portals(files: &[TextFile<'_>]) -> bool {
    files
        .iter()
        .any(|f| f.form == Form::IptablesSave && f.text.contains("KUBE-PORTALS-"))
}

/// Whether iptables-save warns that there are rules in the other backend, which may be kube-proxy's.
fn is_elsewhere(files: &[TextFile<'_>], backend: Backend) -> bool {
    backend.is_iptables() && files.iter().any(|f| f.text.contains("-legacy tables present"))
}

fn hold(rules: &dyn Ruleset, ports: &[ExpectedPort]) -> bool {
    ports.iter().any(|port| holds(rules, port).unwrap_or(false))
}

/// Why nothing is known of any port, if so.
fn unread(rules: &dyn Ruleset, ports: &[ExpectedPort]) -> Option<ReadError> {
    let known = ports.iter().map(|port| holds(rules, port).err());
    known.collect::<Option<Vec<_>>>()?.into_iter().next()
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

fn told(backend: Backend, compared: u32, gaps: Vec<Gap>) -> Rules {
    Rules {
        layout: backend.to_string(),
        compared,
        gaps: gaps.into_iter().take(MAX_GAPS).map(rule_gap).collect(),
        conflict: None,
    }
}

fn in_userspace(
    portals: &Portals<'_>,
    service: &str,
    ports: &[ExpectedPort],
    note: &mut dyn FnMut(&ReadError),
) -> Compared {
    let (mut compared, mut gaps) = (0, Vec::new());
    for port in ports.iter().filter(|p| p.family == IpFamily::V4) {
        match portals.audit(service, port) {
            Ok(found) => {
                compared += 1;
                gaps.extend(found);
            }
            Err(error) => note(&error),
        }
    }
    let destinations = || ports.iter().flat_map(|p| &p.destinations);
    Compared {
        rules: (compared > 0).then(|| told(Backend::Userspace, compared, gaps)),
        proxy_port: destinations().find_map(|d| portals.proxy_port(d)),
        ..Compared::default()
    }
}

fn in_ipvs(
    facts: &Facts,
    node: &str,
    listing: &Listing,
    sets: Option<&IpSets>,
    ports: &[ExpectedPort],
    others: &[(Backend, &dyn Ruleset)],
) -> Compared {
    // What is not in a part of the list may be on the node.
    let known: Vec<&ExpectedPort> = ports
        .iter()
        .filter(|p| listing.is_whole || is_listed(listing, p))
        .collect();
    let gaps: Vec<Gap> = known
        .iter()
        .flat_map(|port| listing.servers.audit(port))
        .collect();
    let compared = u32::try_from(known.len()).unwrap_or(u32::MAX);
    let hairpins = sets.map(|sets| {
        let endpoints = ports
            .iter()
            .flat_map(|p| p.serving.iter().map(move |e| (p.protocol, *e)))
            .filter(|(_, endpoint)| is_local(facts, node, endpoint.ip()));
        endpoints
            .map(|(protocol, endpoint)| sets.holds_hairpin(protocol, endpoint))
            .try_fold(true, |all, one| Some(all && one?))
    });
    Compared {
        rules: (compared > 0).then(|| Rules {
            conflict: others
                .iter()
                .find(|(_, rules)| hold(*rules, ports))
                .map(|(backend, _)| backend.to_string()),
            ..told(Backend::Ipvs, compared, gaps)
        }),
        hairpin_set: hairpins.flatten(),
        ..Compared::default()
    }
}

/// Whether there is a virtual server for a cluster IP of a port.
fn is_listed(listing: &Listing, port: &ExpectedPort) -> bool {
    let mut own = port
        .destinations
        .iter()
        .filter(|d| d.purpose == Purpose::ClusterIp);
    own.any(|d| {
        let address = d.address.map(|ip| SocketAddr::new(ip, d.port));
        address.is_some_and(|address| listing.servers.at(d.protocol, address).is_some())
    })
}

/// kube-proxy puts only endpoints of its own node into the set.
fn is_local(facts: &Facts, node: &str, ip: IpAddr) -> bool {
    let mut own = facts
        .slices
        .iter()
        .flat_map(|s| &s.endpoints)
        .filter(|e| e.node_name.as_deref() == Some(node));
    own.any(|e| e.addresses.iter().any(|a| a.parse() == Ok(ip)))
}
