//! The DNS servers individually.
//!
//! Clients use their own domain, or the one that the diagnosis names: they could resolve anything themselves. The node
//! uses the domain that cluster DNS reports: otherwise the author of a diagnosis, or a Pod's resolv.conf, could make it
//! resolve names in any domain.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures::future::join_all;
use tokio::time::{Instant, sleep};

use super::{
    CONFIRM_AFTER, LocalPod, Round,
    dns_clients::{
        ATTEMPTS, BETWEEN_QUERIES, CONTROL, Client, Name, PATIENCE, PORT, ask_in_turn, before_second_look,
        is_v6,
    },
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

/// Cluster DNS as seen from the node, in the domain in which it serves the cluster's names. Where it does not say which that
/// is, in the usual one: that it does not know that proves nothing if the cluster may use another. Nor does its silence, where
/// it answers when it is asked for its domain once more: it may have asked another server in vain.
async fn by_node(round: &Round<'_>, own: Option<IpAddr>, of_clients: &str) -> Vec<Option<DnsServer>> {
    let (Some(server), Some(ip)) = (round.subject.dns.addresses.first(), own) else {
        return Vec::new();
    };
    let netns = &round.node.netns;
    let names = reverse_lookup(round, netns, *server, ip, BETWEEN_QUERIES).await;
    let known = names.as_deref().and_then(served_domain);
    let domain = known.unwrap_or(USUAL_DOMAIN);
    let question = |server: &SocketAddr| Question {
        client: None,
        netns,
        server: *server,
        endpoint: false,
        domain,
    };
    let questions: Vec<Question<'_>> = round.subject.dns.addresses.iter().map(question).collect();
    let is_silent = async {
        if names.is_some() {
            return false;
        }
        sleep(CONFIRM_AFTER).await;
        reverse_lookup(round, netns, *server, ip, PATIENCE)
            .await
            .is_none()
    };
    let answers = join_all(questions.iter().map(|question| answer(round, question, own)));
    let (mut answers, is_silent) = tokio::join!(answers, is_silent);
    answers.retain(|found| match found.as_ref().map(|server| server.control) {
        Some(LookupResult::NotFound) => known.is_some(),
        Some(LookupResult::TimedOut) => known.is_some() || is_silent,
        _ => true,
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
        Some(own) => {
            let names = reverse_lookup(round, netns, *server, own, PATIENCE).await;
            names.as_deref().and_then(served_domain).map(str::to_owned)
        }
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
    // All that it is asked for are names of the cluster.
    let name = Name {
        name,
        ipv6,
        is_of_cluster: true,
    };
    let begun = Instant::now();
    let (mut reply, is_silent) = ask_in_turn(round, netns, &[server; ATTEMPTS], name).await?;
    if !matches!(reply, Reply::Addresses(..) | Reply::NotFound(_)) {
        before_second_look(begun, is_silent).await;
        (reply, _) = ask_in_turn(round, netns, &[server], name).await?;
    }
    Some(match reply {
        Reply::Addresses(..) => (LookupResult::Found, None),
        Reply::NotFound(_) => (LookupResult::NotFound, None),
        Reply::Failed(code) => (LookupResult::Failed, Some(code)),
        Reply::TimedOut | Reply::Refused => (LookupResult::TimedOut, None),
    })
}

/// The names that a server has for cluster DNS itself; None if it does not answer.
async fn reverse_lookup(
    round: &Round<'_>,
    netns: &Netns,
    server: SocketAddr,
    cluster_dns: IpAddr,
    patience: Duration,
) -> Option<Vec<String>> {
    let _permit = round.permit().await?;
    names_of(netns, server, cluster_dns, patience).await.ok()?
}

/// The domain in which a server serves the cluster's names, from its names for cluster DNS.
fn served_domain(names: &[String]) -> Option<&str> {
    names
        .iter()
        .find_map(|name| Some(name.split_once(".svc.")?.1))
        .filter(|domain| domain.len() <= 253)
}
