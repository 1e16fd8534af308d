//! The measuring program behind `deploy/bench`.
#![forbid(unsafe_code)]

use std::{env, process::ExitCode};

use berth_tests::bench::{self, Report, Settings};

type Bench = (&'static str, fn(Settings) -> Report);

/// Name and function of each.
const BENCHES: [Bench; 13] = [
    ("api", bench::api::run),
    ("assign", bench::start::run_assign),
    ("density", bench::density::run),
    ("disk", bench::disk::run),
    ("exec", bench::exec::run),
    ("footprint", bench::footprint::run),
    ("fsync", bench::fsync::run),
    ("net", bench::net::run),
    ("proc", bench::proc::run),
    ("ready", bench::ready::run),
    ("socket", bench::socket::run),
    ("start", bench::start::run),
    ("wake", bench::wake::run),
];

#[derive(Clone, Copy)]
enum Form {
    Text,
    Json,
    Markdown,
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    if words == ["machine"] {
        println!("{}", bench::machine::describe());
        return ExitCode::SUCCESS;
    }
    let (mut what, mut form, mut settings) = (None, Form::Text, Settings::default());
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "--json" => form = Form::Json,
            "--readme" => form = Form::Markdown,
            "--rounds" | "--count" => match words.next().and_then(|n| n.parse().ok()).filter(|&n| n > 0) {
                Some(number) if word == "--rounds" => settings.rounds = Some(number),
                Some(number) => settings.count = Some(number),
                None => return usage(),
            },
            word => match BENCHES.iter().find(|(name, _)| *name == word) {
                Some((_, run)) if what.is_none() => what = Some(run),
                _ => return usage(),
            },
        }
    }
    let Some(run) = what else { return usage() };
    let report = run(settings);
    match form {
        Form::Text => print!("{report}"),
        Form::Json => println!("{}", report.json()),
        Form::Markdown => print!("{}", report.markdown()),
    }
    if report.met() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: berth-bench {} [--json|--readme] [--rounds N] [--count N]\n       berth-bench machine",
        BENCHES.map(|(name, _)| name).join("|")
    );
    ExitCode::from(2)
}
