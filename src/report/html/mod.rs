//! Verdicts as a page of HTML for people who have no terminal at hand: to attach to a ticket, to keep, to print.
//!
//! [`html`] makes it of what the JSON output holds, and of nothing else. `page` has the page and its list of Services, `article`
//! what is said of one Service, `svg` draws the path (`wrap` breaks its lines). One file is all there is: no script, and nothing is loaded. Every text is
//! escaped by maud, which inserts values of no other type than its own [`maud::Markup`] as they are.

mod article;
mod commands;
mod page;
mod stages;
mod svg;
#[cfg(test)]
mod tests;
mod wrap;

use crate::api::ServiceDiagnosis;

/// The verdicts as a page. A single one is the page; of several there is a list as well.
pub(crate) fn html(diagnoses: &[&ServiceDiagnosis]) -> String {
    page::page(diagnoses).into_string() + "\n"
}
