//! A page of Markdown as text for a terminal.

use std::fmt::Write;

use anstyle::Style;

/// Where the pages are for those who prefer a browser.
const PAGES: &str = "https://github.com/svcdiag/svcdiag/blob/main/docs/reasons";

/// Sections for readers of the documentation: who explains a reason has its output at hand.
const LEFT_OUT: [&str; 1] = ["How it looks"];

/// How the text may look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Characters in a line.
    pub width: usize,
    /// Whether headings are in bold.
    pub colour: bool,
}

impl Look {
    fn bold(self, text: &str) -> String {
        const BOLD: Style = Style::new().bold();
        match self.colour {
            true => format!("{BOLD}{text}{BOLD:#}"),
            false => text.to_owned(),
        }
    }

    /// Paragraphs are filled; what stands between backquotes is to be pasted, and stays on its line.
    fn fill(self, text: &str, first: &str, others: &str) -> String {
        const KEPT: char = '\u{a0}';
        let mut is_code = false;
        let kept: String = text
            .chars()
            .map(|c| {
                is_code ^= c == '`';
                if is_code && c == ' ' { KEPT } else { c }
            })
            .collect();
        let options = textwrap::Options::new(self.width)
            .initial_indent(first)
            .subsequent_indent(others)
            .break_words(false)
            .word_separator(textwrap::WordSeparator::AsciiSpace)
            .word_splitter(textwrap::WordSplitter::NoHyphenation);
        textwrap::fill(&kept, options).replace(KEPT, " ")
    }
}

/// A block of a page.
enum Block {
    Heading(String),
    Paragraph(String),
    /// The mark of a list's item, and its text.
    Item(String, String),
    Code(Vec<String>),
}

/// The page of a reason.
pub(super) fn text(reason: &str, page: &str, look: Look) -> String {
    let mut out = format!("{}\n", look.bold(reason));
    let mut is_shown = true;
    let mut last_was_item = false;
    for block in blocks(page) {
        if let Block::Heading(heading) = &block {
            is_shown = !LEFT_OUT.contains(&heading.as_str());
        }
        // What stands behind the sections holds for all of them, but for what only developers look for.
        if let Block::Paragraph(text) = &block
            && let Some(label) = text.strip_prefix("**")
        {
            is_shown = !label.starts_with("Tested:") && !label.starts_with("Debug Services:");
        }
        if !is_shown {
            continue;
        }
        let is_item = matches!(block, Block::Item(..));
        if !(is_item && last_was_item) {
            out.push('\n');
        }
        last_was_item = is_item;
        match block {
            Block::Heading(heading) => out += &look.bold(&heading),
            Block::Paragraph(text) => out += &look.fill(&plain(&text), "", ""),
            Block::Item(mark, text) => {
                let others = " ".repeat(mark.len() + 3);
                out += &look.fill(&plain(&text), &format!("  {mark} "), &others);
            }
            Block::Code(lines) => {
                let lines: Vec<String> = lines.iter().map(|line| format!("  {line}")).collect();
                out += &lines.join("\n");
            }
        }
        out.push('\n');
    }
    // Writing to a String cannot fail.
    let _ = writeln!(out, "\n{PAGES}/{reason}.md");
    out
}

/// The list of all reasons, by their stages. Those that no table has are of stages that are True or Unknown.
pub(super) fn index(page: &str, pages: &[(&str, &str)], look: Look) -> String {
    let mut out = String::new();
    let listed: Vec<&str> = page.lines().filter_map(|line| Some(row(line)?.0)).collect();
    let entry = |reason: &str, meaning: &str| {
        let first = format!("  {reason:<32} ");
        look.fill(&plain(meaning), &first, &" ".repeat(35)) + "\n"
    };
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            let gap = if out.is_empty() { "" } else { "\n" };
            let _ = writeln!(out, "{gap}{}", look.bold(&heading.replace('`', "")));
        } else if let Some((reason, meaning)) = row(line) {
            out += &entry(reason, meaning);
        }
    }
    let others = pages.iter().filter(|(reason, _)| !listed.contains(reason));
    let _ = writeln!(
        out,
        "\n{}",
        look.bold("Reasons of stages that are True or Unknown")
    );
    for (reason, page) in others {
        if let Some(Block::Paragraph(meaning)) = blocks(page).into_iter().next() {
            out += &entry(reason, &meaning);
        }
    }
    out + "\nFor the page of one: svcdiag explain REASON\n"
}

/// The reason of a row `| [Reason](Reason.md) | meaning |`, and what it means.
fn row(line: &str) -> Option<(&str, &str)> {
    let (link, meaning) = line.strip_prefix("| [")?.split_once(" | ")?;
    let (reason, _) = link.split_once(']')?;
    Some((reason, meaning.trim_end_matches('|').trim()))
}

/// The blocks of a page behind its title.
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = page.lines().skip(1).peekable();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        if let Some(heading) = line.strip_prefix("## ") {
            blocks.push(Block::Heading(heading.to_owned()));
        } else if is_fence(line) {
            let code = lines.by_ref().take_while(|line| !is_fence(line));
            blocks.push(Block::Code(code.map(str::to_owned).collect()));
        } else if let Some((mark, text)) = item(line) {
            let mut text = text.to_owned();
            while let Some(more) = lines.next_if(|next| !next.is_empty() && item(next).is_none()) {
                text = format!("{text} {}", more.trim_start());
            }
            blocks.push(Block::Item(mark.to_owned(), text));
        } else {
            let mut text = line.to_owned();
            while let Some(more) = lines.next_if(|next| !next.is_empty() && !is_fence(next)) {
                text = format!("{text} {more}");
            }
            blocks.push(Block::Paragraph(text));
        }
    }
    blocks
}

/// Where a block of code begins or ends.
fn is_fence(line: &str) -> bool {
    line.chars().take(3).eq(['`'; 3])
}

/// The mark of a list's item, `-` or `1.`, and its text.
fn item(line: &str) -> Option<(&str, &str)> {
    let (mark, text) = line.split_once(' ')?;
    let is_number = mark
        .strip_suffix('.')
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()));
    (mark == "-" || is_number).then_some((mark, text))
}

/// Without the marks of Markdown that say nothing in a terminal: bold, and the targets of links.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        out += before;
        match after
            .split_once("](")
            .and_then(|(label, target)| Some((label, target.split_once(')')?)))
        {
            Some((label, (_, behind))) if !label.contains('[') => {
                out += label;
                rest = behind;
            }
            _ => {
                out.push('[');
                rest = after;
            }
        }
    }
    (out + rest).replace("**", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Look = Look {
        width: 40,
        colour: false,
    };

    const PAGE: &str = "\
# NodeNotReady

`PodsHealthy` is `False`: no Pod is ready and the nodes
that they run on are not Ready.

## Usual causes

1. The machine is off. See [NotReady](NotReady.md).
2. The node is out of disk, memory or
   process IDs.

## Confirm

```sh
kubectl get nodes  # which
```

## How it looks

```console
$ kubectl get svcdiag cart
```

**Not blamed:** A Pod that waits: `kubectl -n NAMESPACE get pods -o wide` shows it.

**Tested:** Rows `N38`.

**Debug Services:** [the page](https://kubernetes.io/). [All reasons](README.md)
";

    #[test]
    fn a_page_is_filled_and_keeps_commands_in_one_piece() {
        assert_eq!(
            text("NodeNotReady", PAGE, PLAIN),
            "\
NodeNotReady

`PodsHealthy` is `False`: no Pod is
ready and the nodes that they run on are
not Ready.

Usual causes

  1. The machine is off. See NotReady.
  2. The node is out of disk, memory or
     process IDs.

Confirm

  kubectl get nodes  # which

Not blamed: A Pod that waits:
`kubectl -n NAMESPACE get pods -o wide`
shows it.

https://github.com/svcdiag/svcdiag/blob/main/docs/reasons/NodeNotReady.md
"
        );
    }

    #[test]
    fn the_index_lists_reasons_by_stage() {
        let page = "# Reasons\n\nText.\n\n## PodsHealthy\n\n[Are they?](https://x)\n\n| `False` | |\n|---|---|\n| [NodeNotReady](NodeNotReady.md) | the node is not Ready. |\n\n`True`: AllPodsReady.\n";
        assert_eq!(
            index(
                page,
                &[
                    ("NodeNotReady", PAGE),
                    ("PodsStarting", "# PodsStarting\n\nIt starts.\n")
                ],
                Look { width: 80, ..PLAIN }
            ),
            "PodsHealthy\n  NodeNotReady                     the node is not Ready.\n\nReasons of stages that are True or Unknown\n  PodsStarting                     It starts.\n\nFor the page of one: svcdiag explain REASON\n"
        );
    }

    #[test]
    fn brackets_that_are_no_links_stay() {
        assert_eq!(plain("a [b] and [c](d.md), `x[0]`"), "a [b] and c, `x[0]`");
    }

    #[test]
    fn headings_are_bold_in_colour_only() {
        let colour = Look {
            colour: true,
            ..PLAIN
        };
        assert!(text("NodeNotReady", PAGE, colour).contains("\u{1b}[1mConfirm\u{1b}["));
        assert!(!text("NodeNotReady", PAGE, PLAIN).contains('\u{1b}'));
    }
}
