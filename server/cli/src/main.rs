//! The program `berth`: everything that people do with Berth on the host's own socket.
//!
//! Answers go to stdout, everything else to stderr. With `--json` exactly one JSON document goes to stdout, and a failure is one problem
//! document on stderr. Nothing here knows a rule: the server decides, this shows.

#![forbid(unsafe_code)]

mod arguments;
mod commands;
mod csv;
mod dates;
mod docker_config;
mod failure;
mod limits;
mod output;
mod progress;
mod terminal;
mod units;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};
use failure::Failure;

/// What a command has for the shell.
type Outcome = Result<u8, Failure>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let json = arguments.json;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("berth: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let streams = matches!(arguments.command, Command::Exec { .. } | Command::Shell { .. });
    let code = match runtime.block_on(commands::run(arguments)) {
        Ok(code) => code,
        Err(failure) => {
            failure.show(json);
            if streams { 125 } else { failure.code() }
        }
    };
    // A thread that waits for more input must not keep the program.
    runtime.shutdown_background();
    ExitCode::from(code)
}
