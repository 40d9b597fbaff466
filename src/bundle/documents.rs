//! YAML and JSON documents of a file. One that is broken does not hide the others.

use serde_json::Value;

/// Most memory for the documents of a bundle, as it is estimated below. A Pod of kubectl's takes some 50 KiB for a
/// moment.
const MAX_MEMORY: usize = 160 << 20;

/// What an object takes, be it as short as `{}`: what it becomes has fields that are not in the text.
const OBJECT: usize = 1024;

/// What any other value takes: itself, a part of the list or map that holds it, and what that has in reserve.
const VALUE: usize = 96;

/// What a document takes before it is read: where it stands, and why it was not understood.
const DOCUMENT: usize = 512;

/// Anchors and aliases: kubectl writes none, and a few may name each other up to any size.
const MAX_ALIASES: usize = 100;

/// A document, or why it could not be read.
pub(super) struct Document {
    /// Where it stands in its file, for people: empty if it is the only one.
    pub place: String,
    /// Its content.
    pub value: Result<Value, String>,
}

/// What is left of the memory for documents.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Self(MAX_MEMORY)
    }
}

impl Budget {
    /// Takes from it; why not, if there is not enough.
    fn spend(&mut self, memory: usize) -> Result<(), String> {
        match self.0.checked_sub(memory) {
            Some(left) => {
                self.0 = left;
                Ok(())
            }
            None => Err(format!(
                "left out: the objects of the bundle need more than {} MiB of memory; keep only those of the Service's namespace",
                MAX_MEMORY >> 20
            )),
        }
    }
}

/// What a JSON text becomes in memory, at most.
fn weight_of_json(text: &str) -> usize {
    let of = |byte: u8| match byte {
        b'{' => OBJECT,
        b',' | b'[' | b':' => VALUE,
        _ => 1,
    };
    text.bytes().map(of).sum()
}

/// What a value is in memory, at most.
fn weight(value: &Value) -> usize {
    match value {
        Value::Array(items) => VALUE + items.iter().map(weight).sum::<usize>(),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, value)| VALUE + name.len() + weight(value));
            OBJECT + fields.sum::<usize>()
        }
        Value::String(text) => VALUE + text.len(),
        _ => VALUE,
    }
}

/// Reads all documents of a file, as far as there is memory for them.
pub(super) fn parse(text: &str, budget: &mut Budget) -> Vec<Document> {
    if let Some(documents) = json(text, budget) {
        return documents;
    }
    let parts = match split(text, budget) {
        Ok(parts) => parts,
        Err(why) => return vec![left_out(why)],
    };
    let many = parts.len() > 1;
    let parsed = parts.into_iter().enumerate().map(|(n, (line, part))| Document {
        place: match many {
            true => format!("document {} (line {line})", n + 1),
            false => String::new(),
        },
        value: yaml(part, line, budget),
    });
    parsed.collect()
}

/// Objects one after the other; nothing if the file is not JSON at all.
fn json(text: &str, budget: &mut Budget) -> Option<Vec<Document>> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    if let Err(why) = budget.spend(weight_of_json(text)) {
        return Some(vec![left_out(why)]);
    }
    let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let documents = values.enumerate().map(|(n, value)| {
        budget.spend(DOCUMENT)?;
        Ok(Document {
            place: format!("object {}", n + 1),
            value: value.map_err(|e| e.to_string()),
        })
    });
    let mut documents: Vec<Document> = match documents.collect() {
        Ok(documents) => documents,
        Err(why) => return Some(vec![left_out(why)]),
    };
    if let [only] = documents.as_mut_slice() {
        only.place.clear();
    }
    Some(documents)
}

/// A file of which nothing is read.
fn left_out(why: String) -> Document {
    Document {
        place: String::new(),
        value: Err(why),
    }
}

/// The parts between the lines that separate documents, each with the number of its first line; why not, if there is
/// no memory for as many.
fn split<'a>(text: &'a str, budget: &mut Budget) -> Result<Vec<(usize, &'a str)>, String> {
    let is_separator = |line: &str| line.trim_end() == "---" || line.starts_with("--- ");
    let is_empty = |part: &str| {
        let mut lines = part.lines().map(str::trim);
        lines.all(|l| l.is_empty() || l.starts_with('#') || l == "---")
    };
    let mut parts = Vec::new();
    let mut add = |first: usize, part: &'a str| {
        if is_empty(part) {
            return Ok(());
        }
        parts.push((first, part));
        budget.spend(DOCUMENT)
    };
    let (mut start, mut first, mut offset) = (0, 1, 0);
    for (n, line) in text.split_inclusive('\n').enumerate() {
        if is_separator(line) && offset > start {
            add(first, &text[start..offset])?;
            (start, first) = (offset, n + 1);
        }
        offset += line.len();
    }
    add(first, &text[start..])?;
    Ok(parts)
}

fn yaml(part: &str, first_line: usize, memory: &mut Budget) -> Result<Value, String> {
    // Every value may be an object.
    let most = memory.0 / OBJECT * 4;
    let budget = serde_saphyr::budget! {
        max_nodes: most,
        max_events: 2 * most,
        max_aliases: MAX_ALIASES,
        max_anchors: MAX_ALIASES,
    };
    let options = serde_saphyr::options! { budget: budget, with_snippet: false };
    let read: Result<Value, String> = serde_saphyr::from_str_with_options(part, options).map_err(|error| {
        let line = error
            .location()
            .map_or(0, |l| usize::try_from(l.line()).unwrap_or(0));
        let told = error.to_string();
        let told = told.lines().next().unwrap_or_default();
        // It counts from the beginning of the document, not of the file.
        let told = told.split(" at line ").next().unwrap_or_default();
        format!("line {}: {told}", first_line + line.saturating_sub(1))
    });
    let value = read?;
    memory.spend(weight(&value))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_all(text: &str) -> Vec<Document> {
        parse(text, &mut Budget::default())
    }

    #[test]
    fn all_documents_share_one_budget() {
        let large = format!("{{\"items\": [{}{{}}]}}", "{},".repeat(100_000));
        let mut budget = Budget::default();
        assert!(parse(&large, &mut budget)[0].value.is_ok());
        let why = parse(&large, &mut budget).remove(0).value.unwrap_err();
        assert!(
            why.starts_with("left out: the objects of the bundle need more than"),
            "{why}"
        );
        let yaml = "- {}\n".repeat(100_000);
        assert!(parse(&yaml, &mut budget)[0].value.is_err());
        assert!(
            parse("a: 1", &mut budget)[0].value.is_ok(),
            "what is small still fits"
        );
    }

    #[test]
    fn a_broken_document_is_told_with_its_line_and_hides_no_other() {
        let found = parse_all("# comment\n---\na: 1\n---\nb: [1\nc: 2\n---\n\n---\nd: 4\n");
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].value.as_ref().unwrap()["a"], 1);
        let why = found[1].value.as_ref().unwrap_err();
        assert!(why.contains("line 5") || why.contains("line 6"), "{why}");
        assert_eq!(found[2].value.as_ref().unwrap()["d"], 4);
        assert_eq!(found[2].place, "document 3 (line 9)");
    }

    #[test]
    fn json_may_have_several_objects_and_be_cut_short() {
        let found = parse_all("{\"a\": 1}\n{\"b\": 2}\n{\"c\":\n");
        assert_eq!(found.len(), 3);
        let why = found[2].value.as_ref().unwrap_err();
        assert!(why.contains("line 4") || why.contains("line 3"), "{why}");
    }

    #[test]
    fn aliases_do_not_blow_up() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..12 {
            let of = format!("*a{}", n - 1);
            let line = format!("a{n}: &a{n} [{}]\n", [of.as_str(); 10].join(", "));
            text.push_str(&line);
        }
        assert!(parse_all(&text)[0].value.is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC*|(---\n|- |a: |\\{|\\[|\\}|\"|&a |\\*a|\n| )*") {
            let _ = parse_all(&text);
        }
    }
}
