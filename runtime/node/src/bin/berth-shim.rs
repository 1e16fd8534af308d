//! The shim of one berth. `berth-node` starts it; the arguments `stage`, `enter`, `share`, `give-back`, `accounts` and `tree` are for the programs of Berth alone.
#![forbid(unsafe_code)]

use std::{env, io, process::ExitCode};

fn main() -> ExitCode {
    match env::args().nth(1).as_deref() {
        Some("stage") => berth_runtime::container::stage(),
        Some("enter") => berth_runtime::container::enter(),
        Some("share") => berth_runtime::share::share(),
        Some("give-back") => berth_runtime::share::give_back(),
        Some("accounts") => berth_runtime::account::answer(),
        Some("tree") => berth_runtime::archive::tree(),
        // For the doctor, which has threads.
        Some("try-idmap") => try_idmap(),
        None => {
            if let Err(error) = berth_runtime::container::close_strays() {
                eprintln!("berth-shim: {}", berth_runtime::error::chain(&error));
                return ExitCode::FAILURE;
            }
            // Standard error may be a pipe that nobody reads any more: that is no reason to fail, let alone to end.
            // Whatever a tenant asks of the emulated files, his requests are no lines of the node's log.
            let filter = tracing_subscriber::EnvFilter::new("info,fuser=off");
            let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_target(false);
            log.log_internal_errors(false).with_writer(io::stderr).init();
            berth_node::shim::run()
        }
        Some(other) => {
            eprintln!("berth-shim: unknown argument {other}; berth-node starts this program, see `berth --help` for what people type");
            ExitCode::from(64)
        }
    }
}

/// `try-idmap DIRECTORY BASE`
fn try_idmap() -> ExitCode {
    let mut arguments = env::args().skip(2);
    let (Some(dir), Some(base)) = (arguments.next(), arguments.next().and_then(|b| b.parse().ok())) else { return ExitCode::from(64) };
    match berth_runtime::idmap::try_on(dir.as_ref(), base) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", berth_runtime::error::chain(&error));
            ExitCode::FAILURE
        }
    }
}
