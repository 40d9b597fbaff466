//! What to type where the rules of kube-proxy are not as they should be.
//!
//! A restart of kube-proxy heals what a full sync writes again. It heals nothing where kube-proxy itself holds the
//! wrong state or where other rules are in its way; for these there is one command about one object of its own.

use crate::text::quoted;
use svcdiag_api::RuleGap;
use svcdiag_kube_proxy::Backend;

/// How rules in a layout that kube-proxy does not write are taken out of the way: the chain by which packets get into
/// them is kube-proxy's own, and no other product's chain is touched. In ipvs mode kube-proxy uses that of the table
/// nat itself; the other one can still refuse packets.
pub(super) fn empty_entrance(own: Option<Backend>, other: Option<Backend>, node: &str) -> String {
    let is_ipvs = own == Some(Backend::Ipvs);
    match other {
        Some(Backend::IptablesLegacy) if is_ipvs => format!(
            "Flush the chain through which the old rules refuse packets on node {node}. It belongs to kube-proxy alone: `iptables-legacy -w -t filter -F KUBE-SERVICES`."
        ),
        Some(Backend::IptablesNft) if is_ipvs => format!(
            "Flush the chain through which the old rules refuse packets on node {node}. It belongs to kube-proxy alone: `iptables -w -t filter -F KUBE-SERVICES`."
        ),
        Some(Backend::Nftables) => format!(
            "Delete the table of the other mode on node {node}. It belongs to kube-proxy alone: `nft delete table ip kube-proxy`. Do the same for ip6 if it exists."
        ),
        Some(Backend::IptablesLegacy) => format!(
            "On node {node}, look at the old rules first: `iptables-legacy-save`. Then flush the chain through which packets enter them, which only kube-proxy uses: `iptables-legacy -w -t nat -F KUBE-SERVICES`. If that chain of the table filter has REJECT rules, flush it too: `iptables-legacy -w -t filter -F KUBE-SERVICES`. Do the same with ip6tables-legacy."
        ),
        _ => format!(
            "On node {node}, look at the old rules first: `nft list ruleset`. Then flush the chain through which packets enter them, which only kube-proxy uses: `iptables-nft -w -t nat -F KUBE-SERVICES`. If that chain of the table filter has REJECT rules, flush it too: `iptables-nft -w -t filter -F KUBE-SERVICES`. Do the same with ip6tables-nft."
        ),
    }
}

/// How an endpoint that is held with weight 0 gets its share again.
pub(super) fn weight(gap: Option<&RuleGap>, node: &str) -> String {
    let server = gap.and_then(|gap| Some((virtual_server(gap)?, gap.endpoint.as_deref()?)));
    match server {
        Some(((flag, address), endpoint)) => format!(
            "kube-proxy treats them as endpoints that are being drained. On node {node}, set the weight of each back to 1: `ipvsadm -e {flag} {} -r {} -m -w 1`.",
            quoted(address),
            quoted(endpoint)
        ),
        None => format!("Check the weights on node {node}: `ipvsadm -ln`."),
    }
}

/// How clients are freed that affinity keeps at an endpoint that is gone.
pub(super) fn expire(gap: &RuleGap, node: &str) -> String {
    let forget = "`sysctl -w net.ipv4.vs.expire_quiescent_template=1`";
    match (virtual_server(gap), gap.endpoint.as_deref()) {
        (Some((flag, address)), Some(endpoint)) => format!(
            "On node {node}, make the kernel drop the affinity to endpoints with weight 0 (until the next reboot): {forget}. Then remove the endpoint that is gone, also there: `ipvsadm -d {flag} {} -r {}`.",
            quoted(address),
            quoted(endpoint)
        ),
        _ => format!(
            "On node {node}, make the kernel drop the affinity to endpoints with weight 0 (until the next reboot): {forget}."
        ),
    }
}

/// Flag and address of ipvsadm for the destination of a gap.
fn virtual_server(gap: &RuleGap) -> Option<(&'static str, &str)> {
    let (address, protocol) = gap.destination.rsplit_once('/')?;
    let flag = match protocol {
        "TCP" => "-t",
        "UDP" => "-u",
        "SCTP" => "--sctp-service",
        _ => return None,
    };
    address
        .parse::<std::net::SocketAddr>()
        .is_ok()
        .then_some((flag, address))
}

/// How the process is found that has a node port.
pub(super) fn node_port(gap: Option<&RuleGap>, node: &str) -> String {
    let number = gap.and_then(|gap| gap.destination.strip_prefix("node port ")?.split_once('/'));
    let number = number.map(|(port, protocol)| (port.parse::<u16>(), protocol));
    let see = match number {
        Some((Ok(port), "UDP")) => format!("`ss -lunp 'sport = :{port}'`"),
        Some((Ok(port), _)) => format!("`ss -ltnp 'sport = :{port}'`"),
        _ => "`ss -lntup`".to_owned(),
    };
    format!(
        "On node {node}, find out which process uses the port: {see}. Move that process to another port, or give the Service another nodePort. A restart of kube-proxy alone changes nothing."
    )
}
