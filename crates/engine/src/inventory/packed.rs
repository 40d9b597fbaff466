//! NodeProbes as they are held. There are eight for each diagnosis, and each is read only when that is judged: as objects they
//! would be most of the controller's memory.

use std::io::{Read, Write};

use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};

use svcdiag_api::NodeProbe;

/// A NodeProbe as compressed JSON, about a fifth of the object; and what is asked of many at once.
#[derive(Debug)]
pub struct PackedProbe {
    /// Name of its node.
    pub(super) node: Box<str>,
    /// UID of its diagnosis.
    pub(super) of: Box<str>,
    text: Box<[u8]>,
}

impl PackedProbe {
    pub(super) fn of(probe: &NodeProbe) -> Self {
        // Neither can fail: all keys are strings, and memory takes what is written to it.
        let json = serde_json::to_vec(probe).unwrap_or_default();
        let mut packed = DeflateEncoder::new(Vec::new(), Compression::fast());
        let text = packed.write_all(&json).and_then(|()| packed.finish());
        Self {
            node: probe.spec.node_name.as_str().into(),
            of: probe.spec.diagnosis.uid.as_str().into(),
            text: text.unwrap_or_default().into(),
        }
    }

    /// The NodeProbe.
    pub(super) fn object(&self) -> Option<NodeProbe> {
        let mut json = Vec::new();
        DeflateDecoder::new(&*self.text).read_to_end(&mut json).ok()?;
        serde_json::from_slice(&json).ok()
    }
}
