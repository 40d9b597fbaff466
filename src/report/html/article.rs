//! What is said of one Service: the verdict, the path, the root cause with its fix, the stages, what was observed, and what
//! has no answer.

use maud::{Markup, html};

use super::{
    commands::{in_prose, with_commands},
    stages::{badge, code, observations, stages, unanswered},
    svg::figure,
};
use crate::{
    api::{ConditionStatus, RootCause, ServiceDiagnosis, Summary},
    engine::Diagnosis,
    objects::Object,
    report::{path::hops, tree::verdict},
};

/// A Service and the verdict on it.
pub(super) struct Subject<'a> {
    object: &'a ServiceDiagnosis,
    diagnosis: Option<Diagnosis>,
}

/// Whether the Service is all that the page is about, or one of several.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Page,
    Part,
}

impl Level {
    fn title(self, text: &Markup) -> Markup {
        match self {
            Self::Page => html! { h1 { (text) } },
            Self::Part => html! { h2 { (text) } },
        }
    }

    fn section(self, text: &str) -> Markup {
        match self {
            Self::Page => html! { h2 { (text) } },
            Self::Part => html! { h3 { (text) } },
        }
    }
}

impl<'a> Subject<'a> {
    pub(super) fn of(object: &'a ServiceDiagnosis) -> Self {
        let status = object.status.as_ref();
        Self {
            object,
            diagnosis: status.and_then(Diagnosis::of_status),
        }
    }

    /// Namespace and name of the Service.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.object.namespace(), self.object.spec.service_name)
    }

    pub(super) fn title(&self) -> String {
        format!("Service {}: {}", self.name(), verdict(self.status()))
    }

    pub(super) fn status(&self) -> ConditionStatus {
        let diagnosis = self.diagnosis.as_ref();
        diagnosis.map_or(ConditionStatus::Unknown, |d| d.ready.status)
    }

    pub(super) fn reason(&self) -> Markup {
        html! { @if let Some(diagnosis) = &self.diagnosis { (code(diagnosis.ready.reason)) } }
    }

    /// The columns of `kubectl get`.
    pub(super) fn summary_cells(&self) -> [(&'static str, &str); 4] {
        let of = |cell: fn(&Summary) -> &String| {
            let diagnosis = self.diagnosis.as_ref();
            diagnosis.map_or("?", |d| cell(&d.summary).as_str())
        };
        [
            ("Endpoints", of(|s| &s.endpoints)),
            ("DNS", of(|s| &s.dns)),
            ("Proxy", of(|s| &s.proxy)),
            ("Hairpin", of(|s| &s.hairpin)),
        ]
    }
}

/// The article with this number in the page.
pub(super) fn article(subject: &Subject<'_>, number: usize, level: Level) -> Markup {
    html! {
        article id=(format!("s{number}")) {
            header {
                (level.title(&html! { "Service " span.name { (subject.name()) } }))
                p.verdict { (badge(subject.status())) " " (subject.reason()) }
                @if let Some(time) = time(subject.object) { p.muted { "As of " time datetime=(time) { (time) } "." } }
            }
            @match &subject.diagnosis {
                Some(diagnosis) => (body(subject, diagnosis, number, level)),
                None => p { "There is no verdict yet." },
            }
        }
    }
}

fn time(object: &ServiceDiagnosis) -> Option<String> {
    let time = object.status.as_ref()?.last_change_time.as_ref()?;
    Some(time.0.to_string())
}

fn body(subject: &Subject<'_>, diagnosis: &Diagnosis, number: usize, level: Level) -> Markup {
    let hops = hops(&subject.name(), diagnosis);
    let unanswered = unanswered(diagnosis);
    html! {
        @if diagnosis.root_cause.is_none() { p { (in_prose(&diagnosis.ready.message)) } }
        @if !hops.is_empty() {
            section {
                (level.section("Path"))
                (figure(&hops, number))
            }
        }
        @if let Some(cause) = &diagnosis.root_cause { (root_cause(cause, level)) }
        section {
            (level.section("Stages"))
            (stages(diagnosis))
        }
        section {
            (level.section("Observations"))
            dl.summary {
                @for (name, value) in subject.summary_cells() { div { dt { (name) } dd { (value) } } }
            }
            (observations(&diagnosis.observations))
        }
        section {
            (level.section("Without an answer"))
            @match unanswered {
                Some(list) => (list),
                None => p { "Every stage that applies to the Service has an answer." },
            }
        }
    }
}

fn root_cause(cause: &RootCause, level: Level) -> Markup {
    // Only what a browser may follow: the link comes from the cluster.
    let link = cause.link.as_deref().filter(|link| link.starts_with("https://"));
    html! {
        section.cause {
            (level.section("Root cause"))
            p { (code(&cause.condition)) " / " (code(&cause.reason)) " (" (impact(cause)) ")" }
            p { (in_prose(&cause.message)) }
        }
        section {
            (level.section("Fix"))
            (with_commands(&cause.remediation))
            @if let Some(link) = link { p { "Read more: " a href=(link) rel="noreferrer" { (link) } } }
        }
    }
}

fn impact(cause: &RootCause) -> &'static str {
    match cause.impact {
        crate::api::Impact::All => "nothing works",
        crate::api::Impact::Some => "part of the Service fails",
    }
}
