//! What the counter of a rule counts.

use svcdiag_kube_proxy::Match;

use super::matching::{End, verdict, xt_info};
use crate::{
    netfilter::{expressions::LIST_ELEMENT, xt},
    netlink::Attributes,
};

/// What the counter of a rule says that drops packets, if it counts just these.
pub(super) fn counter(expressions: Attributes<'_>) -> Option<u64> {
    let (mut packets, mut drops) = (None, false);
    for (_, expression) in expressions.iter().filter(|(kind, _)| *kind == LIST_ELEMENT) {
        let expression = Attributes(expression);
        let data = expression.nested(2).unwrap_or_default();
        match expression.text(1).unwrap_or_default() {
            "counter" => packets = data.be_u64(2),
            "immediate" => drops |= data.nested(2).and_then(verdict) == Some(End::Drop),
            "reject" => drops = true,
            "target" => drops |= data.text(1) == Some("REJECT"),
            name if is_condition(name, data) => packets = None,
            _ => {}
        }
    }
    packets.filter(|_| drops)
}

/// Whether an expression may stop packets from getting to the next one.
fn is_condition(name: &str, data: Attributes<'_>) -> bool {
    let is_harmless = match name {
        "log" | "last" | "notrack" | "payload" | "bitwise" | "byteorder" => true,
        "meta" | "ct" => data.get(1).is_some() || data.get(if name == "meta" { 3 } else { 4 }).is_some(),
        "match" => {
            let (name, revision, info) = xt_info(data);
            xt::read_match(name, revision, info) == Match::Neutral
        }
        // The end of the rule, where it is a map of verdicts.
        "lookup" => data.be_u32(3) == Some(0),
        _ => false,
    };
    !is_harmless
}
