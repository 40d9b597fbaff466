//! What the terminal shows: plain lines, colours only where they help and are wanted.

use std::io::Write;

use anstyle::{AnsiColor, Style};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const RED: Style = AnsiColor::Red.on_default();
const GREEN: Style = AnsiColor::Green.on_default();

/// Standard output. anstream leaves colours out where they are not wanted.
pub(crate) struct Screen;

impl Screen {
    /// A line. Output that nobody reads any more (`| head`) is no error.
    pub(crate) fn say(&self, line: &str) {
        let mut out = anstream::stdout().lock();
        let _ = writeln!(out, "{line}");
        let _ = out.flush();
    }

    /// A line that begins something new.
    pub(crate) fn heading(&self, line: &str) {
        self.say(&format!("\n{}", paint(BOLD, line)));
    }

    /// What is being done.
    pub(crate) fn step(&self, line: &str) {
        self.say(&format!("  {}", paint(DIM, line)));
    }

    /// Something that went as it should.
    pub(crate) fn good(&self, line: &str) {
        self.say(&format!("  {} {line}", paint(GREEN, "ok")));
    }

    /// Something that did not.
    pub(crate) fn bad(&self, line: &str) {
        self.say(&format!("  {} {line}", paint(RED, "NOT AS EXPECTED")));
    }

    /// A command and what it printed.
    pub(crate) fn command(&self, command: &str, output: &str) {
        self.say(&format!("  {}", paint(DIM, &format!("$ {command}"))));
        self.block(output);
    }

    /// Lines, set in a little.
    pub(crate) fn block(&self, text: &str) {
        for line in text.trim_end().lines() {
            self.say(&format!("  {line}"));
        }
    }

    /// Rows in columns, the first row being the heading. `good` says for each further row how it is coloured.
    pub(crate) fn table(&self, rows: &[Vec<String>], good: &[bool]) {
        let columns = rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (index, row) in rows.iter().enumerate() {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:width$}", width = *width))
                .collect();
            let line = cells.join("  ");
            let style = match index.checked_sub(1).and_then(|index| good.get(index)) {
                None => BOLD,
                Some(true) => GREEN,
                Some(false) => RED,
            };
            self.say(&paint(style, line.trim_end()));
        }
    }
}

fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}
