//! Lists what is on this host, and compares: what `deploy/up` and `deploy/down --all` are checked with.
#![forbid(unsafe_code)]

use std::{env, fs, process::ExitCode};

use berth_tests::snapshot::{Scope, Snapshot};

const USAGE: &str = "usage: berth-tests-snapshot take FILE | compare FILE

take      writes a listing of this host to FILE
compare   lists this host anew and prints what differs from FILE

exit codes: 0 the same, 1 differs or failed, 2 usage";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["take", file] => fs::write(file, Snapshot::take(&Scope::installation()).to_json()).map_err(|e| format!("{file}: {e}")),
        ["compare", file] => compare(file),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{}", why.trim_end());
            ExitCode::FAILURE
        }
    }
}

fn compare(file: &str) -> Result<(), String> {
    let text = fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
    let before = Snapshot::from_json(&text).map_err(|e| format!("{file} is no listing: {e}"))?;
    let difference = Snapshot::take(&Scope::installation()).since(&before);
    if difference.0.is_empty() { Ok(()) } else { Err(format!("differs from {file}:\n{difference}")) }
}
