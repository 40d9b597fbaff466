//! YAML: documents between `---`, and lists in block style divided by their lines.

use std::ops::Range;

use serde_json::Value;

use super::{Content, Document, Item, MAX_ITEMS, too_many};

/// Longest text that is parsed as one value: a document, or an item of a list. The API server takes no object of more
/// than 3 MiB.
const MAX_TEXT: usize = 8 << 20;

/// Most values of one object. Empty maps and lists included, they take up to half a KiB of memory each.
const MAX_NODES: usize = 200_000;

/// Anchors and aliases: kubectl writes none, and a few may name each other up to any size.
const MAX_ALIASES: usize = 100;

pub(super) fn documents(text: &str) -> impl Iterator<Item = Document<'_>> {
    let mut parts = Parts { text, line: 1 }.enumerate().peekable();
    std::iter::from_fn(move || {
        let (n, (line, part)) = parts.next()?;
        let is_only = n == 0 && parts.peek().is_none();
        Some(Document {
            place: match is_only {
                true => String::new(),
                false => format!("document {} (line {line})", n + 1),
            },
            content: content(part, line),
        })
    })
}

/// The parts between the lines that separate documents, each with the number of its first line.
struct Parts<'a> {
    text: &'a str,
    /// Number of its first line.
    line: usize,
}

impl<'a> Iterator for Parts<'a> {
    type Item = (usize, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let is_separator = |line: &str| line.trim_end() == "---" || line.starts_with("--- ");
        let is_empty = |part: &str| {
            let mut lines = part.lines().map(str::trim);
            lines.all(|l| l.is_empty() || l.starts_with('#') || l == "---")
        };
        while !self.text.is_empty() {
            let first = self.line;
            let mut end = 0;
            for line in self.text.split_inclusive('\n') {
                if end > 0 && is_separator(line) {
                    break;
                }
                end += line.len();
                self.line += 1;
            }
            let (part, rest) = self.text.split_at(end);
            self.text = rest;
            if !is_empty(part) {
                return Some((first, part));
            }
        }
        None
    }
}

fn content(part: &str, line: usize) -> Result<Content<'_>, String> {
    let Some(List {
        rest,
        cut,
        items,
        count,
    }) = List::of(part, line)
    else {
        return value(part, &|n| line + n).map(Content::of);
    };
    if count > MAX_ITEMS {
        return Err(too_many(count));
    }
    let line_of = |n| match line + n {
        before if before < cut.start => before,
        behind => behind + cut.len(),
    };
    let head = value(&rest, &line_of)?;
    // More items behind these, which would be missed.
    if !head["items"].is_null() {
        return Err(format!(
            "not understood: line {}: more items, but not in the block style of those before; save the list as JSON",
            cut.end
        ));
    }
    Ok(Content {
        head,
        items: Some(items),
    })
}

/// A list in block style, as every program writes it.
struct List<'a> {
    /// The document without the items.
    rest: String,
    /// The lines of the items.
    cut: Range<usize>,
    /// As many as are read.
    items: Vec<Item<'a>>,
    /// How many there are.
    count: usize,
}

impl<'a> List<'a> {
    /// None for any other document. Lines of an item are deeper than its dash, those of texts and comments in it
    /// included: so YAML wants it.
    fn of(part: &'a str, first_line: usize) -> Option<Self> {
        let mut lines = Lines::of(part, first_line);
        lines.find(|line| line.text.trim_end() == "items:")?;
        let first = lines.find(|line| !line.is_empty())?;
        let indent = first.dash()?;
        let (mut items, mut count) = (Vec::new(), 0);
        let mut add = |number: usize, from: usize, to: usize| {
            count += 1;
            if count <= MAX_ITEMS {
                items.push(Item::Yaml(number, &part[from..to]));
            }
        };
        let (mut number, mut from, mut end) = (first.number, first.start, part.len());
        let mut cut = first.number..first.number;
        for line in lines {
            if line.is_empty() || line.indent() > indent {
                continue;
            }
            add(number, from, line.start);
            (number, from) = (line.number, line.start);
            if line.dash() != Some(indent) {
                (end, cut.end) = (line.start, line.number);
                break;
            }
        }
        if end == part.len() {
            add(number, from, end);
        }
        let rest = [&part[..first.start], &part[end..]].concat();
        Some(Self {
            rest,
            cut,
            items,
            count,
        })
    }
}

/// A line of a text.
struct Line<'a> {
    number: usize,
    /// Where it starts in the text.
    start: usize,
    text: &'a str,
}

impl Line<'_> {
    /// Whether it says nothing.
    fn is_empty(&self) -> bool {
        let text = self.text.trim();
        text.is_empty() || text.starts_with('#')
    }

    fn indent(&self) -> usize {
        self.text.bytes().take_while(|b| *b == b' ').count()
    }

    /// Where the dash is that begins an item of a list.
    fn dash(&self) -> Option<usize> {
        let indent = self.indent();
        let item = self.text.get(indent..)?.strip_prefix('-')?;
        (item.is_empty() || item.starts_with([' ', '\t', '\n', '\r'])).then_some(indent)
    }
}

/// The lines of a text.
struct Lines<'a> {
    text: &'a str,
    start: usize,
    number: usize,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str, number: usize) -> Self {
        Self {
            text,
            start: 0,
            number,
        }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let rest = self.text.get(self.start..)?;
        let text = rest.split_inclusive('\n').next()?;
        let line = Line {
            number: self.number,
            start: self.start,
            text,
        };
        self.start += text.len();
        self.number += 1;
        Some(line)
    }
}

/// An item with its dash.
pub(super) fn item(text: &str, line: usize) -> Result<Value, String> {
    match value(text, &|n| line + n)? {
        Value::Array(mut items) if items.len() == 1 => Ok(items.remove(0)),
        _ => Err(format!("not understood: line {line}: not an item of a list")),
    }
}

/// The value of a text; `line_of` says which line of the file its n-th line is.
fn value(text: &str, line_of: &dyn Fn(usize) -> usize) -> Result<Value, String> {
    if text.len() > MAX_TEXT {
        let most = MAX_TEXT >> 20;
        return Err(format!(
            "left out: a single object of more than {most} MiB, or a list that is not in block style; save it as JSON"
        ));
    }
    let budget = serde_saphyr::budget! {
        max_nodes: MAX_NODES,
        max_events: 2 * MAX_NODES,
        max_aliases: MAX_ALIASES,
        max_anchors: MAX_ALIASES,
    };
    let options = serde_saphyr::options! { budget: budget, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error
            .location()
            .map_or(0, |l| usize::try_from(l.line()).unwrap_or(0));
        let why = error.to_string();
        let why = why.lines().next().unwrap_or_default();
        // It counts from the beginning of this text, not of the file.
        let why = why.split(" at line ").next().unwrap_or_default();
        format!("not understood: line {}: {why}", line_of(line.saturating_sub(1)))
    })
}
