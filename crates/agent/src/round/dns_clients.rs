//! How a client resolves names: its resolv.conf and C library, and one query to one server.

use std::{io, net::SocketAddr, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

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
/// How long to wait for servers that have been silent for so long before.
pub(super) const PATIENCE_AFTER_SILENCE: Duration = Duration::from_millis(1500);
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

/// Queries a server, which counts as a dial. None if no query could be sent.
pub(super) async fn ask(
    round: &Round<'_>,
    netns: &Netns,
    server: SocketAddr,
    (name, ipv6): (&str, bool),
    patience: Duration,
) -> Option<Reply> {
    let _permit = round.permit().await?;
    dns::ask(netns, server, name, ipv6, patience)
        .await
        .inspect_err(|error| round.problem(format!("DNS server {server} could not be queried: {error}.")))
        .ok()
}
