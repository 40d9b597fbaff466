//! The causes for which a Pod is not ready.

use jiff::Timestamp;

/// Why a Pod is not ready, in the order in which the causes take precedence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// Its node is not Ready, or there is no such Node.
    NodeNotReady(String),
    /// It is not placed on a node.
    Unschedulable(Hold, String),
    /// An image cannot be pulled.
    ImagePull(String),
    /// An init container fails or does not end.
    InitContainer(String),
    /// A container starts and ends again and again.
    CrashLoop(Crash),
    /// Containers run but a readiness probe fails.
    ProbeFailing(String),
    /// Anything else.
    Other(String),
    /// Nothing yet: the Pod may still become ready.
    Starting(Start),
}

/// A container that starts and ends again and again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Crash {
    /// How it ends, in words.
    pub text: String,
    /// Its name.
    pub container: String,
    /// Whether the kernel killed it for want of memory, as its status says.
    pub is_out_of_memory: bool,
}

/// A Pod that is starting.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Start {
    /// Until when it may.
    pub until: Timestamp,
    /// What it waits for, as far as anybody said so.
    pub why: Option<String>,
}

impl Trouble {
    /// The cause in words.
    pub(crate) fn describe(&self) -> &str {
        match self {
            Self::NodeNotReady(text)
            | Self::Unschedulable(_, text)
            | Self::ImagePull(text)
            | Self::InitContainer(text)
            | Self::CrashLoop(Crash { text, .. })
            | Self::ProbeFailing(text)
            | Self::Other(text) => text,
            Self::Starting(start) => start.why.as_deref().unwrap_or("it is starting"),
        }
    }
}

/// What keeps a Pod from being placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hold {
    /// No node fits.
    NoNode,
    /// A volume is not there yet, or is bound to another place.
    Volume,
    /// A scheduling gate.
    Gate,
}
