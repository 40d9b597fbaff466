//! Why a text tells nothing.

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ParseError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, and what was expected.
    pub what: String,
}

impl ParseError {
    /// Nothing in a text was understood. An empty or foreign text must never pass for "all is well".
    pub(super) fn nothing(text: &str, expected: &str) -> Self {
        let first = text.lines().position(|line| !line.trim().is_empty());
        Self {
            line: first.map_or(1, |index| index + 1),
            what: match first {
                Some(_) => format!("expected {expected}, but no line looks like it"),
                None => format!("expected {expected}, but the text is empty"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_where_and_what() {
        let error = ParseError::nothing("\n\nfoo\n", "output of ps");
        assert_eq!(
            error.to_string(),
            "line 3: expected output of ps, but no line looks like it"
        );
        assert_eq!(
            ParseError::nothing("\n", "output of ps").to_string(),
            "line 1: expected output of ps, but the text is empty"
        );
    }
}
