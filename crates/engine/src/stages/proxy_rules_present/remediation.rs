//! What to type where the rules of kube-proxy are not as they should be.
//!
//! A restart of kube-proxy heals what a full sync writes again. It heals nothing where kube-proxy itself holds the
//! wrong state or where other rules are in its way; for these there is one command about one object of its own.

use crate::text::{SHOWN, quoted};
use svcdiag_kube_proxy::Backend;
use svcdiag_objects::Protocol;

/// A difference between rules and endpoints: where packets are sent, and the endpoint concerned, if any.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Gap<'a> {
    pub destination: &'a str,
    pub endpoint: Option<&'a str>,
}

/// How rules in a layout that kube-proxy does not write are taken out of the way: the chain by which packets get into
/// them is kube-proxy's own, and no other product's chain is touched. In ipvs mode kube-proxy uses that of the table
/// nat itself; the other one can still refuse packets.
pub(super) fn empty_entrance(own: Option<Backend>, other: Option<Backend>, on: &str) -> String {
    let is_ipvs = own == Some(Backend::Ipvs);
    match other {
        Some(Backend::IptablesLegacy) if is_ipvs => format!(
            "Flush the chain through which the old rules refuse packets on {on}. It belongs to kube-proxy alone: `iptables-legacy -w -t filter -F KUBE-SERVICES`. Do the same with ip6tables-legacy."
        ),
        Some(Backend::IptablesNft) if is_ipvs => format!(
            "Flush the chain through which the old rules refuse packets on {on}. It belongs to kube-proxy alone: `iptables-nft -w -t filter -F KUBE-SERVICES`. Do the same with ip6tables-nft."
        ),
        Some(Backend::Nftables) => format!(
            "Delete the table of the other mode on {on}. It belongs to kube-proxy alone: `nft delete table ip kube-proxy`. Do the same for ip6 if it exists."
        ),
        Some(Backend::IptablesLegacy) => format!(
            "On {on}, look at the old rules first: `iptables-legacy-save`. Then flush the chain that leads to them, which only kube-proxy uses: `iptables-legacy -w -t nat -F KUBE-SERVICES`. If KUBE-SERVICES in the filter table has REJECT rules, flush it too: `iptables-legacy -w -t filter -F KUBE-SERVICES`. Do the same with ip6tables-legacy."
        ),
        Some(Backend::IptablesNft) => format!(
            "On {on}, look at the old rules first: `nft list ruleset`. Then flush the chain that leads to them, which only kube-proxy uses: `iptables-nft -w -t nat -F KUBE-SERVICES`. If KUBE-SERVICES in the filter table has REJECT rules, flush it too: `iptables-nft -w -t filter -F KUBE-SERVICES`. Do the same with ip6tables-nft."
        ),
        // What else it may be has no chain or table that is known to be kube-proxy's alone.
        Some(Backend::Ipvs | Backend::Userspace) | None => format!(
            "Find out on {on} what wrote the other rules: `nft list ruleset` (and `iptables-legacy-save`), and `ipvsadm -ln`."
        ),
    }
}

/// How endpoints that are held with weight 0 get their share again.
pub(super) fn weights(gaps: &[(Gap<'_>, String)]) -> String {
    let each = gaps.iter().take(SHOWN).map(|(gap, on)| {
        let server = gap.virtual_server().zip(gap.endpoint);
        match server {
            Some(((flag, address), endpoint)) => format!(
                "On {on}, set it back to 1: `ipvsadm -e {flag} {} -r {} -m -w 1`.",
                quoted(address),
                quoted(endpoint)
            ),
            None => format!("Check the weights on {on}: `ipvsadm -ln`."),
        }
    });
    let each: Vec<String> = each.collect();
    format!(
        "kube-proxy gives weight 0 to endpoints that it drains. {}{}",
        each.join(" "),
        and_the_rest(gaps)
    )
}

/// How clients are freed that affinity keeps at endpoints that are gone.
pub(super) fn expire(gaps: &[(Gap<'_>, String)], nodes: &str) -> String {
    let each = gaps.iter().take(SHOWN).filter_map(|(gap, on)| {
        let ((flag, address), endpoint) = gap.virtual_server().zip(gap.endpoint)?;
        Some(format!(
            " Then remove the endpoint that is gone, on {on}: `ipvsadm -d {flag} {} -r {}`.",
            quoted(address),
            quoted(endpoint)
        ))
    });
    format!(
        "On {nodes}, make the kernel drop the affinity to endpoints with weight 0 (until the next reboot): `sysctl -w net.ipv4.vs.expire_quiescent_template=1`.{}{}",
        each.collect::<String>(),
        and_the_rest(gaps)
    )
}

/// That there are more endpoints than commands.
fn and_the_rest(gaps: &[(Gap<'_>, String)]) -> &'static str {
    match gaps.len() > SHOWN {
        true => " Do the same for the others: `ipvsadm -ln` lists endpoints with their weights.",
        false => "",
    }
}

impl<'a> Gap<'a> {
    /// Flag and address of ipvsadm for the destination.
    fn virtual_server(&self) -> Option<(&'static str, &'a str)> {
        let (address, protocol) = self.destination.rsplit_once('/')?;
        let flag = match protocol.parse().ok()? {
            Protocol::Tcp => "-t",
            Protocol::Udp => "-u",
            Protocol::Sctp => "--sctp-service",
        };
        let is_address = address.parse::<std::net::SocketAddr>().is_ok();
        is_address.then_some((flag, address))
    }
}

/// A node port that another process has.
pub(super) struct HeldPort<'a> {
    /// As in `node port 30080/TCP`.
    pub port: &'a str,
    /// Who has it, as the agent or a file says it.
    pub detail: &'a str,
    /// The nodes.
    pub on: String,
}

/// How node ports are freed that processes have.
pub(super) fn node_ports(held: &[HeldPort<'_>]) -> String {
    let each = held.iter().take(SHOWN).map(|port| match port.process() {
        Some(process) => format!("On {}, move {process} to another port", port.on),
        None => format!(
            "On {}, find out which process uses the port ({}), and move it to another one",
            port.on,
            port.sockets()
        ),
    });
    let each: Vec<String> = each.collect();
    format!("{}, or give the Service another nodePort.", each.join(". "))
}

impl HeldPort<'_> {
    /// `nginx (PID 4711)`, of `process nginx, PID 4711`. Processes choose their names: one that is not plain is not
    /// repeated.
    fn process(&self) -> Option<String> {
        let (name, pid) = self.detail.strip_prefix("process ")?.split_once(", PID ")?;
        let pid: u32 = pid.parse().ok()?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/".contains(c);
        (!name.is_empty() && name.chars().all(is_plain)).then(|| format!("{name} (PID {pid})"))
    }

    /// The command that shows who has it.
    fn sockets(&self) -> String {
        let number = self.port.strip_prefix("node port ");
        let number = number.and_then(|rest| rest.split_once('/'));
        match number.map(|(port, protocol)| (port.parse::<u16>(), protocol.parse())) {
            Some((Ok(port), Ok(Protocol::Udp))) => format!("`ss -lunp 'sport = :{port}'`"),
            Some((Ok(port), _)) => format!("`ss -ltnp 'sport = :{port}'`"),
            _ => "`ss -lntup`".to_owned(),
        }
    }
}
