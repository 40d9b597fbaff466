//! Packets of this node's clients whose dials of endpoints on other nodes are lost, while these are repeated: whether they
//! leave this node, and whether answers come in.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use parking_lot::Mutex;
use svcdiag_api::{Left, Protocol};
use svcdiag_drops::{Leg, Seen, Sightings};
use tokio::time::{Instant, timeout};

use super::{
    PATIENCE,
    arrivals::STANDS,
    packets_of::{PacketsOf, count, name},
    wanted::{Wanted, distinct, from_elsewhere},
};
use crate::{
    blocking::{Pool, blocking},
    round::Round,
};

/// Packets are on their way for a moment after a dial was given up.
const A_MOMENT: Duration = Duration::from_millis(100);

/// What is remembered between rounds: what the last watch has seen, and when.
#[derive(Debug, Default)]
pub(in crate::round) struct Known(Mutex<Option<(Instant, Vec<Left>)>>);

impl Known {
    /// What was seen lately.
    pub(in crate::round) fn get(&self) -> Vec<Left> {
        let mut known = self.0.lock();
        known.take_if(|(at, _)| at.elapsed() > STANDS);
        known.as_ref().map(|(_, left)| left.clone()).unwrap_or_default()
    }

    pub(in crate::round) fn set(&self, left: Vec<Left>) {
        *self.0.lock() = Some((Instant::now(), left));
    }
}

/// A dial of a client on this node.
#[derive(Clone, Debug)]
pub(in crate::round) struct Leaving {
    pub from: String,
    pub protocol: Protocol,
    pub client: IpAddr,
    pub endpoint: SocketAddr,
}

impl Round<'_> {
    /// Runs dials, and returns what was seen of their packets meanwhile; nothing where that cannot be watched.
    pub(in crate::round) async fn seen_leaving<T>(
        &self,
        dials: &[Leaving],
        run: impl Future<Output = T>,
    ) -> (T, Vec<Left>) {
        let Ok(_turn) = timeout(PATIENCE, self.node.watches.turns.acquire()).await else {
            return (run.await, Vec::new());
        };
        let started = self.start_leaving(dials).await;
        let result = run.await;
        let Some(sightings) = started else {
            return (result, Vec::new());
        };
        tokio::time::sleep(A_MOMENT).await;
        let seen = self.node.netns.visit(move || sightings.stop()).await;
        let seen = self.unless_unwatched(seen).unwrap_or_default();
        // What was not seen may have had another address, or there was no room for it: it is not reported.
        let left = dials.iter().map(|dial| self.left(dial, &seen));
        (result, left.filter(|left| left.sent > 0).collect())
    }

    async fn start_leaving(&self, dials: &[Leaving]) -> Option<Sightings> {
        let each = dials.iter().enumerate();
        let wanted: Vec<Wanted> = each
            .flat_map(|(number, dial)| from_elsewhere(number, dial.protocol, dial.client, dial.endpoint))
            .collect();
        let shared = self.node.watches.clone();
        let kernel = self.unless_unwatched(blocking(Pool::Node, move || shared.kernel()).await)?;
        let kernel = self.unless_unwatched(kernel)?;
        let filters = distinct(&wanted);
        let start = move || Ok(Sightings::start(&kernel, &filters));
        let started = self.node.netns.visit(start).await;
        self.unless_unwatched(self.unless_unwatched(started)?)
    }

    fn left(&self, dial: &Leaving, seen: &Seen) -> Left {
        let packets = PacketsOf {
            seen: &seen.packets,
            protocol: dial.protocol,
            client: dial.client,
            endpoint: dial.endpoint,
        };
        let of_node = |namespace: u64| namespace == self.node.netns.inode();
        let sent = packets.most(Leg::ToEndpoint, true, of_node);
        let answers = packets.most(Leg::Answer, false, of_node);
        Left {
            from: dial.from.clone(),
            protocol: dial.protocol,
            endpoint: dial.endpoint.to_string(),
            sent: count(sent),
            interface: name(sent),
            answers: count(answers),
            answer_interface: name(answers),
        }
    }
}
