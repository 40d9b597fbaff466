//! `svcdiag explain`: what a reason means, what usually causes it, and what to type. The pages are those of
//! `docs/reasons`, so that they are at hand where nobody can open a web page.

mod page;

use std::io::IsTerminal;

use anstream::{AutoStream, ColorChoice};
use clap::Args;

use self::page::{Look, index, text};

// PAGES, all pages by their reasons in alphabetical order, and INDEX: written by build.rs.
include!(concat!(env!("OUT_DIR"), "/reasons.rs"));

/// Width of the text where no terminal says its own.
const WIDTH: usize = 100;

/// Lines longer than this are hard to read.
const MAX_WIDTH: usize = 120;

/// Which reason to explain.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
A reason stands in the column REASON of kubectl get svcdiag, and in every condition.

Examples:
  # What does NoReadyEndpoints mean, and what can I do about it?
  svcdiag explain NoReadyEndpoints

  # All reasons, by the stages that they belong to
  svcdiag explain")]
pub struct Options {
    /// Reason to explain, in upper or lower case [default: list all reasons]
    #[arg(value_name = "REASON", value_parser = reason)]
    reason: Option<Explained>,
}

/// A reason and its page.
#[derive(Clone, Copy, Debug)]
struct Explained {
    reason: &'static str,
    page: &'static str,
}

/// All reasons that have a page.
pub(crate) fn reasons() -> impl Iterator<Item = &'static str> {
    PAGES.iter().map(|(reason, _)| *reason)
}

/// The reason that a user means.
fn reason(typed: &str) -> Result<Explained, String> {
    let found = PAGES
        .iter()
        .find(|(reason, _)| reason.eq_ignore_ascii_case(typed));
    if let Some(&(reason, page)) = found {
        return Ok(Explained { reason, page });
    }
    let nearest = PAGES
        .iter()
        .map(|(reason, _)| {
            (
                strsim::jaro(&reason.to_lowercase(), &typed.to_lowercase()),
                reason,
            )
        })
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    let hint = nearest.map_or_else(String::new, |(_, reason)| format!("did you mean {reason}? "));
    Err(format!(
        "no such reason; {hint}List all of them with: svcdiag explain"
    ))
}

/// Prints the page of a reason, or the list of all.
///
/// # Errors
/// When the output cannot be written.
pub fn run(options: &Options) -> std::io::Result<()> {
    let stdout = std::io::stdout();
    let look = Look {
        width: match stdout.is_terminal() {
            true => textwrap::termwidth().min(MAX_WIDTH),
            false => WIDTH,
        },
        colour: AutoStream::choice(&stdout) != ColorChoice::Never,
    };
    let text = match options.reason {
        Some(explained) => text(explained.reason, explained.page, look),
        None => index(INDEX, PAGES, look),
    };
    crate::report::write(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_found_in_any_case() {
        for typed in ["NoReadyEndpoints", "noreadyendpoints", "NOREADYENDPOINTS"] {
            assert_eq!(reason(typed).unwrap().reason, "NoReadyEndpoints");
        }
    }

    #[test]
    fn a_typing_error_is_told_what_was_meant() {
        assert!(
            reason("NoReadyEndpoint")
                .unwrap_err()
                .contains("did you mean NoReadyEndpoints?")
        );
        assert!(reason("").unwrap_err().contains("svcdiag explain"));
        assert!(!reason("xyzzy").unwrap_err().contains("did you mean"));
    }
}
