//! Lines for a drawing, where nothing breaks them.

/// The text in at most `max` lines of at most `columns` characters, with an ellipsis where something had to be left out.
/// A line ends at a space, or else after punctuation or between the words of a name, if there is any in its second half.
pub(super) fn wrap(text: &str, columns: usize, max: usize) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut rest = chars.as_slice();
    let mut lines = Vec::new();
    while rest.len() > columns && lines.len() + 1 < max {
        let (line, after) = rest.split_at(break_at(rest, columns));
        lines.push(line.iter().collect::<String>().trim().to_owned());
        rest = after;
    }
    let mut last: String = rest.iter().take(columns).collect();
    if rest.len() > columns {
        last.pop();
        last.truncate(last.trim_end().len());
        last.push('\u{2026}');
    }
    lines.push(last.trim().to_owned());
    lines
}

/// How many characters the first line has.
fn break_at(text: &[char], columns: usize) -> usize {
    let around = |at: usize| text.get(at - 1).copied().zip(text.get(at).copied());
    let is_space = |at: &usize| around(*at).is_some_and(|(before, after)| before == ' ' || after == ' ');
    let ends_word = |at: &usize| {
        around(*at).is_some_and(|(before, after)| {
            "/:-.,".contains(before) || before.is_lowercase() && after.is_uppercase()
        })
    };
    let ends = || (columns / 2 + 1..=columns).rev();
    // A line may be full, and the space after it is not shown.
    let found = ends().find(is_space).or_else(|| ends().find(ends_word));
    found.unwrap_or(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_where_a_reader_expects_it() {
        let lines = wrap("Pod shop/hostnames-632524106-bbpiw", 20, 3);
        assert_eq!(lines, ["Pod shop/hostnames-", "632524106-bbpiw"]);
        assert_eq!(
            wrap("OnlyFullyQualifiedNameResolves", 20, 3),
            ["OnlyFullyQualified", "NameResolves"]
        );
        assert_eq!(
            wrap("rules (nftables, 3/3 checked nodes)", 19, 3),
            ["rules (nftables,", "3/3 checked nodes)"]
        );
        assert_eq!(wrap("10.96.1.175:80", 20, 3), ["10.96.1.175:80"]);
        assert_eq!(wrap("", 20, 3), [""]);
    }

    #[test]
    fn what_is_too_long_is_cut_off_visibly() {
        assert_eq!(wrap(&"n".repeat(30), 10, 2), ["nnnnnnnnnn", "nnnnnnnnn\u{2026}"]);
        assert!(
            wrap(&"名".repeat(500), 20, 3)
                .iter()
                .all(|line| line.chars().count() <= 20)
        );
    }
}
