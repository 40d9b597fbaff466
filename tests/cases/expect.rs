//! What a right answer has to contain, and the answer that it is compared with.

use std::{collections::BTreeMap, process::Output};

use fancy_regex::Regex;
use serde::Deserialize;
use serde_json::Value;

/// What a right answer has to contain. Several values are allowed where several would serve the user.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Expect {
    /// What the case is about; for people.
    #[serde(rename = "title")]
    _title: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "source")]
    _source: String,
    #[serde(rename = "saw")]
    _saw: String,
    #[serde(rename = "cause")]
    _cause: String,
    /// Namespace/name of the Service, where the bundle does not name it.
    pub service: Option<String>,
    /// Further arguments of the command.
    #[serde(default)]
    pub args: Vec<String>,
    /// Status of Ready; `None`: no diagnosis was printed.
    ready: Vec<String>,
    /// Exit codes.
    exit: Option<Vec<i32>>,
    /// CONDITION/REASON of the root cause where Ready is False; `*` stands for anything.
    root_cause: Option<Vec<String>>,
    /// For stages that the evidence decides: STATUS or STATUS/REASON.
    #[serde(default)]
    conditions: BTreeMap<String, Vec<String>>,
    /// What must and what must not be said, as regular expressions without case.
    #[serde(default)]
    must_say: Vec<String>,
    #[serde(default)]
    must_not_say: Vec<String>,
}

/// What the command answered.
pub(crate) struct Answer {
    exit: i32,
    /// STATUS/REASON by type.
    conditions: BTreeMap<String, String>,
    /// CONDITION/REASON.
    root_cause: Option<String>,
    /// All messages, the remediation and standard error.
    said: String,
}

impl Answer {
    /// Reads the output of `svcdiag diagnose -o json`.
    pub(crate) fn read(output: &Output) -> Result<Self, String> {
        let exit = output.status.code().ok_or("it was ended by a signal")?;
        let mut said = vec![String::from_utf8_lossy(&output.stderr).into_owned()];
        let mut conditions = BTreeMap::new();
        let mut root_cause = None;
        if output.stdout.iter().any(|b| !b.is_ascii_whitespace()) {
            let diagnosis: Value =
                serde_json::from_slice(&output.stdout).map_err(|e| format!("no ServiceDiagnosis: {e}"))?;
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let status = &diagnosis["status"];
            for condition in status["conditions"].as_array().into_iter().flatten() {
                let answer = format!("{}/{}", text(&condition["status"]), text(&condition["reason"]));
                conditions.insert(text(&condition["type"]), answer);
                said.push(text(&condition["message"]));
            }
            let cause = &status["rootCause"];
            if cause.is_object() {
                root_cause = Some(format!(
                    "{}/{}",
                    text(&cause["condition"]),
                    text(&cause["reason"])
                ));
                said.extend([text(&cause["message"]), text(&cause["remediation"])]);
            }
        } else if ![2, 3].contains(&exit) {
            return Err(format!("exit code {exit} and no answer: {}", said.concat()));
        }
        Ok(Self {
            exit,
            conditions,
            root_cause,
            said: said.join("\n"),
        })
    }

    fn ready(&self) -> &str {
        let ready = self.conditions.get("Ready").map_or("None", String::as_str);
        ready.split('/').next().unwrap_or_default()
    }
}

impl Expect {
    /// What is wrong with an answer, a sentence each.
    pub(crate) fn complaints(&self, answer: &Answer) -> Vec<String> {
        let mut wrong = Vec::new();
        let ready = answer.ready();
        if !self.ready.iter().any(|r| r == ready) {
            wrong.push(format!("Ready: wanted {}, got {ready}", self.ready.join(" or ")));
        }
        if let Some(exit) = self.exit.as_ref().filter(|exit| !exit.contains(&answer.exit)) {
            wrong.push(format!("exit code: wanted one of {exit:?}, got {}", answer.exit));
        }
        if let (Some(allowed), "False") = (&self.root_cause, ready) {
            let got = answer.root_cause.as_deref().unwrap_or("none");
            if !is_allowed(got, allowed) {
                wrong.push(format!("root cause: wanted {}, got {got}", allowed.join(" or ")));
            }
        }
        for (condition, allowed) in &self.conditions {
            let got = answer.conditions.get(condition).map_or("None/", String::as_str);
            if !is_allowed(got, allowed) {
                wrong.push(format!("{condition}: wanted {}, got {got}", allowed.join(" or ")));
            }
        }
        let says = |pattern: &String| {
            Regex::new(&format!("(?i){pattern}"))
                .unwrap_or_else(|e| panic!("{pattern}: {e}"))
                .is_match(&answer.said)
                .unwrap()
        };
        let missing = self.must_say.iter().filter(|p| !says(p));
        wrong.extend(missing.map(|p| format!("does not say /{p}/")));
        let untrue = self.must_not_say.iter().filter(|p| says(p));
        wrong.extend(untrue.map(|p| format!("must not say /{p}/")));
        if !wrong.is_empty() {
            wrong.push(format!("it said: {}", answer.said));
        }
        wrong
    }
}

/// Whether an answer A/B is allowed: by itself, by A alone, or by a pattern with `*` for either.
fn is_allowed(got: &str, allowed: &[String]) -> bool {
    let part = |got: &str, wanted: &str| wanted == "*" || wanted == got;
    allowed
        .iter()
        .any(|wanted| match (got.split_once('/'), wanted.split_once('/')) {
            (Some((a, b)), Some((wanted_a, wanted_b))) => part(a, wanted_a) && part(b, wanted_b),
            (Some((a, _)), None) => part(a, wanted),
            (None, _) => part(got, wanted),
        })
}
