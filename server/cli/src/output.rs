//! Tables, facts and documents on stdout.

use std::io::{self, IsTerminal, Write};

use comfy_table::{Cell, Color, ContentArrangement, Table, presets::NOTHING};
use serde::Serialize;

use crate::failure::Failure;

/// Writes one JSON document.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::own(1, "io", format!("the answer cannot be written as JSON: {error}"), None))?;
    line(&text)
}

/// Writes one line; a reader that has gone is no failure.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::io("cannot write the answer", &error)),
        _ => Ok(()),
    }
}

/// A table with a heading, in the manner of `docker ps`.
pub(crate) struct Rows(Table);

impl Rows {
    pub(crate) fn new(heading: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(heading);
        if !coloured() {
            table.force_no_tty();
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self(table)
    }

    pub(crate) fn push<C: Into<Cell>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.0.add_row(cells);
    }

    pub(crate) fn show(&self) -> Result<(), Failure> {
        line(&self.lines().join("\n"))
    }

    /// The heading first.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lines().map(|line| line.trim_end().to_owned()).collect()
    }
}

/// Names and values below each other.
pub(crate) fn facts(facts: &[(&str, String)]) -> Result<(), Failure> {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or_default() + 2;
    for (name, value) in facts {
        line(&format!("{name:<width$}{value}"))?;
    }
    Ok(())
}

/// A word in a colour that says how things are.
pub(crate) fn word(text: &str) -> Cell {
    let colour = match text {
        "running" | "ok" => Some(Color::Green),
        "failed" => Some(Color::Red),
        "starting" | "stopping" | "suspended" | "warning" => Some(Color::Yellow),
        _ => None,
    };
    match colour {
        Some(colour) => Cell::new(text).fg(colour),
        None => Cell::new(text),
    }
}

/// Colours are for terminals whose user wants them.
pub(crate) fn coloured() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Without characters that a terminal would act on.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}
