//! Where a script runs, and the one that undoes it.

use std::sync::Arc;

use super::{Error, Fixture};
use crate::kernel::Kernel;

pub(super) type Variables = Vec<(String, String)>;

/// Where a script runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a node's namespace, by its name.
    Node(String),
    /// In a Pod's namespace, by its UID and name.
    Pod(String, String),
}

/// A script with all it needs, to be run when a fault is undone.
#[derive(Debug)]
pub(super) struct Undo {
    place: Place,
    script: String,
    variables: Variables,
}

impl Undo {
    pub(super) fn new(place: Place, script: String, variables: Variables) -> Self {
        Self {
            place,
            script,
            variables,
        }
    }

    /// Runs it. A Pod that is gone has taken everything with it.
    pub(super) async fn run(&self, fixture: &Fixture) -> Result<(), Error> {
        let kernel = kernel(fixture)?;
        match (
            &self.place,
            run(kernel, &self.place, &self.script, &self.variables).await,
        ) {
            (Place::Pod(uid, _), Err(_)) if !kernel.has_pod(uid).await => Ok(()),
            (_, result) => result,
        }
    }
}

/// Runs a script.
pub(super) async fn run(
    kernel: &Kernel,
    place: &Place,
    script: &str,
    variables: &Variables,
) -> Result<(), Error> {
    match place {
        Place::Node(name) => match kernel.node(name) {
            Some(node) => node.sh(script, variables).await.map(drop)?,
            None => return Err(failed(name, "no such node")),
        },
        Place::Pod(uid, _) => kernel.in_pod(uid, script, variables).await.map(drop)?,
    }
    Ok(())
}

/// The namespaces of the fixture.
pub(super) fn kernel(fixture: &Fixture) -> Result<&Arc<Kernel>, Error> {
    let none = || failed("a script", "the cluster has no nodes in the kernel");
    fixture.kernel().ok_or_else(none)
}

pub(super) fn failed(target: &str, message: &str) -> Error {
    Error::Step {
        target: target.to_owned(),
        message: message.to_owned(),
    }
}
