//! Schema fragments with the bounds that the derived schemas lack.
//!
//! Every string and list of our kinds is bounded: it keeps an object small whatever a client
//! sends, and it is what the API server estimates the cost of the CEL rules by.

use schemars::{Schema, SchemaGenerator, json_schema};

use super::{ConditionType, DataPath, MAX_ADDRESSES, MAX_DNS_ENDPOINTS, MAX_OF_A_SERVICE};

/// Longest message we write; the API server would take 32768 characters.
pub(super) const MESSAGE_MAX: usize = 4096;

/// DNS label of RFC 1123, the form of namespace and Service names.
const DNS_LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// DNS subdomain of RFC 1123, the form of most other names.
pub(super) const NAME: &str = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";

/// An object as namespace/name.
pub(super) const KEY: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";

/// An IP address.
pub(super) const IP: &str = "^[0-9a-fA-F:.]+$";

/// A link-layer address of Ethernet: 0a:58:0a:f4:01:05.
pub(super) const LINK_ADDRESS: &str = "^[0-9a-f]{2}(:[0-9a-f]{2}){5}$";

/// An address, with its port if it has one: 10.0.0.1:80, [fd00::1]:80.
pub(super) const ADDRESS: &str = "^[0-9a-fA-F:.\\[\\]]+$";

/// What rules are about: an address with port and protocol, or a node port.
pub(super) const DESTINATION: &str = "^(node port )?[0-9a-fA-F:.\\[\\]]+(/[A-Za-z]+)?$";

/// A name in DNS, which may be in capitals, and end with a dot.
pub(super) const DOMAIN: &str = "^[A-Za-z0-9_.]([-A-Za-z0-9_.]*[A-Za-z0-9_.])?$";

/// A port of a Service: 80/TCP.
pub(super) const PORT: &str = "^[0-9]{1,5}/(TCP|UDP|SCTP)$";

/// IPv4 or IPv6.
pub(super) const FAMILY: &str = "^IPv[46]$";

/// TCP, UDP or SCTP.
pub(super) const PROTOCOL: &str = "^[A-Z]{1,8}$";

/// A word of a program: a mode, a version, a chain, a link, a unit of systemd.
pub(super) const WORD: &str = "^[A-Za-z0-9_]([-A-Za-z0-9_.:@+/]*[A-Za-z0-9_])?$";

/// A table or chain of netfilter, where ? stands for other characters.
pub(super) const FILTER_NAME: &str = "^[A-Za-z0-9_.?][-A-Za-z0-9_.:@+/?]*$";

/// A rule of netfilter as it is written here.
pub(super) const FILTER_RULE: &str = "^[A-Za-z0-9][-A-Za-z0-9_.:@+/?!=*, ]*$";

/// A resourceVersion.
pub(super) const VERSION: &str = "^[0-9A-Za-z]*$";

/// Tokens, with commas between them.
pub(super) const VERSIONS: &str = "^[0-9A-Za-z,]*$";

/// What a DNS server answers instead of an address: SERVFAIL.
pub(super) const CODE: &str = "^[A-Za-z0-9]+$";

pub(super) fn service_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": 63, "pattern": DNS_LABEL,
        "x-kubernetes-validations": [{ "rule": "self == oldSelf", "message": "serviceName is immutable" }] })
}

pub(super) fn node_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": 253,
        "x-kubernetes-validations": [{ "rule": "self == oldSelf", "message": "nodeName is immutable" }] })
}

pub(super) fn namespace(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": 63, "pattern": DNS_LABEL, "nullable": true })
}

/// Number or name of a Service port. `self == string(self)` asks whether it is a string. A name has a
/// letter (k8s.io/apimachinery, IsValidPortName), so that "80" is not mistaken for one.
pub(super) fn port(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-int-or-string": true, "maxLength": 63,
        "x-kubernetes-validations": [{
            "rule": "self == string(self) ? self.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$') && self.matches('[a-z]') : self >= 1 && self <= 65535",
            "message": "must be a port number from 1 to 65535 or the name of a port, which has at least one letter" }] })
}

pub(super) fn ports(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "maxItems": 100, "x-kubernetes-list-type": "atomic", "items": port(generator) })
}

pub(super) fn http_path(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": 1024, "pattern": "^/[!-~]*$" })
}

/// A domain of DNS, with a dot at the end or without.
pub(super) fn cluster_domain(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": 253, "nullable": true,
        "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*[.]?$" })
}

pub(super) fn data_path(_: &mut SchemaGenerator) -> Schema {
    let values: Vec<&str> = DataPath::ALL.iter().map(|v| v.as_str()).collect();
    json_schema!({ "type": "string", "nullable": true, "enum": values })
}

pub(super) fn http_statuses(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "maxItems": 50, "x-kubernetes-list-type": "set",
        "items": { "type": "integer", "format": "int32", "minimum": 100, "maximum": 599 } })
}

/// metav1.LabelSelector with the limits that label keys and values have anyway.
pub(super) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "nullable": true, "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": { "type": "object", "maxProperties": 64,
                "description": "Labels that must be present with exactly these values.",
                "additionalProperties": { "type": "string", "maxLength": 63 } },
            "matchExpressions": { "type": "array", "maxItems": 64, "x-kubernetes-list-type": "atomic",
                "description": "Requirements that must all be met.",
                "items": { "type": "object", "required": ["key", "operator"], "properties": {
                    "key": { "type": "string", "minLength": 1, "maxLength": 317, "description": "Label key." },
                    "operator": { "type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                        "description": "How the label relates to the values." },
                    "values": { "type": "array", "maxItems": 64, "x-kubernetes-list-type": "atomic",
                        "description": "Values for In and NotIn; empty for Exists and DoesNotExist.",
                        "items": { "type": "string", "maxLength": 63 } } },
                    "x-kubernetes-validations": [{
                        "rule": "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 : !has(self.values) || size(self.values) == 0",
                        "message": "values must be given for In and NotIn, and only for them" }] } } } })
}

pub(super) fn skip(_: &mut SchemaGenerator) -> Schema {
    let stages: Vec<&str> = ConditionType::stages().iter().map(|t| t.as_str()).collect();
    json_schema!({ "type": "array", "maxItems": stages.len(), "x-kubernetes-list-type": "set",
        "items": { "type": "string", "enum": stages } })
}

/// metav1.Condition: the generated schema of k8s-openapi has neither the enum nor the patterns.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    let types: Vec<&str> = ConditionType::ALL.iter().map(|t| t.as_str()).collect();
    json_schema!({ "type": "array", "maxItems": 32,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
        "items": { "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": { "type": "string", "enum": types, "description": "The question that is answered." },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"], "description": "The answer." },
                "reason": { "type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[A-Za-z]([A-Za-z0-9]*[A-Za-z0-9])?$",
                    "description": "Why, as one CamelCase word for programs." },
                "message": { "type": "string", "maxLength": MESSAGE_MAX, "description": "Why, with the evidence, for people." },
                "lastTransitionTime": { "type": "string", "format": "date-time", "description": "When the status last changed." },
                "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0,
                    "description": "metadata.generation that the condition reflects." } } } })
}

pub(super) fn ips(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "maxItems": 4, "x-kubernetes-list-type": "atomic",
        "items": { "type": "string", "maxLength": 45, "pattern": IP } })
}

/// The addresses of a Service; None for a headless one, as the API has it.
pub(super) fn cluster_ips(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "maxItems": 4, "x-kubernetes-list-type": "atomic",
        "items": { "type": "string", "maxLength": 45, "pattern": "^(None|[0-9a-fA-F:.]+)$" } })
}

/// The addresses of a name.
pub(super) fn addresses(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "maxItems": 16, "x-kubernetes-list-type": "atomic",
        "items": { "type": "string", "maxLength": 45, "pattern": IP } })
}

/// Pods as namespace/name.
pub(super) fn pods(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "maxItems": 60, "x-kubernetes-list-type": "atomic",
        "items": { "type": "string", "maxLength": 317, "pattern": KEY } })
}

/// The search list of a resolver.
pub(super) fn search(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "maxItems": 32, "x-kubernetes-list-type": "atomic",
        "items": { "type": "string", "maxLength": 253, "pattern": DOMAIN } })
}

/// What could not be read or probed.
pub(super) fn problems(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "maxItems": 16, "x-kubernetes-list-type": "atomic",
        "items": { "type": "string", "maxLength": 512 } })
}

/// A list of addresses, or of networks, of a Service.
fn strings(most: usize, longest: u32) -> Schema {
    json_schema!({ "type": "array", "maxItems": most, "x-kubernetes-list-type": "atomic",
        "items": { "type": "string", "maxLength": longest } })
}

pub(super) fn families(_: &mut SchemaGenerator) -> Schema {
    strings(2, 4)
}

pub(super) fn many_ips(_: &mut SchemaGenerator) -> Schema {
    strings(MAX_OF_A_SERVICE, 45)
}

pub(super) fn networks(_: &mut SchemaGenerator) -> Schema {
    strings(MAX_OF_A_SERVICE, 64)
}

pub(super) fn endpoint_addresses(_: &mut SchemaGenerator) -> Schema {
    strings(MAX_ADDRESSES, 45)
}

/// Endpoints of cluster DNS, as address and port.
pub(super) fn dns_endpoints(_: &mut SchemaGenerator) -> Schema {
    strings(MAX_DNS_ENDPOINTS, 64)
}
