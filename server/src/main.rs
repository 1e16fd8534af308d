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
    if let Some(command) = arguments.command {
        return match command {
            Command::Config(command) => configuration(&arguments.config, &command),
            Command::Openapi => print(&format!("{:#}\n", berth_server::http::openapi())),
        };
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
    match run(&config) {
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
