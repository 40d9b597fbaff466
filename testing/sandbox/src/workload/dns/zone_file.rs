//! The zone file, read again when it is another file than before.

use std::{os::unix::fs::MetadataExt, path::PathBuf, sync::Arc};

use parking_lot::Mutex;

use super::Zone;

/// The zone file, and what was read from it.
pub(super) struct ZoneFile {
    path: PathBuf,
    last: Mutex<Option<(Version, Arc<Zone>)>>,
}

/// A file that was put in the place of another has another inode or a later time.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Version {
    inode: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl ZoneFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            last: Mutex::default(),
        }
    }

    /// What the file says now. One that is not there yet, or is no zone, leaves things as they were.
    pub(super) fn read(&self) -> Option<Arc<Zone>> {
        let mut last = self.last.lock();
        let known = || last.as_ref().map(|(_, zone)| zone.clone());
        let Ok(metadata) = std::fs::metadata(&self.path) else {
            return known();
        };
        let version = Version {
            inode: metadata.ino(),
            seconds: metadata.mtime(),
            nanoseconds: metadata.mtime_nsec(),
        };
        if last.as_ref().is_some_and(|(read, _)| *read == version) {
            return known();
        }
        let text = std::fs::read_to_string(&self.path).ok();
        let Some(zone) = text.and_then(|text| serde_json::from_str::<Zone>(&text).ok()) else {
            return known();
        };
        let zone = Arc::new(zone);
        *last = Some((version, zone.clone()));
        Some(zone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_file_says_is_answered_at_once() {
        let zone = || Zone {
            domain: "cluster.test".to_owned(),
            ..Zone::default()
        };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("zone.json");
        let file = ZoneFile::new(path.clone());
        assert!(file.read().is_none());
        let put = |zone: &Zone| {
            let fresh = directory.path().join("fresh");
            std::fs::write(&fresh, serde_json::to_string(zone).unwrap()).unwrap();
            std::fs::rename(&fresh, &path).unwrap();
        };
        put(&zone());
        assert_eq!(*file.read().unwrap(), zone());
        let silent = Zone {
            silent: true,
            ..zone()
        };
        put(&silent);
        assert_eq!(*file.read().unwrap(), silent);
        std::fs::write(&path, "{").unwrap();
        assert_eq!(*file.read().unwrap(), silent);
    }
}
