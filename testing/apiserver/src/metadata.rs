//! Metadata: names, labels, owners and finalizers, and what they may not be.

use serde_json::{Value, json};

use super::{cause::Cause, resources::Resource};

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const KEY: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// What is wrong with the name of a new object.
pub(crate) fn name_error(resource: &Resource, name: &str) -> Option<Cause> {
    let why = match (resource.group.as_str(), resource.plural.as_str()) {
        // These take what a path takes.
        ("rbac.authorization.k8s.io", _) => None,
        ("", "services" | "namespaces") if name.contains('.') => Some("must not contain dots"),
        ("", "services" | "namespaces") => label_error(name),
        _ => (name.len() > 253 || name.split('.').any(|part| !is_label(part))).then_some(SUBDOMAIN),
    };
    why.map(|why| Cause::invalid("metadata.name", &json!(name), why))
}

/// What is wrong with a name that has to be a DNS label.
pub(crate) fn label_error(name: &str) -> Option<&'static str> {
    if name.len() > 63 {
        Some("must be no more than 63 characters")
    } else {
        (!is_label(name)).then_some(LABEL)
    }
}

fn is_label(text: &str) -> bool {
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(inside) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_word(text: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edge = |c: char| c.is_ascii_alphanumeric();
    text.len() <= 63 && text.starts_with(edge) && text.ends_with(edge) && text.chars().all(inside)
}

/// What is wrong with an object's metadata, its name apart.
pub(crate) fn validate(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let meta = &object["metadata"];
    let mut causes = Vec::new();
    for (key, value) in meta["labels"].as_object().into_iter().flatten() {
        if !is_word(key.rsplit('/').next().unwrap_or_default()) {
            causes.push(Cause::invalid("metadata.labels", &json!(key), KEY));
        }
        if value.as_str().is_some_and(|v| !v.is_empty() && !is_word(v)) {
            causes.push(Cause::invalid("metadata.labels", value, VALUE));
        }
    }
    let owners: Vec<&Value> = meta["ownerReferences"].as_array().into_iter().flatten().collect();
    if owners
        .iter()
        .any(|owner| owner["uid"].as_str().is_none_or(str::is_empty))
    {
        causes.push(Cause::invalid(
            "metadata.ownerReferences.uid",
            &json!(""),
            "must not be empty",
        ));
    }
    causes.extend(two_controllers(&owners));
    if let Some(old) = old.filter(|old| old["metadata"]["deletionTimestamp"].is_string()) {
        causes.extend(twice_if_custom(resource, new_finalizers(meta, &old["metadata"])));
    }
    causes
}

/// The checks of metadata run twice for custom kinds.
pub(crate) fn twice_if_custom(resource: &Resource, cause: Option<Cause>) -> impl Iterator<Item = Cause> {
    let times = if resource.custom.is_some() { 2 } else { 1 };
    cause
        .into_iter()
        .flat_map(move |cause| std::iter::repeat_n(cause, times))
}

fn two_controllers(owners: &[&Value]) -> Option<Cause> {
    let controllers: Vec<&&Value> = owners
        .iter()
        .filter(|owner| owner["controller"] == true)
        .collect();
    let [one, other, ..] = controllers.as_slice() else {
        return None;
    };
    let named = |owner: &Value| {
        let text = |field: &str| owner[field].as_str().unwrap_or_default().to_owned();
        format!("{}/{}", text("kind"), text("name"))
    };
    // In the order in which Go writes the fields.
    let order = [
        "apiVersion",
        "kind",
        "name",
        "uid",
        "controller",
        "blockOwnerDeletion",
    ];
    let shown = |owner: &&Value| {
        let fields = order.iter().filter(|field| !owner[**field].is_null());
        let fields: Vec<String> = fields
            .map(|field| format!("{field:?}:{}", owner[*field]))
            .collect();
        format!("{{{}}}", fields.join(","))
    };
    let message = format!(
        "Invalid value: [{}]: Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
        owners.iter().map(shown).collect::<Vec<_>>().join(","),
        named(one),
        named(other)
    );
    Some(Cause::new(
        "metadata.ownerReferences",
        "FieldValueInvalid",
        message,
    ))
}

fn new_finalizers(meta: &Value, old: &Value) -> Option<Cause> {
    let before = old["finalizers"].as_array().cloned().unwrap_or_default();
    let now = meta["finalizers"].as_array().into_iter().flatten();
    let new: Vec<String> = now
        .filter(|f| !before.contains(f))
        .map(Value::to_string)
        .collect();
    let why = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        new.join(", ")
    );
    (!new.is_empty()).then(|| Cause::forbidden("metadata.finalizers", why))
}
