//! The memory that the objects of a bundle take, and may take.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

use crate::objects::{Container, ContainerStatus};

/// Most memory for the objects of a bundle, as it is estimated below: some 10,000 Pods of two containers each.
const MAX: usize = 160 << 20;

/// What each object takes beside itself: its places in the inventory, and its version.
const ENTRY: usize = 1024;

/// What an element of a list takes at most, but for those below.
const ELEMENT: usize = 256;

/// What a text takes beside its bytes: itself, and what the allocator adds.
const TEXT: usize = 40;

/// What each five entries of a map take: a node of a B-tree is at least half full.
const NODE: usize = 640;

/// What is left of it. Once something did not fit, nothing does.
#[derive(Debug)]
pub(in crate::bundle) struct Memory {
    most: usize,
    left: Option<usize>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::of(MAX)
    }
}

impl Memory {
    pub(in crate::bundle) fn of(most: usize) -> Self {
        Self {
            most,
            left: Some(most),
        }
    }

    /// Whether there was room for so many bytes.
    fn take(&mut self, bytes: usize) -> bool {
        self.left = self.left.and_then(|left| left.checked_sub(bytes));
        self.left.is_some()
    }

    /// Whether there was room for an object.
    pub(super) fn take_object<K: Serialize>(&mut self, object: &K) -> bool {
        // A large one that cannot fit is not copied to find out how large it is.
        if self.left.is_none_or(|left| length(object) > left) {
            self.left = None;
            return false;
        }
        let beyond = serde_json::to_value(object).map_or(MAX, |value| beyond(&value, ""));
        self.take(size_of::<K>() + beyond)
    }

    /// Whether there was room for what comes with each object that is looked at.
    pub(super) fn take_entry(&mut self) -> bool {
        self.take(ENTRY)
    }

    /// Why something was left out, if there is no room for anything any more.
    pub(super) fn exhausted(&self) -> Option<String> {
        self.left.is_none().then(|| {
            format!(
                "the objects of the bundle need more than {} MiB of memory; keep only those of the namespace of the Service, of its clients' and of kube-system",
                self.most >> 20
            )
        })
    }
}

/// Bytes of an object as JSON, which nobody keeps.
fn length<K: Serialize>(object: &K) -> usize {
    struct Length(usize);
    impl Write for Length {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut length = Length(0);
    serde_json::to_writer(&mut length, object).map_or(MAX, |()| length.0)
}

/// What a field takes beyond the struct that it is in: that has all its fields, whether the text has them or not.
fn beyond(value: &Value, name: &str) -> usize {
    match value {
        Value::String(text) => TEXT + text.len(),
        Value::Array(items) => items.iter().map(|item| element(item, name)).sum(),
        Value::Object(fields) => {
            let is_map = fields.values().all(Value::is_string);
            let of_fields = fields.iter().map(|(name, value)| match is_map {
                true => TEXT + name.len() + beyond(value, name),
                false => beyond(value, name),
            });
            let nodes = if is_map {
                fields.len().div_ceil(5) * NODE
            } else {
                0
            };
            nodes + of_fields.sum::<usize>()
        }
        _ => 0,
    }
}

/// What an element of a list takes, by the name of the list.
fn element(item: &Value, list: &str) -> usize {
    let itself = match list {
        "containers" | "initContainers" => size_of::<Container>(),
        "containerStatuses" | "initContainerStatuses" => size_of::<ContainerStatus>(),
        _ => ELEMENT,
    };
    match item {
        Value::Object(fields) => {
            let of_fields = fields.iter().map(|(name, value)| beyond(value, name));
            itself + of_fields.sum::<usize>()
        }
        other => TEXT + beyond(other, list),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        api::{DialFailure, Hairpin, PodListeners, Resolver, RuleGap, Rules},
        objects::{Endpoint, NodeCondition, Peer, PodCondition, ServicePort},
    };

    #[test]
    fn an_element_takes_no_more_than_is_said() {
        let sizes = [
            size_of::<DialFailure>(),
            size_of::<Endpoint>(),
            size_of::<Hairpin>(),
            size_of::<NodeCondition>(),
            size_of::<Peer>(),
            size_of::<PodCondition>(),
            size_of::<PodListeners>(),
            size_of::<Resolver>(),
            size_of::<RuleGap>(),
            size_of::<Rules>(),
            size_of::<ServicePort>(),
        ];
        assert!(sizes.iter().all(|size| *size <= ELEMENT), "{sizes:?}");
    }

    #[test]
    fn empty_elements_count_as_what_they_become() {
        let of = |n: usize| beyond(&json!(vec![json!({}); n]), "containers");
        assert_eq!(of(1000), 1000 * size_of::<Container>());
    }

    #[test]
    fn what_does_not_fit_leaves_room_for_nothing() {
        let mut memory = Memory::of(1000);
        assert!(memory.take_object(&"a"));
        assert!(!memory.take_object(&"a".repeat(1000)) && !memory.take_object(&"a"));
    }

    #[test]
    fn nothing_fits_once_something_did_not() {
        let mut memory = Memory::of(10);
        assert!(memory.take(5) && memory.exhausted().is_none());
        assert!(!memory.take(6) && !memory.take(1));
        assert!(memory.exhausted().is_some());
    }
}
