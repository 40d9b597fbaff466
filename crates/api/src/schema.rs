//! The schemas of our kinds as the API server serves them, which may be older than this program.
//!
//! A real API server refuses an apply with a field that its schema lacks, whatever the field validation, and one
//! with a string that is too long, so that one field would keep back all others. So what the schema does not take
//! is left out.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// What may stand at a place. What the schema does not say in these terms is left to the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    /// Fields of an object; `None` where any may stand.
    fields: Option<BTreeMap<String, Schema>>,
    required: BTreeSet<String>,
    /// Items of a list.
    items: Option<Box<Schema>>,
    /// Most items of a list.
    most: Option<usize>,
    /// Values of an enum.
    values: Option<BTreeSet<String>>,
    /// Longest string, in characters.
    longest: Option<usize>,
    /// What a string has to look like: then it is a name, which is not the same when it is cut.
    pattern: Option<Pattern>,
}

/// A regular expression; two are equal that are written the same.
#[derive(Clone, Debug)]
struct Pattern(Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

/// The schemas of a group's kinds, by kind.
pub type Schemas = BTreeMap<String, Schema>;

/// The schemas of our kinds in the document that an API server serves of our group (`/openapi/v3`).
#[must_use]
pub fn schemas_in(document: &Value) -> Schemas {
    let schemas = document.pointer("/components/schemas").and_then(Value::as_object);
    let kinds = |schema: &Value| {
        let kinds = schema["x-kubernetes-group-version-kind"]
            .as_array()
            .into_iter()
            .flatten();
        let own = kinds.filter(|k| k["group"] == crate::GROUP);
        own.filter_map(|k| k["kind"].as_str().map(str::to_owned))
            .collect::<Vec<_>>()
    };
    let found = schemas.into_iter().flatten().flat_map(|(_, schema)| {
        let read = Schema::read(schema);
        kinds(schema).into_iter().map(move |kind| (kind, read.clone()))
    });
    found.collect()
}

/// The schemas of this program's own CRDs.
#[must_use]
pub fn own_schemas() -> Schemas {
    let of = |crd: &Value| {
        let kind = crd["spec"]["names"]["kind"].as_str()?.to_owned();
        Some((
            kind,
            Schema::read(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]),
        ))
    };
    crate::crds().iter().filter_map(of).collect()
}

impl Schema {
    /// Reads an OpenAPI schema.
    #[must_use]
    pub fn read(schema: &Value) -> Self {
        let strings = |value: &Value| -> BTreeSet<String> {
            let values = value.as_array().into_iter().flatten();
            values.filter_map(|v| v.as_str().map(str::to_owned)).collect()
        };
        let number = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
        let is_open = schema["x-kubernetes-preserve-unknown-fields"] == true;
        let fields = schema["properties"].as_object().filter(|_| !is_open);
        Self {
            fields: fields.map(|f| {
                f.iter()
                    .map(|(name, of)| (name.clone(), Self::read(of)))
                    .collect()
            }),
            required: strings(&schema["required"]),
            items: schema["items"]
                .is_object()
                .then(|| Box::new(Self::read(&schema["items"]))),
            most: number(&schema["maxItems"]),
            values: schema["enum"].is_array().then(|| strings(&schema["enum"])),
            longest: number(&schema["maxLength"]),
            pattern: schema["pattern"]
                .as_str()
                .and_then(|p| Regex::new(p).ok())
                .map(Pattern),
        }
    }

    /// The schema of a field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Self> {
        self.fields.as_ref()?.get(name)
    }

    /// The paths of fields and values that another schema has and this one lacks.
    pub fn lacks(&self, other: &Self, path: &str, found: &mut BTreeSet<String>) {
        if let (Some(own), Some(others)) = (&self.fields, &other.fields) {
            for (name, of) in others {
                let path = format!("{path}.{name}");
                match own.get(name) {
                    Some(own) => own.lacks(of, &path, found),
                    None => {
                        found.insert(path);
                    }
                }
            }
        }
        if let (Some(own), Some(others)) = (&self.items, &other.items) {
            own.lacks(others, path, found);
        }
        if let (Some(own), Some(others)) = (&self.values, &other.values) {
            found.extend(others.difference(own).map(|value| format!("{path}={value}")));
        }
    }

    /// Leaves out what this schema does not take; whether the value itself may stand. A list loses the items that
    /// may not and those beyond its bound, an object the fields, and itself if it cannot do without them. Text is
    /// cut; a name never is.
    pub fn fit(&self, value: &mut Value) -> bool {
        match value {
            Value::Object(found) => {
                let Some(fields) = &self.fields else { return true };
                let mut lost = Vec::new();
                found.retain(|name, value| {
                    let stays = fields.get(name).is_some_and(|field| field.fit(value));
                    if !stays {
                        lost.push(name.clone());
                    }
                    stays
                });
                !lost.iter().any(|name| self.required.contains(name))
            }
            Value::Array(items) => {
                if let Some(of) = &self.items {
                    items.retain_mut(|item| of.fit(item));
                }
                items.truncate(self.most.unwrap_or(usize::MAX));
                true
            }
            Value::String(text) => self.fit_text(text),
            _ => true,
        }
    }

    fn fit_text(&self, text: &mut String) -> bool {
        let longest = self.longest.unwrap_or(usize::MAX);
        if self.values.as_ref().is_some_and(|values| !values.contains(text)) {
            return false;
        }
        if let Some(Pattern(pattern)) = &self.pattern {
            return pattern.is_match(text) && text.chars().count() <= longest;
        }
        if let Some((at, _)) = text.char_indices().nth(longest) {
            text.truncate(at);
            text.pop();
            text.push('…');
        }
        true
    }

    /// A value of one of our types as this schema can hold it, if it can.
    #[must_use]
    pub fn fitted<T: Serialize + DeserializeOwned>(&self, value: &T) -> Option<T> {
        let mut value = serde_json::to_value(value).ok()?;
        self.fit(&mut value).then_some(())?;
        serde_json::from_value(value).ok()
    }
}
