//! What the kernel sends, for the fuzz targets (`fuzz/`): the decoders alone, without sockets.

use std::{convert::Infallible, io};

use svcdiag_kube_proxy::IpFamily;

use super::{
    links,
    netfilter::{conntrack, legacy::Legacy, nf_tables},
    netlink::{self, Attributes},
};

/// Reads a datagram of netlink, each message of it as an answer to every request that is made here.
pub fn netlink(datagram: &[u8]) {
    // struct nfgenmsg, which is ahead of the attributes of netfilter.
    const NETFILTER: usize = 4;
    for answer in netlink::answers(datagram).flatten() {
        let body = answer.payload();
        let _ = netlink::error_code(body);
        let _ = links::link(body);
        let _ = links::tunnel(body);
        let _ = links::address(body);
        let _ = conntrack::connection(body);
        let _ = conntrack::of_cpu(body);
        let map = nf_tables::map_data(std::iter::once(body));
        for family in [IpFamily::V4, IpFamily::V6] {
            let message = Attributes::behind(body, NETFILTER);
            let _ = nf_tables::rule(message, family, |_| Ok::<_, Infallible>(map.clone()));
        }
    }
}

/// A table of iptables-legacy, from the kernel's answers about it.
#[must_use]
pub fn legacy(family: IpFamily, answers: &[u8]) -> Legacy {
    Legacy::of_answers(family, answers)
}

/// The kernel's answers about table nat in the network namespace of the calling thread.
///
/// # Errors
/// When there is no such table.
pub fn legacy_answers(family: IpFamily) -> io::Result<Vec<u8>> {
    Legacy::answers(family)
}
