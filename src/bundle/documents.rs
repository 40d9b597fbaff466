//! YAML and JSON documents of a file. One that is broken does not hide the others.

use serde_json::Value;

/// Most values of one document; a Pod of kubectl's has some two hundred.
const MAX_NODES: usize = 4_000_000;

/// Anchors and aliases: kubectl writes none, and a few may name each other up to any size.
const MAX_ALIASES: usize = 100;

/// A document, or why it could not be read.
pub(super) struct Document {
    /// Where it stands in its file, for people: empty if it is the only one.
    pub place: String,
    /// Its content.
    pub value: Result<Value, String>,
}

/// Reads all documents of a file.
pub(super) fn parse(text: &str) -> Vec<Document> {
    if let Some(documents) = json(text) {
        return documents;
    }
    let parts = split(text);
    let many = parts.len() > 1;
    let parsed = parts.into_iter().enumerate().map(|(n, (line, part))| Document {
        place: match many {
            true => format!("document {} (line {line})", n + 1),
            false => String::new(),
        },
        value: yaml(part, line),
    });
    parsed.collect()
}

/// Objects one after the other; nothing if the file is not JSON at all.
fn json(text: &str) -> Option<Vec<Document>> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    let values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let documents = values.enumerate().map(|(n, value)| Document {
        place: format!("object {}", n + 1),
        value: value.map_err(|e| e.to_string()),
    });
    let mut documents: Vec<Document> = documents.collect();
    if let [only] = documents.as_mut_slice() {
        only.place.clear();
    }
    Some(documents)
}

/// The parts between the lines that separate documents, each with the number of its first line.
fn split(text: &str) -> Vec<(usize, &str)> {
    let is_separator = |line: &str| line.trim_end() == "---" || line.starts_with("--- ");
    let mut parts = Vec::new();
    let (mut start, mut first, mut offset) = (0, 1, 0);
    for (n, line) in text.split_inclusive('\n').enumerate() {
        if is_separator(line) && offset > start {
            parts.push((first, &text[start..offset]));
            (start, first) = (offset, n + 1);
        }
        offset += line.len();
    }
    parts.push((first, &text[start..]));
    let is_empty = |part: &str| {
        let mut lines = part.lines().map(str::trim);
        lines.all(|l| l.is_empty() || l.starts_with('#') || l == "---")
    };
    parts.retain(|(_, part)| !is_empty(part));
    parts
}

fn yaml(part: &str, first_line: usize) -> Result<Value, String> {
    let budget = serde_saphyr::budget! {
        max_nodes: MAX_NODES,
        max_events: 2 * MAX_NODES,
        max_aliases: MAX_ALIASES,
        max_anchors: MAX_ALIASES,
    };
    let options = serde_saphyr::options! { budget: budget, with_snippet: false };
    serde_saphyr::from_str_with_options(part, options).map_err(|error| {
        let line = error
            .location()
            .map_or(0, |l| usize::try_from(l.line()).unwrap_or(0));
        let told = error.to_string();
        let told = told.lines().next().unwrap_or_default();
        // It counts from the beginning of the document, not of the file.
        let told = told.split(" at line ").next().unwrap_or_default();
        format!("line {}: {told}", first_line + line.saturating_sub(1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_document_is_told_with_its_line_and_hides_no_other() {
        let found = parse("# comment\n---\na: 1\n---\nb: [1\nc: 2\n---\n\n---\nd: 4\n");
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].value.as_ref().unwrap()["a"], 1);
        let why = found[1].value.as_ref().unwrap_err();
        assert!(why.contains("line 5") || why.contains("line 6"), "{why}");
        assert_eq!(found[2].value.as_ref().unwrap()["d"], 4);
        assert_eq!(found[2].place, "document 3 (line 9)");
    }

    #[test]
    fn json_may_have_several_objects_and_be_cut_short() {
        let found = parse("{\"a\": 1}\n{\"b\": 2}\n{\"c\":\n");
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
        assert!(parse(&text)[0].value.is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC*|(---\n|- |a: |\\{|\\[|\\}|\"|&a |\\*a|\n| )*") {
            let _ = parse(&text);
        }
    }
}
