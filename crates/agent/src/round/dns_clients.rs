//! How a client resolves names: its resolv.conf and C library, and one query to one server.

use std::{io, net::SocketAddr, time::Duration};

use futures::{StreamExt, stream::FuturesOrdered};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};

use super::{CONFIRM_AFTER, LocalPod, Round};
use crate::{
    blocking::{Pool, blocking},
    dns::{self, Reply},
};
use svcdiag_api::CLibrary;
use svcdiag_formats::resolv::ResolvConf;
use svcdiag_kube_proxy::IpFamily;
use svcdiag_netns::{
    Netns,
    rootfs::{self, CLibraries},
};

pub(super) const PORT: u16 = 53;
/// The name that every cluster knows.
pub(super) const CONTROL: &str = "kubernetes.default";
/// Resolvers wait five seconds for a server; a cluster's answers in one.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// How long a query may be silent before the next one is sent beside it.
pub(super) const BETWEEN_QUERIES: Duration = Duration::from_secs(1);
/// Queries to each server in a first look.
pub(super) const ATTEMPTS: usize = 2;

/// A client Pod, and how it resolves names.
pub(super) struct Client<'a> {
    pub pod: &'a LocalPod<'a>,
    pub conf: ResolvConf,
    pub library: CLibrary,
}

pub(super) async fn client<'a>(round: &Round<'_>, pod: &'a LocalPod<'a>) -> Option<Client<'a>> {
    let (pids, libraries) = (pod.pids.clone(), round.node.c_libraries.clone());
    let (conf, library) = blocking(Pool::Pod, move || conf(&pids, &libraries))
        .await
        .flatten()
        .inspect_err(|error| {
            round.problem(format!(
                "resolv.conf of Pod {} could not be read: {error}.",
                pod.key
            ));
        })
        .ok()?;
    Some(Client { pod, conf, library })
}

fn conf(pids: &[i32], libraries: &CLibraries) -> io::Result<(ResolvConf, CLibrary)> {
    let first = pids
        .first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it has no process"))?;
    // The pause container comes first and has no resolv.conf of interest; all share the file.
    let text = pids
        .iter()
        .find_map(|pid| rootfs::read(*pid, "/etc/resolv.conf").ok())
        .map_or_else(|| rootfs::read(*first, "/etc/resolv.conf"), Ok)?;
    let library = pids
        .iter()
        .filter_map(|pid| libraries.of(*pid).ok())
        .find(|library| *library != CLibrary::Unknown)
        .unwrap_or(CLibrary::Unknown);
    Ok((ResolvConf::parse(&text), library))
}

/// Whether the Service has IPv6 addresses only.
pub(super) fn is_v6(round: &Round<'_>) -> bool {
    let families = &round.subject.service.spec.ip_families;
    families.first().is_some_and(|first| *first == IpFamily::V6)
}

/// Waits before a second look. Silence has mostly lasted for longer than that by then; what cannot be sent is over at once.
pub(super) async fn before_second_look(begun: Instant, is_silent: bool) {
    match is_silent {
        true => sleep_until(begun + CONFIRM_AFTER).await,
        false => sleep(CONFIRM_AFTER).await,
    }
}

/// A name that is asked for.
#[derive(Clone, Copy)]
pub(super) struct Name<'a> {
    pub name: &'a str,
    pub ipv6: bool,
    /// Whether it is one of the cluster's. Only for these an answer is owed in time: for others a server asks another one.
    pub is_of_cluster: bool,
}

/// Queries servers in turn until one says whether there is such a name. Returns also whether all of them were silent.
///
/// One that is silent does not keep the next one waiting, but its answer comes first as long as it may still answer:
/// resolvers wait longer for it, and the next server may know other names.
pub(super) async fn ask_in_turn(
    round: &Round<'_>,
    netns: &Netns,
    servers: &[SocketAddr],
    name: Name<'_>,
) -> Option<(Reply, bool)> {
    let mut servers = servers.iter().copied();
    let mut is_silent = servers.len() > 0;
    let mut last = Reply::TimedOut;
    let has_begun = Notify::new();
    let mut queries = FuturesOrdered::new();
    // When the next one is due; not while the last one waits for its turn.
    let mut next = Some(Instant::now());
    while servers.len() > 0 || !queries.is_empty() {
        let due = next.unwrap_or_else(Instant::now);
        tokio::select! {
            biased;
            () = has_begun.notified() => next = Some(Instant::now() + BETWEEN_QUERIES),
            Some((server, reply)) = queries.next() => {
                let reply = reply?;
                if name.is_of_cluster {
                    round.tries.asked(netns, server, name.name, name.ipv6, &reply);
                }
                is_silent &= reply == Reply::TimedOut;
                match reply {
                    Reply::Addresses(..) | Reply::NotFound(_) => return Some((reply, false)),
                    other => last = other,
                }
                if queries.is_empty() {
                    next = Some(Instant::now());
                }
            }
            () = sleep_until(due), if next.is_some() && servers.len() > 0 => {
                queries.extend(servers.next().map(async |server| (server, ask(round, netns, server, name, &has_begun).await)));
                next = None;
            }
        }
    }
    Some((last, is_silent))
}

/// Queries a server, which counts as a dial, and says when it begins. None if no query could be sent.
async fn ask(
    round: &Round<'_>,
    netns: &Netns,
    server: SocketAddr,
    name: Name<'_>,
    has_begun: &Notify,
) -> Option<Reply> {
    let _permit = round.permit().await?;
    has_begun.notify_one();
    dns::ask(netns, server, name.name, name.ipv6, PATIENCE)
        .await
        .inspect_err(|error| round.problem(format!("DNS server {server} could not be queried: {error}.")))
        .ok()
}
