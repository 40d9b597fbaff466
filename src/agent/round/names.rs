//! The Service's names, as the clients resolve them, and the DNS servers one by one.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures::future::join_all;

use super::{LocalPod, Round, SECOND_LOOK};
use crate::{
    agent::{
        dns::{Reply, ask, names_of},
        netns::Netns,
        resolv::ResolvConf,
        rootfs::{self, CLibraries},
    },
    api::{CLibrary, DnsServer, Lookup, LookupResult, Resolver},
    proxy::IpFamily,
};

const PORT: u16 = 53;
/// The name that every cluster knows.
const CONTROL: &str = "kubernetes.default";
/// Resolvers wait five seconds for a server; a cluster's answers in one.
const PATIENCE: Duration = Duration::from_secs(2);
const TRIES: usize = 2;
const MAX_SERVERS: usize = 32;

pub(super) async fn look(round: &Round<'_>) -> (Vec<Resolver>, Vec<DnsServer>) {
    let clients: Vec<Client<'_>> = round
        .clients
        .iter()
        .filter_map(|pod| client(round, pod))
        .collect();
    let domain = domain(round, &clients);
    let resolvers = join_all(clients.iter().map(|client| resolver(round, client, &domain)));
    let servers = servers(round, &clients, &domain);
    let (resolvers, mut servers) = tokio::join!(resolvers, servers);
    servers.truncate(MAX_SERVERS);
    (resolvers.into_iter().flatten().collect(), servers)
}

/// A client Pod, and how it resolves names.
struct Client<'a> {
    pod: &'a LocalPod<'a>,
    conf: ResolvConf,
    library: CLibrary,
}

fn client<'a>(round: &Round<'_>, pod: &'a LocalPod<'a>) -> Option<Client<'a>> {
    let (conf, library) = conf(pod, &round.node.c_libraries)
        .inspect_err(|error| {
            round.problem(format!(
                "resolv.conf of Pod {} could not be read: {error}.",
                pod.key
            ));
        })
        .ok()?;
    Some(Client { pod, conf, library })
}

/// The domain of the cluster's names, by the first client whose search list tells.
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

fn conf(client: &LocalPod<'_>, libraries: &CLibraries) -> std::io::Result<(ResolvConf, CLibrary)> {
    let pid = client
        .pids
        .first()
        .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::NotFound, "it has no process"))?;
    // The pause container comes first and has no resolv.conf of interest; all share the file.
    let text = client
        .pids
        .iter()
        .find_map(|pid| rootfs::read(*pid, "/etc/resolv.conf").ok())
        .map_or_else(|| rootfs::read(*pid, "/etc/resolv.conf"), Ok)?;
    let library = client
        .pids
        .iter()
        .filter_map(|pid| libraries.of(*pid).ok())
        .find(|library| *library != CLibrary::Unknown)
        .unwrap_or(CLibrary::Unknown);
    Ok((ResolvConf::parse(&text), library))
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
        uses_short_name: uses_short_name(&client.pod.pids, service),
        lookups: lookups.into_iter().collect::<Option<Vec<Lookup>>>()?,
    })
}

/// Whether a process was started with the Service's short name as a host in its arguments or environment.
/// Nothing of the texts is kept.
fn uses_short_name(pids: &[i32], service: &str) -> bool {
    let texts = pids
        .iter()
        .flat_map(|pid| ["cmdline", "environ"].map(|file| format!("/proc/{pid}/{file}")));
    texts
        .filter_map(|path| std::fs::read(path).ok())
        .any(|text| names_host(&String::from_utf8_lossy(&text), service))
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

/// Whether the Service has IPv6 addresses only.
fn is_v6(round: &Round<'_>) -> bool {
    let families = &round.subject.service.spec.ip_families;
    families.first().is_some_and(|first| first == "IPv6")
}

/// The name that an ExternalName Service stands for, which is looked up as it is.
fn external_name(round: &Round<'_>) -> Option<String> {
    let service = Some(&round.subject.service).filter(|s| s.is_external_name())?;
    let target = service.spec.external_name.as_deref()?.trim_end_matches('.');
    (!target.is_empty()).then(|| format!("{target}."))
}

/// Resolves a name as the client would, a second time where it is not found. Behind an ExternalName Service
/// addresses of either family will do.
async fn lookup(round: &Round<'_>, client: &Client<'_>, domain: &str, name: &str) -> Option<Lookup> {
    let ipv6 = name != CONTROL && is_v6(round);
    let is_alias = name != CONTROL && external_name(round).is_some();
    let mut found = None;
    for pause in [Duration::ZERO, SECOND_LOOK] {
        tokio::time::sleep(pause).await;
        let mut lookup = resolve(round, client, domain, name, ipv6).await?;
        if is_alias && lookup.result == LookupResult::NotFound {
            lookup = resolve(round, client, domain, name, !ipv6).await?;
        }
        let is_found = lookup.result == LookupResult::Found;
        found = Some(lookup);
        if is_found {
            break;
        }
    }
    found
}

async fn resolve(
    round: &Round<'_>,
    client: &Client<'_>,
    domain: &str,
    name: &str,
    ipv6: bool,
) -> Option<Lookup> {
    let mut lookup = Lookup {
        name: name.trim_end_matches('.').to_owned(),
        result: LookupResult::TimedOut,
        code: None,
        found_as: None,
        addresses: Vec::new(),
        ttl_seconds: 0,
    };
    for candidate in client.conf.candidates(name, client.library) {
        // Whether a name beyond the cluster exists is for others to say, unless it was asked for itself: the
        // Service has none there.
        let matters = is_in(&candidate, domain) || candidate == name;
        match ask_in_turn(round, client, &candidate, ipv6).await? {
            Reply::Addresses(addresses, ttl) => {
                lookup.result = LookupResult::Found;
                lookup.code = None;
                lookup.found_as = Some(candidate.trim_end_matches('.').to_owned());
                lookup.addresses = addresses.iter().take(16).map(ToString::to_string).collect();
                lookup.ttl_seconds = ttl;
                return Some(lookup);
            }
            Reply::NotFound(seconds) => {
                if lookup.result != LookupResult::Failed {
                    lookup.result = LookupResult::NotFound;
                }
                lookup.ttl_seconds = lookup.ttl_seconds.max(seconds);
            }
            Reply::Failed(code) => {
                // Where a server fails musl gives up; glibc goes on with the next suffix (res_search(3)).
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
    Some(lookup)
}

/// Whether a name that ends with a dot is in a domain.
fn is_in(name: &str, domain: &str) -> bool {
    let name = name.trim_end_matches('.');
    name.strip_suffix(domain)
        .is_some_and(|start| start.is_empty() || start.ends_with('.'))
}

/// Asks the client's servers one after the other until one answers, twice round.
async fn ask_in_turn(round: &Round<'_>, client: &Client<'_>, name: &str, ipv6: bool) -> Option<Reply> {
    let netns = &client.pod.netns;
    let mut last = Reply::TimedOut;
    for _ in 0..TRIES {
        for server in &client.conf.servers {
            let reply = ask(netns, SocketAddr::new(*server, PORT), name, ipv6, PATIENCE)
                .await
                .inspect_err(|error| {
                    round.problem(format!("DNS server {server} could not be asked: {error}."))
                })
                .ok()?;
            match reply {
                Reply::Addresses(..) | Reply::NotFound(_) => return Some(reply),
                other => last = other,
            }
        }
    }
    Some(last)
}

/// Each server of each client and each endpoint of cluster DNS, and cluster DNS from the node.
async fn servers(round: &Round<'_>, clients: &[Client<'_>], domain: &str) -> Vec<DnsServer> {
    let name = format!("{}.{}.svc.{domain}.", round.spec.service_name, round.namespace);
    let control = format!("{CONTROL}.svc.{domain}.");
    let mut questions: Vec<(Option<&LocalPod<'_>>, &Netns, SocketAddr, bool)> = Vec::new();
    let dns = &round.subject.dns;
    for Client { pod, conf, .. } in clients {
        let own = conf.servers.iter().map(|server| SocketAddr::new(*server, PORT));
        questions.extend(own.map(|server| (Some(*pod), &pod.netns, server, false)));
        questions.extend(dns.endpoints.iter().map(|e| (Some(*pod), &pod.netns, *e, true)));
    }
    questions.extend(dns.addresses.iter().map(|a| (None, &round.node.netns, *a, false)));
    let v6 = is_v6(round);
    let own = dns.addresses.first().map(SocketAddr::ip);
    let answers = questions.iter().map(async |(client, netns, server, endpoint)| {
        let (result, code) = ask_server(round, netns, *server, &name, v6).await?;
        let control_v6 = IpFamily::of(server.ip()) == IpFamily::V6 && v6;
        let (control, of_control) = ask_server(round, netns, *server, &control, control_v6).await?;
        let domain = match own.filter(|_| control == LookupResult::NotFound) {
            Some(own) => served_domain(netns, *server, own).await,
            None => None,
        };
        Some(DnsServer {
            from: client.map(|c| c.key.clone()),
            server: server.ip().to_string(),
            endpoint: *endpoint,
            control,
            result,
            code: of_control.or(code),
            domain,
        })
    });
    join_all(answers).await.into_iter().flatten().collect()
}

/// How a question to one server ended, and the code of an answer that is none.
async fn ask_server(
    round: &Round<'_>,
    netns: &Netns,
    server: SocketAddr,
    name: &str,
    ipv6: bool,
) -> Option<(LookupResult, Option<String>)> {
    let mut last = (LookupResult::TimedOut, None);
    for attempt in 0..=TRIES {
        if attempt == TRIES {
            tokio::time::sleep(SECOND_LOOK).await;
        }
        let reply = ask(netns, server, name, ipv6, PATIENCE)
            .await
            .inspect_err(|error| round.problem(format!("DNS server {server} could not be asked: {error}.")))
            .ok()?;
        last = match reply {
            Reply::Addresses(..) => return Some((LookupResult::Found, None)),
            Reply::NotFound(_) => return Some((LookupResult::NotFound, None)),
            Reply::Failed(code) => (LookupResult::Failed, Some(code)),
            Reply::TimedOut | Reply::Refused => (LookupResult::TimedOut, None),
        };
    }
    Some(last)
}

/// The domain that a server has the cluster's names in, by the name it has for cluster DNS itself.
async fn served_domain(netns: &Netns, server: SocketAddr, cluster_dns: IpAddr) -> Option<String> {
    let names = names_of(netns, server, cluster_dns, PATIENCE).await.ok()?;
    names
        .iter()
        .find_map(|name| Some(name.split_once(".svc.")?.1.to_owned()))
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
