//! The measuring program behind `deploy/bench`.
#![forbid(unsafe_code)]

use std::{env, process::ExitCode};

use berth_tests::bench::{Report, Settings, api, fsync, socket, start, wake};

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let (mut what, mut json, mut settings) = (None, false, Settings::default());
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "api" | "fsync" | "socket" | "start" | "wake" if what.is_none() => what = Some(word),
            "--json" => json = true,
            "--rounds" => match words.next().and_then(|n| n.parse().ok()).filter(|&n| n > 0) {
                Some(rounds) => settings.rounds = Some(rounds),
                None => return usage(),
            },
            _ => return usage(),
        }
    }
    let report: Report = match what {
        Some("api") => api::run(settings),
        Some("fsync") => fsync::run(settings),
        Some("socket") => socket::run(settings),
        Some("start") => start::run(settings),
        Some("wake") => wake::run(settings),
        _ => return usage(),
    };
    if json {
        println!("{}", report.json())
    } else {
        print!("{report}")
    }
    if report.met() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage() -> ExitCode {
    eprintln!("usage: berth-bench api|fsync|socket|start|wake [--json] [--rounds N]");
    ExitCode::from(2)
}
