//! The path as a drawing: a box for each hop, in a row, or in a column where the page is narrow. The style shows one of both.

use maud::{Markup, html};

use super::wrap::wrap;
use crate::report::{
    path::{Hop, Place, State, line},
    tree::Style,
};

/// In which direction the boxes follow each other, and their sizes, in pixels.
struct Layout {
    name: &'static str,
    is_row: bool,
    width: usize,
    /// Between two boxes, for the arrow.
    gap: usize,
    /// Characters of a line in a box: its width without the margins, divided by the 7.2 pixels of a character of the font.
    columns: usize,
    /// Most lines of a label.
    lines: usize,
}

/// Five boxes fill the page, which is 960 pixels wide.
const ROW: Layout = Layout {
    name: "path-row",
    is_row: true,
    width: 162,
    gap: 36,
    columns: 19,
    lines: 4,
};

const COLUMN: Layout = Layout {
    name: "path-column",
    is_row: false,
    width: 320,
    gap: 30,
    columns: 41,
    lines: 3,
};

/// Around the drawing, so that thick borders are not cut off.
const MARGIN: usize = 2;
const LINE_HEIGHT: usize = 16;
/// Between the border of a box and its text.
const PADDING: usize = 10;

/// The drawing of the article with this number, with the same line that the terminal shows.
pub(super) fn figure(hops: &[Hop], number: usize) -> Markup {
    const STYLE: Style = Style {
        colour: false,
        unicode: true,
    };
    html! {
        // Six boxes in a row would not fit the page without small text.
        figure class=[(hops.len() > 5).then_some("long")] {
            (drawing(hops, &ROW, number))
            (drawing(hops, &COLUMN, number))
            figcaption {
                code { (line(hops, STYLE)) }
                span.muted { "\u{2717}: broken. ~: fails because of a later hop, or was not judged. ?: not known." }
            }
        }
    }
}

/// The texts of a box, as lines.
struct Texts {
    label: Vec<String>,
    state: Vec<String>,
}

fn texts(hop: &Hop, layout: &Layout) -> Texts {
    Texts {
        label: wrap(&hop.label, layout.columns, layout.lines),
        state: wrap(&state(hop), layout.columns, layout.lines),
    }
}

fn drawing(hops: &[Hop], layout: &Layout, number: usize) -> Markup {
    let texts: Vec<Texts> = hops.iter().map(|hop| texts(hop, layout)).collect();
    let height_of = |t: &Texts| 2 * PADDING + (1 + t.label.len() + t.state.len()) * LINE_HEIGHT;
    let heights: Vec<usize> = texts.iter().map(height_of).collect();
    let highest = heights.iter().copied().max().unwrap_or_default();
    let mut boxes = Vec::new();
    let (mut x, mut y) = (MARGIN, MARGIN);
    for (own, (hop, texts)) in heights.iter().zip(hops.iter().zip(&texts)) {
        let height = if layout.is_row { highest } else { *own };
        let arrow = (!boxes.is_empty()).then(|| arrow(hop, layout, (x, y), height));
        boxes.push(html! {
            @if let Some(arrow) = arrow { (arrow) }
            (hop_box(hop, texts, (x, y), (layout.width, height)))
        });
        match layout.is_row {
            true => x += layout.width + layout.gap,
            false => y += height + layout.gap,
        }
    }
    let (width, height) = match layout.is_row {
        true => ((x + MARGIN).saturating_sub(layout.gap), highest + 2 * MARGIN),
        false => (layout.width + 2 * MARGIN, (y + MARGIN).saturating_sub(layout.gap)),
    };
    let id = |what: &str| format!("{}-{number}-{what}", layout.name);
    let (title, description) = (id("title"), id("desc"));
    let described: Vec<String> = hops.iter().map(describe).collect();
    html! {
        svg class=(format!("path {}", layout.name)) role="img" aria-labelledby=(title) aria-describedby=(description)
            viewBox=(format!("0 0 {width} {height}")) width=(width) height=(height)
        {
            title id=(title) { "From client to endpoint" }
            desc id=(description) { (described.join(" ")) }
            @for hop in boxes { (hop) }
        }
    }
}

/// The arrow to the box at a place.
fn arrow(hop: &Hop, layout: &Layout, (x, y): (usize, usize), height: usize) -> Markup {
    const TIP: usize = 7;
    let half = TIP / 2 + 1;
    let (line, tip) = if layout.is_row {
        let middle = y + height / 2;
        let (from, to) = (x - layout.gap + 4, x - 4);
        (
            format!("M{from} {middle}H{}", to - TIP),
            format!("M{to} {middle}L{} {}V{}Z", to - TIP, middle - half, middle + half),
        )
    } else {
        let middle = x + layout.width / 2;
        let (from, to) = (y - layout.gap + 4, y - 4);
        (
            format!("M{middle} {from}V{}", to - TIP),
            format!("M{middle} {to}L{} {}H{}Z", middle - half, to - TIP, middle + half),
        )
    };
    html! {
        g class=(format!("arrow {}", class(hop))) { path.line d=(line) {} path.tip d=(tip) {} }
    }
}

fn hop_box(hop: &Hop, texts: &Texts, (x, y): (usize, usize), (width, height): (usize, usize)) -> Markup {
    let left = x + PADDING;
    let first = y + PADDING + LINE_HEIGHT - 4;
    let row = |n: usize| first + n * LINE_HEIGHT;
    let of_state = 1 + texts.label.len();
    html! {
        g class=(format!("hop {}", class(hop))) {
            // What a browser shows of a label that had to be cut.
            title { (describe(hop)) }
            rect x=(x) y=(y) width=(width) height=(height) rx="8" {}
            text.place x=(left) y=(row(0)) { (place(hop.place)) }
            @for (n, line) in texts.label.iter().enumerate() { text.label x=(left) y=(row(1 + n)) { (line) } }
            @for (n, line) in texts.state.iter().enumerate() { text.state x=(left) y=(row(of_state + n)) { (line) } }
        }
    }
}

fn class(hop: &Hop) -> &'static str {
    match hop.state {
        // That it is there is no more than the lack of a fault.
        State::Passed if hop.place == Place::Client => "none",
        State::Passed => "ok",
        State::BrokenFurtherOn => "later",
        State::Broken { .. } => "bad",
        State::Unknown => "open",
    }
}

fn place(place: Place) -> &'static str {
    match place {
        Place::Client => "Client",
        Place::Dns => "Name lookup",
        Place::Service => "Service",
        Place::Proxy => "Proxy",
        Place::Endpoint => "Endpoint",
        Place::Hairpin => "Hairpin",
    }
}

const CONNECTS: &str = "connects from here";
const FAULTLESS: &str = "no fault found";
const FAILS_LATER: &str = "fails at a later hop";
const NOT_KNOWN: &str = "not known";

fn state(hop: &Hop) -> String {
    match hop.state {
        State::Passed if hop.place == Place::Client => CONNECTS.to_owned(),
        State::Passed => format!("\u{2713} {FAULTLESS}"),
        State::Broken { reason, .. } => format!("\u{2717} {reason}"),
        State::BrokenFurtherOn => format!("~ {FAILS_LATER}"),
        State::Unknown => format!("? {NOT_KNOWN}"),
    }
}

/// A hop in a sentence.
fn describe(hop: &Hop) -> String {
    let state = match hop.state {
        State::Passed if hop.place == Place::Client => CONNECTS.to_owned(),
        State::Passed => FAULTLESS.to_owned(),
        State::Broken { stage, reason } => format!("broken ({stage}: {reason})"),
        State::BrokenFurtherOn => FAILS_LATER.to_owned(),
        State::Unknown => NOT_KNOWN.to_owned(),
    };
    format!("{}, {}: {state}.", place(hop.place), hop.label)
}
