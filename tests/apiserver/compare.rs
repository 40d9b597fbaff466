//! Whether an answer is the recorded one, as far as clients depend on it.

use serde_json::Value;

use super::{
    placeholders::Placeholders,
    record::{Headers, Mode, Record},
};

/// What was answered.
pub(crate) struct Got {
    pub status: u16,
    pub headers: Headers,
    pub body: Vec<u8>,
}

/// Fields by which the items of a list are told apart.
const KEYS: [&str; 7] = [
    "name",
    "resource",
    "subresource",
    "version",
    "groupVersion",
    "type",
    "field",
];

/// The differences between a record's answer and the one that came.
pub(crate) fn judge(record: &Record, got: &Got, known: &mut Placeholders) -> Vec<String> {
    let want = &record.response;
    if got.status != want.status {
        return vec![format!(
            "status: want {}, got {}: {}",
            want.status,
            got.status,
            brief(&String::from_utf8_lossy(&got.body))
        )];
    }
    let mut comparison = Comparison {
        known,
        record,
        one_way: record.compare.mode == Mode::Contains,
        differences: Vec::new(),
    };
    comparison.headers(&want.headers, &got.headers);
    let body = || {
        serde_json::from_slice::<Value>(&got.body).unwrap_or_else(|e| Value::String(format!("not JSON: {e}")))
    };
    if record.compare.mode == Mode::Head || want.omitted {
        if let Some(wanted) = &want.body {
            // Nothing of it counts, but later requests name what it gives.
            comparison.one_way = true;
            let kept = std::mem::take(&mut comparison.differences);
            comparison.values(wanted, &body(), "");
            comparison.differences = kept;
        }
    } else if let Some(text) = &want.text {
        comparison.text(
            text,
            &Value::String(String::from_utf8_lossy(&got.body).into_owned()),
            "text",
        );
    } else if let Some(events) = &want.events {
        comparison.events(events, &got.body);
    } else if let Some(wanted) = &want.body {
        comparison.values(wanted, &body(), "");
    }
    comparison.differences
}

struct Comparison<'a> {
    known: &'a mut Placeholders,
    record: &'a Record,
    /// Whether the answer may have more.
    one_way: bool,
    differences: Vec<String>,
}

impl Comparison<'_> {
    fn differ(&mut self, path: &str, why: impl std::fmt::Display) {
        self.differences.push(format!("{path}: {why}"));
    }

    fn headers(&mut self, want: &Headers, got: &Headers) {
        let plain = |text: &Option<String>| text.clone().unwrap_or_default().to_lowercase().replace(' ', "");
        let sorted = |warnings: &[String]| {
            let mut warnings = warnings.to_vec();
            warnings.sort();
            warnings
        };
        if plain(&want.content_type) != plain(&got.content_type) {
            self.differ(
                "content-type",
                format!("want {:?}, got {:?}", want.content_type, got.content_type),
            );
        }
        if sorted(&want.warning) != sorted(&got.warning) {
            self.differ(
                "warning",
                format!("want {:?}, got {:?}", want.warning, got.warning),
            );
        }
        for (name, want, got) in [
            ("content-encoding", &want.content_encoding, &got.content_encoding),
            ("retry-after", &want.retry_after, &got.retry_after),
        ] {
            if want != got {
                self.differ(name, format!("want {want:?}, got {got:?}"));
            }
        }
    }

    fn text(&mut self, want: &str, got: &Value, path: &str) {
        let why = match got {
            Value::Null | Value::Array(_) | Value::Object(_) => Some(differs(want, got)),
            Value::String(text) if text.is_empty() => Some(differs(want, got)),
            Value::String(text) if Placeholders::is_one(want) => self.known.bind(want, text),
            other if Placeholders::is_one(want) => self.known.bind(want, &other.to_string()),
            Value::String(text) => (!self.known.fits(want, text)).then(|| differs(want, got)),
            Value::Bool(_) | Value::Number(_) => Some(differs(want, got)),
        };
        if let Some(why) = why {
            self.differ(path, why);
        }
    }

    fn is_ignored(&self, path: &str) -> bool {
        let last = path.rsplit('.').next().unwrap_or_default();
        // The words that explain a column are nobody's business.
        let description = last == "description" && path.contains("columnDefinitions.");
        description
            || last == "managedFields" && !self.record.compare.managed_fields
            || self
                .record
                .compare
                .ignore
                .iter()
                .any(|pattern| is_at(path, pattern))
    }

    fn values(&mut self, want: &Value, got: &Value, path: &str) {
        if self.is_ignored(path) {
            if let (Value::String(text), Value::String(_)) = (want, got) {
                let kept = self.differences.len();
                self.text(text, got, path);
                self.differences.truncate(kept);
            }
            return;
        }
        match (want, got) {
            (Value::Object(want), Value::Object(got)) => {
                let owned = path.contains("fieldsV1");
                let additional = got.keys().filter(|name| !want.contains_key(*name));
                for name in want.keys().chain(additional) {
                    let at = if path.is_empty() {
                        name.clone()
                    } else {
                        format!("{path}.{name}")
                    };
                    match (want.get(name), got.get(name)) {
                        (Some(want), Some(got)) => self.values(want, got, &at),
                        _ if self.is_ignored(&at) => {}
                        (Some(want), None)
                            if !is_blank(want)
                                || owned
                                || matches!(name.as_str(), "items" | "rows" | "cells") =>
                        {
                            self.differ(&at, format!("want {}, got nothing", brief(&want.to_string())));
                        }
                        (None, Some(got)) if !self.one_way && (!is_blank(got) || owned) => {
                            self.differ(&at, format!("want nothing, got {}", brief(&got.to_string())));
                        }
                        _ => {}
                    }
                }
            }
            (Value::Array(want), Value::Array(got)) if self.one_way => self.some_items(want, got, path),
            (Value::Array(want), Value::Array(got)) => self.items(want, got, path),
            (Value::String(text), _) if !(text.is_empty() && is_blank(got)) => self.text(text, got, path),
            _ => {
                let list = matches!(path.rsplit('.').next(), Some("items" | "rows"));
                if want != got && (list || !(is_blank(want) && is_blank(got))) {
                    self.differ(path, differs(&want.to_string(), got));
                }
            }
        }
    }

    /// Every wanted item is in the list.
    fn some_items(&mut self, want: &[Value], got: &[Value], path: &str) {
        for wanted in want {
            let key = KEYS.into_iter().find(|key| wanted[*key].is_string());
            let name = &wanted["metadata"]["name"];
            let found = got.iter().find(|item| match key {
                Some(key) => item[key] == wanted[key],
                None if name.is_string() || wanted["versions"].is_array() => {
                    item["metadata"]["name"].as_str().unwrap_or_default() == name.as_str().unwrap_or_default()
                }
                None => *item == wanted,
            });
            match found {
                Some(item) => self.values(wanted, item, &format!("{path}.*")),
                None => self.differ(path, format!("lacks {}", brief(&wanted.to_string()))),
            }
        }
    }

    fn items(&mut self, want: &[Value], got: &[Value], path: &str) {
        let order = |items: &[Value]| -> Vec<Value> {
            let mut items = items.to_vec();
            let fields: &[&str] = match path.rsplit('.').next() {
                Some("verbs") => &[],
                Some("resources") => &["name"],
                Some("causes") => &["field", "message"],
                Some("managedFields") => &["manager", "operation", "subresource"],
                _ => return items,
            };
            items.sort_by_key(|item| match fields {
                [] => vec![item.to_string()],
                fields => fields
                    .iter()
                    .map(|f| item[*f].as_str().unwrap_or_default().to_owned())
                    .collect(),
            });
            items
        };
        let (want, got) = (order(want), order(got));
        if want.len() != got.len() {
            self.differ(
                path,
                format!(
                    "want {} items, got {}: {}",
                    want.len(),
                    got.len(),
                    brief(&Value::from(got.clone()).to_string())
                ),
            );
        }
        for (i, (want, got)) in want.iter().zip(&got).enumerate() {
            self.values(want, got, &format!("{path}.{i}"));
        }
    }

    /// How many bookmarks come, and when, is the server's affair; that one comes is not.
    fn events(&mut self, want: &[Value], body: &[u8]) {
        let lines = body.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let got: Vec<Value> = lines
            .map(|line| serde_json::from_slice(line).unwrap_or(Value::Null))
            .collect();
        let is_bookmark =
            |event: &Value| event["type"] == "BOOKMARK" && !event.to_string().contains("initial-events-end");
        if want.iter().any(is_bookmark) && !got.iter().any(|event| event["type"] == "BOOKMARK") {
            self.differ("events", "want a BOOKMARK, got none");
        }
        let want: Vec<&Value> = want.iter().filter(|event| !is_bookmark(event)).collect();
        let got: Vec<&Value> = got.iter().filter(|event| !is_bookmark(event)).collect();
        let types = |events: &[&Value]| {
            events
                .iter()
                .map(|e| e["type"].as_str().unwrap_or("?"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        if types(&want) != types(&got) {
            return self.differ("events", format!("want {}, got {}", types(&want), types(&got)));
        }
        for (want, got) in want.into_iter().zip(got) {
            self.values(&want["object"], &got["object"], "object");
        }
    }
}

fn is_at(path: &str, pattern: &str) -> bool {
    let (path, pattern): (Vec<&str>, Vec<&str>) = (path.split('.').collect(), pattern.split('.').collect());
    path.len() == pattern.len()
        && path
            .iter()
            .zip(&pattern)
            .all(|(step, wanted)| step == wanted || *wanted == "*")
}

/// Null and nothing are the same to every client.
fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn differs(want: &str, got: &Value) -> String {
    let got = got.as_str().map_or_else(|| got.to_string(), str::to_owned);
    format!("want {}, got {}", brief(want), brief(&got))
}

fn brief(text: &str) -> String {
    let text = text.replace('\n', "\\n");
    match text.char_indices().nth(240) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
