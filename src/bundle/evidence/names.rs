//! Look-ups by hand as an agent would report them.

use std::net::IpAddr;

use super::{
    super::{
        Problem,
        text::{
            names::{self, NameLookup, Tool},
            resolv_conf,
        },
    },
    files::{Form, TextFile},
    parse,
};
use crate::{
    agent::resolv::ResolvConf,
    api::{CLibrary, DnsServer, Lookup, LookupResult, Resolver},
    diagnosis::Facts,
    objects::{Object, Pod},
};

/// The name that every cluster knows.
const CONTROL: &str = "kubernetes.default";

/// How long cluster DNS lets an answer be kept, where nothing tells (CoreDNS's kubernetes plugin).
const TTL_SECONDS: u32 = 30;

/// What a client Pod got for the Service's names; None where nothing was looked up in it.
pub(super) fn resolver(
    facts: &Facts,
    pod: &Pod,
    files: &[TextFile<'_>],
    problems: &mut Vec<Problem>,
) -> Option<Resolver> {
    // What the node's own resolver finds says nothing of the Pods'.
    if pod.is_host_network() || pod.spec.dns_policy.as_deref() == Some("Default") {
        return None;
    }
    let conf = parse(files, Form::ResolvConf, problems, resolv_conf::parse).pop();
    let domain = domain(facts, conf.as_ref());
    let asked: Vec<NameLookup> = parse(files, Form::Names, problems, names::parse)
        .into_iter()
        .flatten()
        .collect();
    // A server that was only tried for comparison is none of the client's.
    let is_own = |l: &NameLookup| {
        let own = conf.as_ref().map(|c| &c.servers).zip(l.server);
        own.is_none_or(|(servers, server)| servers.is_empty() || servers.contains(&server))
    };
    let asked: Vec<NameLookup> = asked.into_iter().filter(is_own).collect();
    // A search list alone tells nothing of the Service.
    if asked.is_empty() {
        return None;
    }
    let has_found = asked.iter().any(|l| l.result == LookupResult::Found);
    let mut lookups: Vec<Lookup> = Vec::new();
    for name in wanted(facts, &domain) {
        let mut of_name = asked.iter().filter(|l| is_about(l, &name));
        // Of several the last one counts.
        if let Some(last) = of_name.next_back() {
            lookups.push(Lookup {
                result: result(last, has_found),
                addresses: last.addresses.iter().map(ToString::to_string).collect(),
                ttl_seconds: TTL_SECONDS,
                name,
            });
        }
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
        search: conf.as_ref().map_or(suffixes, |conf| conf.search.clone()),
        ndots: conf.as_ref().map_or(5, |conf| conf.ndots),
        c_library: CLibrary::Unknown,
        uses_short_name: false,
        lookups,
    })
}

/// Servers that were asked by name on the node itself.
pub(super) fn servers(facts: &Facts, files: &[TextFile<'_>], problems: &mut Vec<Problem>) -> Vec<DnsServer> {
    let asked: Vec<NameLookup> = parse(files, Form::Names, problems, names::parse)
        .into_iter()
        .flatten()
        .collect();
    let names = wanted(facts, &domain(facts, None));
    let Some(full) = names.get(2) else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for look in asked.iter().filter(|l| is_about(l, full)) {
        let Some(server) = look.server else { continue };
        let is_control = |l: &&NameLookup| {
            l.server == Some(server) && l.name.as_deref().is_some_and(|n| n.starts_with(CONTROL))
        };
        let control = asked.iter().find(is_control).map(|l| result(l, true));
        // A server that knows the Service knows the cluster.
        let control = control.or((look.result == LookupResult::Found).then_some(LookupResult::Found));
        if let Some(control) = control {
            all.push(DnsServer {
                from: None,
                server: server.to_string(),
                endpoint: is_dns_pod(facts, server),
                control,
                result: result(look, control == LookupResult::Found),
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

/// The Service's names, shortest first, and last the control.
fn wanted(facts: &Facts, domain: &str) -> Vec<String> {
    let (name, namespace) = (&facts.spec.service_name, &facts.namespace);
    vec![
        name.clone(),
        format!("{name}.{namespace}"),
        format!("{name}.{namespace}.svc.{domain}"),
        CONTROL.to_owned(),
    ]
}

/// Whether somebody looked a name up as clients do. dig does not search, so that it says something only of
/// full names.
fn is_about(look: &NameLookup, name: &str) -> bool {
    let is_full = name.matches('.').count() > 2;
    let asked = look.name.as_deref().unwrap_or_default().trim_end_matches('.');
    asked.eq_ignore_ascii_case(name) && (is_full || look.tool != Tool::Dig)
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
