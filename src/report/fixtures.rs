//! Verdicts on Services of each kind, as `-o json` prints them.

use serde_json::Value;

use crate::{api::ServiceDiagnosis, engine::Diagnosis};

/// A verdict, and what it is a verdict on.
pub(super) struct Fixture {
    pub(super) name: &'static str,
    pub(super) json: &'static str,
}

macro_rules! fixtures {
    ($($name:literal),+ $(,)?) => {
        [$(Fixture { name: $name, json: include_str!(concat!("fixtures/", $name, ".json")) }),+]
    };
}

/// All of them.
pub(super) const FIXTURES: [Fixture; 6] = fixtures![
    "healthy",
    "wrong-selector",
    "dropped",
    "headless",
    "no-agents",
    "external-name",
];

impl Fixture {
    /// The one of this name.
    pub(super) fn named(name: &str) -> &'static Self {
        FIXTURES.iter().find(|fixture| fixture.name == name).unwrap()
    }

    pub(super) fn value(&self) -> Value {
        serde_json::from_str(self.json).unwrap()
    }

    pub(super) fn object(&self) -> ServiceDiagnosis {
        serde_json::from_value(self.value()).unwrap()
    }

    pub(super) fn diagnosis(&self) -> Diagnosis {
        Diagnosis::of_status(&self.object().status.unwrap()).unwrap()
    }
}
