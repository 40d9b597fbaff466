//! Descriptions of `kubectl describe`: of a Service, its Endpoints, or a Pod. They are evidence as tables are.

use std::{collections::BTreeMap, net::IpAddr};

use serde_json::{Value, json};

use crate::bundle::objects::identity::is_subdomain;

use super::{
    Fate,
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
};

impl Tables {
    /// Takes a description in; says what it is and what became of it.
    pub(super) fn describe(&mut self, section: &Section<'_>, home: &str) -> (String, Fate) {
        let fields = fields(section.text);
        let command = section.command.and_then(Kubectl::parse);
        let asked = command.and_then(|c| c.namespace).unwrap_or(home);
        let namespace = value(&fields, "Namespace").unwrap_or(asked);
        let name = value(&fields, "Name").unwrap_or_default();
        let has = |names: &[&str]| names.iter().all(|n| fields.iter().any(|f| f.name == *n));
        let kind = if has(&["Selector", "Type", "Session Affinity"]) {
            "Service"
        } else if has(&["Subsets"]) {
            "Endpoints"
        } else if has(&["Status", "Containers", "Conditions"]) {
            "Pod"
        } else {
            let why = "only descriptions of Services, Endpoints and Pods are read";
            return (format!("a description of {name}"), Fate::NotUsed(why.to_owned()));
        };
        let what = format!("the description of {kind} {name}");
        let key = (namespace.to_owned(), name.to_owned());
        let is_known = is_subdomain(name) && is_subdomain(namespace);
        let is_taken = is_known.then(|| match kind {
            "Service" => self.take_service(&fields, key),
            "Endpoints" => self.say_endpoints(key, endpoints(&fields)?),
            _ => self.say_pod(key, pod(&fields, name)?),
        });
        match is_taken.flatten() {
            Some(()) => (what, Fate::Used),
            None => (
                what,
                Fate::NotUsed("it could not be parsed; save the object with -o yaml".to_owned()),
            ),
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
    Some(TablePod {
        name: name.to_owned(),
        labels: labels.collect::<Option<_>>()?,
        is_ready,
        state: match is_ready {
            true => status.to_owned(),
            false => format!("{status}, not ready"),
        },
    })
}
