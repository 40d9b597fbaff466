//! Words of a line, as a shell tells them apart.

use std::borrow::Cow;

use super::Wrong;

/// The words of a line, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    pub(super) fn of(line: &'a str) -> Self {
        Self { rest: line }
    }

    /// The next word without its quotes; None at the end of the line.
    pub(super) fn next(&mut self) -> Result<Option<Cow<'a, str>>, Wrong> {
        let rest = self.rest.trim_ascii_start();
        if let Some(quoted) = rest.strip_prefix('"') {
            let (word, rest) = until_quote(quoted)?;
            self.rest = rest;
            return Ok(Some(word));
        }
        let end = rest.find(|c: char| c.is_ascii_whitespace()).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        self.rest = rest;
        Ok((!word.is_empty()).then_some(Cow::Borrowed(word)))
    }

    /// The next word, which has to be there.
    pub(super) fn value(&mut self, expected: &'static str) -> Result<Cow<'a, str>, Wrong> {
        self.next()?
            .ok_or_else(|| Wrong::new("the end of the line", expected))
    }
}

/// What stands before the closing quote, without the backslashes, and what stands behind it.
fn until_quote(text: &str) -> Result<(Cow<'_, str>, &str), Wrong> {
    let mut word = Cow::Borrowed("");
    let mut rest = text;
    loop {
        let at = rest
            .find(['"', '\\'])
            .ok_or_else(|| Wrong::new("the end of the line", "a closing quote"))?;
        let (before, behind) = rest.split_at(at);
        word += before;
        let mut characters = behind.chars();
        if characters.next() == Some('"') {
            return Ok((word, characters.as_str()));
        }
        if let Some(escaped) = characters.next() {
            word.to_mut().push(escaped);
        }
        rest = characters.as_str();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn all(line: &str) -> Result<Vec<String>, Wrong> {
        let mut words = Words::of(line);
        let mut all = Vec::new();
        while let Some(word) = words.next()? {
            all.push(word.into_owned());
        }
        Ok(all)
    }

    #[test]
    fn quotes_and_escapes_are_taken_off() {
        assert_eq!(
            all(r#"  --comment "a \"b\" \\ c" -j X "" "#).unwrap(),
            ["--comment", r#"a "b" \ c"#, "-j", "X", ""]
        );
        assert!(all(r#"--comment "default/host"#).is_err());
        assert!(all(r#""ends with \"#).is_err());
    }

    proptest! {
        #[test]
        fn any_line_is_survived(line in r#"["\\ a-c\PC]{0,40}"#) {
            let _ = all(&line);
        }
    }
}
