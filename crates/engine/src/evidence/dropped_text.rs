//! Packets that the kernel dropped, in words: what dropped them, and what to do about it.

use crate::{
    evidence::{
        droppers::{self, Droppers},
        lossy_settings::{self, Places},
    },
    text::{self, quoted},
};
use svcdiag_api::{DropPlace, PacketDrop};

/// What dropped packets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Dropped {
    pub by: DroppedBy,
    /// Whether they were on their way back to the client.
    pub answers: bool,
    /// The tunnel's packets that they were, where it was not the dial's own.
    pub carrier: Option<String>,
    /// The kernel's own words.
    pub says: String,
}

/// Who dropped packets. Which Pods or addresses it is about is in the places.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DroppedBy {
    /// A firewall of the node.
    Firewall {
        /// Whether the kernel named a function of nftables, whose rules no program of iptables-legacy shows.
        is_nftables: bool,
        /// The rule, or those that it may have been.
        rules: Droppers,
    },
    /// A firewall in the network namespace of Pods.
    FirewallOfPods(DropPlace, Droppers),
    /// An interface that does not forward: its name, and the sysctl.
    Interface(String, String),
    /// Whoever verifies checksums: where, and on which node the packets came from.
    Checksum { place: String, sender: Option<String> },
    /// A program or a filter at a link.
    Filter(Filter),
    /// This node has no route. What one node lacks is not said of another.
    NoRoute(String),
    /// Nobody answers on the links of this node, for the address or for the next hop on the way there.
    Neighbour { node: String, is_next_hop: bool },
}

/// A program or a filter at a link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Filter {
    /// Of what kind, with its article.
    pub kind: &'static str,
    /// Where it is: `on node n1`, `in Pod shop/web`.
    pub place: String,
    /// Whether that is the node's.
    pub on_node: bool,
    /// The link and the direction, of a tc filter.
    pub at: Option<(String, &'static str)>,
    /// Policies that it may enforce and that are not evaluated.
    pub policies: Option<String>,
}

/// Where packets that were to be routed to an address had come from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source {
    pub to: String,
    pub node: String,
    pub address: String,
    pub interface: String,
}

impl Filter {
    /// What the kernel's reason says of the kind of filter, and of the direction.
    pub(crate) fn of(drop: &PacketDrop, place: String, policies: Option<String>) -> Self {
        let on_node = drop.place == DropPlace::Node;
        let (kind, direction) = match drop.reason.as_str() {
            "TC_EGRESS" => ("A tc filter", Some("egress")),
            "TC_INGRESS" => ("A tc filter", Some("ingress")),
            "XDP" => ("An XDP program", None),
            _ => ("An eBPF program", None),
        };
        let at = direction.filter(|_| on_node);
        Self {
            kind,
            place,
            on_node,
            at: drop.interface.clone().zip(at),
            policies,
        }
    }
}

impl Dropped {
    /// What dropped the packets, without a full stop.
    pub(super) fn describe(&self, places: &Places<'_>) -> String {
        let (on, says) = (places.nodes(), &self.says);
        let what = match (&self.carrier, self.answers) {
            (Some(carrier), _) => format!("tunnel's packets, {carrier}"),
            (None, true) => "answers".to_owned(),
            (None, false) => "packets".to_owned(),
        };
        match &self.by {
            DroppedBy::Firewall { rules, .. } => {
                format!("A firewall on {on} drops the {what} ({says}){}", rules.describe())
            }
            DroppedBy::FirewallOfPods(place, rules) => format!(
                "A firewall rule in the network namespace of {} drops the {what} ({says}){}",
                whose(*place, places),
                rules.describe()
            ),
            DroppedBy::Interface(interface, sysctl) => format!(
                "IP forwarding is off for packets that come in by interface {interface} of {on} ({sysctl})"
            ),
            DroppedBy::Checksum { place, .. } => {
                format!("The {what} are dropped {place} because their checksum is wrong ({says})")
            }
            DroppedBy::Filter(Filter { kind, place, .. }) => {
                format!("{kind} {place} drops the {what} ({says})")
            }
            DroppedBy::NoRoute(node) => {
                format!("Node {node} has no route to {} ({says})", destinations(places))
            }
            DroppedBy::Neighbour { node, is_next_hop } => format!(
                "Nobody on the links of node {node} answers for {}{} ({says})",
                match is_next_hop {
                    true => "the next hop on the way to ",
                    false => "",
                },
                destinations(places)
            ),
        }
    }

    pub(super) fn remediation(&self, places: &Places<'_>) -> String {
        let on = places.nodes();
        match &self.by {
            DroppedBy::Firewall { is_nftables, rules } => {
                let accepted = self.carrier.as_deref().unwrap_or(droppers::OF_PODS);
                let of_rules = rules.remediation(&on, accepted);
                of_rules.unwrap_or_else(|| firewall(&on, *is_nftables, accepted))
            }
            DroppedBy::FirewallOfPods(..) => firewall_of_pods(places),
            DroppedBy::Interface(_, sysctl) => format!(
                "On {on}, enable it: `sysctl -w {}=1`, and find what turned it off (a file in /etc/sysctl.d, a network manager).{}",
                quoted(sysctl),
                lossy_settings::advertised_routes(sysctl)
            ),
            DroppedBy::Checksum { sender, .. } => checksums(sender.as_deref()),
            DroppedBy::Filter(filter) => of_filter(&on, filter),
            DroppedBy::NoRoute(_) | DroppedBy::Neighbour { .. } => routes(&on, places),
        }
    }
}

/// Who may have written wrong checksums.
fn checksums(sender: Option<&str>) -> String {
    let on = sender.map_or_else(
        || "the node that sends them".to_owned(),
        |node| format!("node {node}"),
    );
    format!(
        "Checksum offload of a tunnel or of a virtual NIC is the usual cause. On {on}, see `ethtool -k` for the tunnel's link (`ip -d link`), \
         where tx-checksum-ip-generic may have to be off."
    )
}

fn firewall(on: &str, is_nftables: bool, accepted: &str) -> String {
    let legacy = if is_nftables {
        ""
    } else {
        " (and `iptables-legacy-save`)"
    };
    format!(
        "Find the rule or chain policy that drops them on {on}: `nft list ruleset`{legacy}. Names of tables and chains hint at what wrote it. \
         If the network plugin did, check its policies; otherwise have that firewall (firewalld, ufw, Docker) accept {accepted}."
    )
}

/// What to do about rules in the network namespace of Pods.
pub(crate) fn firewall_of_pods(places: &Places<'_>) -> String {
    let whose = if places.of.len() > 1 { "Pods'" } else { "Pod's" };
    let first = places.of.iter().find_map(|pod| pod.split_once('/'));
    let see = match first {
        Some((namespace, name)) => format!(
            ", for example: `kubectl -n {} describe pod {}`",
            quoted(namespace),
            quoted(name)
        ),
        None => String::new(),
    };
    format!(
        "Rules there are written by one of the {whose} containers (often an init container or a sidecar) or by the network plugin. Find out which{see}."
    )
}

fn whose(place: DropPlace, places: &Places<'_>) -> String {
    let pods: Vec<&str> = places.of.iter().copied().collect();
    match (pods.len(), place) {
        (0, DropPlace::Client) => "the client".to_owned(),
        (0, _) => "the endpoint's Pod".to_owned(),
        (1, _) => format!("Pod {}", text::list(&pods)),
        _ => format!("Pods {}", text::list(&pods)),
    }
}

fn of_filter(on: &str, filter: &Filter) -> String {
    let policies = filter.policies.as_ref().map_or_else(String::new, |kinds| {
        format!(" A policy of another kind ({kinds}) may be what it enforces; these are not evaluated.")
    });
    if !filter.on_node {
        return format!(
            "Find out what attached it: the network plugin, or one of the Pod's containers.{policies}"
        );
    }
    let show = filter
        .at
        .as_ref()
        .map_or_else(String::new, |(interface, direction)| {
            format!(", `tc filter show dev {} {direction}`", quoted(interface))
        });
    format!(
        "On {on}, see whose it is: `bpftool net`{show}. If it is Cilium's or Calico's, check the policies there.{policies}"
    )
}

fn destinations(places: &Places<'_>) -> String {
    let addresses: Vec<&str> = places.of.iter().copied().collect();
    match addresses.is_empty() {
        true => "the client".to_owned(),
        false => text::list(&addresses),
    }
}

/// How to see the routes that packets took.
fn routes(on: &str, places: &Places<'_>) -> String {
    let noun = if places.of.len() > 1 { "routes" } else { "route" };
    let to = destinations(places);
    let check = match (places.of.first(), places.from.first()) {
        (None, _) => format!("Check the {noun} to {to} on {on}."),
        (Some(first), None) => format!(
            "Check the {noun} to {to} on {on}: `ip route get {}`.",
            quoted(first)
        ),
        (Some(_), Some(source)) => {
            // An interface is one of its node.
            let there = match places.nodes.len() {
                0 | 1 => String::new(),
                _ => format!(" (on node {})", source.node),
            };
            format!(
                "Check the {noun} to {to} on {on}, as packets of Pods take them: `ip route get {} from {} iif {}`{there}.",
                quoted(&source.to),
                quoted(&source.address),
                quoted(&source.interface)
            )
        }
    };
    let node = places.nodes.first().copied().unwrap_or_default();
    format!(
        "{check} The network plugin writes the routes and links of Pods: check its Pod there: \
         `kubectl get pods --all-namespaces -o wide --field-selector spec.nodeName={}`.",
        quoted(node)
    )
}
