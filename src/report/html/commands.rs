//! Messages with commands between backquotes, each of them once more in a block of its own, to be copied.

use maud::{Markup, html};

/// A part of a message.
#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    Prose(&'a str),
    Command(&'a str),
}

/// The message; its commands follow it, each once.
pub(super) fn with_commands(message: &str) -> Markup {
    let parts = parts(message);
    let mut commands: Vec<&str> = Vec::new();
    for part in &parts {
        if let Part::Command(command) = part
            && !commands.contains(command)
        {
            commands.push(command);
        }
    }
    html! {
        p { (inline(&parts)) }
        @for command in commands { pre { code { (command) } } }
    }
}

/// The message alone.
pub(super) fn in_prose(message: &str) -> Markup {
    inline(&parts(message))
}

fn inline(parts: &[Part<'_>]) -> Markup {
    html! {
        @for part in parts {
            @match part {
                Part::Prose(text) => (text),
                Part::Command(command) => code { (command) },
            }
        }
    }
}

/// A backquote that is not closed, as in a message that was cut off, encloses nothing.
fn parts(message: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = message;
    while let Some((before, after)) = rest.split_once('`')
        && let Some((command, after)) = after.split_once('`')
    {
        parts.extend([Part::Prose(before), Part::Command(command)]);
        rest = after;
    }
    parts.push(Part::Prose(rest));
    parts.retain(|part| !matches!(part, Part::Prose("") | Part::Command("")));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_between_backquotes_and_one_that_is_not_closed_is_prose() {
        let found = parts("Run `a b` or `c`, then wait `d");
        let expected = [
            Part::Prose("Run "),
            Part::Command("a b"),
            Part::Prose(" or "),
            Part::Command("c"),
            Part::Prose(", then wait `d"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_command_that_is_named_twice_has_one_block() {
        let page = with_commands("Run `a`, and `a` again.").into_string();
        assert_eq!(page.matches("<pre").count(), 1, "{page}");
        assert_eq!(page.matches("<code>a</code>").count(), 3, "{page}");
    }
}
