//! Text of others, made fit for a terminal and for a message.
//!
//! Names, messages and what a node reports end up before somebody's eyes, and in front of a shell. A control
//! character there may rewrite the line that was printed before, and one that turns the direction of writing
//! shows something else than what is copied.

use std::borrow::Cow;

/// The text with a space for each character that is not seen itself but changes what is seen.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_unseen) {
        Cow::Owned(text.chars().map(|c| if is_unseen(c) { ' ' } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// The same for text that is put into a message of ours, where backquotes enclose the commands.
#[must_use]
pub fn foreign(text: &str) -> String {
    printable(text).replace('`', "'")
}

fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_becomes_a_space_and_the_rest_stays() {
        assert_eq!(printable("\u{1b}[2Jgone\r\n\u{9b}0m\u{202e}x"), " [2Jgone   0m x");
        assert!(matches!(printable("über: 名前 `ls`"), Cow::Borrowed(_)));
        assert_eq!(foreign("say `ls`\u{7}"), "say 'ls' ");
    }
}
