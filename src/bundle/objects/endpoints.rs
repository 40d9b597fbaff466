//! Endpoints, the elder of EndpointSlices: what old clusters have, and what people still ask for.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::{
    bundle::Bundle,
    objects::{
        Endpoint, EndpointConditions, EndpointPort, EndpointSlice, IpFamily, TargetRef, null_is_default,
        trim_metadata,
    },
};

/// Annotation of Endpoints that had more than a thousand addresses, and lost the others.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

/// Label of Endpoints of which no EndpointSlice is made.
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";

/// Endpoints of a Service of which no EndpointSlice was made.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::bundle) struct Unmirrored {
    /// Its addresses that are ready.
    pub addresses: usize,
    /// Whether it says that none is to be made.
    pub skips: bool,
}

/// An object of kind Endpoints; it has the name of its Service.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Endpoints {
    metadata: ObjectMeta,
    #[serde(default, deserialize_with = "null_is_default")]
    subsets: Vec<Subset>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Subset {
    #[serde(deserialize_with = "null_is_default")]
    addresses: Vec<Address>,
    #[serde(deserialize_with = "null_is_default")]
    not_ready_addresses: Vec<Address>,
    #[serde(deserialize_with = "null_is_default")]
    ports: Vec<EndpointPort>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Address {
    ip: String,
    node_name: Option<String>,
    target_ref: Option<TargetRef>,
}

/// Makes EndpointSlices of the Endpoints of Services of which no slices are known; returns the names of those that
/// are cut short.
pub(super) fn convert(all: Vec<Endpoints>, bundle: &mut Bundle) -> Vec<String> {
    let mut cut = Vec::new();
    for endpoints in all {
        let namespace = endpoints.metadata.namespace.clone().unwrap_or_default();
        let service = endpoints.metadata.name.clone().unwrap_or_default();
        let has_slices = bundle.inventory.slices_of(&namespace, &service).next().is_some();
        // kube-proxy reads slices: where these are known to be missing, that is the fault.
        if has_slices || bundle.knows_slices(&namespace, &service) {
            let labels = endpoints.metadata.labels.as_ref();
            let object = Unmirrored {
                addresses: endpoints.subsets.iter().map(|s| s.addresses.len()).sum(),
                skips: labels.is_some_and(|l| l.get(SKIP_MIRROR).is_some_and(|value| value == "true")),
            };
            if !has_slices {
                bundle.unmirrored.insert((namespace, service), object);
            }
            continue;
        }
        let annotations = endpoints.metadata.annotations.as_ref();
        if annotations.is_some_and(|a| a.contains_key(OVER_CAPACITY)) {
            cut.push(format!("Endpoints {namespace}/{service}"));
        } else {
            bundle.listed.note_slices_of(&namespace, &service);
        }
        for slice in slices(endpoints, &service) {
            bundle.inventory.apply(slice);
        }
    }
    cut
}

/// One slice for each subset and IP family.
fn slices(endpoints: Endpoints, service: &str) -> Vec<EndpointSlice> {
    let mut slices = Vec::new();
    let mut metadata = endpoints.metadata;
    trim_metadata(&mut metadata);
    let labels = metadata.labels.get_or_insert_default();
    labels.insert(EndpointSlice::SERVICE_LABEL.to_owned(), service.to_owned());
    for subset in endpoints.subsets {
        let all: Vec<Endpoint> = subset
            .addresses
            .iter()
            .map(|a| endpoint(a, true))
            .chain(subset.not_ready_addresses.iter().map(|a| endpoint(a, false)))
            .collect();
        let families: BTreeSet<IpFamily> = all.iter().map(family).collect();
        for address_type in families {
            let mut metadata = metadata.clone();
            metadata.name = Some(format!("{service}-endpoints-{}", slices.len()));
            slices.push(EndpointSlice {
                metadata,
                address_type: address_type.into(),
                endpoints: all
                    .iter()
                    .filter(|e| family(e) == address_type)
                    .cloned()
                    .collect(),
                ports: subset.ports.clone(),
            });
        }
    }
    slices
}

fn endpoint(address: &Address, is_ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: EndpointConditions {
            ready: Some(is_ready),
            ..EndpointConditions::default()
        },
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn family(endpoint: &Endpoint) -> IpFamily {
    let is_v6 = endpoint.addresses.iter().any(|a| a.contains(':'));
    if is_v6 { IpFamily::V6 } else { IpFamily::V4 }
}
