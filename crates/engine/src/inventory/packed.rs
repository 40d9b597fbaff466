//! NodeProbes as they are held. There are eight for each diagnosis, and each is read only when that is judged: as objects they
//! would be most of the controller's memory.

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use svcdiag_api::NodeProbe;

thread_local! {
    /// Each is some 100 KiB, which would take longer to make for every NodeProbe than that takes to be packed.
    static TOOLS: RefCell<(Compress, Decompress)> =
        RefCell::new((Compress::new(Compression::fast(), false), Decompress::new(false)));
}

/// A NodeProbe as compressed JSON; and what is asked of many at once.
#[derive(Debug)]
pub struct PackedProbe {
    /// Name of its node.
    pub(super) node: Box<str>,
    /// UID of its diagnosis.
    pub(super) of: Box<str>,
    text: Box<[u8]>,
    /// Bytes of the JSON.
    length: usize,
}

impl PackedProbe {
    pub(super) fn of(probe: &NodeProbe) -> Self {
        // Cannot fail: all keys are strings.
        let json = serde_json::to_vec(probe).unwrap_or_default();
        Self {
            node: probe.spec.node_name.as_str().into(),
            of: probe.spec.diagnosis.uid.as_str().into(),
            text: packed(&json).into(),
            length: json.len(),
        }
    }

    /// The NodeProbe.
    pub(super) fn object(&self) -> Option<NodeProbe> {
        serde_json::from_slice(&unpacked(&self.text, self.length)?).ok()
    }
}

fn packed(json: &[u8]) -> Vec<u8> {
    TOOLS.with_borrow_mut(|(tool, _)| {
        tool.reset();
        // What cannot be compressed grows by five bytes for each 64 KiB or less, and some more at its ends.
        let mut text = Vec::with_capacity(json.len() + json.len() / 1024 + 64);
        // It fails only for a dictionary that is missing, and none is needed.
        tool.compress_vec(json, &mut text, FlushCompress::Finish)
            .unwrap_or(Status::BufError);
        text
    })
}

fn unpacked(text: &[u8], length: usize) -> Option<Vec<u8>> {
    TOOLS.with_borrow_mut(|(_, tool)| {
        tool.reset(false);
        // A byte more: so the end is seen without another call.
        let mut json = Vec::with_capacity(length + 1);
        let status = tool
            .decompress_vec(text, &mut json, FlushDecompress::Finish)
            .ok()?;
        (status == Status::StreamEnd).then_some(json)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_was_packed_is_unpacked_whatever_it_is() {
        let random = |n: usize| -> Vec<u8> {
            let mut state = 1_u64;
            let next = |_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            };
            (0..n).map(next).collect()
        };
        let long = "{\"name\":\"shop\"}".repeat(20_000).into_bytes();
        for json in [Vec::new(), b"{}".to_vec(), random(5_000), random(300_000), long] {
            let text = packed(&json);
            assert_eq!(unpacked(&text, json.len()).unwrap(), json, "{} bytes", json.len());
        }
        assert!(unpacked(b"no stream", 9).is_none());
    }
}
