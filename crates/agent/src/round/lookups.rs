//! The Service's names, as the clients resolve them.

use std::net::SocketAddr;

use futures::future::join_all;
use tokio::time::Instant;

use super::{
    Round,
    dns_clients::{ATTEMPTS, CONTROL, Client, Name, PORT, ask_in_turn, before_second_look, client, is_v6},
    dns_servers,
};
use crate::{
    blocking::{Pool, blocking},
    dns::{self, Reply},
};
use svcdiag_api::{CLibrary, DnsServer, Lookup, LookupResult, Resolver};
use svcdiag_netns::procfs;

const MAX_SERVERS: usize = 32;

pub(super) async fn probe(round: &Round<'_>) -> (Vec<Resolver>, Vec<DnsServer>) {
    let clients = join_all(round.clients.iter().map(|pod| client(round, pod))).await;
    let clients: Vec<Client<'_>> = clients.into_iter().flatten().collect();
    let domain = domain(round, &clients);
    let resolvers = join_all(clients.iter().map(|client| resolver(round, client, &domain)));
    let servers = dns_servers::probe(round, &clients, &domain);
    let (resolvers, mut servers) = tokio::join!(resolvers, servers);
    servers.truncate(MAX_SERVERS);
    (resolvers.into_iter().flatten().collect(), servers)
}

/// The domain of the cluster's names, from the first client whose search list shows it.
fn domain(round: &Round<'_>, clients: &[Client<'_>]) -> String {
    if let Some(domain) = &round.spec.cluster_domain {
        return domain.trim_matches('.').to_owned();
    }
    let found = clients.iter().find_map(|client| {
        client
            .conf
            .search
            .iter()
            .find_map(|suffix| suffix.trim_matches('.').strip_prefix("svc.").map(str::to_owned))
    });
    found.unwrap_or_else(|| "cluster.local".to_owned())
}

async fn resolver(round: &Round<'_>, client: &Client<'_>, domain: &str) -> Option<Resolver> {
    let service = &round.spec.service_name;
    let short = format!("{service}.{}", round.namespace);
    let mut names = vec![
        service.clone(),
        short.clone(),
        format!("{short}.svc"),
        format!("{short}.svc.{domain}"),
    ];
    names.extend(external_name(round));
    names.push(CONTROL.to_owned());
    let lookups = join_all(names.iter().map(|name| lookup(round, client, domain, name))).await;
    let conf = &client.conf;
    Some(Resolver {
        pod: client.pod.key.clone(),
        servers: conf.servers.iter().take(4).map(ToString::to_string).collect(),
        search: conf.search.iter().take(32).cloned().collect(),
        ndots: conf.ndots,
        rotate: conf.rotate,
        c_library: client.library,
        uses_short_name: uses_short_name(round, client).await,
        lookups: lookups.into_iter().collect::<Option<Vec<Lookup>>>()?,
    })
}

/// Whether a process of a client in another namespace was started with the Service's short name as a host in its
/// arguments or environment: there it names another Service. In the Service's own namespace it does not matter, and
/// nothing is read. None of the text is kept.
async fn uses_short_name(round: &Round<'_>, client: &Client<'_>) -> bool {
    if client.pod.pod.namespace == round.namespace {
        return false;
    }
    let (pids, service) = (client.pod.pids.clone(), round.spec.service_name.clone());
    let find = move || {
        let texts = pids
            .iter()
            .flat_map(|pid| [procfs::arguments(*pid), procfs::environment(*pid)]);
        texts
            .flatten()
            .any(|text| names_host(&String::from_utf8_lossy(&text), &service))
    };
    blocking(Pool::Pod, find).await.unwrap_or(false)
}

/// Whether a text has a name as a host: behind `//` or `@`, or before a port.
fn names_host(text: &str, name: &str) -> bool {
    !name.is_empty()
        && text.match_indices(name).any(|(start, _)| {
            let (before, after) = (&text[..start], &text[start + name.len()..]);
            let is_whole = !before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.')
                && !after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.');
            let has_port = after
                .strip_prefix(':')
                .is_some_and(|p| p.starts_with(|c: char| c.is_ascii_digit()));
            is_whole && (before.ends_with("//") || before.ends_with('@') || has_port)
        })
}

/// The target of an ExternalName Service, which is resolved as it is. A name that fits into no query, with a label of more
/// than 63 bytes, is skipped: it must not prevent the lookups of the other names.
fn external_name(round: &Round<'_>) -> Option<String> {
    let target = format!("{}.", round.subject.service.external_name()?);
    dns::is_name(&target).then_some(target)
}

/// Resolves a name as the client would, and a second time if it is not found. Behind an ExternalName Service, addresses
/// of either family count.
async fn lookup(round: &Round<'_>, client: &Client<'_>, domain: &str, name: &str) -> Option<Lookup> {
    let ipv6 = name != CONTROL && is_v6(round);
    let is_alias = name != CONTROL && round.subject.service.is_external_name();
    let look = async || {
        let (lookup, is_silent) = resolve(round, client, domain, (name, ipv6)).await?;
        if is_alias && lookup.result == LookupResult::NotFound {
            return resolve(round, client, domain, (name, !ipv6)).await;
        }
        Some((lookup, is_silent))
    };
    let begun = Instant::now();
    let (first, is_silent) = look().await?;
    if first.result == LookupResult::Found {
        return Some(first);
    }
    before_second_look(begun, is_silent).await;
    let (second, _) = look().await?;
    Some(second)
}

/// Resolves a name once. Returns also whether no server sent anything in answer to what decided.
async fn resolve(
    round: &Round<'_>,
    client: &Client<'_>,
    domain: &str,
    (name, ipv6): (&str, bool),
) -> Option<(Lookup, bool)> {
    let mut lookup = Lookup {
        name: name.trim_end_matches('.').to_owned(),
        result: LookupResult::TimedOut,
        code: None,
        found_as: None,
        addresses: Vec::new(),
        ttl_seconds: 0,
    };
    let servers = client
        .conf
        .servers
        .iter()
        .map(|server| SocketAddr::new(*server, PORT));
    let servers = servers.collect::<Vec<_>>().repeat(ATTEMPTS);
    let mut is_silent = false;
    for candidate in client.conf.candidates(name, client.library) {
        // Names outside the cluster do not matter, unless one was requested itself: the Service has none there.
        let is_of_cluster = is_in(&candidate, domain);
        let matters = is_of_cluster || candidate == name;
        let question = Name {
            name: &candidate,
            ipv6,
            is_of_cluster,
        };
        let reply;
        (reply, is_silent) = ask_in_turn(round, &client.pod.netns, &servers, question).await?;
        match reply {
            Reply::Addresses(addresses, ttl) => {
                lookup.result = LookupResult::Found;
                lookup.code = None;
                lookup.found_as = Some(candidate.trim_end_matches('.').to_owned());
                lookup.addresses = addresses.iter().take(16).map(ToString::to_string).collect();
                lookup.ttl_seconds = ttl;
                return Some((lookup, false));
            }
            Reply::NotFound(seconds) => {
                if lookup.result != LookupResult::Failed {
                    lookup.result = LookupResult::NotFound;
                }
                lookup.ttl_seconds = lookup.ttl_seconds.max(seconds);
            }
            Reply::Failed(code) => {
                // If a server fails, musl gives up; glibc continues with the next suffix (res_search(3)).
                let gives_up = client.library == CLibrary::Musl;
                if matters || gives_up {
                    lookup.result = LookupResult::Failed;
                    lookup.code = Some(code);
                } else if lookup.result == LookupResult::TimedOut {
                    lookup.result = LookupResult::NotFound;
                }
                if gives_up {
                    break;
                }
            }
            Reply::TimedOut | Reply::Refused => {
                lookup.result = LookupResult::TimedOut;
                lookup.code = None;
                break;
            }
        }
    }
    if lookup.result != LookupResult::NotFound {
        lookup.ttl_seconds = 0;
    }
    Some((lookup, is_silent))
}

/// Whether a name that ends with a dot is in a domain.
fn is_in(name: &str, domain: &str) -> bool {
    let name = name.trim_end_matches('.');
    name.strip_suffix(domain)
        .is_some_and(|start| start.is_empty() || start.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::names_host;

    #[test]
    fn a_name_counts_where_it_stands_for_a_host() {
        for text in [
            "http://web/x",
            "URL=http://web:80\0",
            "amqp://user@web",
            "--upstream=web:8080",
        ] {
            assert!(names_host(text, "web"), "{text}");
        }
        for text in [
            "APP=web",
            "http://web.shop",
            "http://my-web:80",
            "web:latest",
            "web-1:80",
            "webs:80",
            "",
        ] {
            assert!(!names_host(text, "web"), "{text}");
        }
    }
}
