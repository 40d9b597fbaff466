//! Several versions of one object: of several moments, or of several ways to ask for it.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use serde_json::Value;

use super::identity::text;

/// Kind, namespace and name.
pub(super) type Key = (String, String, String);

/// What an object is to one of the same name that came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// There was none.
    New,
    /// It is the same.
    Again,
    /// It came later in the cluster.
    Newer,
    /// It came earlier in the cluster.
    Older,
    /// Nobody can tell which one of them came later.
    Unclear,
}

/// The last version of each object.
#[derive(Debug, Default)]
pub(super) struct Versions(BTreeMap<Key, Version>);

#[derive(Clone, Copy, Debug)]
struct Version {
    /// resourceVersion, which counts up.
    number: Option<u64>,
    /// Of its content.
    hash: u64,
    /// Whether it is one of those of which nobody can tell.
    is_disputed: bool,
}

impl Versions {
    pub(super) fn see(&mut self, key: Key, object: &Value) -> Seen {
        let mut version = Version::of(object);
        let seen = match self.0.get(&key) {
            None => Seen::New,
            Some(before) => version.seen_after(before),
        };
        version.is_disputed = seen == Seen::Unclear;
        if seen != Seen::Older {
            self.0.insert(key, version);
        }
        seen
    }
}

impl Version {
    fn of(object: &Value) -> Self {
        let mut hasher = DefaultHasher::new();
        object.hash(&mut hasher);
        Self {
            number: text(object, "/metadata/resourceVersion").parse().ok(),
            hash: hasher.finish(),
            is_disputed: false,
        }
    }

    fn seen_after(&self, before: &Self) -> Seen {
        match (self.number, before.number) {
            _ if before.is_disputed => Seen::Unclear,
            (Some(own), Some(other)) if own == other => Seen::Again,
            (Some(own), Some(other)) if own > other => Seen::Newer,
            (Some(_), Some(_)) => Seen::Older,
            _ if self.hash == before.hash => Seen::Again,
            _ => Seen::Unclear,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newer_version_is_known_by_its_number() {
        let mut versions = Versions::default();
        let mut see = |number: Option<&str>, content: &str| {
            let object = json!({ "metadata": { "resourceVersion": number }, "spec": content });
            versions.see((String::new(), String::new(), "a".to_owned()), &object)
        };
        assert_eq!(see(Some("9"), "a"), Seen::New);
        // The same with other fields left out.
        assert_eq!(see(Some("9"), "b"), Seen::Again);
        assert_eq!(see(Some("10"), "b"), Seen::Newer);
        assert_eq!(see(Some("9"), "b"), Seen::Older);
        assert_eq!(see(Some("10"), "b"), Seen::Again);
        assert_eq!(see(None, "b"), Seen::Unclear);
        assert_eq!(see(None, "b"), Seen::Unclear);
    }
}
