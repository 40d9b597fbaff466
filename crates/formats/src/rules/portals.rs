//! What kube-proxy wrote in userspace mode: two rules for each address of a Service port, which lead to a
//! port that kube-proxy itself listens on.
//!
//! Source: `openPortal` and `openNodePort` of kube-proxy's userspace proxier, which Kubernetes had until
//! 1.25. Packets of Pods are redirected in KUBE-PORTALS-CONTAINER; those of the node itself, which never
//! pass there, are sent to the node's address in KUBE-PORTALS-HOST. Node ports have KUBE-NODEPORT-CONTAINER
//! and KUBE-NODEPORT-HOST. Which endpoints there are only kube-proxy knows.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use super::{
    Wrong, contradiction,
    iptables_save::IptablesSave,
    save_index::{slice, split_rule},
    save_text::{Extent, Text},
    words::Words,
    xt_rule,
};
use svcdiag_kube_proxy::{Destination, ExpectedPort, Gap, IpFamily, Purpose, ReadError, RuleFault, Table};

/// The chain for packets of Pods and the one for packets of the node.
const PORTALS: [&str; 2] = ["KUBE-PORTALS-CONTAINER", "KUBE-PORTALS-HOST"];
const NODE_PORTS: [&str; 2] = ["KUBE-NODEPORT-CONTAINER", "KUBE-NODEPORT-HOST"];

/// Chain, address if one is named, number of the protocol, port.
type Key = (&'static str, Option<IpAddr>, u8, u16);

/// The rules of userspace mode.
#[derive(Debug)]
pub struct Portals<'a> {
    save: &'a IptablesSave,
    family: IpFamily,
    /// The port that kube-proxy listens on, by what is led to it.
    proxy_ports: HashMap<Key, u16>,
}

impl<'a> Portals<'a> {
    /// Reads them from saved rules.
    ///
    /// # Errors
    /// When the saved rules hold no table nat of the family, a rule cannot be read, or one output
    /// contradicts another.
    pub fn of(save: &'a IptablesSave, family: IpFamily) -> Result<Self, ReadError> {
        let mut known: Option<(&Text, HashMap<Key, u16>)> = None;
        for (_, output, extent) in save.outputs(family, Table::Nat)? {
            let text = &output.text;
            let mut found = HashMap::new();
            for chain in PORTALS.into_iter().chain(NODE_PORTS) {
                add(text, extent, family, chain, &mut found)?;
            }
            let Some((first, ports)) = &mut known else {
                known = Some((text, found));
                continue;
            };
            // Lines that were chosen twice may be of two Services.
            let differs = |(key, port): (&Key, &u16)| ports.get(key).is_some_and(|p| p != port);
            if extent != Extent::Loose && found != *ports || found.iter().any(differs) {
                return Err(contradiction("the portals", first, text));
            }
            ports.extend(found);
        }
        Ok(Self {
            save,
            family,
            proxy_ports: known.map(|(_, ports)| ports).unwrap_or_default(),
        })
    }

    /// Whether there are none: kube-proxy is not in userspace mode.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.proxy_ports.is_empty()
    }

    /// The port of the node on which kube-proxy takes the packets to a destination.
    #[must_use]
    pub fn proxy_port(&self, destination: &Destination) -> Option<u16> {
        chains(destination)
            .into_iter()
            .find_map(|chain| self.lead(chain, destination))
    }

    /// Compares them with what a node has to hold for a port of a Service, `namespace/name`.
    ///
    /// # Errors
    /// When the text is a part in which nothing mentions a destination.
    pub fn audit(&self, service: &str, expected: &ExpectedPort) -> Result<Vec<Gap>, ReadError> {
        let is_all = self.save.is_whole(self.family) || self.save.is_chosen_for(service);
        let mut gaps = BTreeSet::new();
        for destination in &expected.destinations {
            let missing = chains(destination)
                .into_iter()
                .filter(|chain| self.lead(chain, destination).is_none());
            let missing: Vec<&str> = missing.collect();
            if !is_all && missing.len() == 2 {
                return Err(ReadError {
                    what: format!("the portal of {destination}"),
                    why: "the saved lines are only a part and do not mention it".to_owned(),
                });
            }
            gaps.extend(missing.into_iter().map(|chain| Gap {
                fault: match destination.purpose {
                    Purpose::NodePort => RuleFault::NodePortRulesMissing,
                    _ => RuleFault::RulesMissing,
                },
                destination: destination.to_string(),
                endpoint: None,
                detail: format!("{chain} has no rule for {destination}"),
            }));
        }
        Ok(gaps.into_iter().collect())
    }

    fn lead(&self, chain: &'static str, destination: &Destination) -> Option<u16> {
        let protocol = destination.protocol.number();
        let key = (chain, destination.address, protocol, destination.port);
        self.proxy_ports.get(&key).copied()
    }
}

fn chains(destination: &Destination) -> [&'static str; 2] {
    match destination.purpose {
        Purpose::NodePort => NODE_PORTS,
        _ => PORTALS,
    }
}

fn add(
    text: &Text,
    extent: Extent,
    family: IpFamily,
    chain: &'static str,
    proxy_ports: &mut HashMap<Key, u16>,
) -> Result<(), ReadError> {
    let (runs, _) = text.runs(family, Table::Nat, chain, extent);
    for run in runs {
        for line in slice(&text.text, &(run.start..run.end)).split('\n') {
            let Some((_, rest)) = split_rule(line).filter(|(name, _)| *name == chain) else {
                continue;
            };
            let found = portal(chain, rest, family).map_err(|wrong| {
                let at = (line.as_ptr() as usize).saturating_sub(text.text.as_ptr() as usize);
                ReadError {
                    what: format!("a rule of chain {chain}"),
                    why: wrong.at(text.line_number(at)).to_string(),
                }
            })?;
            proxy_ports.extend(found);
        }
    }
    Ok(())
}

/// What a rule leads to a port; None if it leads to none, or asks for more than address and port.
fn portal(chain: &'static str, rule: &str, family: IpFamily) -> Result<Option<(Key, u16)>, Wrong> {
    const EXPECTED: &str = "a port that packets are led to";
    let read = xt_rule::read(chain, rule, family)?;
    let protocol = read.matches.iter().find_map(|condition| match condition {
        svcdiag_kube_proxy::Match::Protocol(number) => Some(*number),
        _ => None,
    });
    let (Some((address, port)), Some(protocol)) = (read.sole_destination(), protocol) else {
        return Ok(None);
    };
    let mut words = Words::of(rule);
    while let Some(word) = words.next()? {
        let is_lead = word == "--to-ports" || word == "--to-destination";
        if is_lead {
            let value = words.value(EXPECTED)?;
            let lead = value.rsplit(':').next().and_then(|port| port.parse().ok());
            let lead = lead.ok_or_else(|| Wrong::word(&value, EXPECTED))?;
            return Ok(Some(((chain, address, protocol, port), lead)));
        }
    }
    Err(Wrong::new("the end of the rule", EXPECTED))
}
