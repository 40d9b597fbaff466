//! The hops as one line.

use super::{Hop, State};
use crate::report::tree::{BAD, OPEN, PASSED_OVER, Style, paint, printable};

/// `Pod shop/client -> DNS -> ~ 10.96.0.7:80 -> x rules -> ? endpoints`
pub(in crate::report) fn line(hops: &[Hop], style: Style) -> String {
    let arrow = if style.unicode { " → " } else { " -> " };
    let written: Vec<String> = hops.iter().map(|hop| written(hop, style)).collect();
    written.join(arrow)
}

fn written(hop: &Hop, style: Style) -> String {
    let label = printable(&hop.label);
    let (sign, colour) = match hop.state {
        State::Passed => return label,
        State::BrokenFurtherOn => ("~", PASSED_OVER.style),
        State::Broken { .. } if style.unicode => (BAD.unicode, BAD.style),
        State::Broken { .. } => ("x", BAD.style),
        State::Unknown => ("?", OPEN.style),
    };
    paint(&format!("{sign} {label}"), colour, style)
}
