//! The DNS servers individually.
//!
//! Clients use their own domain, or the one that the diagnosis names: they could resolve anything themselves. The node
//! uses the domain that cluster DNS reports: otherwise the author of a diagnosis, or a Pod's resolv.conf, could make it
//! resolve names in any domain.

use std::net::{IpAddr, SocketAddr};

use futures::future::join_all;
use tokio::time::Instant;

use super::{
    LocalPod, Round,
    dns_clients::{ATTEMPTS, CONTROL, Client, PATIENCE, PORT, ask, before_second_look, is_v6},
};
use crate::dns::{Reply, names_of};
use svcdiag_api::{DnsServer, LookupResult};
use svcdiag_kube_proxy::IpFamily;
use svcdiag_netns::Netns;

/// The domain of most clusters.
const USUAL_DOMAIN: &str = "cluster.local";

/// A server, and the origin of the query.
struct Question<'a> {
    /// The client; None for the node.
    client: Option<&'a LocalPod<'a>>,
    netns: &'a Netns,
    server: SocketAddr,
    /// Whether it is an endpoint of cluster DNS.
    endpoint: bool,
    domain: &'a str,
}

/// Each server of each client, each endpoint of cluster DNS, and cluster DNS from the node.
pub(super) async fn probe(round: &Round<'_>, clients: &[Client<'_>], domain: &str) -> Vec<DnsServer> {
    let dns = &round.subject.dns;
    let own = dns.addresses.first().map(SocketAddr::ip);
    let of_a_client = |pod, netns, server, endpoint| Question {
        client: Some(pod),
        netns,
        server,
        endpoint,
        domain,
    };
    let mut by_clients = Vec::new();
    for Client { pod, conf, .. } in clients {
        let servers = conf.servers.iter().map(|server| SocketAddr::new(*server, PORT));
        by_clients.extend(servers.map(|server| of_a_client(*pod, &pod.netns, server, false)));
        let endpoints = dns.endpoints.iter();
        by_clients.extend(endpoints.map(|server| of_a_client(*pod, &pod.netns, *server, true)));
    }
    let by_clients = join_all(by_clients.iter().map(|question| answer(round, question, own)));
    let (by_clients, by_node) = tokio::join!(by_clients, by_node(round, own, domain));
    by_clients.into_iter().chain(by_node).flatten().collect()
}

/// Cluster DNS as seen from the node, in the domain in which it serves the cluster's names.
async fn by_node(round: &Round<'_>, own: Option<IpAddr>, of_clients: &str) -> Vec<Option<DnsServer>> {
    let (Some(server), Some(ip)) = (round.subject.dns.addresses.first(), own) else {
        return Vec::new();
    };
    let netns = &round.node.netns;
    let known = served_domain(round, netns, *server, ip).await;
    let domain = known.as_deref().unwrap_or(USUAL_DOMAIN);
    let question = |server: &SocketAddr| Question {
        client: None,
        netns,
        server: *server,
        endpoint: false,
        domain,
    };
    let questions: Vec<Question<'_>> = round.subject.dns.addresses.iter().map(question).collect();
    let mut answers = join_all(questions.iter().map(|question| answer(round, question, own))).await;
    // That it does not know the usual domain proves nothing if the cluster may use another.
    answers.retain(|found| {
        known.is_some() || found.as_ref().is_none_or(|s| s.control != LookupResult::NotFound)
    });
    for server in answers.iter_mut().flatten() {
        if server.control == LookupResult::Found && domain != of_clients {
            server.domain = Some(domain.to_owned());
        }
    }
    answers
}

async fn answer(round: &Round<'_>, question: &Question<'_>, own: Option<IpAddr>) -> Option<DnsServer> {
    let Question {
        client,
        netns,
        server,
        endpoint,
        domain,
    } = question;
    let v6 = is_v6(round);
    let name = format!("{}.{}.svc.{domain}.", round.spec.service_name, round.namespace);
    let control = format!("{CONTROL}.svc.{domain}.");
    let control_v6 = IpFamily::of(server.ip()) == IpFamily::V6 && v6;
    let (own_name, control) = tokio::join!(
        ask_one(round, netns, *server, &name, v6),
        ask_one(round, netns, *server, &control, control_v6)
    );
    let ((result, code), (control, of_control)) = own_name.zip(control)?;
    let domain = match own.filter(|_| control == LookupResult::NotFound) {
        Some(own) => served_domain(round, netns, *server, own).await,
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
}

/// How a query to one server ended, with the error code.
async fn ask_one(
    round: &Round<'_>,
    netns: &Netns,
    server: SocketAddr,
    name: &str,
    ipv6: bool,
) -> Option<(LookupResult, Option<String>)> {
    let mut last = (LookupResult::TimedOut, None);
    let mut is_silent = true;
    let begun = Instant::now();
    for attempt in 0..=ATTEMPTS {
        if attempt == ATTEMPTS {
            before_second_look(begun, is_silent).await;
        }
        let reply = ask(round, netns, server, (name, ipv6), PATIENCE).await?;
        is_silent &= reply == Reply::TimedOut;
        // These are names of the cluster: for others a server asks another one, which may take its time.
        round.tries.asked(netns, server, name, ipv6, &reply);
        last = match reply {
            Reply::Addresses(..) => return Some((LookupResult::Found, None)),
            Reply::NotFound(_) => return Some((LookupResult::NotFound, None)),
            Reply::Failed(code) => (LookupResult::Failed, Some(code)),
            Reply::TimedOut | Reply::Refused => (LookupResult::TimedOut, None),
        };
    }
    Some(last)
}

/// The domain in which a server serves the cluster's names, from its name for cluster DNS itself.
async fn served_domain(
    round: &Round<'_>,
    netns: &Netns,
    server: SocketAddr,
    cluster_dns: IpAddr,
) -> Option<String> {
    let _permit = round.permit().await?;
    let names = names_of(netns, server, cluster_dns, PATIENCE).await.ok()?;
    names
        .iter()
        .find_map(|name| Some(name.split_once(".svc.")?.1.to_owned()))
        .filter(|domain| domain.len() <= 253)
}
