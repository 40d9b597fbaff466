//! Colours: terminals are copied with the sequences that steer them.

/// A text without escape sequences: `ESC [ ... m` and the like, and titles of windows (`ESC ] ... BEL`).
pub(super) fn without(text: String) -> String {
    if !text.contains('\u{1b}') {
        return text;
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some((before, behind)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        rest = match behind.strip_prefix('[') {
            Some(sequence) => behind_first(sequence, |c| ('@'..='~').contains(&c)),
            None => match behind.strip_prefix(']') {
                Some(title) => behind_first(title, |c| c == '\u{7}' || c == '\\'),
                None => behind,
            },
        };
    }
    plain.push_str(rest);
    plain
}

/// What stands behind the end of a sequence; what has no end on its line is kept.
fn behind_first(text: &str, is_end: impl Fn(char) -> bool) -> &str {
    let line = text.split('\n').next().unwrap_or_default();
    match line.find(is_end) {
        Some(at) => text.get(at + 1..).unwrap_or_default(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::without;

    #[test]
    fn what_steers_a_terminal_is_left_out() {
        for (text, plain) in [
            (
                "\u{1b}[01;32mroot@a\u{1b}[00m:\u{1b}[01;34m/\u{1b}[00m# curl x",
                "root@a:/# curl x",
            ),
            ("\u{1b}]0;root@a: /\u{7}root@a:/# id\n", "root@a:/# id\n"),
            ("\u{1b}[?2004hroot@a:/# id", "root@a:/# id"),
            ("no end \u{1b}[0\nnext", "no end 0\nnext"),
            ("plain\n", "plain\n"),
        ] {
            assert_eq!(without(text.to_owned()), plain);
        }
    }

    proptest! {
        #[test]
        fn any_text_keeps_its_lines(text in "(?s)[\u{1b}\\[\\]0-9ma\n]{0,80}") {
            let lines = text.matches('\n').count();
            prop_assert_eq!(without(text).matches('\n').count(), lines);
        }
    }
}
