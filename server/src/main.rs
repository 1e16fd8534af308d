//! The program berth-server.

#![forbid(unsafe_code)]

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use berth_server::{
    app::App,
    config::Config,
    lifecycle::{Lifecycle, Signals},
};
use clap::Parser;
use tracing_subscriber::EnvFilter;

/// The unprivileged control plane of Berth: API, intent, reconciler.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Configuration; an absent file means the defaults.
    #[arg(long, value_name = "FILE", default_value = "/etc/berth/server.toml")]
    config: PathBuf,
}

/// EX_CONFIG of sysexits.h: restarting does not help.
const MISCONFIGURED: u8 = 78;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
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
        Err(error) => {
            eprintln!("berth-server: {}", berth_server::chain(&error));
            return ExitCode::from(MISCONFIGURED);
        }
    };
    let filter = EnvFilter::try_from_env("BERTH_LOG").unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    match run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
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
