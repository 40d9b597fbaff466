//! Virtual servers of the kernel's load balancer.

use std::{fs, io};

use svcdiag_formats::ipvs::parse;

use svcdiag_kube_proxy::VirtualServers;

/// The virtual servers in the network namespace of the calling thread.
///
/// # Errors
/// NotFound where the kernel has no such load balancer.
pub fn read() -> io::Result<VirtualServers> {
    Ok(parse(&fs::read_to_string("/proc/thread-self/net/ip_vs")?))
}
