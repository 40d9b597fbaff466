//! Values that are another's on every server: `<uid:a>` is the same value wherever it stands, and
//! not that of `<uid:b>`; `<time>` is any time.

use std::{collections::BTreeMap, sync::LazyLock};

use regex::{Captures, Regex, escape};

static NAMED: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("<((?:rv|listrv|uid|ip|nodePort|name|continue):[0-9a-z]+)>").unwrap());
static TOKEN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new("<(?:(?:rv|listrv|uid|ip|nodePort|name|continue):[0-9a-z]+|time|age|n|hash|any)>").unwrap()
});
static REPEAT: LazyLock<Regex> = LazyLock::new(|| Regex::new("<repeat:([0-9]+):(.)>").unwrap());
/// A number as JSON has it.
static NUMBER: LazyLock<Regex> = LazyLock::new(|| Regex::new("\"(<nodePort:[0-9a-z]+>)\"").unwrap());

/// What a placeholder without a name stands for.
fn any(token: &str) -> Option<&'static str> {
    Some(match token {
        "<time>" => r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z",
        "<age>" => r"(?:\d+[smhdy])+(?: \(.*\))?",
        "<n>" => r"\d+",
        "<hash>" => "[0-9A-F]+",
        "<any>" => ".*",
        _ => return None,
    })
}

/// What the placeholders stand for so far, by kind and name.
#[derive(Default)]
pub(crate) struct Placeholders(BTreeMap<String, String>);

impl Placeholders {
    /// A text to be sent; fails with the placeholder that no answer has given a value yet.
    pub(crate) fn fill(&self, text: &str) -> Result<String, String> {
        self.replace(text, str::to_owned)
    }

    /// A JSON body to be sent.
    pub(crate) fn fill_json(&self, text: &str) -> Result<String, String> {
        self.fill(&NUMBER.replace_all(text, "$1"))
    }

    /// A path with its query.
    pub(crate) fn fill_path(&self, text: &str) -> Result<String, String> {
        self.replace(text, |value| {
            value
                .bytes()
                .map(|b| {
                    if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
                        char::from(b).to_string()
                    } else {
                        format!("%{b:02X}")
                    }
                })
                .collect()
        })
    }

    fn replace(&self, text: &str, quoted: impl Fn(&str) -> String) -> Result<String, String> {
        if let Some(unbound) = NAMED.captures_iter(text).find(|c| !self.0.contains_key(&c[1])) {
            return Err(unbound[0].to_owned());
        }
        let filled = NAMED.replace_all(text, |c: &Captures<'_>| quoted(&self.0[&c[1]]));
        let repeated = |c: &Captures<'_>| c[2].repeat(c[1].parse().unwrap());
        Ok(REPEAT.replace_all(&filled, repeated).into_owned())
    }

    /// Whether a text is nothing but one named placeholder.
    pub(crate) fn is_one(want: &str) -> bool {
        NAMED.find(want).is_some_and(|m| m.len() == want.len())
    }

    /// Takes a value for a placeholder; says what is wrong with it.
    pub(crate) fn bind(&mut self, placeholder: &str, value: &str) -> Option<String> {
        let key = placeholder.trim_matches(['<', '>']);
        let kind = key.split(':').next().unwrap_or_default();
        let of_same_value = |env: &BTreeMap<String, String>| {
            let mut same = env
                .iter()
                .filter(|(k, v)| *v == value && k.split(':').next() == Some(kind));
            same.next().map(|(k, _)| k.clone())
        };
        match self.0.get(key) {
            Some(before) if before == value || kind == "listrv" => None,
            Some(before) => {
                let others = of_same_value(&self.0).map_or(String::new(), |k| format!(" = <{k}>"));
                let why = format!("want <{key}> ({before}) as before, got {value}{others}");
                self.0.insert(key.to_owned(), value.to_owned());
                Some(why)
            }
            None => {
                let unique = matches!(kind, "rv" | "uid" | "name" | "ip");
                let why = of_same_value(&self.0)
                    .filter(|_| unique)
                    .map(|k| format!("want a new value, got that of <{k}>"));
                self.0.insert(key.to_owned(), value.to_owned());
                why
            }
        }
    }

    /// Whether a text fits one with placeholders in it; those that are new are bound.
    pub(crate) fn fits(&mut self, want: &str, got: &str) -> bool {
        let (mut pattern, mut keys, mut last) = (String::new(), Vec::new(), 0);
        for token in TOKEN.find_iter(want) {
            pattern += &escape(&want[last..token.start()]);
            last = token.end();
            let key = token.as_str().trim_matches(['<', '>']);
            match (any(token.as_str()), self.0.get(key)) {
                (Some(free), _) => pattern += free,
                (None, Some(value)) => pattern += &escape(value),
                (None, None) => {
                    pattern += "(.+?)";
                    keys.push(key.to_owned());
                }
            }
        }
        pattern += &escape(&want[last..]);
        let pattern = Regex::new(&format!(r"\A(?s:{pattern})\z")).unwrap();
        let Some(found) = pattern.captures(got) else {
            return keys.is_empty() && same_causes(want, got);
        };
        for (key, value) in keys.into_iter().zip(found.iter().skip(1).flatten()) {
            self.0.insert(key, value.as_str().to_owned());
        }
        true
    }
}

/// Several causes in one message come in any order.
fn same_causes(want: &str, got: &str) -> bool {
    let parts = |text: &str| {
        let (_, causes) = text.split_once(" is invalid: ").unwrap_or(("", text));
        let mut parts: Vec<String> = causes
            .replace(['[', ']'], "")
            .split(", ")
            .map(str::to_owned)
            .collect();
        parts.sort();
        parts
    };
    want.contains(" is invalid: [") && parts(want) == parts(got)
}
