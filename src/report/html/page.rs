//! The page: its head, the list of Services if there are several, and what is said of each.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    article::{Level, Subject, article},
    stages::badge,
};
use crate::api::ServiceDiagnosis;

/// Also for browsers: nothing is run and nothing is loaded, whatever should be in the page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

const STYLE: &str = include_str!("style.css");

pub(super) fn page(diagnoses: &[&ServiceDiagnosis]) -> Markup {
    let subjects: Vec<Subject<'_>> = diagnoses.iter().map(|diagnosis| Subject::of(diagnosis)).collect();
    match subjects.as_slice() {
        [only] => document(&only.title(), &article(only, 0, Level::Page)),
        several => document("Services", &survey(several)),
    }
}

fn document(title: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { (title) " - svcdiag" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main { (content) }
                footer {
                    p {
                        "Written by svcdiag. This page holds what " code { "svcdiag check -o json" }
                        " prints: names, addresses and messages of the cluster. Review it before you send it."
                    }
                }
            }
        }
    }
}

fn survey(subjects: &[Subject<'_>]) -> Markup {
    let count = match subjects.len() {
        0 => "No Services found.".to_owned(),
        1 => "1 Service.".to_owned(),
        n => format!("{n} Services, those that do not work first."),
    };
    html! {
        header { h1 { "Services" } p { (count) } }
        @if !subjects.is_empty() {
            nav aria-label="Services" {
                table.services role="table" aria-label="Services" {
                    thead role="rowgroup" {
                        tr role="row" {
                            @for column in ["Service", "Verdict", "Reason", "Endpoints", "DNS", "Proxy", "Hairpin"] {
                                th role="columnheader" scope="col" { (column) }
                            }
                        }
                    }
                    tbody role="rowgroup" {
                        @for (number, subject) in subjects.iter().enumerate() { (row(number, subject)) }
                    }
                }
            }
        }
        @for (number, subject) in subjects.iter().enumerate() { (article(subject, number, Level::Part)) }
    }
}

fn row(number: usize, subject: &Subject<'_>) -> Markup {
    let cells = subject.summary_cells();
    html! {
        tr role="row" {
            th role="rowheader" scope="row" { a href=(format!("#s{number}")) { (subject.name()) } }
            td role="cell" { (badge(subject.status())) }
            td role="cell" { (subject.reason()) }
            @for (column, cell) in cells { td role="cell" data-label=(column) { (cell) } }
        }
    }
}
