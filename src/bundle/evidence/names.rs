//! Look-ups by hand as an agent would report them.

use std::net::IpAddr;

use super::text::{Parsed, Text};
use crate::{
    api::{CLibrary, DnsServer, Lookup, LookupResult, Resolver},
    engine::Facts,
    formats::{resolv::ResolvConf, text::names::NameLookup},
    objects::{Object, Pod, Service},
};

/// The name that every cluster knows.
const CONTROL: &str = "kubernetes.default";

/// How long cluster DNS lets an answer be kept, where nothing tells (CoreDNS's kubernetes plugin).
const TTL_SECONDS: u32 = 30;

/// What a client Pod got for the Service's names; None where nothing was looked up in it.
pub(super) fn resolver(facts: &Facts, pod: &Pod, files: &[Parsed<'_>]) -> Option<Resolver> {
    if asks_its_node(facts, pod) {
        return None;
    }
    let mut confs = files.iter().filter_map(|file| match &file.text {
        Text::ResolvConf(conf) => Some(conf),
        _ => None,
    });
    let conf = confs.next_back();
    let domain = domain(facts, conf);
    // A server that was only tried for comparison is none of the client's.
    let is_own = |l: &&NameLookup| {
        let own = conf.map(|c| &c.servers).zip(l.server);
        own.is_none_or(|(servers, server)| servers.is_empty() || servers.contains(&server))
    };
    let asked: Vec<&NameLookup> = lookups(files).filter(is_own).collect();
    // A search list alone tells nothing of the Service.
    if asked.is_empty() {
        return None;
    }
    let has_found = asked.iter().any(|l| l.result == LookupResult::Found);
    let mut lookups: Vec<Lookup> = Vec::new();
    for wanted in wanted(facts, &domain) {
        let of_name = asked.iter().filter(|l| wanted.is_of(l));
        // Of several the last one that tells something counts.
        let last = of_name.max_by_key(|l| (l.result != LookupResult::Unclear, l.line));
        lookups.extend(last.map(|l| Lookup {
            result: wanted.result(l, has_found),
            ..lookup(&wanted.name, l, has_found)
        }));
    }
    // Who looks up the short name sees what becomes of the full one.
    let full = full(facts, &domain);
    if !lookups.iter().any(|l| l.name == full) && asked.iter().any(|l| l.denied.contains(&full)) {
        lookups.push(not_found(&full));
    }
    // And what becomes of the name that the Service stands for.
    let is_dead = |target: &&str| {
        let is_it = |name: &String| name.eq_ignore_ascii_case(target);
        asked
            .iter()
            .any(|l| l.denied.iter().chain(&l.dead_ends).any(is_it))
    };
    if let Some(target) = external_name(facts).filter(is_dead)
        && !lookups.iter().any(|l| l.name == target)
    {
        lookups.push(not_found(target));
    }
    let servers: Vec<IpAddr> = match &conf {
        Some(conf) => conf.servers.clone(),
        None => asked.iter().find_map(|l| l.server).into_iter().collect(),
    };
    let suffixes = suffixes(pod, &domain);
    Some(Resolver {
        pod: format!("{}/{}", pod.namespace(), pod.name()),
        servers: servers.iter().map(ToString::to_string).collect(),
        // Without the file it is not known that a suffix is missing.
        search: conf.map_or(suffixes, |conf| conf.search.clone()),
        ndots: conf.map_or(5, |conf| conf.ndots),
        rotate: conf.is_some_and(|conf| conf.rotate),
        c_library: CLibrary::Unknown,
        uses_short_name: false,
        lookups,
    })
}

/// All look-ups in some files.
fn lookups<'a>(files: &'a [Parsed<'a>]) -> impl Iterator<Item = &'a NameLookup> {
    files.iter().flat_map(|file| match &file.text {
        Text::Names(lookups) => lookups.as_slice(),
        _ => &[],
    })
}

/// Whether a Pod is to ask the node's own name servers, so that it is no client of the Service by name, unless it is
/// named as one. On the host network they are asked without that anybody wanted it (dnsPolicy ClusterFirst).
pub(super) fn asks_its_node(facts: &Facts, pod: &Pod) -> bool {
    pod.spec.dns_policy.as_deref() == Some("Default") && facts.spec.clients.pod_selector.is_none()
}

fn lookup(name: &str, look: &NameLookup, has_found: bool) -> Lookup {
    Lookup {
        name: name.to_owned(),
        result: result(look, has_found),
        code: look.code.clone(),
        // Some programs show the name as it was asked for.
        found_as: look.found_as.clone().filter(|found| found != name),
        addresses: look.addresses.iter().take(16).map(ToString::to_string).collect(),
        ttl_seconds: TTL_SECONDS,
    }
}

/// A name that does not exist.
fn not_found(name: &str) -> Lookup {
    Lookup {
        name: name.to_owned(),
        result: LookupResult::NotFound,
        code: None,
        found_as: None,
        addresses: Vec::new(),
        ttl_seconds: TTL_SECONDS,
    }
}

/// What an ExternalName Service stands for.
fn external_name(facts: &Facts) -> Option<&str> {
    facts.service.as_deref().and_then(Service::external_name)
}

/// Servers that were asked by name on the node itself.
pub(super) fn servers(facts: &Facts, files: &[Parsed<'_>]) -> Vec<DnsServer> {
    let full = Wanted {
        name: full(facts, &domain(facts, None)),
        is_full: true,
    };
    let mut all = Vec::new();
    for look in lookups(files).filter(|l| full.is_of(l)) {
        let Some(server) = look.server else { continue };
        let is_control = |l: &&NameLookup| {
            l.server == Some(server) && l.name.as_deref().is_some_and(|n| n.starts_with(CONTROL))
        };
        let control = lookups(files).find(is_control).map(|l| result(l, true));
        // A server that knows the Service knows the cluster.
        let control = control.or((look.result == LookupResult::Found).then_some(LookupResult::Found));
        if let Some(control) = control {
            all.push(DnsServer {
                from: None,
                server: server.to_string(),
                endpoint: is_dns_pod(facts, server),
                control,
                result: result(look, control == LookupResult::Found),
                code: look.code.clone(),
                domain: None,
            });
        }
    }
    all
}

/// The cluster's domain: as the diagnosis says, else as a search list shows it, else the usual one.
fn domain(facts: &Facts, conf: Option<&ResolvConf>) -> String {
    let searched = conf
        .iter()
        .flat_map(|c| &c.search)
        .find_map(|s| s.strip_prefix("svc."));
    let known = facts.spec.cluster_domain.as_deref().or(searched);
    known.unwrap_or("cluster.local").trim_end_matches('.').to_owned()
}

/// A name whose look-ups matter.
struct Wanted {
    name: String,
    /// Whether it is looked up as it is, without the search list.
    is_full: bool,
}

impl Wanted {
    /// How a look-up of it ended. That a program does not search does not matter to a name that is looked up as it is.
    fn result(&self, look: &NameLookup, has_found: bool) -> LookupResult {
        match result(look, has_found) {
            LookupResult::Unclear if self.is_full && !look.denied.is_empty() => LookupResult::NotFound,
            result => result,
        }
    }

    /// Whether somebody looked it up as clients do.
    fn is_of(&self, look: &NameLookup) -> bool {
        let asked = look.name.as_deref().unwrap_or_default().trim_end_matches('.');
        // For the control the full name will do as well.
        let is_full_control = || {
            let rest = asked.strip_prefix(CONTROL);
            self.name == CONTROL && rest.is_some_and(|rest| rest.starts_with(".svc."))
        };
        asked.eq_ignore_ascii_case(&self.name) && (self.is_full || look.searches) || is_full_control()
    }
}

/// The Service's names, shortest first, then what it may stand for, and last the control.
fn wanted(facts: &Facts, domain: &str) -> Vec<Wanted> {
    let name = &facts.spec.service_name;
    let short = format!("{name}.{}", facts.namespace);
    let target = external_name(facts).map(str::to_owned);
    let searched = [name.clone(), short.clone(), format!("{short}.svc")];
    let full = target.into_iter().chain([full(facts, domain)]);
    let wanted = |is_full| move |name| Wanted { name, is_full };
    searched
        .into_iter()
        .map(wanted(false))
        .chain(full.map(wanted(true)))
        .chain([CONTROL.to_owned()].map(wanted(false)))
        .collect()
}

/// The Service's full name.
fn full(facts: &Facts, domain: &str) -> String {
    format!("{}.{}.svc.{domain}", facts.spec.service_name, facts.namespace)
}

/// That a name was not found is only a guess for old programs: it holds where others were found.
fn result(look: &NameLookup, has_found: bool) -> LookupResult {
    if look.result == LookupResult::NotFound && !look.explained && !has_found {
        LookupResult::Failed
    } else {
        look.result
    }
}

fn suffixes(pod: &Pod, domain: &str) -> Vec<String> {
    vec![
        format!("{}.svc.{domain}", pod.namespace()),
        format!("svc.{domain}"),
        domain.to_owned(),
    ]
}

fn is_dns_pod(facts: &Facts, server: IpAddr) -> bool {
    let pods = facts.cluster_dns.iter().flat_map(|dns| &dns.pods);
    pods.flat_map(|pod| pod.ips()).any(|ip| ip.parse() == Ok(server))
}
