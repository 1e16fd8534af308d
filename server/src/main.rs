//! The program berth-server.

#![forbid(unsafe_code)]

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use berth_server::{
    app::App,
    config::{Config, LogFormat, explain},
    lifecycle::{Lifecycle, Signals},
    store::Store,
};
use clap::{Parser, Subcommand};
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// The unprivileged control plane of Berth: API, intent, reconciler.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Configuration; an absent file means the defaults.
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/berth/server.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Look at the configuration; nothing is started.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the OpenAPI document of this version; nothing is started.
    Openapi,
    /// Bring the database up to date, as every start does; a file of SQLite is copied to `backups/` beside it first.
    Migrate {
        /// Only show what would be done; also while a server runs.
        #[arg(long)]
        plan: bool,
        /// One JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Write all rows to stdout as lines of JSON; also while a server runs. For `berth backup create`.
    Export,
    /// Put the rows of an export on stdin in the place of those that are there. For `berth backup restore`; no server may run.
    Import,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Say all that is wrong with it; 78 when something is.
    Check,
    /// Show every key: what it means, what is in force, and whether the file sets it.
    Explain {
        /// As one JSON document.
        #[arg(long)]
        json: bool,
    },
}

/// EX_CONFIG of sysexits.h: restarting does not help.
const MISCONFIGURED: u8 = 78;

fn main() -> ExitCode {
    // Before anything can use TLS: with none or two of them, whoever comes first panics.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments = Arguments::parse();
    match &arguments.command {
        Some(Command::Config(command)) => return configuration(&arguments.config, command),
        Some(Command::Openapi) => return print(&format!("{:#}\n", berth_server::http::openapi())),
        _ => {}
    }
    if nix::unistd::geteuid().is_root() {
        eprintln!("berth-server: refusing to run as root; it needs no privilege");
        eprintln!(
            "hint: run it as its own user: setpriv --reuid berth --regid berth --clear-groups --bounding-set=-all --inh-caps=-all \
             --no-new-privs berth-server"
        );
        return ExitCode::from(MISCONFIGURED);
    }
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => return misconfigured(&error),
    };
    log(config.log.format);
    let done = match arguments.command {
        Some(Command::Migrate { plan, json }) => migrate(&config, plan, json),
        Some(Command::Export) => export(&config),
        Some(Command::Import) => import(&config),
        Some(Command::Config(_) | Command::Openapi) | None => run(&config),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn misconfigured(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("berth-server: {}", berth_server::chain(error));
    ExitCode::from(MISCONFIGURED)
}

fn configuration(path: &Path, command: &ConfigCommand) -> ExitCode {
    match command {
        ConfigCommand::Check => match explain::check(path) {
            Ok(problems) if problems.is_empty() => print(&format!("{} is well\n", path.display())),
            Ok(problems) => {
                problems.iter().for_each(|problem| eprintln!("berth-server: {}: {problem}", path.display()));
                ExitCode::from(MISCONFIGURED)
            }
            Err(error) => misconfigured(&error),
        },
        ConfigCommand::Explain { json } => match explain::explain(path) {
            // Strings and booleans: serialising them cannot fail.
            Ok(keys) if *json => print(&(serde_json::to_string_pretty(&keys).unwrap_or_default() + "\n")),
            Ok(keys) => print(&explain::as_file(&keys)),
            Err(error) => misconfigured(&error),
        },
    }
}

/// A reader that has gone is no failure.
fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// To the journal where systemd has connected standard error with it (JOURNAL_STREAM), with fields; else lines or JSON on standard error.
fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_env("BERTH_LOG").unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"));
    let lines = || tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false);
    let journal = || tracing_journald::layer().ok().map(|layer| layer.with_syslog_identifier("berth-server".to_owned()).boxed());
    let wanted = match format {
        LogFormat::Json => Some(lines().json().boxed()),
        LogFormat::Text => None,
        LogFormat::Journal => journal(),
        LogFormat::Auto => std::env::var_os("JOURNAL_STREAM").and_then(|_| journal()),
    };
    let layer = wanted.unwrap_or_else(|| lines().boxed());
    tracing_subscriber::registry().with(filter).with(layer).init();
}

#[tokio::main(worker_threads = 2)]
async fn run(config: &Config) -> anyhow::Result<()> {
    let signals = Signals::catch().context("cannot wait for signals")?;
    let life = Lifecycle::default();
    let app = App::start(config, &life).await?;
    // Without systemd there is nobody to notify.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    life.run(signals).await;
    app.close().await;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn migrate(config: &Config, only_plan: bool, json: bool) -> anyhow::Result<()> {
    let location = config.location();
    let (steps, backup) = if only_plan {
        (Store::plan(&location).await?.steps, None)
    } else {
        let store = Store::open(&location).await?;
        store.close().await;
        let migrated = store.migrated().clone();
        (migrated.steps, migrated.backup)
    };
    if json {
        let steps: Vec<_> = steps.iter().map(|step| serde_json::json!({ "version": step.version, "name": step.name })).collect();
        println!("{}", serde_json::json!({ "applied": !only_plan, "steps": steps, "backup": backup }));
        return Ok(());
    }
    let verb = if only_plan { "would apply" } else { "applied" };
    for step in &steps {
        println!("{verb} {:04} {}", step.version, step.name);
    }
    match (&backup, steps.is_empty()) {
        (Some(path), _) => println!("the database before that is {}", path.display()),
        (None, true) => println!("the database is up to date"),
        (None, false) => {}
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn export(config: &Config) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let rows = Store::export(&config.location(), &mut out).await?;
    out.flush().context("cannot write the rows")?;
    tracing::info!(rows, "exported");
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn import(config: &Config) -> anyhow::Result<()> {
    let store = Store::open(&config.location()).await?;
    let rows = store.import(&mut io::stdin().lock()).await;
    store.close().await;
    let rows = rows?;
    tracing::info!(rows, "imported");
    Ok(())
}
