//! The way of packets through kube-proxy's rules in iptables mode.
//!
//! Source: `syncProxyRules` of kube-proxy's iptables proxier. Packets are captured in `KUBE-SERVICES`
//! and `KUBE-NODEPORTS` of the table nat and led through `KUBE-EXT-*`, `KUBE-SVC-*` and `KUBE-SEP-*`;
//! what has no endpoint is refused in the table filter.

use std::net::{IpAddr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    Destination, IpFamily, Match, Protocol, Purpose, ReadError, Ruleset, Table, Target,
    walk::{Held, mark_hairpin},
};

const SERVICES: &str = "KUBE-SERVICES";
const NODE_PORTS: &str = "KUBE-NODEPORTS";
/// Chains that check the source against loadBalancerSourceRanges.
const FIREWALL: &str = "KUBE-FW-";
const MARK_FOR_MASQUERADE: &str = "KUBE-MARK-MASQ";

pub(super) fn held(
    rules: &dyn Ruleset,
    family: IpFamily,
    destination: &Destination,
    with_refusal: bool,
) -> Result<Held, ReadError> {
    let key = (
        destination.address,
        destination.protocol.number(),
        destination.port,
    );
    let entrance = match destination.purpose {
        Purpose::NodePort => NODE_PORTS,
        _ => SERVICES,
    };
    let mut held = Held {
        entrance: format!("{entrance} for {destination}"),
        unhooked: unhooked(rules, family)?,
        unserved: unserved(rules, family, destination)?,
        refusal: if with_refusal {
            refusal(rules, family, destination)?
        } else {
            None
        },
        ..Held::default()
    };
    for rule in rules.rules_towards(family, Table::Nat, entrance, key)? {
        // The last rule of KUBE-SERVICES leads to the node ports, which is another destination.
        let Some(chain) = rule
            .leads_to()
            .filter(|c| *c != NODE_PORTS && *c != MARK_FOR_MASQUERADE)
        else {
            continue;
        };
        let mut chain = chain.to_owned();
        if chain.starts_with(FIREWALL) {
            let (behind, admitted) = firewall(rules, family, &chain)?;
            held.guarded = is_guarded(rules, family, key)?;
            held.admitted = Some(admitted);
            chain = behind;
        }
        held.follow(rules, family, Table::Nat, &chain)?;
        if rule.is_for_all_senders() {
            break;
        }
    }
    Ok(held)
}

/// What keeps packets from the chain that captures them, if so: the jumps that kube-proxy writes anew
/// with every full sync.
fn unhooked(rules: &dyn Ruleset, family: IpFamily) -> Result<Option<String>, ReadError> {
    let has_jump = |from: &str, to: &str| -> Result<bool, ReadError> {
        let chain = rules.chain(family, Table::Nat, from)?.unwrap_or_default();
        Ok(chain.iter().any(|rule| rule.leads_to() == Some(to)))
    };
    for hook in ["PREROUTING", "OUTPUT"] {
        if !has_jump(hook, SERVICES)? {
            return Ok(Some(format!("{hook} of table nat does not jump to {SERVICES}")));
        }
    }
    Ok(None)
}

/// Why node ports are not served on the node, if so. kube-proxy may be told some addresses alone
/// (--nodeport-addresses): a jump names each of the node's that is among them, and where none is there is no jump.
fn unserved(
    rules: &dyn Ruleset,
    family: IpFamily,
    destination: &Destination,
) -> Result<Option<String>, ReadError> {
    if destination.purpose != Purpose::NodePort {
        return Ok(None);
    }
    let key = (None, destination.protocol, destination.port);
    if leads_to_node_ports(rules, family, key)? {
        return Ok(None);
    }
    // For jumps that name an address the whole chain has to be read.
    let all = rules.chain(family, Table::Nat, SERVICES)?.unwrap_or_default();
    let has_jump = all.iter().any(|rule| rule.leads_to() == Some(NODE_PORTS));
    Ok((!has_jump).then(|| {
        format!("{SERVICES} does not jump to {NODE_PORTS}: node ports are not served on any address of this node (--nodeport-addresses)")
    }))
}

/// Whether packets to an address of the node, or to any where none is named, get to the node ports.
fn leads_to_node_ports(
    rules: &dyn Ruleset,
    family: IpFamily,
    (address, protocol, port): (Option<IpAddr>, Protocol, u16),
) -> Result<bool, ReadError> {
    let key = (address, protocol.number(), port);
    let towards = rules.rules_towards(family, Table::Nat, SERVICES, key)?;
    Ok(towards.iter().any(|rule| rule.leads_to() == Some(NODE_PORTS)))
}

/// Whether node ports are served at an address of the node.
pub(super) fn serves_node_ports_at(
    rules: &dyn Ruleset,
    address: IpAddr,
    protocol: Protocol,
    port: u16,
) -> Result<bool, ReadError> {
    let leads = |at| leads_to_node_ports(rules, IpFamily::of(address), (at, protocol, port));
    Ok(leads(None)? || leads(Some(address))?)
}

/// How packets that no endpoint takes are refused, if they are.
fn refusal(
    rules: &dyn Ruleset,
    family: IpFamily,
    destination: &Destination,
) -> Result<Option<Target>, ReadError> {
    let chain = match destination.purpose {
        Purpose::ClusterIp => SERVICES,
        _ => "KUBE-EXTERNAL-SERVICES",
    };
    let key = (
        destination.address,
        destination.protocol.number(),
        destination.port,
    );
    Ok(rules
        .rules_towards(family, Table::Filter, chain, key)?
        .into_iter()
        .map(|rule| rule.target)
        .find(|target| matches!(target, Target::Reject | Target::Drop)))
}

/// The chain that packets from admitted sources get to, and these sources.
fn firewall(rules: &dyn Ruleset, family: IpFamily, chain: &str) -> Result<(String, Vec<IpNet>), ReadError> {
    let (mut behind, mut admitted) = (String::new(), Vec::new());
    for rule in rules.chain(family, Table::Nat, chain)?.unwrap_or_default() {
        let Some(next) = rule.leads_to() else { continue };
        let sources = rule.matches.iter().filter_map(|condition| match condition {
            Match::Source { net, not: false } => Some(net.trunc()),
            _ => None,
        });
        // The network of all addresses is no condition for the kernel.
        let everybody = rule.is_for_all_senders().then(|| match family {
            IpFamily::V4 => Ipv4Net::default().into(),
            IpFamily::V6 => Ipv6Net::default().into(),
        });
        for net in sources.chain(everybody) {
            next.clone_into(&mut behind);
            admitted.push(net);
        }
    }
    Ok((behind, admitted))
}

/// Whether packets from sources that are not admitted are dropped.
fn is_guarded(
    rules: &dyn Ruleset,
    family: IpFamily,
    key: (Option<IpAddr>, u8, u16),
) -> Result<bool, ReadError> {
    let rules = rules.rules_towards(family, Table::Filter, "KUBE-PROXY-FIREWALL", key)?;
    Ok(rules.iter().any(|rule| rule.target == Target::Drop))
}

pub(super) fn masquerades(
    rules: &dyn Ruleset,
    service_address: (IpAddr, u16),
    protocol: Protocol,
    endpoint: SocketAddr,
) -> Result<bool, ReadError> {
    let (address, port) = service_address;
    let family = IpFamily::of(address);
    let key = (Some(address), protocol.number(), port);
    for capture in rules.rules_towards(family, Table::Nat, SERVICES, key)? {
        let Some(service_chain) = capture.leads_to() else {
            continue;
        };
        for way in rules
            .chain(family, Table::Nat, service_chain)?
            .unwrap_or_default()
        {
            let Some(endpoint_chain) = way.leads_to() else {
                continue;
            };
            let steps = rules
                .chain(family, Table::Nat, endpoint_chain)?
                .unwrap_or_default();
            if mark_hairpin(&steps, endpoint, is_mark) {
                return masquerades_marked(rules, family);
            }
        }
    }
    Ok(false)
}

/// Whether packets are marked, by the chain that does it or, as the first versions wrote it, on the spot.
fn is_mark(target: &Target) -> bool {
    match target {
        Target::Chain(chain) => chain == MARK_FOR_MASQUERADE,
        Target::Other(name) => name == "MARK",
        _ => false,
    }
}

/// Whether marked packets are masqueraded after routing.
fn masquerades_marked(rules: &dyn Ruleset, family: IpFamily) -> Result<bool, ReadError> {
    let chain = rules
        .chain(family, Table::Nat, "KUBE-POSTROUTING")?
        .unwrap_or_default();
    Ok(chain.iter().any(|rule| rule.target == Target::Masquerade))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::{Layout, Rule, Verdict};

    /// A node whose chains all have these rules.
    struct Firewall(Vec<Rule>);

    impl Ruleset for Firewall {
        fn layout(&self) -> Layout {
            Layout::Iptables
        }

        fn chain(&self, _: IpFamily, _: Table, _: &str) -> Result<Option<Vec<Rule>>, ReadError> {
            Ok(Some(self.0.clone()))
        }

        fn element(&self, _: IpFamily, _: &str, _: &[u8]) -> Result<Option<Verdict>, ReadError> {
            Ok(None)
        }
    }

    #[test]
    fn node_ports_are_served_at_all_addresses_or_at_those_that_are_named() {
        let jump = |to: &str, matches| Rule {
            matches,
            target: Target::Chain(to.to_owned()),
        };
        let node_port = Destination {
            purpose: Purpose::NodePort,
            address: None,
            port: 30080,
            protocol: Protocol::Tcp,
            inside: crate::Traffic::Reject,
            outside: None,
            source_ranges: Vec::new(),
        };
        let judged = |last: Option<Match>| {
            let mut all = vec![jump(SERVICES, Vec::new())];
            all.extend(last.map(|condition| jump(NODE_PORTS, vec![condition])));
            let rules = Firewall(all);
            let at =
                |ip: &str| serves_node_ports_at(&rules, ip.parse().unwrap(), Protocol::Tcp, 30080).unwrap();
            let is_served = unserved(&rules, IpFamily::V4, &node_port).unwrap().is_none();
            (is_served, at("192.0.2.1"), at("192.0.2.2"))
        };
        assert_eq!(judged(Some(Match::DestinationIsLocal)), (true, true, true));
        let net = "192.0.2.1/32".parse().unwrap();
        let named = Match::Destination { net, not: false };
        assert_eq!(judged(Some(named)), (true, true, false));
        assert_eq!(judged(None), (false, false, false));
    }

    #[test]
    fn a_range_of_all_addresses_is_a_rule_without_condition() {
        let rule = |matches| Rule {
            matches,
            target: Target::Chain("KUBE-EXT-A".to_owned()),
        };
        let net: IpNet = "192.0.2.0/24".parse().unwrap();
        let source = Match::Source { net, not: false };
        // The chain ends with a rule that is only a comment.
        let comment = Rule {
            matches: vec![Match::Neutral],
            ..Rule::default()
        };
        let admitted = |family, rules: Vec<Rule>| firewall(&Firewall(rules), family, "KUBE-FW-A").unwrap();
        let everybody = rule(vec![Match::Neutral]);
        let (behind, nets) = admitted(
            IpFamily::V4,
            vec![rule(vec![source]), everybody.clone(), comment.clone()],
        );
        assert_eq!(behind, "KUBE-EXT-A");
        assert_eq!(nets, [net, "0.0.0.0/0".parse().unwrap()]);
        let (behind, nets) = admitted(IpFamily::V6, vec![everybody, comment.clone()]);
        assert_eq!(behind, "KUBE-EXT-A");
        assert_eq!(nets, ["::/0".parse::<IpNet>().unwrap()]);
        assert_eq!(admitted(IpFamily::V4, vec![comment]), (String::new(), Vec::new()));
    }
}
