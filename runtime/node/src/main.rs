//! `berth-node`: the node daemon, and the way back from it.
#![forbid(unsafe_code)]

use std::{
    io::{BufRead, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Result, bail};
use berth_node::daemon::{
    self,
    config::{Config, DEFAULT_FILE},
    purge, source_ports, teardown,
};
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Runs the berths of this host. Needs root; running berths go on without it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[arg(long, value_name = "FILE", default_value = DEFAULT_FILE, global = true)]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Stops and deletes every berth, with its data, and removes all that this node made on the host
    Teardown {
        /// Everything: there is no smaller teardown
        #[arg(long, required = true)]
        all: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Names the user whose berth left this host by a source port
    Whose {
        port: u16,
        /// When, in UTC: 2026-05-03T02:10:00Z, or seconds since the epoch; otherwise now
        #[arg(long, value_name = "TIME", value_parser = source_ports::moment)]
        at: Option<i64>,
    },
    /// Ranges of host ids
    Ids {
        #[command(subcommand)]
        action: IdsAction,
    },
}

#[derive(Subcommand)]
enum IdsAction {
    /// Ends quarantines before their time: the ranges may be given to other users at once. The node must be stopped, berths may run
    Purge {
        /// Only the range that begins at this id; otherwise all
        #[arg(value_name = "FIRST_ID")]
        base: Option<u32>,
    },
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("BERTH_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).init();
    match act(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(arguments: Arguments) -> Result<()> {
    let config = Config::load(&arguments.config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let done = match arguments.command {
        None => runtime.block_on(daemon::run(config)),
        Some(Action::Whose { port, at }) => source_ports::whose(config, port, at).map(|told| println!("{told}")),
        Some(Action::Ids { action: IdsAction::Purge { base } }) => purge::ids(&config, base),
        Some(Action::Teardown { yes, .. }) => {
            if !yes {
                confirm(&config)?;
            }
            runtime.block_on(teardown::all(config))
        }
    };
    // A stuck name service must not keep the daemon from ending.
    runtime.shutdown_background();
    done
}

fn confirm(config: &Config) -> Result<()> {
    if !std::io::stdin().is_terminal() {
        bail!("this deletes every berth with its data: say --yes");
    }
    eprint!("Delete every berth of this host with its data, and all images below {}? [y/N] ", config.state_dir.display());
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "yes") { Ok(()) } else { bail!("nothing was touched") }
}
