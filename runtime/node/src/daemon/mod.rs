//! The node daemon: turns intent into berths on this host, and keeps them through its own death.
//!
//! - [`record`] says what there is; [`host`] makes it and takes it away; [`berth`] is the one owner task of each.
//! - [`adopt`] and the owners' first step make true again what a killed daemon left.
//! - [`http`] is the only way in: typed requests of root and the server's account, validated anew.
//!
//! What must not break with the daemon is not here but in the shims ([`crate::shim`]).

mod accounts;
mod adopt;
mod apparmor;
mod archives;
mod berth;
mod calls;
mod channel;
pub mod config;
mod disks;
mod doctor;
mod exec;
mod give_back;
mod guards;
mod host;
mod http;
mod images;
mod layout;
mod listener;
mod logs;
mod network;
mod node;
mod nss;
pub mod purge;
mod record;
mod refusal;
mod share;
mod shims;
pub mod source_ports;
pub mod teardown;
mod tuning;

use std::{
    fs::{self, File, TryLockError},
    os::unix::fs::{chown, symlink},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use berth_runtime::error::chain;
use nix::{
    sys::stat::{Mode, umask},
    unistd::User,
};
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use adopt::Known;
use config::Config;
use host::Host;
use http::NodeSocket;
use layout::Layout;
use listener::{gone, make_dir};
use node::Node;

/// For finding all running berths again before the socket says that the node is ready.
const SETTLE_DEADLINE: Duration = Duration::from_secs(20);
/// For stopping all berths in order when the host goes down; each has less, and all stop at once.
const DOWN_DEADLINE: Duration = Duration::from_secs(50);
/// What systemd may take to say whether the host goes down.
const ASK_SYSTEMD: Duration = Duration::from_secs(5);
/// For ending what is under way when the node stops. It may die at any instant; this only makes that rarer.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// Keeps a second node away from the same state. Held as long as the file is open.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    pub(crate) fn take(layout: &Layout) -> Result<Self> {
        let path = layout.lock();
        fs::create_dir_all(layout.node_dir()).with_context(|| format!("cannot make {}", layout.node_dir().display()))?;
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => {
                bail!("another berth-node runs with state_dir {} (it holds {})", layout.state.display(), path.display())
            }
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }
}

/// Runs the node until SIGTERM or SIGINT. Berths go on without it, unless the host goes down: systemd says so, or SIGPWR came instead. Then
/// they are stopped in order first, and come back with the next node.
pub async fn run(config: Config) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("berth-node must run as root: it makes namespaces, devices and control groups");
    }
    umask(Mode::from_bits_retain(0o022));
    let layout = Layout::new(&config)?;
    let _lock = Lock::take(&layout)?;
    // Its absence says "not ready" from here on.
    gone(fs::remove_file(layout.node_socket()))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut power = signal(SignalKind::from_raw(nix::libc::SIGPWR))?;

    let node = tokio::task::spawn_blocking(move || prepare(config, layout)).await??;
    let server = server_account(&node)?;
    place_server_dir(&node, server)?;
    take_up(&node).await;
    node.owners.spawn(give_back::serve(Arc::clone(&node)));
    node.owners.spawn(disks::serve(Arc::clone(&node)));
    node.owners.spawn(network::serve(Arc::clone(&node)));
    let socket = NodeSocket::bind(&node, server).context("cannot bind node.sock")?;
    tracing::info!(socket = %node.host.layout.node_socket().display(), "ready");
    let _ = sd_notify::notify(&[NotifyState::Ready]);

    let down = tokio::select! {
        served = axum::serve(socket, http::router(Arc::clone(&node))).into_future() => { served?; false }
        _ = terminate.recv() => host_goes_down().await,
        _ = interrupt.recv() => false,
        _ = power.recv() => true,
    };
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    gone(fs::remove_file(node.host.layout.node_socket()))?;
    let patience = if down {
        tracing::info!("the host goes down: all berths are stopped in order");
        node.down.cancel();
        DOWN_DEADLINE
    } else {
        tracing::info!("stopping; berths go on");
        STOP_DEADLINE
    };
    node.stop.cancel();
    node.owners.close();
    tokio::select! {
        ended = timeout(patience, node.owners.wait()) => if ended.is_err() {
            tracing::warn!("something still under way; the next start repairs it");
        },
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Whether a SIGTERM is for the host and not for this daemon alone; without systemd it is not.
async fn host_goes_down() -> bool {
    if !Path::new("/run/systemd/system").is_dir() {
        return false;
    }
    let asked = tokio::process::Command::new("systemctl").arg("is-system-running").kill_on_drop(true).output();
    match timeout(ASK_SYSTEMD, asked).await {
        Ok(Ok(output)) => output.stdout.trim_ascii() == b"stopping",
        other => {
            tracing::warn!(?other, "systemd does not say whether the host goes down; berths are left running");
            false
        }
    }
}

/// Opens the state and makes the host true to it, berths apart. Blocking.
fn prepare(config: Config, layout: Layout) -> Result<Arc<Node>> {
    let mut host = Host::open(config, layout).map_err(|e| anyhow::anyhow!("cannot open the node's state: {}", chain(&e)))?;
    let (mut records, corrupt) = host.records.load()?;
    for found in &corrupt {
        tracing::error!(file = %found.file.display(), user = found.user, reason = found.reason, "not readable as a record; its berth is left as it is");
    }
    host.complete_ports(&mut records, &corrupt).map_err(|e| anyhow::anyhow!("cannot give source ports: {}", chain(&e)))?;
    host.install_network(&records, &corrupt).map_err(|e| anyhow::anyhow!("cannot set up the network: {}", chain(&e)))?;
    host.tune();
    host.open_archives().map_err(|e| anyhow::anyhow!("cannot open the directory of archives: {}", chain(&e)))?;
    if let Err(error) = apparmor::load(&host.config) {
        // Berths do not start without it; doctor says so too.
        tracing::error!(error = chain(&error), "the AppArmor profile is not loaded");
    }
    host.calls.retain(&records.iter().map(|r| r.id).chain(corrupt.iter().filter_map(|c| c.id)).collect());
    if let Err(error) = host.install_wrapper() {
        // Inner containers then run without it: those of the user's own id cannot write in his home.
        tracing::error!(error = chain(&error), "no wrapper for the inner runc");
    }
    adopt::remove_strays(&host, &Known::new(&records, &corrupt));
    Ok(Node::new(host, corrupt))
}

/// Starts an owner for every record, and waits until each knows what it has.
async fn take_up(node: &Arc<Node>) {
    let records = match node.host.records.load() {
        Ok((records, _)) => records,
        Err(error) => return tracing::error!(error = chain(&error), "no records"),
    };
    let berths: Vec<_> = records.into_iter().map(|record| node.take_up(record)).collect();
    let settled = async {
        for berth in berths {
            berth.settled.cancelled().await;
        }
    };
    if timeout(SETTLE_DEADLINE, settled).await.is_err() {
        tracing::warn!("some berths are not settled yet; they show as starting");
    }
}

/// Uid and gid of the server's account; a host without one is served for root only.
fn server_account(node: &Node) -> Result<Option<(u32, u32)>> {
    let name = &node.host.config.server_user;
    let found = User::from_name(name).with_context(|| format!("cannot look up server_user {name}"))?;
    if found.is_none() {
        tracing::warn!(name, "server_user does not exist: only root may use node.sock");
    }
    Ok(found.map(|user| (user.uid.as_raw(), user.gid.as_raw())))
}

/// The server's own directory, and the well-known name of the socket that it will make there.
fn place_server_dir(node: &Node, server: Option<(u32, u32)>) -> Result<()> {
    let layout = &node.host.layout;
    make_dir(&layout.server_dir(), 0o755)?;
    if let Some((uid, gid)) = server {
        chown(layout.server_dir(), Some(uid), Some(gid))?;
    }
    let target = Path::new("server/api.sock");
    if fs::read_link(layout.api_link()).ok().as_deref() != Some(target) {
        gone(fs::remove_file(layout.api_link()))?;
        symlink(target, layout.api_link())?;
    }
    Ok(())
}
