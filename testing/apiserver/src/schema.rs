//! Schemas of custom kinds: defaulting, pruning and validation as the real server does them.
//!
//! The CEL rules and the defaults are left to the kube-cel crate.

use std::{collections::HashMap, sync::LazyLock};

use kube_cel::{CompiledSchema, Validator, apply_defaults, compile_schema};
use parking_lot::Mutex;
use regex::Regex;
use serde_json::{Map, Value};

use super::cause::Cause;

/// How a list is merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListKind {
    /// As a whole.
    Atomic,
    /// As a set of values.
    Set,
    /// Item by item, told apart by these fields.
    Map(Vec<String>),
}

/// What a CRD says of its kind.
#[derive(Debug)]
pub(crate) struct CustomSchema {
    schema: Value,
    /// The part of the schema that has rules in CEL.
    ruled: Value,
    /// These rules: every write asks them, and parsing them takes long.
    rules: CompiledSchema,
    validator: Mutex<Validator>,
    /// additionalPrinterColumns.
    pub columns: Vec<Value>,
}

impl CustomSchema {
    /// Reads a version of a CRD.
    pub(crate) fn new(version: &Value) -> Self {
        let schema = version["schema"]["openAPIV3Schema"].clone();
        let ruled = with_rules(&schema).unwrap_or_default();
        Self {
            rules: compile_schema(&ruled),
            ruled,
            validator: Mutex::new(Validator::new()),
            schema,
            columns: version["additionalPrinterColumns"]
                .as_array()
                .cloned()
                .unwrap_or_default(),
        }
    }

    pub(crate) fn schema(&self) -> &Value {
        &self.schema
    }

    /// Removes fields that the schema does not know; returns their paths.
    pub(crate) fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut unknown = Vec::new();
        if let Some(fields) = object.as_object_mut() {
            let system: Vec<(String, Option<Value>)> = ["apiVersion", "kind", "metadata"]
                .into_iter()
                .map(|k| (k.to_owned(), fields.remove(k)))
                .collect();
            prune(&self.schema, fields, "", &mut unknown);
            fields.extend(system.into_iter().filter_map(|(k, v)| Some((k, v?))));
        }
        unknown
    }

    /// Fills in defaults; null in a field that is not nullable counts as absent.
    pub(crate) fn set_defaults(&self, object: &mut Value) {
        drop_nulls(&self.schema, object);
        *object = apply_defaults(&self.schema, object);
    }

    /// Everything that is wrong with an object, after what is wrong with its metadata. The rules in CEL
    /// are only asked about objects of the right shape.
    pub(crate) fn validate(&self, object: &Value, old: Option<&Value>, metadata: Vec<Cause>) -> Vec<Cause> {
        let mut causes = metadata;
        check(&self.schema, object, "", &mut causes);
        if causes.iter().any(|cause| SHAPELESS.contains(&cause.reason)) {
            causes.push(rules_not_checked());
            return causes;
        }
        let of = |object| part_with_rules(&self.ruled, object);
        let (present, before) = (of(object), old.map(of));
        let broken = self
            .validator
            .lock()
            .validate_compiled(&self.rules, &present, before.as_ref());
        let broken = broken.err();
        causes.extend(
            broken
                .into_iter()
                .flat_map(kube_cel::ValidationErrors::into_vec)
                .map(|e| {
                    let field = e.field_path.trim_start_matches('.').to_owned();
                    let value = match at_path(object, &field) {
                        Value::Object(_) => Value::from("object"),
                        Value::Array(_) => Value::from("array"),
                        other => other,
                    };
                    Cause::invalid(field, &value, e.message)
                }),
        );
        causes
    }

    /// How the list at a path is merged.
    pub(crate) fn list_kind(&self, path: &[&str]) -> ListKind {
        let schema = self.at(path);
        match schema["x-kubernetes-list-type"].as_str() {
            Some("map") => {
                let keys = schema["x-kubernetes-list-map-keys"]
                    .as_array()
                    .into_iter()
                    .flatten();
                ListKind::Map(keys.filter_map(|k| k.as_str().map(str::to_owned)).collect())
            }
            Some("set") => ListKind::Set,
            _ => ListKind::Atomic,
        }
    }

    /// Whether the map at a path is merged as a whole.
    pub(crate) fn is_atomic_map(&self, path: &[&str]) -> bool {
        self.at(path)["x-kubernetes-map-type"] == "atomic"
    }

    /// The schema of a field.
    fn at(&self, path: &[&str]) -> &Value {
        let mut schema = &self.schema;
        for name in path {
            if schema["type"] == "array" {
                schema = &schema["items"];
            }
            schema = match &schema["properties"][*name] {
                Value::Null => &schema["additionalProperties"],
                found => found,
            };
        }
        schema
    }
}

/// Rules in CEL.
const RULES: &str = "x-kubernetes-validations";

/// The part of a schema that leads to rules, and all that is below them. What evaluates them converts every value on its way,
/// and most of an object has none.
fn with_rules(schema: &Value) -> Option<Value> {
    schema.as_object()?;
    if !schema[RULES].is_null() {
        return Some(schema.clone());
    }
    let mut part = Map::from_iter([("type".to_owned(), schema["type"].clone())]);
    if let Value::Object(fields) = &schema["properties"] {
        let ruled = fields
            .iter()
            .filter_map(|(name, of)| Some((name.clone(), with_rules(of)?)));
        let ruled: Map<String, Value> = ruled.collect();
        if !ruled.is_empty() {
            part.insert("properties".to_owned(), Value::Object(ruled));
        }
    }
    for of_each in ["items", "additionalProperties"] {
        part.extend(with_rules(&schema[of_each]).map(|of| (of_each.to_owned(), of)));
    }
    (part.len() > 1).then_some(Value::Object(part))
}

/// What of a value such a part of a schema is about.
fn part_with_rules(schema: &Value, value: &Value) -> Value {
    if !schema[RULES].is_null() {
        return value.clone();
    }
    match value {
        Value::Object(fields) => {
            let of = |name: &str| match &schema["properties"][name] {
                Value::Null => &schema["additionalProperties"],
                found => found,
            };
            let ruled = fields.iter().filter(|(name, _)| of(name).is_object());
            ruled
                .map(|(name, value)| (name.clone(), part_with_rules(of(name), value)))
                .collect()
        }
        Value::Array(items) if schema["items"].is_object() => {
            let items = items.iter().map(|item| part_with_rules(&schema["items"], item));
            items.collect()
        }
        other => other.clone(),
    }
}

/// Errors after which CEL is not asked.
const SHAPELESS: [&str; 5] = [
    "FieldValueNotSupported",
    "FieldValueRequired",
    "FieldValueTooLong",
    "FieldValueTooMany",
    "FieldValueTypeInvalid",
];

/// What the real server says instead of the outcome of CEL rules.
pub(crate) fn rules_not_checked() -> Cause {
    let why = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
    Cause::invalid("<nil>", &Value::Null, why)
}

fn is_open(schema: &Value) -> bool {
    schema["x-kubernetes-preserve-unknown-fields"] == true
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn prune(schema: &Value, fields: &mut Map<String, Value>, path: &str, unknown: &mut Vec<String>) {
    fields.retain(|name, value| {
        let known = match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Null | Value::Bool(false)) => None,
            (Value::Null, other) => Some(other),
            (found, _) => Some(found),
        };
        let path = join(path, name);
        let Some(schema) = known else {
            if is_open(schema) {
                return true;
            }
            unknown.push(path);
            return false;
        };
        prune_value(schema, value, &path, unknown);
        true
    });
}

fn prune_value(schema: &Value, value: &mut Value, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(fields) if !is_open(schema) => prune(schema, fields, path, unknown),
        Value::Array(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                prune_value(&schema["items"], item, &format!("{path}[{i}]"), unknown);
            }
        }
        _ => {}
    }
}

fn drop_nulls(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| {
                let schema = &schema["properties"][name];
                !(value.is_null() && schema.is_object() && schema["nullable"] != true)
            });
            for (name, value) in fields {
                drop_nulls(&schema["properties"][name.as_str()], value);
            }
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| drop_nulls(&schema["items"], item)),
        _ => {}
    }
}

/// Type, enum, bounds and required fields.
fn check(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if value.is_null() && (schema["nullable"] == true || path.is_empty())
        || is_open(schema) && schema["type"].is_null()
    {
        return;
    }
    let mut invalid = |why: String| causes.push(Cause::invalid(path, value, why));
    if let Some(type_) = schema["type"].as_str() {
        let fits = match type_ {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            _ => true,
        };
        if !fits {
            let is = match value {
                Value::Null => "null",
                Value::Bool(_) => "boolean",
                Value::Number(n) if n.is_f64() => "float64",
                Value::Number(_) => "integer",
                Value::String(_) => "string",
                Value::Array(_) => "array",
                Value::Object(_) => "object",
            };
            let why = format!("Invalid value: {is:?}: {path} in body must be of type {type_}: {is:?}");
            causes.push(Cause::new(path, "FieldValueTypeInvalid", why));
            return;
        }
    } else if schema["x-kubernetes-int-or-string"] == true && !(value.is_i64() || value.is_string()) {
        invalid(format!("{path} in body must be of type integer or string"));
        return;
    }
    if let Some(allowed) = schema["enum"].as_array().filter(|a| !a.contains(value)) {
        let allowed: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
        causes.push(Cause::unsupported(path, value, &allowed));
        return;
    }
    match value {
        Value::Number(n) => {
            let n = n.as_f64().unwrap_or(f64::NAN);
            if let Some(min) = schema["minimum"].as_f64().filter(|min| n < *min) {
                invalid(format!("{path} in body should be greater than or equal to {min}"));
            }
            if let Some(max) = schema["maximum"].as_f64().filter(|max| n > *max) {
                invalid(format!("{path} in body should be less than or equal to {max}"));
            }
        }
        Value::String(text) => check_text(schema, text, path, causes),
        Value::Array(items) => {
            let length = items.len() as u64;
            if let Some(max) = schema["maxItems"].as_u64().filter(|max| length > *max) {
                let why = format!("Too many: {length}: must have at most {max} items");
                causes.push(Cause::new(path, "FieldValueTooMany", why));
            }
            let mut invalid = |why: String| causes.push(Cause::invalid(path, &Value::from("array"), why));
            if let Some(min) = schema["minItems"].as_u64().filter(|min| length < *min) {
                invalid(format!("{path} in body should have at least {min} items"));
            }
            check_unique(schema, items, path, causes);
            for (i, item) in items.iter().enumerate() {
                check(&schema["items"], item, &format!("{path}[{i}]"), causes);
            }
        }
        Value::Object(fields) => {
            for required in schema["required"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
            {
                if !fields.contains_key(required) {
                    causes.push(Cause::required(join(path, required)));
                }
            }
            for (name, value) in fields {
                let schema = match &schema["properties"][name] {
                    Value::Null => &schema["additionalProperties"],
                    found => found,
                };
                check(schema, value, &join(path, name), causes);
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn check_text(schema: &Value, text: &str, path: &str, causes: &mut Vec<Cause>) {
    let length = text.chars().count() as u64;
    if let Some(max) = schema["maxLength"].as_u64().filter(|max| length > *max) {
        let why = format!("Too long: may not be more than {max} bytes");
        causes.push(Cause::new(path, "FieldValueTooLong", why));
    }
    let mut invalid = |why: String| causes.push(Cause::invalid(path, &Value::from(text), why));
    if let Some(min) = schema["minLength"].as_u64().filter(|min| length < *min) {
        invalid(format!("{path} in body should be at least {min} chars long"));
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && !matches(pattern, text)
    {
        invalid(format!("{path} in body should match '{pattern}'"));
    }
    if schema["format"] == "date-time" && text.parse::<jiff::Timestamp>().is_err() {
        invalid(format!("{path} in body must be of type date-time: {text:?}"));
    }
}

/// Whether a text matches a pattern, which is compiled once. A pattern that is none lets everything through.
fn matches(pattern: &str, text: &str) -> bool {
    static KNOWN: LazyLock<Mutex<HashMap<String, Option<Regex>>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock();
    if !known.contains_key(pattern) {
        known.insert(pattern.to_owned(), Regex::new(pattern).ok());
    }
    let regex = known.get(pattern).and_then(Option::as_ref);
    regex.is_none_or(|regex| regex.is_match(text))
}

fn check_unique(schema: &Value, items: &[Value], path: &str, causes: &mut Vec<Cause>) {
    let keys: Vec<&str> = match schema["x-kubernetes-list-type"].as_str() {
        Some("map") => schema["x-kubernetes-list-map-keys"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect(),
        Some("set") => Vec::new(),
        _ => return,
    };
    let key = |item: &Value| -> Value {
        if keys.is_empty() {
            item.clone()
        } else {
            keys.iter().map(|k| item[*k].clone()).collect()
        }
    };
    for (i, item) in items.iter().enumerate() {
        if items[..i].iter().any(|earlier| key(earlier) == key(item)) {
            causes.push(Cause::duplicate(format!("{path}[{i}]"), &key(item)));
        }
    }
}

/// The value at a path such as `spec.ports[0].name`; null where there is none.
fn at_path(object: &Value, path: &str) -> Value {
    let mut value = object;
    for step in path
        .split(['.', '['])
        .map(|s| s.trim_end_matches(']'))
        .filter(|s| !s.is_empty())
    {
        value = match step.parse::<usize>() {
            Ok(index) if value.is_array() => &value[index],
            _ => &value[step],
        };
    }
    value.clone()
}
