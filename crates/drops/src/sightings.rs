use std::io;

use svcdiag_netns::bpf::{Attached, HashMap};

use crate::{
    Filter, Interface, Kernel, Leg, MAX_DROPS, MAX_FILTERS, Tuple, Unavailable,
    program::{self, Maps, Point, What},
    record::{RECORD_SIZE, Record},
    watch::why,
};

/// Packets that came in by an interface or went out by one: of TCP those that open a connection, since others may be of
/// connections that were made long ago.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sighting {
    /// Which filter they matched.
    pub leg: Leg,
    /// Sender and receiver, when they were seen. A port that the filter leaves open is 0.
    pub tuple: Tuple,
    /// Whether they went out; else they came in.
    pub is_sent: bool,
    /// The interface.
    pub interface: Option<Interface>,
    /// The inode of the interface's network namespace.
    pub namespace: Option<u32>,
    /// How many.
    pub count: u64,
}

/// What was seen of the packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The packets, in the order of the filters.
    pub packets: Vec<Sighting>,
    /// Whether there was room for all; else others may have come as well.
    pub are_all: bool,
}

/// Packets are counted wherever they come in and go out, in every namespace of the machine, until this is stopped or
/// dropped. Meanwhile every packet of the machine is compared with the filters.
#[derive(Debug)]
pub struct Sightings {
    programs: [Attached; 2],
    counts: [HashMap; 2],
    filters: Vec<Filter>,
}

impl Sightings {
    /// Starts to count packets that a filter matches, the first that does. Of more than [`MAX_FILTERS`] the first count.
    ///
    /// # Errors
    /// Where the kernel does not let this process watch.
    pub fn start(kernel: &Kernel, filters: &[Filter]) -> Result<Self, Unavailable> {
        let filters: Vec<Filter> = filters.iter().take(MAX_FILTERS).copied().collect();
        let attach = |point, tracepoint| {
            let entries = u32::try_from(MAX_DROPS).map_err(io::Error::other)?;
            let counts = HashMap::new(RECORD_SIZE, size_of::<u64>(), entries)?;
            let maps = Maps {
                counts: counts.descriptor(),
                format: None,
            };
            let what = What { point, opening: true };
            let program = program::assemble(&kernel.layout, what, &filters, maps);
            Ok((
                Attached::to_tracepoint(tracepoint, &program, program::LICENCE)?,
                counts,
            ))
        };
        let attach = |point, tracepoint| attach(point, tracepoint).map_err(|error| why(error, &kernel.paths));
        let (received, of_received) = attach(Point::Received, c"netif_receive_skb")?;
        let (sent, of_sent) = attach(Point::Sent, c"net_dev_queue")?;
        Ok(Self {
            programs: [received, sent],
            counts: [of_received, of_sent],
            filters,
        })
    }

    /// Stops, and returns what was seen.
    ///
    /// # Errors
    /// When the kernel does not give its counts.
    pub fn stop(self) -> io::Result<Seen> {
        drop(self.programs);
        let mut seen = Seen {
            packets: Vec::new(),
            are_all: true,
        };
        for (counts, is_sent) in self.counts.iter().zip([false, true]) {
            let entries = counts.entries(MAX_DROPS)?;
            seen.are_all &= entries.len() < MAX_DROPS;
            let mut records: Vec<Record> = entries
                .iter()
                .filter_map(|(key, count)| Record::decode(key, count, &self.filters))
                .collect();
            records.sort();
            seen.packets
                .extend(records.into_iter().map(|record| record.seen(is_sent)));
        }
        Ok(seen)
    }
}
