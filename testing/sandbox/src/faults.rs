//! The faults of the walk-through, as data: what to do to a healthy fixture, and what svcdiag must
//! say about it.
//!
//! The catalogue is YAML (`manifests/faults/*.yaml`), one entry for each row of the fault table,
//! with its healthy lookalikes: the nearest odd-but-right configurations, on which nothing may be
//! False. A step edits, deletes or creates objects; the [`Fixture`] keeps a journal of how every
//! touched object was before, so undoing needs no code of its own; a script on a node or in a Pod brings its own.
//!
//! ```text
//! catalogue() -> Fault { steps } -> inject(&Fixture) -> objects change, journal grows
//!                                   undo(&Fixture)   <- journal, backwards
//! ```

mod expected;
mod fixture;
mod journal;
pub mod kinds;
mod objects;
mod place;
mod record;
mod scripts;
mod steps;

use serde::Deserialize;

use crate::error::RequestError;
use crate::kernel::Wiring;
use crate::proxy::ProxyMode;
pub use expected::{Expected, ExpectedCondition, Verdict};
pub use fixture::Fixture;
pub use record::Recorder;
pub use steps::Step;

/// Rows that the API alone leads to, one file for each stage of the decision tree.
const FILES: [(&str, &str); 6] = [
    ("service.yaml", include_str!("../manifests/faults/service.yaml")),
    (
        "definition.yaml",
        include_str!("../manifests/faults/definition.yaml"),
    ),
    ("pods.yaml", include_str!("../manifests/faults/pods.yaml")),
    (
        "endpoints.yaml",
        include_str!("../manifests/faults/endpoints.yaml"),
    ),
    ("policy.yaml", include_str!("../manifests/faults/policy.yaml")),
    (
        "diagnosis.yaml",
        include_str!("../manifests/faults/diagnosis.yaml"),
    ),
];

/// Rows that need nodes and Pods in the kernel.
const DATA_PATH_FILES: [(&str, &str); 6] = [
    (
        "pods-working.yaml",
        include_str!("../manifests/faults/pods-working.yaml"),
    ),
    (
        "kube-proxy.yaml",
        include_str!("../manifests/faults/kube-proxy.yaml"),
    ),
    (
        "service-path.yaml",
        include_str!("../manifests/faults/service-path.yaml"),
    ),
    ("dns.yaml", include_str!("../manifests/faults/dns.yaml")),
    ("hairpin.yaml", include_str!("../manifests/faults/hairpin.yaml")),
    ("agents.yaml", include_str!("../manifests/faults/agents.yaml")),
];

/// A row of the fault table.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// `A08`; a second way to the same row has a suffix, as in `A09-statefulset`.
    pub id: String,
    /// What is broken, in one line.
    pub title: String,
    /// What svcdiag must say.
    pub expected: Expected,
    /// Stages that the fault breaks as well, and that may be found broken first: agents report one after the other.
    #[serde(default)]
    pub meanwhile: Vec<String>,
    /// How long svcdiag may take to say so.
    #[serde(default = "default_patience")]
    pub within_seconds: u64,
    /// Whether it breaks something that all namespaces share: not to be run beside others.
    #[serde(default)]
    pub exclusive: bool,
    /// Why a current API server cannot be brought into this state, if it cannot.
    #[serde(default)]
    pub refused: Option<String>,
    /// In which modes of kube-proxy it is run, where there are nodes in the kernel.
    #[serde(default)]
    pub modes: Modes,
    /// How Pods have to be linked to their nodes.
    #[serde(default)]
    pub wiring: Wiring,
    /// The code that runs it, after the steps: where it takes more than a state.
    #[serde(default)]
    pub driver: Option<Driver>,
    /// What to do to the fixture.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// The nearest healthy configurations.
    #[serde(default)]
    pub lookalikes: Vec<Lookalike>,
}

/// A configuration that looks like a fault and is none.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lookalike {
    /// The fault that it resembles; filled in by [`catalogue`].
    #[serde(default)]
    pub fault: String,
    /// What is odd but right about it.
    pub title: String,
    /// Whether it touches something that all namespaces share.
    #[serde(default)]
    pub exclusive: bool,
    /// In which modes of kube-proxy it is run, where there are nodes in the kernel.
    #[serde(default)]
    pub modes: Modes,
    /// How Pods have to be linked to their nodes.
    #[serde(default)]
    pub wiring: Wiring,
    /// What svcdiag must say once the fixture is there, where that is more than "nothing is False".
    #[serde(default)]
    pub expected: Option<Expected>,
    /// What to do to the fixture.
    pub steps: Vec<Step>,
}

/// Modes of kube-proxy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "ModesText")]
pub struct Modes(Vec<ProxyMode>);

/// `all`, or a list of names.
#[derive(Deserialize)]
#[serde(untagged)]
enum ModesText {
    Names(Vec<String>),
    Word(String),
}

impl Default for Modes {
    /// What Kubernetes makes of a new cluster today.
    fn default() -> Self {
        Self(vec![ProxyMode::Nftables])
    }
}

impl TryFrom<ModesText> for Modes {
    type Error = String;

    fn try_from(text: ModesText) -> Result<Self, String> {
        let names = match text {
            ModesText::Word(word) if word == "all" => return Ok(Self(ProxyMode::ALL.to_vec())),
            ModesText::Word(word) => vec![word],
            ModesText::Names(names) => names,
        };
        let modes = names.iter().map(|name| name.parse::<ProxyMode>());
        let modes: Result<Vec<_>, _> = modes.collect();
        modes.map(Self).map_err(|error| error.to_string())
    }
}

impl Modes {
    /// In the order of [`ProxyMode::ALL`].
    pub fn all(&self) -> &[ProxyMode] {
        &self.0
    }
}

/// Code that runs a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Driver {
    /// There have never been agents.
    AgentAbsent,
    /// The agents are killed.
    AgentDead,
    /// The agent of sandbox-2 is killed and started anew.
    AgentRestarted,
    /// The Pods are replaced 50 times.
    RollingRestart,
    /// The Service gets 1,000 endpoints.
    ThousandEndpoints,
}

fn default_patience() -> u64 {
    20
}

/// Why a fault could not be injected or undone.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the catalogue or of the walk-through.
    #[error("{file} is not what it should be: {message}")]
    Manifest {
        /// Which file.
        file: String,
        /// What is wrong with it.
        message: String,
    },
    /// The row describes a state that the API server does not let anybody create.
    #[error("{id} cannot be injected: {reason}")]
    Refused {
        /// Which fault.
        id: String,
        /// Why not.
        reason: String,
    },
    /// A step that makes no sense on the objects as they are.
    #[error("step on {target}: {message}")]
    Step {
        /// The object that the step names.
        target: String,
        /// What is wrong.
        message: String,
    },
    /// Something did not come about in time.
    #[error("{what} did not happen within {} s; {found}", within.as_secs())]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        within: std::time::Duration,
        /// How things were at the end.
        found: String,
    },
    /// A request.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A script on a node or in a Pod.
    #[error(transparent)]
    Kernel(#[from] crate::kernel::Error),
}

/// The faults that the API alone leads to, in the order of the table.
pub fn catalogue() -> Result<Vec<Fault>, Error> {
    read(&FILES)
}

/// The faults that take a fixture on nodes in the kernel, in the order of the table.
pub fn data_path_catalogue() -> Result<Vec<Fault>, Error> {
    read(&DATA_PATH_FILES)
}

fn read(files: &[(&str, &str)]) -> Result<Vec<Fault>, Error> {
    let mut faults = Vec::new();
    for (file, text) in files {
        let some: Vec<Fault> = serde_saphyr::from_str(text).map_err(|error| Error::Manifest {
            file: (*file).to_owned(),
            message: error.to_string(),
        })?;
        faults.extend(some);
    }
    for fault in &mut faults {
        for lookalike in &mut fault.lookalikes {
            lookalike.fault.clone_from(&fault.id);
        }
    }
    faults.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(faults)
}

impl Fault {
    /// Breaks a healthy fixture in this way. A failed injection is to be undone as well.
    pub async fn inject(&self, fixture: &Fixture) -> Result<(), Error> {
        if let Some(reason) = &self.refused {
            return Err(Error::Refused {
                id: self.id.clone(),
                reason: reason.clone(),
            });
        }
        steps::take(fixture, &self.steps).await?;
        fixture.refresh_nodes().await
    }

    /// Brings everything back into the state before.
    pub async fn undo(&self, fixture: &Fixture) -> Result<(), Error> {
        journal::undo(fixture).await?;
        fixture.refresh_nodes().await
    }
}

impl Lookalike {
    /// Brings a healthy fixture into this configuration.
    pub async fn apply(&self, fixture: &Fixture) -> Result<(), Error> {
        steps::take(fixture, &self.steps).await?;
        fixture.refresh_nodes().await
    }

    /// Brings everything back into the state before.
    pub async fn undo(&self, fixture: &Fixture) -> Result<(), Error> {
        journal::undo(fixture).await?;
        fixture.refresh_nodes().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_has_every_row_of_level_a() {
        let faults = catalogue().unwrap();
        for number in 1..=28 {
            let id = format!("A{number:02}");
            assert!(faults.iter().any(|fault| fault.id == id), "{id} is missing");
        }
    }

    #[test]
    fn the_catalogue_has_every_row_of_the_data_path() {
        let faults = data_path_catalogue().unwrap();
        for number in (1..=47).chain([60, 63]).chain(70..=73) {
            let id = format!("N{number:02}");
            assert!(faults.iter().any(|fault| fault.id == id), "{id} is missing");
        }
        assert!(faults.iter().all(|fault| fault.id.starts_with('N')));
        let everywhere = |fault: &&Fault| fault.modes.all() == ProxyMode::ALL;
        let starred: Vec<&str> = faults.iter().filter(everywhere).map(|f| f.id.as_str()).collect();
        assert_eq!(
            starred,
            ["N09", "N10", "N11", "N12", "N14", "N18", "N20", "N30", "N31"]
        );
    }

    #[test]
    fn every_row_of_the_data_path_says_how_to_get_there() {
        for fault in data_path_catalogue().unwrap() {
            assert!(fault.driver.is_some() || !fault.steps.is_empty(), "{}", fault.id);
            assert!(
                fault
                    .lookalikes
                    .iter()
                    .all(|lookalike| !lookalike.steps.is_empty()),
                "{}",
                fault.id
            );
        }
    }

    #[test]
    fn every_row_says_how_to_get_there_or_why_not() {
        for fault in catalogue().unwrap() {
            assert!(fault.refused.is_some() || !fault.steps.is_empty(), "{}", fault.id);
            assert!(
                fault
                    .lookalikes
                    .iter()
                    .all(|lookalike| lookalike.fault == fault.id)
            );
        }
    }
}
