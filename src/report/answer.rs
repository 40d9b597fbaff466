//! Printing of a diagnosis, and the exit codes.

use std::io::{IsTerminal, Write};

use anstream::{AutoStream, ColorChoice};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::json;

use super::{Error, Style, html::html, render};
use crate::{
    api::{ConditionStatus, ServiceDiagnosis},
    engine::{Diagnosis, Facts, diagnose},
};

/// How to evaluate and print.
#[derive(Args, Clone, Debug)]
pub struct Printing {
    /// Check only the API objects: exit with 0 if there is no fault in them
    #[arg(long)]
    pub(crate) api_only: bool,

    /// Output format
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

/// Output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// The stages as a tree, with the root cause and its fix
    Table,
    /// The same, with all reasons and observations
    Wide,
    /// A ServiceDiagnosis as JSON
    Json,
    /// A ServiceDiagnosis as YAML
    Yaml,
    /// JUnit XML for CI systems: a test for each stage
    Junit,
    /// A page for a browser, in one file: verdict, path, stages, evidence and fix
    Html,
}

/// The result as an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The Service works.
    Works,
    /// The Service does not work.
    Broken,
    /// Unknown.
    NotKnown,
}

impl Answer {
    /// The exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Works => 0,
            Self::Broken => 1,
            Self::NotKnown => 2,
        }
    }

    /// How bad it is, for comparison.
    #[must_use]
    pub(crate) const fn badness(self) -> u8 {
        match self {
            Self::Works => 0,
            Self::NotKnown => 1,
            Self::Broken => 2,
        }
    }

    /// The result of a Diagnosis; without the data path if that is not wanted.
    #[must_use]
    pub fn of(diagnosis: &Diagnosis, api_only: bool) -> Self {
        match diagnosis.ready.status {
            ConditionStatus::True => Self::Works,
            ConditionStatus::False => Self::Broken,
            ConditionStatus::Unknown if api_only && diagnosis.api_is_faultless() => Self::Works,
            ConditionStatus::Unknown => Self::NotKnown,
        }
    }
}

impl Printing {
    /// Evaluates and prints.
    ///
    /// # Errors
    /// When the answer cannot be written.
    pub fn answer(&self, facts: &Facts) -> Result<Answer, Error> {
        self.print(facts, &diagnose(facts))
    }

    /// Prints a verdict.
    ///
    /// # Errors
    /// When the answer cannot be written.
    pub(crate) fn print(&self, facts: &Facts, diagnosis: &Diagnosis) -> Result<Answer, Error> {
        write(&text(self.output, facts, diagnosis)?)?;
        Ok(Answer::of(diagnosis, self.api_only))
    }
}

/// Writes to standard output.
///
/// # Errors
/// When it cannot be written. A reader that has seen enough, such as `head`, is no failure.
pub fn write(text: &str) -> std::io::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// A diagnosis as the controller would write it.
pub(crate) fn object(facts: &Facts, diagnosis: &Diagnosis) -> ServiceDiagnosis {
    let mut object = ServiceDiagnosis::new(&facts.spec.service_name, facts.spec.clone());
    object.metadata.namespace = Some(facts.namespace.clone());
    object.status = Some(diagnosis.status(None, None, facts.now));
    object
}

/// Several diagnoses as one object, as kubectl prints them.
pub(crate) fn list(items: &[&ServiceDiagnosis]) -> serde_json::Value {
    json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": items })
}

/// As JSON, or as YAML.
pub(crate) fn serialized(output: Output, value: &impl Serialize) -> Result<String, Error> {
    let failed = |e: String| Error::Format(output, e);
    match output {
        Output::Yaml => serde_saphyr::to_string(value).map_err(|e| failed(e.to_string())),
        _ => Ok(serde_json::to_string_pretty(value).map_err(|e| failed(e.to_string()))? + "\n"),
    }
}

fn text(output: Output, facts: &Facts, diagnosis: &Diagnosis) -> Result<String, Error> {
    match output {
        Output::Table | Output::Wide => Ok(render(facts, diagnosis, output == Output::Wide, style())),
        Output::Json => serialized(output, &json!(object(facts, diagnosis))),
        Output::Yaml => serialized(output, &object(facts, diagnosis)),
        Output::Junit => junit(&[&object(facts, diagnosis)]),
        Output::Html => Ok(html(&[&object(facts, diagnosis)])),
    }
}

/// As JUnit XML.
pub(crate) fn junit(diagnoses: &[&ServiceDiagnosis]) -> Result<String, Error> {
    let xml = super::junit::junit(diagnoses.iter().copied());
    Ok(xml.map_err(|e| Error::Format(Output::Junit, e.to_string()))? + "\n")
}

/// Colours where anstream finds that they are wanted (NO_COLOR and its relatives); line art on a terminal that is not
/// `dumb`, if the locale has it.
fn style() -> Style {
    let set = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let terminal = std::io::stdout().is_terminal() && set("TERM").is_none_or(|t| t != "dumb");
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(set)
        .unwrap_or_default()
        .to_lowercase();
    Style {
        colour: AutoStream::choice(&std::io::stdout()) != ColorChoice::Never,
        unicode: terminal && (locale.contains("utf-8") || locale.contains("utf8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{ConditionType as C, Reason},
        engine::Finding,
    };

    /// A diagnosis whose objects are in order and whose data path was not fully probed.
    fn diagnosis(condition: C, finding: Finding) -> Diagnosis {
        let of = |c: &C| match c {
            c if *c == condition => (*c, finding.clone()),
            c if *c == C::DNSResolves || C::api_stages().contains(c) => (*c, Finding::yes(Reason::Valid, "")),
            C::KubeProxyHealthy => (*c, Finding::unknown(Reason::ProbeFailed, "")),
            C::ProxyRulesPresent => (*c, Finding::unknown(Reason::AgentNotResponding, "")),
            C::HairpinOK => (*c, Finding::blocked(C::ProxyRulesPresent)),
            _ => (*c, Finding::unknown(Reason::NoVantagePoint, "")),
        };
        let stages = C::stages().iter().map(of).collect();
        Diagnosis::unjudged(stages, Reason::NoVantagePoint, String::new())
    }

    #[test]
    fn with_api_only_what_is_open_in_the_data_path_is_no_fault_of_the_objects() {
        let open = |c, reason| diagnosis(c, Finding::unknown(reason, ""));
        let found = open(C::ProxyForwards, Reason::Pending);
        assert_eq!(Answer::of(&found, true), Answer::Works);
        assert_eq!(Answer::of(&found, false), Answer::NotKnown);
        assert!(!found.is_of_api_alone(), "a name was looked up");
        for condition in C::api_stages() {
            for reason in [Reason::ProbeFailed, Reason::Pending] {
                let found = open(*condition, reason);
                assert_eq!(Answer::of(&found, true), Answer::NotKnown, "{condition} {reason}");
            }
        }
        let satisfied = open(C::NetworkPolicyAllows, Reason::OtherPoliciesApply);
        assert_eq!(Answer::of(&satisfied, true), Answer::Works);
        let broken = diagnosis(C::ServiceReachable, Finding::part_fails(Reason::TimedOut, "", ""));
        assert!(
            !broken.api_is_faultless(),
            "what is known to be broken does not pass"
        );
    }
}
