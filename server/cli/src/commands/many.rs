//! Many berths at once: from a table, by name, or all of a profile.

use std::{fs, io::Read, path::Path};

use berth_api::{BerthChange, BerthsChange, Entry, EntryReport, EntryState, Headroom, NewBerth, NewBerths, Operation, OperationState};
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{Context, berths};
use crate::{
    Outcome,
    csv::{self, Row},
    dates::End,
    failure::Failure,
    limits::LimitArguments,
    output::{self, Rows, printable},
    progress::{self, Show},
    units,
};

/// What of it is kept, and how long it is waited for.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct ManyArguments {
    /// Of many: do nothing, if anything is refused
    #[arg(long)]
    pub all_or_none: bool,
    /// Show what would be done, and what would be promised of the host; change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not wait until it is done
    #[arg(long)]
    pub no_wait: bool,
}

/// Bytes of a table.
const LARGEST: u64 = 4 << 20;
/// Entries of one request.
const AT_ONCE: usize = 1_000;
const COLUMNS: [&str; 9] = ["user", "profile", "image", "cpus", "memory", "swap", "pids", "disk", "until"];

/// An entry with the line of the table that asked for it.
#[derive(Debug, Serialize)]
struct Reported {
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(flatten)]
    entry: Entry,
    /// What the operation ended with, where that was waited for and is not success.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

/// What every line of a table has unless it says otherwise.
pub(super) struct Usual {
    pub profile: Option<String>,
    pub image: Option<String>,
    pub limits: LimitArguments,
    pub until: Option<End>,
    pub allow_system: bool,
    pub start: bool,
}

pub(super) async fn assign(context: &Context, file: &Path, usual: &Usual, many: ManyArguments) -> Outcome {
    let text = read(file)?;
    let lines = parse(&text, usual)?;
    // Nothing is done for a table with a faulty line when all or none is asked for, but the others are judged.
    let broken = lines.iter().any(|(_, _, new)| new.is_err());
    let (dry_run, held) = (many.dry_run || (many.all_or_none && broken), many.all_or_none && broken && !many.dry_run);
    if many.all_or_none && lines.len() > AT_ONCE {
        return Err(Failure::usage(format!("all or none is for {AT_ONCE} lines at most, there are {}", lines.len()), "split the table"));
    }
    let mut all = Collected::default();
    for part in lines.chunks(AT_ONCE) {
        let asked: Vec<NewBerth> = part.iter().filter_map(|(_, _, new)| new.as_ref().ok()).cloned().collect();
        let mut report = match asked.is_empty() {
            true => None,
            false => {
                let body = NewBerths { berths: asked, all_or_none: many.all_or_none, dry_run };
                Some(context.client.assign_many(&body).await?)
            }
        };
        let mut told = report.as_mut().map(|report| std::mem::take(&mut report.entries)).unwrap_or_default().into_iter();
        for (line, user, new) in part {
            let entry = match new {
                Ok(_) => told.next(),
                Err(why) => Some(faulty(user, why)),
            };
            all.entries.extend(entry.map(|entry| Reported { line: Some(*line), entry, failure: None }));
        }
        all.take(report);
    }
    if held {
        for one in all.entries.iter_mut().filter(|one| one.entry.state == EntryState::Checked) {
            one.entry.state = EntryState::HeldBack;
        }
    }
    all.conclude(context, many, "assigned").await
}

/// What would become of one assignment.
pub(super) async fn assign_one(context: &Context, new: NewBerth, many: ManyArguments) -> Outcome {
    let body = NewBerths { berths: vec![new], all_or_none: many.all_or_none, dry_run: many.dry_run };
    applied_as(context, context.client.assign_many(&body).await?, many, "assigned").await
}

pub(super) async fn set(
    context: &Context,
    users: Vec<String>,
    of_profile: Option<String>,
    change: BerthChange,
    many: ManyArguments,
) -> Outcome {
    let mut all = Collected::default();
    let parts = match &of_profile {
        Some(_) => vec![Vec::new()],
        None => users.chunks(AT_ONCE).map(<[String]>::to_vec).collect(),
    };
    if many.all_or_none && parts.len() > 1 {
        return Err(Failure::usage(format!("all or none is for {AT_ONCE} users at most"), "name fewer"));
    }
    for users in parts {
        let (of_profile, change) = (of_profile.clone(), change.clone());
        let body = BerthsChange { users, of_profile, change, all_or_none: many.all_or_none, dry_run: many.dry_run };
        let mut report = context.client.change_many(&body).await?;
        let entries = std::mem::take(&mut report.entries).into_iter();
        all.entries.extend(entries.map(|entry| Reported { line: None, entry, failure: None }));
        all.take(Some(report));
    }
    all.conclude(context, many, "changed").await
}

/// What the rules' application came to.
pub(super) async fn applied(context: &Context, report: EntryReport, many: ManyArguments) -> Outcome {
    applied_as(context, report, many, "changed").await
}

async fn applied_as(context: &Context, mut report: EntryReport, many: ManyArguments, done: &str) -> Outcome {
    let entries = std::mem::take(&mut report.entries).into_iter();
    let mut all =
        Collected { entries: entries.map(|entry| Reported { line: None, entry, failure: None }).collect(), ..Collected::default() };
    all.take(Some(report));
    all.conclude(context, many, done).await
}

/// What would be promised of the host.
pub(super) fn headroom(all: &[Headroom]) -> Result<(), Failure> {
    if all.is_empty() {
        return Ok(());
    }
    let mut rows = Rows::new(&["OF THE HOST", "PROMISED", "THEN", "ALLOWED", "HAS"]);
    for one in all {
        let (name, shown): (_, fn(u64) -> String) = match one.resource.as_str() {
            "cpu_millis" => ("cpus", units::cpus),
            "memory_bytes" => ("memory", units::bytes),
            _ => ("disk", units::bytes),
        };
        let allowed = one.allowed.map_or_else(|| "any".to_owned(), shown);
        rows.push([name.to_owned(), shown(one.promised), shown(one.after), allowed, shown(one.capacity)]);
    }
    rows.show()
}

#[derive(Default)]
struct Collected {
    entries: Vec<Reported>,
    headroom: Vec<Headroom>,
    warnings: Vec<berth_api::Warning>,
}

impl Collected {
    /// Of several parts the sums go on from one to the next.
    fn take(&mut self, report: Option<EntryReport>) {
        let Some(report) = report else { return };
        match self.headroom.is_empty() {
            true => self.headroom = report.headroom,
            false => self.headroom.iter_mut().zip(report.headroom).for_each(|(all, part)| all.after = part.after),
        }
        self.warnings = report.warnings;
    }

    async fn conclude(mut self, context: &Context, many: ManyArguments, done: &str) -> Outcome {
        if !many.no_wait {
            self.wait(context, done).await?;
        }
        let count = |state| self.entries.iter().filter(|one| one.entry.state == state).count();
        let (accepted, refused, checked) = (count(EntryState::Accepted), count(EntryState::Refused), count(EntryState::Checked));
        let failed = self.entries.iter().filter(|one| one.failure.is_some()).count();
        if context.json {
            output::json(&json!({
                "entries": self.entries, "accepted": accepted, "refused": refused, "failed": failed,
                "headroom": self.headroom, "warnings": self.warnings,
            }))?;
        } else {
            self.show()?;
            if many.dry_run {
                headroom(&self.headroom)?;
            }
            for warning in &self.warnings {
                eprintln!("warning: {}", printable(&warning.detail));
            }
            let held = if count(EntryState::HeldBack) > 0 { "; nothing was done" } else { "" };
            output::line(&match many.dry_run {
                true => format!("{checked} of {} could be {done}; this was a dry run.", self.entries.len()),
                false => format!("{} of {} {done}{held}.", accepted - failed, self.entries.len()),
            })?;
        }
        match (refused, failed) {
            (0, 0) => Ok(0),
            (0, _) => {
                Err(Failure::own(1, "some_failed", format!("{failed} could not be {done}"), Some("berth show USER for each of them")))
            }
            _ => Err(Failure::own(5, "some_refused", format!("{refused} of {} were refused", self.entries.len()), None)),
        }
    }

    async fn wait(&mut self, context: &Context, done: &str) -> Result<(), Failure> {
        let mut operations: Vec<Operation> = Vec::new();
        for id in self.entries.iter().filter_map(|one| one.entry.operation_id) {
            operations.push(context.client.operation(id).await?);
        }
        let show = if context.json { Show::Nothing } else { Show::Steps };
        for operation in progress::follow_all(&context.client, operations, show, done).await? {
            if operation.state == OperationState::Succeeded {
                continue;
            }
            let why = operation.problem.map_or_else(|| "it did not succeed".to_owned(), |problem| problem.detail);
            let found = self.entries.iter_mut().find(|one| one.entry.operation_id == Some(operation.id));
            if let Some(one) = found {
                one.failure = Some(why);
            }
        }
        Ok(())
    }

    fn show(&self) -> Result<(), Failure> {
        let lines = self.entries.iter().any(|one| one.line.is_some());
        let heading: &[&str] = if lines { &["LINE", "USER", "RESULT", "PROFILE", "WHY"] } else { &["USER", "RESULT", "PROFILE", "WHY"] };
        let mut rows = Rows::new(heading);
        for Reported { line, entry, failure } in &self.entries {
            let result = match (entry.state, failure) {
                (_, Some(_)) => "failed",
                (EntryState::Accepted, None) => "done",
                (EntryState::Checked, None) => "could be done",
                (EntryState::Refused, None) => "refused",
                (EntryState::HeldBack, None) => "held back",
                (EntryState::Kept, None) => "kept",
            };
            let after = entry.profile.clone().unwrap_or_default();
            let profile = match (&entry.profile_before, entry.state) {
                (Some(before), EntryState::Kept) => before.clone(),
                (Some(before), _) => format!("{before} → {after}"),
                (None, _) => after.clone(),
            };
            let problem = entry.problem.as_ref().map(|problem| match &problem.hint {
                Some(hint) => format!("{} ({hint})", problem.detail),
                None => problem.detail.clone(),
            });
            let kept = (entry.state == EntryState::Kept).then(|| format!("a person named its profile; the rules say {after}"));
            let why = failure.clone().or(problem).or(kept).unwrap_or_default();
            let cells = [printable(&entry.user), result.to_owned(), profile, printable(&why)];
            match line {
                Some(line) => rows.push(std::iter::once(line.to_string()).chain(cells)),
                None => rows.push(cells),
            }
        }
        match self.entries.is_empty() {
            true => Ok(()),
            false => rows.show(),
        }
    }
}

fn faulty(user: &str, why: &str) -> Entry {
    let problem = berth_api::Problem { status: 400, code: "invalid_line".to_owned(), detail: why.to_owned(), hint: None, request_id: None };
    Entry {
        user: user.to_owned(),
        state: EntryState::Refused,
        profile_before: None,
        profile: None,
        operation_id: None,
        problem: Some(problem),
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    let what = format!("cannot read {}", file.display());
    let mut bytes = Vec::new();
    let source: Box<dyn Read> = match file.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        _ => Box::new(fs::File::open(file).map_err(|error| Failure::io(&what, &error))?),
    };
    source.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| Failure::io(&what, &error))?;
    if bytes.len() as u64 > LARGEST {
        return Err(Failure::usage(format!("{} passes {}", file.display(), units::bytes(LARGEST)), "split the table"));
    }
    String::from_utf8(bytes).map_err(|_| Failure::usage(format!("{} is not UTF-8 text", file.display()), "save it as CSV in UTF-8"))
}

/// Line, user, and what he is to have or why the line makes no sense.
type Line = (usize, String, Result<NewBerth, String>);

fn parse(text: &str, usual: &Usual) -> Result<Vec<Line>, Failure> {
    let usage = |detail: String| Failure::usage(detail, &format!("columns are: {}; user is needed", COLUMNS.join(", ")));
    let mut rows = csv::rows(text).map_err(usage)?.into_iter();
    let heading = rows.next().ok_or_else(|| usage("the table is empty".to_owned()))?;
    let names: Vec<String> = heading.fields.iter().map(|name| canonical(name)).collect();
    for (index, name) in names.iter().enumerate() {
        if !COLUMNS.contains(&name.as_str()) {
            return Err(usage(format!("the table has a column {:?}", heading.fields[index])));
        }
        if names[..index].contains(name) {
            return Err(usage(format!("the table has two columns {name:?}")));
        }
    }
    if !names.iter().any(|name| name == "user") {
        return Err(usage("the table's first line names no column user".to_owned()));
    }
    let lines: Vec<Line> = rows.map(|row| line(&names, row, usual)).collect();
    match lines.is_empty() {
        true => Err(usage("the table has no line below its heading".to_owned())),
        false => Ok(lines),
    }
}

fn canonical(name: &str) -> String {
    match name.trim().to_ascii_lowercase().as_str() {
        "pids-limit" | "pids_limit" => "pids".to_owned(),
        other => other.to_owned(),
    }
}

fn line(names: &[String], row: Row, usual: &Usual) -> Line {
    let user = field(names, &row, "user").unwrap_or_default().to_owned();
    (row.line, user.clone(), entry(names, &row, user, usual))
}

/// What stands in the named column, if anything does.
fn field<'a>(names: &[String], row: &'a Row, name: &str) -> Option<&'a str> {
    let found = names.iter().position(|known| known == name).and_then(|index| row.fields.get(index));
    found.map(|text| text.trim()).filter(|text| !text.is_empty())
}

fn entry(names: &[String], row: &Row, user: String, usual: &Usual) -> Result<NewBerth, String> {
    let field = |name| field(names, row, name);
    if row.fields.len() > names.len() {
        return Err(format!("the line has {} fields, the heading {}", row.fields.len(), names.len()));
    }
    if user.is_empty() {
        return Err("the line names no user".to_owned());
    }
    let mut limits = usual.limits.clone();
    limits.cpus = field("cpus").map(str::parse).transpose()?.or(limits.cpus);
    limits.memory = field("memory").map(str::parse).transpose()?.or(limits.memory);
    limits.swap = field("swap").map(str::parse).transpose()?.or(limits.swap);
    limits.disk = field("disk").map(str::parse).transpose()?.or(limits.disk);
    limits.pids_limit = match field("pids") {
        Some(text) => Some(text.parse().map_err(|_| format!("{text:?} is no number of processes"))?),
        None => limits.pids_limit,
    };
    let profile = field("profile").map(str::to_owned).or_else(|| usual.profile.clone());
    let image = field("image").map(str::to_owned).or_else(|| usual.image.clone());
    let until = field("until").map(str::parse).transpose()?.or(usual.until);
    let new = berths::new_berth(user, profile, image, &limits, usual.allow_system, usual.start, until);
    new.map_err(|failure| failure.detail().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usual() -> Usual {
        Usual {
            profile: Some("student".to_owned()),
            image: None,
            limits: LimitArguments::default(),
            until: None,
            allow_system: false,
            start: false,
        }
    }

    #[test]
    fn a_line_says_what_differs_from_the_command_line() {
        let text =
            "\u{feff}User,profile,cpus,memory,pids-limit,disk,until\r\nalice,,1.5,4g,512,20g,2999-03-31\r\n\"bob\",developer,,,,,\r\n";
        let lines = parse(text, &usual()).ok().unwrap();
        let of = |index: usize| lines[index].2.clone().unwrap();
        let alice = of(0);
        assert_eq!((lines[0].0, alice.user.as_str(), alice.profile.as_deref()), (2, "alice", Some("student")));
        assert_eq!(
            (alice.cpu_millis, alice.memory_bytes, alice.pids, alice.disk_bytes),
            (Some(1500), Some(4 << 30), Some(512), Some(20 << 30))
        );
        assert!(alice.until.is_some() && !alice.start);
        assert_eq!((of(1).profile.as_deref(), of(1).cpu_millis, of(1).until), (Some("developer"), None, None));
    }

    #[test]
    fn a_faulty_line_is_told_and_the_others_stand() {
        let lines = parse("user,memory,until\nalice,much,\nbob,1g,\n,1g,\ncarol,1g,,x\ndave,1g,2001-01-01\n", &usual()).ok().unwrap();
        let why: Vec<_> = lines.iter().map(|(line, _, new)| (*line, new.as_ref().err().map(String::as_str).unwrap_or("fine"))).collect();
        assert!(why[0].1.contains("no size") && why[1] == (3, "fine") && why[2].1.contains("no user"), "{why:?}");
        assert!(why[3].1.contains("4 fields") && why[4].1.contains("over already"), "{why:?}");
    }

    #[test]
    fn a_table_without_sense_is_refused_whole() {
        for (text, word) in [
            ("", "empty"),
            ("user\n", "no line below"),
            ("name,disk\nx,1g\n", "\"name\""),
            ("disk\n1g\n", "no column user"),
            ("user,user\na,b\n", "two columns"),
            ("user\n\"a\n", "not closed"),
        ] {
            let failure = parse(text, &usual()).err().unwrap();
            assert!(failure.code() == 2 && failure.detail().contains(word), "{text:?}: {}", failure.detail());
        }
    }
}
