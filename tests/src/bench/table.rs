//! What a run found: tables for people, JSON for programs, and whether every target was met.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

/// What a number counts; it is kept in the unit's own measure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Unit {
    /// Kept and written to JSON in nanoseconds, shown in µs.
    Micros,
    /// Kept and written to JSON in nanoseconds, shown in ms.
    Millis,
    Ratio,
    GibPerSecond,
    CpuSecondsPerGib,
    Kib,
    Count,
    /// Of one processor.
    Percent,
    PerSecond,
    BytesPerSecond,
}

/// One figure; `None` where it means nothing.
pub(super) type Figure = Option<f64>;

/// What the project wants of a row.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) what: String,
    pub(super) met: bool,
    /// The part of the limit by which the figure is past it; negative where it is within.
    by: f64,
}

impl Target {
    pub(super) fn at_most(name: &str, value: f64, limit: f64, shown: &str) -> Self {
        Self { what: format!("{name} ≤ {shown}"), met: value <= limit, by: value / limit - 1.0 }
    }

    pub(super) fn at_least(name: &str, value: f64, limit: f64, shown: &str) -> Self {
        Self { what: format!("{name} ≥ {shown}"), met: value >= limit, by: 1.0 - value / limit }
    }

    /// `share` is what Berth takes of what the peer takes.
    pub(super) fn ahead(what: &str, peer: &str, share: f64) -> Self {
        Self { what: format!("{what} ahead of {peer}"), met: share < 1.0, by: share - 1.0 }
    }

    /// How far the figure is past its limit, in words.
    fn miss(&self) -> String {
        format!("{} (by {:.1} %)", self.what, self.by * 100.0)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) figures: Vec<Figure>,
    pub(super) targets: Vec<Target>,
    /// Why a peer has no figures.
    absent: Option<String>,
}

impl Row {
    pub(super) fn new(name: impl Into<String>, figures: Vec<Figure>, targets: Vec<Target>) -> Self {
        Self { name: name.into(), figures, targets, absent: None }
    }

    /// A peer that cannot be had on this host.
    pub(super) fn absent(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { name: name.into(), figures: vec![], targets: vec![], absent: Some(reason.into()) }
    }
}

/// Rows with the same figures.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) title: String,
    pub(super) columns: Vec<(&'static str, Unit)>,
    pub(super) rows: Vec<Row>,
}

/// All tables of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub(super) tables: Vec<Table>,
    /// How it was measured: sentences.
    pub(super) notes: Vec<String>,
}

impl Report {
    /// True when no target was missed.
    pub fn met(&self) -> bool {
        self.targets().all(|(_, target)| target.met)
    }

    /// Times in nanoseconds, memory in KiB.
    pub fn json(&self) -> Value {
        let tables: Vec<Value> = self.tables.iter().map(Table::json).collect();
        json!({ "tables": tables, "notes": self.notes, "met": self.met() })
    }

    /// Tables in Markdown, and below them how they were measured.
    pub fn markdown(&self) -> String {
        let tables: String = self.tables.iter().map(|table| table.markdown() + "\n").collect();
        let notes: String = self.notes.iter().map(|note| format!("{note}\n")).collect();
        tables + &notes
    }

    /// With the title of the table and the name of the row.
    fn targets(&self) -> impl Iterator<Item = (String, &Target)> {
        let rows = self.tables.iter().flat_map(|table| table.rows.iter().map(move |row| (table, row)));
        rows.flat_map(|(table, row)| row.targets.iter().map(move |target| (format!("{}: {}", table.title, row.name), target)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in &self.tables {
            writeln!(f, "{table}")?;
        }
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        let all = self.targets().count();
        let missed: Vec<_> = self.targets().filter(|(_, target)| !target.met).collect();
        writeln!(f, "{} of {all} targets met", all - missed.len())?;
        missed.iter().try_for_each(|(place, target)| writeln!(f, "MISSED: {place}: {}", target.miss()))
    }
}

impl Table {
    fn json(&self) -> Value {
        let row = |row: &Row| {
            let figures: serde_json::Map<String, Value> =
                self.columns.iter().zip(&row.figures).map(|((name, _), figure)| ((*name).to_owned(), json!(figure))).collect();
            let targets: Vec<Value> = row.targets.iter().map(|t| json!({ "target": t.what, "met": t.met, "by": t.by })).collect();
            json!({ "name": row.name, "figures": figures, "targets": targets, "absent": row.absent })
        };
        json!({ "title": self.title, "rows": self.rows.iter().map(row).collect::<Vec<_>>() })
    }

    fn verdict(row: &Row) -> String {
        let one = |target: &Target| if target.met { format!("ok {}", target.what) } else { format!("MISSED {}", target.miss()) };
        let absent = row.absent.iter().map(|reason| format!("not here: {reason}"));
        row.targets.iter().map(one).chain(absent).collect::<Vec<_>>().join(", ")
    }

    /// The heading, then a line for each row: its name, its figures, what became of its targets.
    fn cells(&self) -> Vec<Vec<String>> {
        let mut lines = vec![vec![self.title.clone()]];
        lines[0].extend(self.columns.iter().map(|(name, _)| (*name).to_owned()));
        for row in &self.rows {
            let mut line = vec![row.name.clone()];
            let figures = row.figures.iter().copied().chain(std::iter::repeat(None));
            line.extend(self.columns.iter().zip(figures).map(|((_, unit), figure)| shown(figure, *unit)));
            line.push(Self::verdict(row));
            lines.push(line);
        }
        lines
    }

    fn markdown(&self) -> String {
        let mut lines = self.cells();
        lines[0].push(String::new());
        let rule: Vec<&str> = std::iter::once("---").chain(self.columns.iter().map(|_| "---:")).chain(["---"]).collect();
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let body: String = lines[1..].iter().map(|cells| line(cells)).collect();
        format!("{}| {} |\n{body}", line(&lines[0]), rule.join(" | "))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.cells();
        let columns = self.columns.len() + 1;
        let widths: Vec<usize> =
            (0..columns).map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)).collect();
        for line in &lines {
            let mut text = format!("{:<width$}", line[0], width = widths[0]);
            for (cell, width) in line.iter().zip(&widths).skip(1) {
                write!(text, "  {cell:>width$}")?;
            }
            if let Some(verdict) = line.get(columns) {
                write!(text, "  {verdict}")?;
            }
            writeln!(f, "{}", text.trim_end())?;
        }
        Ok(())
    }
}

fn shown(figure: Figure, unit: Unit) -> String {
    let Some(value) = figure else { return "-".to_owned() };
    match unit {
        Unit::Micros => format!("{:.1} µs", value / 1e3),
        Unit::Millis => format!("{:.1} ms", value / 1e6),
        Unit::Ratio => format!("{value:.2}"),
        Unit::GibPerSecond => format!("{value:.2} GiB/s"),
        Unit::CpuSecondsPerGib => format!("{value:.3} s"),
        Unit::Kib => format!("{:.2} MiB", value / 1024.0),
        Unit::Count => format!("{value:.0}"),
        Unit::Percent => format!("{value:.2} %"),
        Unit::PerSecond => format!("{value:.0}/s"),
        Unit::BytesPerSecond => format!("{:.0} MiB/s", value / f64::from(1 << 20)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(ratio: f64) -> Report {
        let columns = vec![("p50", Unit::Micros), ("ratio", Unit::Ratio)];
        let direct = Row::new("direct", vec![Some(88_000.0), None], vec![]);
        let target = Target::at_most("p50", ratio, 1.25, "1.25 × direct");
        let berth = Row::new("Berth", vec![Some(101_200.0), Some(ratio)], vec![target]);
        Report { tables: vec![Table { title: "_ping".into(), columns, rows: vec![direct, berth] }], notes: vec!["A note.".into()] }
    }

    #[test]
    fn columns_stand_below_each_other_and_each_row_says_what_became_of_its_target() {
        let text = report(1.15).to_string();
        let expected = "_ping        p50  ratio\n\
                        direct   88.0 µs      -\n\
                        Berth   101.2 µs   1.15  ok p50 ≤ 1.25 × direct\n\n\
                        A note.\n1 of 1 targets met\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_missed_target_is_said_twice_and_fails_the_run() {
        let missed = report(1.31);
        assert!(!missed.met() && report(1.25).met());
        let text = missed.to_string();
        assert!(text.contains("1.31  MISSED p50 ≤ 1.25 × direct (by 4.8 %)\n"), "{text}");
        assert!(text.ends_with("0 of 1 targets met\nMISSED: _ping: Berth: p50 ≤ 1.25 × direct (by 4.8 %)\n"), "{text}");
    }

    #[test]
    fn a_peer_that_is_not_here_has_a_row_with_the_reason_and_misses_nothing() {
        let mut report = report(1.15);
        report.tables[0].rows.push(Row::absent("socat", "not installed"));
        assert!(report.met());
        assert!(report.to_string().contains("\nsocat          -      -  not here: not installed\n"), "{report}");
        assert_eq!(report.json()["tables"][0]["rows"][2]["absent"], "not installed");
    }

    #[test]
    fn markdown_has_a_table_with_the_figures_to_the_right() {
        let expected = "| _ping | p50 | ratio |  |\n| --- | ---: | ---: | --- |\n| direct | 88.0 µs | - |  |\n\
                        | Berth | 101.2 µs | 1.15 | ok p50 ≤ 1.25 × direct |\n\nA note.\n";
        assert_eq!(report(1.15).markdown(), expected);
    }

    #[test]
    fn json_holds_the_raw_figures() {
        let json = report(1.5).json();
        assert_eq!(json["met"], false);
        assert_eq!(json["tables"][0]["rows"][1]["figures"]["p50"], 101_200.0);
        assert_eq!(json["tables"][0]["rows"][0]["figures"]["ratio"], Value::Null);
        assert_eq!(json["tables"][0]["rows"][1]["targets"][0]["met"], false);
    }

    #[test]
    fn units_are_shown_for_people() {
        let all = [
            (Unit::Millis, 1_500_000.0, "1.5 ms"),
            (Unit::GibPerSecond, 2.854, "2.85 GiB/s"),
            (Unit::CpuSecondsPerGib, 0.1634, "0.163 s"),
            (Unit::Kib, 6144.0, "6.00 MiB"),
            (Unit::Count, 100.0, "100"),
            (Unit::Percent, 0.456, "0.46 %"),
            (Unit::PerSecond, 12_345.6, "12346/s"),
            (Unit::BytesPerSecond, 3_145_728.0, "3 MiB/s"),
        ];
        for (unit, value, text) in all {
            assert_eq!(shown(Some(value), unit), text);
        }
    }
}
