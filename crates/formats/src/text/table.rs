//! Tables of `kubectl get`: a header in capitals, and a row for each object.

use std::collections::BTreeMap;

/// Most rows that are read.
const MAX_ROWS: usize = 10_000;

/// Most columns: `-o wide --show-labels` of Pods has eleven.
const MAX_COLUMNS: usize = 32;

/// Lines that are named as not understood.
const MAX_MISFITS: usize = 1000;

/// Titles of two words.
const TWO_WORDS: [&str; 2] = ["NOMINATED NODE", "READINESS GATES"];

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table<'a> {
    /// Titles of the columns.
    pub columns: Vec<&'a str>,
    /// Cells of each row that was understood, as many as there are columns.
    pub rows: Vec<Vec<&'a str>>,
    /// Lines that do not fit the header, counted from 0 at the header.
    pub misfits: Vec<usize>,
}

impl<'a> Table<'a> {
    /// Reads a table with its header; None if it has none.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut lines = text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty());
        let (_, header) = lines.next()?;
        let starts = titles(header);
        if starts.len() > MAX_COLUMNS || !starts.iter().any(|(_, title)| *title == "NAME") {
            return None;
        }
        let mut table = Self {
            columns: starts.iter().map(|(_, title)| *title).collect(),
            ..Self::default()
        };
        for (number, line) in lines {
            let row = match table.rows.len() {
                // The others are not looked at.
                MAX_ROWS => None,
                _ => cells(line, &starts).filter(|cells| has_a_name(&table.columns, cells)),
            };
            match row {
                Some(cells) => table.rows.push(cells),
                None if table.misfits.len() < MAX_MISFITS => table.misfits.push(number),
                None => {}
            }
        }
        Some(table)
    }

    /// Whether it has all of some columns.
    #[must_use]
    pub fn has(&self, columns: &[&str]) -> bool {
        columns.iter().all(|c| self.columns.contains(c))
    }

    /// The cell of a row in a column; None where there is no such column, or nothing in it.
    #[must_use]
    pub fn cell(&self, row: &[&'a str], column: &str) -> Option<&'a str> {
        let index = self.columns.iter().position(|c| *c == column)?;
        row.get(index)
            .copied()
            .filter(|cell| !matches!(*cell, "<none>" | "<unset>" | ""))
    }
}

/// Whether what stands below NAME and NAMESPACE can be names.
fn has_a_name(columns: &[&str], cells: &[&str]) -> bool {
    let mut named = columns
        .iter()
        .zip(cells)
        .filter(|(c, _)| matches!(**c, "NAME" | "NAMESPACE"));
    named.all(|(_, cell)| !cell.contains(char::is_whitespace))
}

/// Titles and where they start.
fn titles(header: &str) -> Vec<(usize, &str)> {
    let mut found: Vec<(usize, &str)> = Vec::new();
    let mut end = 0;
    for word in header.split_whitespace().take(2 * MAX_COLUMNS + 1) {
        let Some(start) = header
            .get(end..)
            .and_then(|rest| rest.find(word))
            .map(|at| at + end)
        else {
            break;
        };
        end = start + word.len();
        let joined = found
            .last()
            .and_then(|(first, _)| Some((*first, header.get(*first..end)?)));
        match joined.filter(|(_, title)| TWO_WORDS.contains(title)) {
            Some(title) => {
                found.pop();
                found.push(title);
            }
            None => found.push((start, word)),
        }
    }
    found
}

/// The cells of a line: by the width of the columns where they are as kubectl wrote them, else by the blanks.
fn cells<'a>(line: &'a str, titles: &[(usize, &str)]) -> Option<Vec<&'a str>> {
    by_columns(line, titles).or_else(|| {
        let cells: Vec<&str> = line.split_whitespace().collect();
        (cells.len() == titles.len()).then_some(cells)
    })
}

/// Every cell starts below its title, and a blank stands before it.
fn by_columns<'a>(line: &'a str, titles: &[(usize, &str)]) -> Option<Vec<&'a str>> {
    let mut cells = Vec::with_capacity(titles.len());
    let shift = titles.first()?.0;
    for (index, (start, _)) in titles.iter().enumerate() {
        let start = start - shift;
        let end = titles.get(index + 1).map_or(line.len(), |(next, _)| next - shift);
        let cell = line.get(start..end.min(line.len()))?;
        let is_last = index + 1 == titles.len();
        let is_apart = is_last || cell.ends_with(char::is_whitespace);
        if cell.starts_with(char::is_whitespace) || cell.trim().is_empty() || !is_apart {
            return None;
        }
        cells.push(cell.trim());
    }
    Some(cells)
}

/// Labels of a row: `app=web,tier=db`; None where it is no such list.
#[must_use]
pub fn labels(cell: &str) -> Option<BTreeMap<String, String>> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        (!key.is_empty()).then(|| (key.to_owned(), value.to_owned()))
    };
    cell.split(',').map(pair).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PODS: &str = "\
NAME        READY   STATUS             RESTARTS        AGE   IP             NODE     NOMINATED NODE   READINESS GATES   LABELS
vectors-0   1/1     Running            0               3m    10.1.207.210   node-a   <none>           <none>            app=vectors,component=db
app-0       0/1     CrashLoopBackOff   12 (3m ago)     2m    <none>         node-a   <none>           <none>            <none>
";

    #[test]
    fn cells_stand_below_their_titles() {
        let table = Table::parse(PODS).unwrap();
        assert_eq!(table.columns.len(), 10);
        assert_eq!(table.misfits, [0; 0]);
        let row = &table.rows[1];
        assert_eq!(table.cell(row, "RESTARTS"), Some("12 (3m ago)"));
        assert_eq!(table.cell(row, "STATUS"), Some("CrashLoopBackOff"));
        assert_eq!(table.cell(row, "IP"), None);
        assert_eq!(
            table.cell(&table.rows[0], "LABELS"),
            Some("app=vectors,component=db")
        );
        assert_eq!(table.cell(&table.rows[0], "SELECTOR"), None);
    }

    #[test]
    fn columns_that_lost_their_width_count_if_every_cell_is_one_word() {
        let text = "NAME READY STATUS RESTARTS AGE\nweb-1 1/1 Running 0 3m\nweb-2 0/1 Error 3 (2m ago) 3m\n";
        let table = Table::parse(text).unwrap();
        assert_eq!(table.rows, [["web-1", "1/1", "Running", "0", "3m"]]);
        assert_eq!(
            table.misfits,
            [2],
            "which word is in which column cannot be known"
        );
    }

    #[test]
    fn a_line_of_something_else_is_a_misfit() {
        let table = Table::parse("NAME    AGE\nweb     3d\n... and some more\n").unwrap();
        assert_eq!((table.rows.len(), table.misfits), (1, vec![2]));
        assert_eq!(Table::parse("SOME   TABLE\na   b\n"), None);
    }

    #[test]
    fn labels_are_pairs() {
        assert_eq!(
            labels("app=web,x="),
            Some(BTreeMap::from([
                ("app".into(), "web".into()),
                ("x".into(), String::new())
            ]))
        );
        assert_eq!(labels("app"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(NAME|READY|LABELS|   | |\n|<none>|é|\\PC){0,40}") {
            if let Some(table) = Table::parse(&text) {
                prop_assert!(table.rows.iter().all(|row| row.len() == table.columns.len()));
            }
            let _ = labels(&text);
        }
    }
}
