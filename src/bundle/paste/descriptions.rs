//! Descriptions of `kubectl describe`: of a Service, its Endpoints or EndpointSlices, a Pod or a Node. They are evidence as
//! tables are. Of workloads only the Events at the end count.

use std::{collections::BTreeMap, net::IpAddr};

use serde_json::{Value, json};

use crate::bundle::objects::identity::is_subdomain;

use super::{
    Fate, described_nodes,
    tables::{Tables, is_word},
};
use crate::{
    engine::TablePod,
    formats::text::{
        describe::{Field, fields, value, values},
        kubectl::Kubectl,
        paste::Section,
        table::labels,
    },
    objects::EndpointSlice,
};

/// What is described.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Described {
    Service,
    Endpoints,
    EndpointSlice,
    Pod,
    Node,
    /// What creates Pods, by its kind.
    Workload(&'static str),
}

impl Described {
    /// By the fields, which differ for all of these kinds.
    fn of(fields: &[Field<'_>]) -> Option<Self> {
        const KINDS: [(Described, &[&str]); 12] = [
            (Described::Service, &["Selector", "Type", "Session Affinity"]),
            (Described::Endpoints, &["Subsets"]),
            (Described::EndpointSlice, &["AddressType"]),
            (Described::Node, &["Roles", "Conditions", "Addresses"]),
            // Cut short, it is known by what stands at its beginning.
            (Described::Node, &["Roles", "Taints"]),
            (
                Described::Workload("Deployment"),
                &["Pod Template", "StrategyType"],
            ),
            (
                Described::Workload("StatefulSet"),
                &["Pod Template", "Update Strategy"],
            ),
            (
                Described::Workload("DaemonSet"),
                &["Pod Template", "Desired Number of Nodes Scheduled"],
            ),
            (Described::Workload("Job"), &["Pod Template", "Parallelism"]),
            (
                Described::Workload("ReplicaSet"),
                &["Pod Template", "Pods Status", "Controlled By"],
            ),
            // One of these two without an owner: which of them cannot be seen.
            (
                Described::Workload("ReplicaSet"),
                &["Pod Template", "Pods Status", "Replicas"],
            ),
            (Described::Pod, &["Status", "Containers", "Conditions"]),
        ];
        let has = |names: &[&str]| names.iter().all(|n| fields.iter().any(|f| f.name == *n));
        let kind = KINDS.iter().find(|(_, names)| has(names));
        kind.map(|(kind, _)| *kind)
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Endpoints => "Endpoints",
            Self::EndpointSlice => "EndpointSlice",
            Self::Pod => "Pod",
            Self::Node => "Node",
            Self::Workload(kind) => kind,
        }
    }
}

impl Tables {
    /// Takes a description in; says what it is and what became of it.
    pub(super) fn describe(&mut self, section: &Section<'_>, home: &str) -> (String, Fate) {
        let fields = fields(section.text);
        let command = section.command.and_then(Kubectl::parse);
        let asked = command.and_then(|c| c.namespace).unwrap_or(home);
        let namespace = value(&fields, "Namespace").unwrap_or(asked);
        let name = value(&fields, "Name").unwrap_or_default();
        let Some(described) = Described::of(&fields) else {
            let why = "only descriptions of Services, Endpoints, EndpointSlices, Pods, Nodes and workloads are read";
            return (format!("a description of {name}"), Fate::NotUsed(why.to_owned()));
        };
        let kind = described.kind();
        let mut what = format!("the description of {kind} {name}");
        let warnings = self.add_described_events(namespace, kind, name, values(&fields, "Events"));
        if warnings > 0 {
            what.push_str(&format!(
                " and its Events ({})",
                super::events::count(warnings, "Warning")
            ));
        }
        if let Described::Workload(_) = described {
            let why = "save the object with -o yaml; of its description only Warnings are read";
            return match warnings {
                0 => (what, Fate::NotUsed(why.to_owned())),
                _ => (what, Fate::Used),
            };
        }
        let is_known = is_subdomain(name) && is_subdomain(namespace);
        match is_known
            .then(|| self.take_described(described, &fields, namespace, name))
            .flatten()
        {
            Some(()) => (what, Fate::Used),
            None => (
                what,
                Fate::NotUsed("it could not be parsed; save the object with -o yaml".to_owned()),
            ),
        }
    }

    fn take_described(
        &mut self,
        described: Described,
        fields: &[Field<'_>],
        namespace: &str,
        name: &str,
    ) -> Option<()> {
        let key = (namespace.to_owned(), name.to_owned());
        match described {
            Described::Service => self.take_service(fields, key),
            Described::Endpoints => self.say_endpoints(key, endpoints(fields)?),
            Described::EndpointSlice => {
                let (service, ready) = slice(fields)?;
                self.say_slice((namespace.to_owned(), service), name, ready);
                Some(())
            }
            Described::Pod => self.say_pod(key, pod(fields, name)?),
            Described::Node => {
                let node = described_nodes::node(fields, name)?;
                self.say_described_node(name, node);
                Some(())
            }
            Described::Workload(_) => None,
        }
    }

    fn take_service(&mut self, fields: &[Field<'_>], key: (String, String)) -> Option<()> {
        let service = service(fields, &key)?;
        let mut addresses = Vec::new();
        for field in fields.iter().filter(|f| f.name == "Endpoints") {
            for listed in &field.values {
                addresses.extend(ips(listed)?);
            }
        }
        // A description that was cut before them says nothing of them.
        let are_shown = fields.iter().any(|f| f.name == "Endpoints");
        if are_shown && value(fields, "Selector").is_some() {
            self.say_endpoints(key.clone(), addresses)?;
        }
        self.say_described(key, service);
        Some(())
    }
}

/// The Service of a description.
fn service(fields: &[Field<'_>], (namespace, name): &(String, String)) -> Option<Value> {
    let selector = match value(fields, "Selector") {
        Some(cell) => labels(cell).filter(|_| is_word(cell))?,
        None => BTreeMap::new(),
    };
    let of = |name: &'static str| fields.iter().filter(move |f| f.name == name);
    // Each is followed by its target, except where it is headless and old.
    let mut targets = of("TargetPort").map(|f| f.values.first().copied());
    let mut ports = Vec::new();
    for field in of("Port") {
        let words: Vec<&str> = field.values.first()?.split_whitespace().collect();
        let (port_name, number) = match words.as_slice() {
            [number] => ("", *number),
            ["<unset>", number] => ("", *number),
            [port_name, number] => (*port_name, *number),
            _ => return None,
        };
        let (number, protocol) = number.split_once('/')?;
        let target = targets.next()??.split_once('/')?.0;
        let target = target
            .parse::<u16>()
            .map_or_else(|_| json!(target), |number| json!(number));
        ports.push(json!({
            "name": port_name, "port": number.parse::<u16>().ok()?, "protocol": protocol, "targetPort": target,
        }));
    }
    let is_plain = ports
        .iter()
        .all(|p| is_word(&p["targetPort"].to_string().replace('"', "")));
    is_plain.then(|| {
        json!({
            "metadata": { "name": name, "namespace": namespace },
            "spec": {
                "type": value(fields, "Type"),
                // Neither is written for a Service that has none.
                "clusterIP": value(fields, "IP").or(value(fields, "IPs")),
                "externalName": value(fields, "External Name"),
                "selector": selector,
                "ports": ports,
            },
        })
    })
}

/// The ready addresses of Endpoints.
fn endpoints(fields: &[Field<'_>]) -> Option<Vec<IpAddr>> {
    let mut found = Vec::new();
    for line in values(fields, "Subsets") {
        if let Some(listed) = line.strip_prefix("Addresses:") {
            found.extend(ips(listed)?);
        }
    }
    Some(found)
}

/// The Service of an EndpointSlice, and the addresses that are ready in it. One that does not say is ready.
fn slice(fields: &[Field<'_>]) -> Option<(String, Vec<IpAddr>)> {
    let mut labels = values(fields, "Labels").iter();
    let service = labels.find_map(|label| {
        label
            .strip_prefix(EndpointSlice::SERVICE_LABEL)?
            .strip_prefix('=')
    })?;
    let service = Some(service).filter(|name| is_subdomain(name))?.to_owned();
    // Without this field the description was cut.
    fields.iter().find(|f| f.name == "Endpoints")?;
    let mut all: Vec<(Vec<IpAddr>, bool)> = Vec::new();
    for line in values(fields, "Endpoints") {
        if let Some(listed) = line.strip_prefix("- Addresses:") {
            all.push((ips(listed)?, true));
        } else if let (Some(state), Some((_, is_ready))) = (line.strip_prefix("Ready:"), all.last_mut()) {
            *is_ready = state.trim() != "false";
        }
    }
    let ready = all.into_iter().filter(|(_, is_ready)| *is_ready);
    Some((service, ready.flat_map(|(addresses, _)| addresses).collect()))
}

/// The addresses of a list: `10.1.2.3:80,10.1.2.4:80 + 3 more...`; None where one of them is none.
pub(super) fn ips(listed: &str) -> Option<Vec<IpAddr>> {
    let listed = listed.split(" + ").next().unwrap_or_default();
    let addresses = listed
        .split(',')
        .map(str::trim)
        .filter(|a| !matches!(*a, "" | "<none>"));
    addresses
        .map(|address| {
            let socket = address.parse::<std::net::SocketAddr>().map(|s| s.ip());
            socket.or_else(|_| address.parse::<IpAddr>()).ok()
        })
        .collect()
}

/// The Pod of a description.
fn pod(fields: &[Field<'_>], name: &str) -> Option<TablePod> {
    let pairs = values(fields, "Labels");
    let labels = pairs.iter().map(|pair| {
        let (key, value) = pair.split_once('=').filter(|_| is_word(pair))?;
        Some((key.to_owned(), value.to_owned()))
    });
    let status = value(fields, "Status").filter(|s| is_word(s))?;
    let is_true = |line: &&str| line.split_whitespace().eq(["Ready", "True"]);
    let is_ready = status == "Running" && values(fields, "Conditions").iter().any(is_true);
    // `node-a/192.0.2.2`
    let node = value(fields, "Node").and_then(|node| node.split('/').next());
    Some(TablePod {
        name: name.to_owned(),
        node: node.filter(|n| is_subdomain(n)).map(str::to_owned),
        labels: labels.collect::<Option<_>>()?,
        is_ready,
        state: match (is_ready, waits_for(fields)) {
            (true, _) => status.to_owned(),
            (false, Some(reason)) => format!("{status}, {reason}"),
            (false, None) => format!("{status}, not ready"),
        },
    })
}

/// Why the first container waits that does: `State: Waiting`, and below it `Reason: CrashLoopBackOff`.
fn waits_for<'a>(fields: &[Field<'a>]) -> Option<&'a str> {
    let mut is_waiting = false;
    values(fields, "Containers").iter().find_map(|line| {
        let was_waiting = std::mem::replace(
            &mut is_waiting,
            line.strip_prefix("State:")
                .is_some_and(|state| state.trim() == "Waiting"),
        );
        let reason = line.strip_prefix("Reason:").filter(|_| was_waiting)?.trim();
        is_word(reason).then_some(reason)
    })
}
