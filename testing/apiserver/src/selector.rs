//! Label and field selectors of list, watch and deletecollection.

use serde_json::Value;

use super::{resources::Resource, status::Failure};

/// What a request asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    labels: Vec<LabelTerm>,
    fields: Vec<FieldTerm>,
}

#[derive(Clone, Debug)]
struct LabelTerm {
    key: String,
    test: LabelTest,
}

#[derive(Clone, Debug)]
enum LabelTest {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

#[derive(Clone, Debug)]
struct FieldTerm {
    path: String,
    value: String,
    equal: bool,
}

impl Selection {
    pub(crate) fn parse(
        resource: &Resource,
        labels: Option<&str>,
        fields: Option<&str>,
    ) -> Result<Self, Failure> {
        let labels = split(labels.unwrap_or_default())
            .into_iter()
            .map(|t| label_term(&t))
            .collect::<Result<_, _>>()?;
        let fields = split(fields.unwrap_or_default())
            .into_iter()
            .map(|t| field_term(resource, &t))
            .collect::<Result<_, _>>()?;
        Ok(Self { labels, fields })
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.iter().all(|term| {
            let value = labels[&term.key].as_str();
            match &term.test {
                LabelTest::In(values) => value.is_some_and(|v| values.iter().any(|x| x == v)),
                LabelTest::NotIn(values) => value.is_none_or(|v| !values.iter().any(|x| x == v)),
                LabelTest::Exists => value.is_some(),
                LabelTest::Absent => value.is_none(),
            }
        }) && self
            .fields
            .iter()
            .all(|term| (field(object, &term.path) == term.value) == term.equal)
    }
}

/// A field as text, the way field selectors compare it; absent is empty.
fn field(object: &Value, path: &str) -> String {
    match path.split('.').fold(object, |value, step| &value[step]) {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Terms are separated by commas outside of parentheses.
fn split(selector: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut depth = 0;
    for c in selector.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        match (c, depth, terms.last_mut()) {
            (',', 0, _) => terms.push(String::new()),
            (c, _, Some(term)) => term.push(c),
            _ => {}
        }
    }
    terms
        .into_iter()
        .map(|t| t.trim().to_owned())
        .filter(|t| !t.is_empty())
        .collect()
}

fn label_term(term: &str) -> Result<LabelTerm, Failure> {
    let of = |key: &str, test| {
        Ok(LabelTerm {
            key: key.to_owned(),
            test,
        })
    };
    let one = |value: &str| match value.split_whitespace().collect::<Vec<_>>().as_slice() {
        [] => Ok(vec![String::new()]),
        [value] => Ok(vec![(*value).to_owned()]),
        [_, extra, ..] => {
            let extra = extra.trim_end_matches('!');
            Err(Failure::bad_request(format!(
                "found '{extra}', expected: ',' or 'end of string'"
            )))
        }
    };
    let comparison = ["!=", "==", "="]
        .into_iter()
        .find_map(|sign| Some((sign, term.split_once(sign)?)));
    let (head, rest) = match (&comparison, term.split_once('(')) {
        (Some((_, (key, _))), _) => (*key, None),
        (None, Some((head, rest))) => (head, Some(rest)),
        (None, None) => (term, None),
    };
    let words: Vec<&str> = head.split_whitespace().collect();
    match (
        words.as_slice(),
        comparison,
        rest.and_then(|r| r.strip_suffix(')')),
    ) {
        ([key], Some(("!=", (_, value))), _) => of(key, LabelTest::NotIn(one(value)?)),
        ([key], Some((_, (_, value))), _) => of(key, LabelTest::In(one(value)?)),
        ([key, set @ ("in" | "notin")], None, Some(values)) => {
            let values = values.split(',').map(|v| v.trim().to_owned()).collect();
            of(
                key,
                if *set == "in" {
                    LabelTest::In(values)
                } else {
                    LabelTest::NotIn(values)
                },
            )
        }
        ([key], None, None) if rest.is_none() => match key.strip_prefix('!') {
            Some(key) => of(key, LabelTest::Absent),
            None => of(key, LabelTest::Exists),
        },
        ([_, "in" | "notin", found, ..], None, _) => Err(unparsed(format!("found '{found}' expected: '('"))),
        ([_, found, ..], ..) => Err(unparsed(format!(
            "found '{found}', expected: in, notin, =, ==, !=, gt, lt"
        ))),
        _ => Err(unparsed(term.to_owned())),
    }
}

fn unparsed(why: String) -> Failure {
    Failure::bad_request(format!("unable to parse requirement: {why}"))
}

fn field_term(resource: &Resource, term: &str) -> Result<FieldTerm, Failure> {
    let parts = term.split_once("!=").map(|(p, v)| (p, v, false));
    let parts = parts.or_else(|| {
        term.split_once("==")
            .or_else(|| term.split_once('='))
            .map(|(p, v)| (p, v, true))
    });
    let Some((path, value, equal)) = parts else {
        return Err(Failure::bad_request(format!(
            "invalid selector: '{term}'; can't understand '{term}'"
        )));
    };
    if !matches!(path, "metadata.name" | "metadata.namespace")
        && !resource.selectable.iter().any(|s| s == path)
    {
        return Err(Failure::bad_request(format!("field label not supported: {path}")));
    }
    Ok(FieldTerm {
        path: path.to_owned(),
        value: value.to_owned(),
        equal,
    })
}
