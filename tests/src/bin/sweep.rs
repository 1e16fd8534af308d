//! Takes away what killed tests left on the host: their processes, control groups, links, tables, accounts and files.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    if berth_tests::slot::Slot::sweep_all() {
        return ExitCode::SUCCESS;
    }
    eprintln!("something of an earlier test run stayed; the lines above say what");
    ExitCode::FAILURE
}
