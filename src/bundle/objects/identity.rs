//! What an object in a file is: where it stands, its kind, and its name.

use serde_json::Value;

/// Where something stands in the bundle.
pub(super) struct Place<'a> {
    pub path: &'a str,
    pub document: String,
}

impl Place<'_> {
    /// The namespace that the file's directory is named after, as in `kubectl cluster-info dump`.
    pub(super) fn namespace(&self) -> &str {
        let directory = self.path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let name = directory.rsplit('/').next().unwrap_or_default();
        if name == "objects" { "" } else { name }
    }
}

/// The namespace and the name of an object. The namespace is filled in where the directory tells it; a manifest without
/// one is applied to the namespace that kubectl is set to, which is `home`.
///
/// # Errors
/// Why it cannot be an object of a cluster.
pub(super) fn identify(
    value: &mut Value,
    place: &Place<'_>,
    home: &str,
) -> Result<(String, String), &'static str> {
    let name = text(value, "/metadata/name").to_owned();
    if name.is_empty() {
        return Err("it has no name");
    }
    if is_homeless(value, place) {
        // What the controller and the agents write is never a manifest.
        if group(value) == crate::api::GROUP {
            return Err("it has no namespace");
        }
        value["metadata"]["namespace"] = home.into();
    } else if text(value, "/metadata/namespace").is_empty() && is_namespaced(text(value, "/kind")) {
        value["metadata"]["namespace"] = place.namespace().into();
    }
    let namespace = text(value, "/metadata/namespace").to_owned();
    // Names become parts of commands, of which quotes make no option less an option.
    if !is_subdomain(&name) || !(namespace.is_empty() || is_subdomain(&namespace)) {
        return Err("its name is not valid in Kubernetes");
    }
    Ok((namespace, name))
}

/// Whether neither an object nor its directory says its namespace.
pub(super) fn is_homeless(value: &Value, place: &Place<'_>) -> bool {
    text(value, "/metadata/namespace").is_empty()
        && is_namespaced(text(value, "/kind"))
        && place.namespace().is_empty()
}

fn is_namespaced(kind: &str) -> bool {
    !matches!(kind, "Namespace" | "Node")
}

/// A string in a document, empty when there is none.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The API group of an object or a list, empty for the core.
pub(super) fn group(value: &Value) -> &str {
    text(value, "/apiVersion").rsplit_once('/').unwrap_or_default().0
}

/// Whether a text is a DNS subdomain of RFC 1123, as names of all kinds that are read here have to be.
pub(in crate::bundle) fn is_subdomain(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= 253
        && text.bytes().all(|b| is_plain(b) || matches!(b, b'-' | b'.'))
        && text.bytes().next().is_some_and(is_plain)
        && text.bytes().last().is_some_and(is_plain)
}

/// How people call an object: `Pod shop/web-1`.
pub(super) fn who(value: &Value) -> String {
    let of = |field| text(value, field);
    match of("/metadata/namespace") {
        "" => format!("{} {}", of("/kind"), of("/metadata/name")),
        namespace => format!("{} {namespace}/{}", of("/kind"), of("/metadata/name")),
    }
}
