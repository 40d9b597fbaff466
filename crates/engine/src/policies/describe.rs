//! What policies deny, in words: to whom, why no rule matches, and what to add.

use std::collections::BTreeSet;

use crate::{
    Facts,
    policies::{
        dns::{CutOff, DNS_PORT, DnsDenial},
        ports::Denial,
        targets::Target,
        view::{Closed, PolicyView, names},
    },
    text::{self, SHOWN, quoted},
    workloads::near_miss,
};
use svcdiag_api::Reason;
use svcdiag_objects::{Object, ServicePort};

/// Something that is denied, and how to admit it.
pub(crate) struct Description {
    /// What is denied, to whom, and why.
    pub message: String,
    /// What to change.
    pub remediation: String,
}

/// Something to change in a policy.
#[derive(PartialEq, Eq)]
struct Fix<'a> {
    policy: &'a str,
    /// The rule that it belongs to; none for a new one.
    rule: Option<usize>,
    change: String,
}

impl Fix<'_> {
    /// The whole sentence, behind that about another change, if there is one.
    fn describe(&self, namespace: &str, before: Option<&Fix<'_>>) -> String {
        let Fix { policy, rule, change } = self;
        match before.filter(|before| before.policy == *policy) {
            Some(before) if rule.is_some() && before.rule == *rule => format!("In the same rule, {change}."),
            Some(_) if rule.is_some() => format!("In another rule of the same policy, {change}."),
            Some(_) => format!("In the same policy, {change}."),
            None => format!(
                "In NetworkPolicy {policy}, {change}: {}.",
                edit(namespace, policy)
            ),
        }
    }
}

/// A policy with the rest of a sentence about it.
fn policies(names: &BTreeSet<String>) -> String {
    let names: Vec<&String> = names.iter().collect();
    let noun = if names.len() == 1 {
        "NetworkPolicy"
    } else {
        "NetworkPolicies"
    };
    format!("{noun} {}", text::list(&names))
}

impl PolicyView<'_> {
    /// A denial at some ports of the Service.
    pub(crate) fn describe(&self, denials: &[(&ServicePort, &Denial)]) -> Option<Description> {
        let (_, denial) = denials.first()?;
        let of = denials
            .iter()
            .flat_map(|(_, d)| d.closed.policies.iter().cloned());
        let of: BTreeSet<String> = of.collect();
        let does = if of.len() == 1 { "does" } else { "do" };
        let ports: Vec<String> = denials.iter().map(|(p, _)| p.describe()).collect();
        let ports = text::list(&ports);
        let who = match denial.clients.as_slice() {
            [] => "any client".to_owned(),
            clients => self.client_pods(clients),
        };
        let what = if self.targets.iter().all(|t| t.pod.is_none()) {
            "endpoints"
        } else {
            "Pods"
        };
        let some = if denial.partly { "some of the " } else { "the " };
        let is_in = denial.reason == Reason::IngressDenied;
        let denies = match is_in {
            true => {
                format!("{does} not admit traffic from {who} to {some}{what} behind Service port {ports}")
            }
            false => {
                format!("{does} not allow egress from {who} to {some}{what} behind Service port {ports}")
            }
        };
        let namespace = if is_in {
            &self.facts.namespace
        } else {
            self.client_namespace
        };
        let closed: Vec<&Closed> = denials.iter().map(|(_, d)| &d.closed).collect();
        Some(Description {
            message: format!("{} {denies}{}.", policies(&of), why(&closed, &of)),
            remediation: self.fixes(namespace, denials, is_in),
        })
    }

    /// What to change in each policy: a sentence for each part of a rule that does not match. Policies only ever admit
    /// more, so the one that comes nearest is all that has to change; half of what a rule needs changes nothing.
    fn fixes(&self, namespace: &str, denials: &[(&ServicePort, &Denial)], is_in: bool) -> String {
        let mut said: Vec<Fix<'_>> = Vec::new();
        let mut sentences: Vec<String> = Vec::new();
        let mut is_cut = false;
        for (port, denial) in denials {
            let mut fixes = self.fixes_of(port, denial, is_in);
            fixes.retain(|fix| !said.contains(fix));
            if !said.is_empty() && said.len() + fixes.len() > SHOWN {
                is_cut = true;
                continue;
            }
            for fix in fixes {
                sentences.push(fix.describe(namespace, said.last()));
                said.push(fix);
            }
        }
        if is_cut {
            sentences.push("The other ports need changes as well.".to_owned());
        }
        sentences.join(" ")
    }

    /// What would admit traffic to one port.
    fn fixes_of<'d>(&self, port: &ServicePort, denial: &'d Denial, is_in: bool) -> Vec<Fix<'d>> {
        let nearest = denial.closed.mismatch.as_ref();
        let policy = nearest.map(|m| &m.policy).or(denial.closed.policies.first());
        let policy = policy.map_or("", String::as_str);
        let of_rule = nearest.filter(|m| !m.fixes.is_empty());
        match of_rule {
            Some(mismatch) => {
                let fixes = mismatch.fixes.iter().cloned();
                let rule = mismatch.rule;
                fixes.map(|change| Fix { policy, rule, change }).collect()
            }
            None => vec![Fix {
                policy,
                rule: None,
                change: format!("add {}", self.general_fix(port, is_in)),
            }],
        }
    }

    /// What to add where nothing of a rule comes near.
    fn general_fix(&self, port: &ServicePort, is_in: bool) -> String {
        let numbers: BTreeSet<i32> = self.targets_of(port).iter().map(|(_, p)| p.number).collect();
        let numbers: Vec<String> = numbers.iter().map(i32::to_string).collect();
        let to = match numbers.as_slice() {
            [] => "their port".to_owned(),
            numbers => format!("port {}", text::list(numbers)),
        };
        let not_the_services = if numbers.iter().any(|n| *n == port.port.to_string()) {
            String::new()
        } else {
            format!(" (not port {} of the Service)", port.port)
        };
        if is_in {
            return format!(
                "an ingress rule that allows traffic from the clients to {to} of the Pods{not_the_services}"
            );
        }
        format!(
            "an egress rule that allows traffic to {} on {to}{not_the_services}",
            self.whom()
        )
    }

    /// The targets, as a rule names them.
    fn whom(&self) -> String {
        if self.service.has_selector() {
            return format!(
                "the Pods labelled {}",
                near_miss::selector(&self.service.spec.selector)
            );
        }
        let pods: BTreeSet<&str> = self.targets.iter().filter_map(|t| Some(t.pod?.name())).collect();
        if !pods.is_empty() {
            let pods: Vec<&str> = pods.into_iter().collect();
            return format!("the Pods behind the Service (for example {})", text::list(&pods));
        }
        let address = |t: &Target| t.addresses.first().cloned();
        let addresses: Vec<String> = self.targets.iter().filter_map(address).collect();
        format!(
            "the endpoints, with an ipBlock for each ({})",
            text::list(&addresses)
        )
    }

    /// Clients by their full names.
    fn client_pods(&self, names: &[String]) -> String {
        let noun = if names.len() == 1 { "Pod" } else { "Pods" };
        let full = names
            .iter()
            .map(|name| format!("{}/{name}", self.client_namespace));
        format!("{noun} {}", text::list(&full.collect::<Vec<_>>()))
    }

    /// Clients that cannot look names up.
    pub(crate) fn describe_dns(&self, clients: &[CutOff<'_, '_>]) -> Option<Description> {
        let policies_of = |c: &CutOff<'_, '_>| names(&c.client.isolating);
        let (first, names) = clients.first().map(|c| (&c.denial, policies_of(c)))?;
        // What others lack, or in which policies, is another matter.
        let alike = clients
            .iter()
            .filter(|c| c.denial == *first && policies_of(c) == names);
        let who: Vec<String> = alike.map(|c| c.client.pod.name().to_owned()).collect();
        let (they, need) = if who.len() == 1 {
            ("it", "needs")
        } else {
            ("they", "need")
        };
        let names: BTreeSet<String> = names.into_iter().collect();
        let does = if names.len() == 1 { "does" } else { "do" };
        let who = self.client_pods(&who);
        let edit = edit(self.client_namespace, names.first().map_or("", String::as_str));
        let denies = format!("{} {does} not allow egress from {who} to", policies(&names));
        Some(match first {
            DnsDenial::ClusterDns => Description {
                message: format!(
                    "{denies} cluster DNS (UDP port {DNS_PORT}), which {they} {need} to resolve the Service."
                ),
                remediation: format!(
                    "Add an egress rule for UDP and TCP port {DNS_PORT} of cluster DNS: {edit}."
                ),
            },
            DnsDenial::NodeCache(servers) => {
                let blocks: Vec<String> = servers.iter().map(|ip| block(ip)).collect();
                let servers = text::list(servers);
                Description {
                    message: format!(
                        "{denies} the DNS cache of the node at {servers} (UDP port {DNS_PORT}), which does not answer and which {they} {need} to resolve the Service. The cache uses the host network, where only an ipBlock matches it, not a podSelector."
                    ),
                    remediation: format!(
                        "Add an egress rule with ipBlock {} for UDP and TCP port {DNS_PORT}: {edit}.",
                        text::list(&blocks)
                    ),
                }
            }
        })
    }
}

/// Why no rule matches, to be put behind a sentence about policies.
fn why(closed: &[&Closed], policies: &BTreeSet<String>) -> String {
    let mut whys: Vec<String> = Vec::new();
    for mismatch in closed.iter().filter_map(|c| c.mismatch.as_ref()) {
        let why = match policies.len() {
            1 => mismatch.why.clone(),
            _ => format!("the closest rule is in {}; {}", mismatch.policy, mismatch.why),
        };
        if !whys.contains(&why) && whys.len() < SHOWN {
            whys.push(why);
        }
    }
    match whys.as_slice() {
        [] => String::new(),
        whys => format!(": {}", whys.join("; ")),
    }
}

/// A command changes nothing by itself.
fn edit(namespace: &str, policy: &str) -> String {
    format!(
        "`kubectl -n {} edit networkpolicy {}`",
        quoted(namespace),
        quoted(policy)
    )
}

/// The block that holds one address.
fn block(ip: &str) -> String {
    format!("{ip}/{}", if ip.contains(':') { 128 } else { 32 })
}

/// Kinds of policies that are not judged, in words.
pub(crate) fn other_kinds(facts: &Facts) -> Option<String> {
    let mut kinds: Vec<&str> = facts.other_policy_kinds.iter().map(String::as_str).collect();
    kinds.sort_unstable();
    kinds.dedup();
    (!kinds.is_empty()).then(|| text::list(&kinds))
}
