//! The way of packets through kube-proxy's table in nftables mode.
//!
//! Source: `syncProxyRules` of kube-proxy's nftables proxier. Packets are captured by the maps
//! `service-ips` and `service-nodeports`; what has no endpoint is refused by `no-endpoint-services` and
//! `no-endpoint-nodeports`.

use std::net::{IpAddr, SocketAddr};

use super::{
    Destination, IpFamily, Match, Protocol, Purpose, ReadError, Ruleset, Table, Target, Verdict,
    walk::{Held, mark_hairpin},
};

pub(super) fn held(
    rules: &dyn Ruleset,
    family: IpFamily,
    destination: &Destination,
    with_refusal: bool,
) -> Result<Held, ReadError> {
    let (capture, refuse) = match destination.purpose {
        Purpose::NodePort => ("service-nodeports", "no-endpoint-nodeports"),
        _ => ("service-ips", "no-endpoint-services"),
    };
    let key = key(destination.address, destination.protocol, destination.port);
    let mut held = Held {
        entrance: format!("{capture} for {destination}"),
        unhooked: unhooked(rules, family, capture)?,
        refusal: if with_refusal {
            refusal(rules.element(family, refuse, &key)?.as_ref())
        } else {
            None
        },
        ..Held::default()
    };
    if let Some(Verdict::Chain(chain)) = rules.element(family, capture, &key)? {
        held.follow(rules, family, Table::KubeProxy, &chain)?;
    }
    if !destination.source_ranges.is_empty()
        && let Some(Verdict::Chain(chain)) = rules.element(family, "firewall-ips", &key)?
    {
        let checks = rules.chain(family, Table::KubeProxy, &chain)?.unwrap_or_default();
        held.guarded = checks.iter().any(|rule| rule.target == Target::Drop);
    }
    Ok(held)
}

fn refusal(verdict: Option<&Verdict>) -> Option<Target> {
    match verdict? {
        Verdict::Drop => Some(Target::Drop),
        Verdict::Chain(_) => Some(Target::Reject),
        Verdict::Accept | Verdict::Member => None,
    }
}

/// What keeps packets from the map that captures them, if so.
fn unhooked(rules: &dyn Ruleset, family: IpFamily, map: &str) -> Result<Option<String>, ReadError> {
    for hook in ["nat-prerouting", "nat-output"] {
        let chain = rules.chain(family, Table::KubeProxy, hook)?.unwrap_or_default();
        if !chain.iter().any(|rule| rule.leads_to() == Some("services")) {
            return Ok(Some(format!("chain {hook} does not jump to services")));
        }
    }
    let services = rules
        .chain(family, Table::KubeProxy, "services")?
        .unwrap_or_default();
    let is_asked = services
        .iter()
        .any(|rule| matches!(&rule.target, Target::Map(name) if name == map));
    Ok((!is_asked).then(|| format!("chain services does not use {map}")))
}

/// Whether node ports are served at an address of the node: at all, or at those of a set.
pub(super) fn serves_node_ports_at(rules: &dyn Ruleset, address: IpAddr) -> Result<bool, ReadError> {
    let family = IpFamily::of(address);
    let services = rules
        .chain(family, Table::KubeProxy, "services")?
        .unwrap_or_default();
    let serves_all = services.iter().any(|rule| {
        rule.matches.contains(&Match::DestinationIsLocal)
            && matches!(&rule.target, Target::Map(name) if name == "service-nodeports")
    });
    let address = match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    Ok(serves_all || rules.element(family, "nodeport-ips", &address)?.is_some())
}

/// The key of a map: the fields in network byte order, each filled up to four bytes, as nf_tables lays
/// concatenations out.
fn key(address: Option<IpAddr>, protocol: Protocol, port: u16) -> Vec<u8> {
    let mut key = Vec::with_capacity(24);
    match address {
        Some(IpAddr::V4(ip)) => key.extend(ip.octets()),
        Some(IpAddr::V6(ip)) => key.extend(ip.octets()),
        None => {}
    }
    key.extend([protocol.number(), 0, 0, 0]);
    let [high, low] = port.to_be_bytes();
    key.extend([high, low, 0, 0]);
    key
}

pub(super) fn masquerades(
    rules: &dyn Ruleset,
    service_address: (IpAddr, u16),
    protocol: Protocol,
    endpoint: SocketAddr,
) -> Result<bool, ReadError> {
    let family = IpFamily::of(endpoint.ip());
    // Newer versions: a set of endpoints that may talk to themselves.
    let mut connection = key(Some(endpoint.ip()), protocol, endpoint.port());
    let address_length = connection.len() - 8;
    connection.splice(0..0, connection[..address_length].to_vec());
    if rules
        .element(family, "hairpin-connections", &connection)?
        .is_some()
    {
        return Ok(true);
    }
    // Older versions and Services with affinity: a rule in the endpoint's chain.
    let key = key(Some(service_address.0), protocol, service_address.1);
    let Some(Verdict::Chain(chain)) = rules.element(family, "service-ips", &key)? else {
        return Ok(false);
    };
    for rule in rules.chain(family, Table::KubeProxy, &chain)?.unwrap_or_default() {
        let chains = match rule.target {
            Target::OneOf(chains) => chains,
            Target::Chain(chain) => vec![chain],
            _ => continue,
        };
        for chain in chains {
            let steps = rules.chain(family, Table::KubeProxy, &chain)?.unwrap_or_default();
            let is_mark = |target: &Target| matches!(target, Target::Chain(_) | Target::Other(_));
            if mark_hairpin(&steps, endpoint, is_mark) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
