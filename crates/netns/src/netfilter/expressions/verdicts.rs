//! Verdicts: what becomes of a packet, as a rule or an element of a map says.

use super::{DATA_VERDICT, Reader};
use crate::netlink::Attributes;
use svcdiag_kube_proxy::{Target, Verdict};

impl Reader {
    pub(super) fn verdict(&mut self, data: Attributes<'_>) {
        const RETURN: i32 = -5;
        const CONTINUE: i32 = -1;
        self.rule.target = match (read_verdict(data), verdict_code(data)) {
            (Some(Verdict::Chain(chain)), _) => Target::Chain(chain),
            (Some(Verdict::Drop), _) => Target::Drop,
            (Some(Verdict::Accept), _) => Target::Accept,
            (_, Some(RETURN)) => Target::Return,
            (_, Some(CONTINUE)) => Target::Continue,
            _ => Target::Other("verdict".to_owned()),
        };
    }
}

fn verdict_code(data: Attributes<'_>) -> Option<i32> {
    data.nested(DATA_VERDICT)?
        .be_u32(1)
        .map(|code| i32::from_ne_bytes(code.to_ne_bytes()))
}

/// What a verdict says, if it is one that ends a rule's way.
pub(in crate::netfilter) fn read_verdict(data: Attributes<'_>) -> Option<Verdict> {
    const DROP: i32 = 0;
    const ACCEPT: i32 = 1;
    const JUMP: i32 = -3;
    const GOTO: i32 = -4;
    match verdict_code(data)? {
        DROP => Some(Verdict::Drop),
        ACCEPT => Some(Verdict::Accept),
        JUMP | GOTO => {
            let chain = data.nested(DATA_VERDICT)?.text(2)?;
            Some(Verdict::Chain(chain.to_owned()))
        }
        _ => None,
    }
}
