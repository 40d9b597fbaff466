//! JSON: objects one after the other, as texts until they are needed.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

use super::{Content, Document, Item, MAX_ITEMS, too_many};

/// Most memory for the values of one object, as it is estimated below; the API server takes no object of more than
/// 3 MiB. Lists do not count: their items do.
const MAX_VALUES: usize = 64 << 20;

/// What an object takes: a node of the tree that holds its fields.
const OBJECT: usize = 1024;

/// What any other value takes: itself, a part of the list or map that holds it, and what that has in reserve.
const VALUE: usize = 96;

pub(super) fn documents(text: &str) -> impl Iterator<Item = Document<'_>> {
    let texts = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let mut texts = texts.enumerate().peekable();
    std::iter::from_fn(move || {
        let (n, text) = texts.next()?;
        let is_only = n == 0 && texts.peek().is_none();
        Some(Document {
            place: match is_only {
                true => String::new(),
                false => format!("object {}", n + 1),
            },
            content: match text {
                Ok(text) => content(text.get()),
                Err(error) => Err(format!("not understood: {error}")),
            },
        })
    })
}

/// The fields of a list of the API.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    #[serde(borrow)]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    api_version: Option<&'a RawValue>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    items: Items<'a>,
}

/// As many as are read, and how many there are.
struct Items<'a>(Vec<&'a RawValue>, usize);

fn content(text: &str) -> Result<Content<'_>, String> {
    let Ok(list) = serde_json::from_str::<List<'_>>(text) else {
        return value(text).map(Content::of);
    };
    let Items(items, count) = list.items;
    if count > MAX_ITEMS {
        return Err(too_many(count));
    }
    let mut head = Value::default();
    for (name, field) in [
        ("kind", list.kind),
        ("apiVersion", list.api_version),
        ("metadata", list.metadata),
    ] {
        head[name] = field.map_or(Ok(Value::Null), |field| value(field.get()))?;
    }
    let items = items.into_iter().map(|item| Item::Json(item.get())).collect();
    Ok(Content {
        head,
        items: Some(items),
    })
}

/// The value of a text that is valid JSON.
pub(super) fn value(text: &str) -> Result<Value, String> {
    if weight(text) > MAX_VALUES {
        let most = MAX_VALUES >> 20;
        return Err(format!(
            "left out: a single object that needs more than {most} MiB of memory"
        ));
    }
    // Lines would be those of this text, not of the file.
    serde_json::from_str(text).map_err(|error| {
        let why = error.to_string();
        format!(
            "not understood: {}",
            why.split(" at line ").next().unwrap_or_default()
        )
    })
}

/// What a text becomes in memory, at most.
fn weight(text: &str) -> usize {
    let of = |byte: u8| match byte {
        b'{' => OBJECT,
        b',' | b'[' | b':' => VALUE,
        _ => 1,
    };
    text.bytes().map(of).sum()
}

impl<'de: 'a, 'a> Deserialize<'de> for Items<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfList;
        impl<'de> Visitor<'de> for OfList {
            type Value = Items<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of items")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Items<'de>, A::Error> {
                let mut found = Items(Vec::new(), 0);
                while let Some(item) = list.next_element()? {
                    found.1 += 1;
                    if found.1 <= MAX_ITEMS {
                        found.0.push(item);
                    }
                }
                Ok(found)
            }
        }
        deserializer.deserialize_seq(OfList)
    }
}
