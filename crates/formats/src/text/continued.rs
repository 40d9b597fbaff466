//! Commands over several lines, each but the last with a backslash at its end, as a shell reads them.
//!
//! ```text
//! $ curl -v \
//! >   http://web
//! ```
//!
//! Each such command is put on its first line, and empty lines in the place of the others: whatever follows keeps its number.

use std::borrow::Cow;

use super::prompt::prompted;

/// Most lines of one command. What has more was not typed.
const MAX_LINES: usize = 100;

/// The text with each command on one line. What programs print is left as it is, with whatever it ends.
#[must_use]
pub fn joined(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut whole = String::with_capacity(text.len());
    let mut lines = text.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        let Some(mut head) = continued(line).filter(|_| is_command(line)) else {
            whole.push_str(line);
            continue;
        };
        let mut taken = 0;
        whole.push_str(head);
        while taken < MAX_LINES
            && let Some(next) = lines.next_if(|next| goes_on(next))
        {
            taken += 1;
            let part = without_prompt(next.trim_end());
            let rest = continued(part);
            // The shell puts nothing between the two; a break within a word is none in the command.
            if head.ends_with(char::is_whitespace) || part.starts_with(char::is_whitespace) {
                whole.truncate(whole.trim_end().len());
                whole.push(' ');
            }
            head = rest.unwrap_or(part).trim_start();
            whole.push_str(head);
            if rest.is_none() {
                break;
            }
        }
        whole.truncate(whole.trim_end().len());
        whole.push_str(&"\n".repeat(taken + 1));
    }
    Cow::Owned(whole)
}

/// What stands before the backslash at the end of a line, if the line goes on after it. Terminals fill lines up with blanks.
fn continued(line: &str) -> Option<&str> {
    let line = line.trim_end();
    let head = line.trim_end_matches('\\');
    // Two of them are one that is meant.
    let is_odd = (line.len() - head.len()) % 2 == 1;
    line.get(..line.len().checked_sub(1)?).filter(|_| is_odd)
}

/// Whether a line is a prompt with a command. A line of a script in a manifest is none.
fn is_command(line: &str) -> bool {
    let is_script = line.starts_with(char::is_whitespace) && line.trim_start().starts_with("kubectl ");
    !is_script && prompted(line).is_some_and(|command| !command.is_empty())
}

/// Whether a line may belong to the command before it: it is not empty, ends no block of Markdown, and has no prompt.
fn goes_on(line: &str) -> bool {
    let line = line.trim();
    let is_fence = line.starts_with("\u{60}\u{60}\u{60}") || line.starts_with("~~~");
    let has_prompt = prompted(line).is_some_and(|command| command != line);
    !line.is_empty() && !is_fence && !has_prompt
}

/// A line without the `> ` by which shells ask for the rest of a command.
fn without_prompt(line: &str) -> &str {
    match line.strip_prefix('>') {
        Some(rest) if rest.is_empty() || rest.starts_with(' ') => rest,
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_command_over_several_lines_is_put_on_the_first() {
        for (text, whole) in [
            ("$ curl -v \\\n  http://web\nok\n", "$ curl -v http://web\n\nok\n"),
            ("$ curl -v \\\n> http://web\nok", "$ curl -v http://web\n\nok"),
            (
                "$ curl \\\n>   -v \\\n>   http://web\n",
                "$ curl -v http://web\n\n\n",
            ),
            ("kubectl get pods \\\n  -n shop\n", "kubectl get pods -n shop\n\n"),
            (
                "kubectl exec a -- \\\nkubectl get svc\n",
                "kubectl exec a -- kubectl get svc\n\n",
            ),
            ("/ # wget \\\r\n  web\r\nok\r\n", "/ # wget web\n\nok\r\n"),
            ("$ curl \\   \n  web\n", "$ curl web\n\n"),
            ("$ curl htt\\\np://web\n", "$ curl http://web\n\n"),
            // The rest is missing.
            ("$ curl web \\\n\nok\n", "$ curl web\n\nok\n"),
            ("$ curl web \\", "$ curl web\n"),
            ("$ curl web \\\n```\nok\n", "$ curl web\n```\nok\n"),
            ("$ curl a \\\n$ curl b\n", "$ curl a\n$ curl b\n"),
        ] {
            assert_eq!(joined(text), whole, "{text:?}");
        }
    }

    #[test]
    fn what_only_looks_like_one_is_left_as_it_is() {
        for text in [
            // What a program printed.
            "$ cat notes\ncurl -v \\\n  http://web\n",
            "C:\\share\\\nmore\n",
            "> GET /a\\\n> Host: web\n",
            // Two backslashes are one that is meant.
            "$ echo a\\\\\nb\n",
            // A script in a manifest.
            "    kubectl get pods \\\n      -n shop\n",
            // A prompt alone.
            "$ \\\nok\n",
            "$\nok \\\nok\n",
        ] {
            assert_eq!(joined(text), text, "{text:?}");
        }
    }

    #[test]
    fn a_command_without_end_ends() {
        let text = format!("$ curl {}", "\\\n x".repeat(10_000));
        let whole = joined(&text);
        assert_eq!(whole.lines().count(), text.lines().count());
        assert_eq!(
            whole.lines().next().map(|line| line.matches('x').count()),
            Some(MAX_LINES)
        );
    }

    proptest! {
        #[test]
        fn every_line_keeps_its_number(text in "(\\$ curl|kubectl x|>|\\\\| |\n|\r|```|[a-z]|\\PC){0,40}") {
            let whole = joined(&text);
            let count = |text: &str| text.matches('\n').count();
            // The last line may have had no end.
            prop_assert!(count(&whole).abs_diff(count(&text)) <= 1, "{text:?}: {whole:?}");
            let left = whole.lines().zip(text.lines());
            for (now, before) in left.filter(|(now, _)| !now.is_empty()) {
                prop_assert!(now == before || is_command(before), "{before:?}: {now:?}");
            }
        }
    }
}
