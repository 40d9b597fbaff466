//! Pod addresses: the next free one of the node's range, held as long as the Pod exists.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::reflector::Store;

/// Addresses .2 to .254 of each node's /24; .1 is the bridge.
const FIRST: u8 = 2;
const LAST: u8 = 254;

/// Which address is whose, and where the search for the next one begins.
#[derive(Default)]
pub(super) struct Addresses {
    held: HashMap<String, (u8, u8)>,
    cursor: HashMap<u8, u8>,
}

impl Addresses {
    /// The Pod's addresses, IPv4 first. They are not used again soon, as with real nodes.
    pub(super) fn of(
        &mut self,
        pod: &Pod,
        uid: &str,
        node: &str,
        dual_stack: bool,
        pods: &Store<Pod>,
    ) -> Vec<String> {
        let range = node
            .rsplit('-')
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or(0);
        let host = match self.held.get(uid) {
            Some((_, host)) => *host,
            None => {
                let host = published(pod).unwrap_or_else(|| self.next(range, pods));
                self.held.insert(uid.to_owned(), (range, host));
                host
            }
        };
        let mut addresses = vec![format!("10.244.{range}.{host}")];
        if dual_stack {
            addresses.push(format!("fd00:10:244:{range}::{host:x}"));
        }
        addresses
    }

    /// Gives the address back.
    pub(super) fn release(&mut self, uid: &str) {
        self.held.remove(uid);
    }

    fn next(&mut self, range: u8, pods: &Store<Pod>) -> u8 {
        // Pods deleted by force never come by `release`.
        let alive: HashSet<String> = pods.state().iter().filter_map(|pod| pod.uid()).collect();
        self.held.retain(|uid, _| alive.contains(uid));
        let taken: HashSet<u8> = self
            .held
            .values()
            .filter(|(of, _)| *of == range)
            .map(|(_, host)| *host)
            .collect();
        let cursor = self.cursor.entry(range).or_insert(FIRST - 1);
        for _ in FIRST..=LAST {
            *cursor = if *cursor >= LAST { FIRST } else { *cursor + 1 };
            if !taken.contains(cursor) {
                break;
            }
        }
        *cursor
    }
}

/// The address a Pod had before we were started.
fn published(pod: &Pod) -> Option<u8> {
    pod.status
        .as_ref()?
        .pod_ip
        .as_ref()?
        .rsplit('.')
        .next()?
        .parse()
        .ok()
}
