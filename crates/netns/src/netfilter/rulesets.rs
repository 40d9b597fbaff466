//! The rules of a network namespace, opened once and shared by all who look at them.
//!
//! nf_tables is asked anew for everything, over sockets that stay open; what is worth keeping is kept until
//! the generation of the rules changes. iptables-legacy has no generation and comes as one blob, many
//! megabytes long: it is read at most once a second, and nobody keeps it longer than that.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{legacy::Legacy, nf_tables::NfTables};
use crate::Netns;
use svcdiag_kube_proxy::Layout;

/// So long the tables of iptables-legacy are taken for what they were.
const LEGACY_LASTS: Duration = Duration::from_secs(1);

/// Tables, and when they were read.
type Recent = (Instant, Arc<Legacy>);

/// The rules of a network namespace.
#[derive(Debug)]
pub struct Rulesets {
    netns: Netns,
    nftables: Mutex<Option<Arc<NfTables>>>,
    iptables: Mutex<Option<Arc<NfTables>>>,
    legacy: Arc<Mutex<Option<Recent>>>,
}

impl Rulesets {
    /// The rules of a namespace. Nothing is opened yet.
    #[must_use]
    pub fn of(netns: Netns) -> Self {
        Self {
            netns,
            nftables: Mutex::default(),
            iptables: Mutex::default(),
            legacy: Arc::default(),
        }
    }

    /// kube-proxy's own table of nf_tables.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn nftables(&self) -> io::Result<Arc<NfTables>> {
        self.nf_tables(&self.nftables, Layout::Nftables)
    }

    /// The tables of iptables-nft.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn iptables(&self) -> io::Result<Arc<NfTables>> {
        self.nf_tables(&self.iptables, Layout::Iptables)
    }

    fn nf_tables(&self, known: &Mutex<Option<Arc<NfTables>>>, layout: Layout) -> io::Result<Arc<NfTables>> {
        let mut known = known.lock();
        if let Some(rules) = known.as_ref() {
            return Ok(rules.clone());
        }
        let rules = Arc::new(self.netns.run(move || NfTables::open(layout))?);
        *known = Some(rules.clone());
        Ok(rules)
    }

    /// The tables of iptables-legacy, as they were within the last second.
    ///
    /// # Errors
    /// When a table exists but cannot be read.
    pub fn legacy(&self) -> io::Result<Arc<Legacy>> {
        let mut known = self.legacy.lock();
        if let Some((_, rules)) = known.as_ref().filter(|(at, _)| at.elapsed() < LEGACY_LASTS) {
            return Ok(rules.clone());
        }
        // The old blob goes before the new one comes.
        *known = None;
        let rules = Arc::new(self.netns.run(|| Legacy::open().map_err(io::Error::other))?);
        if rules.is_empty() {
            *known = Some((Instant::now(), rules.clone()));
        // Where nobody would drop it in time it is not kept.
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            *known = Some((Instant::now(), rules.clone()));
            let slot = self.legacy.clone();
            runtime.spawn(async move {
                tokio::time::sleep(LEGACY_LASTS).await;
                let mut slot = slot.lock();
                *slot = slot.take().filter(|(at, _)| at.elapsed() < LEGACY_LASTS);
            });
        }
        Ok(rules)
    }
}
