//! `berth-node teardown --all`: everything that this node made, outside its programs and its configuration, is taken away again.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use berth_protocol::BerthId;
use berth_runtime::{
    error::chain,
    net::{self, forwarding::Restored},
};

use super::{
    Lock, adopt, apparmor,
    channel::Channel,
    config::Config,
    give_back,
    host::{Host, Remains, end_group},
    layout::Layout,
    listener::gone,
    record::{Corrupt, Record},
};
use crate::link::ToShim;

/// For a berth to stop in order before it is killed.
const DEADLINE: Duration = Duration::from_secs(10);

/// Goes past errors, and tells them all at the end.
pub async fn all(config: Config) -> Result<()> {
    let layout = Layout::new(&config)?;
    if !layout.node_dir().exists() && !layout.users().exists() {
        eprintln!("nothing of a node below {}", layout.state.display());
        return Ok(());
    }
    let lock = Lock::take(&layout).context("stop the node first")?;
    let host = Host::open(config, layout).map_err(|e| anyhow::anyhow!("cannot open the node's state: {}", chain(&e)))?;
    let (records, corrupt) = host.records.load()?;
    let ids = records.iter().map(|r| r.id).chain(corrupt.iter().filter_map(|c| c.id));
    stop_in_order(&host, ids.collect()).await;
    let done = tokio::task::spawn_blocking(move || remove(&host, &records, &corrupt)).await?;
    drop(lock);
    done
}

/// Blocking.
fn remove(host: &Host, records: &[Record], corrupt: &[Corrupt]) -> Result<()> {
    let mut problems = Vec::new();
    let known = records.iter().map(Remains::of);
    let guessed = corrupt.iter().filter_map(|c| {
        let link = c.index.and_then(|i| host.link(i).ok());
        let (egress, source_ports) = (net::nft::Egress::None, c.source_ports);
        Some(Remains { id: c.id?, user: c.user.clone(), uid: c.uid, link, egress, source_ports, unused: false, give_back: None })
    });
    for remains in known.chain(guessed) {
        let name = remains.user.clone().unwrap_or_else(|| remains.id.to_string());
        match host.dismantle(&remains) {
            Ok(()) => eprintln!("removed the berth of {name}"),
            Err(error) => problems.push(format!("the berth of {name}: {}", chain(&error))),
        }
    }
    // The file of ranges goes too: what is not given back now never is.
    let runtime = tokio::runtime::Handle::current();
    for wanted in host.to_give_back() {
        if !runtime.block_on(give_back::one(host, &wanted)) {
            let places: Vec<String> = wanted.directories.iter().map(|(path, _)| path.display().to_string()).collect();
            let last = wanted.id_base + (berth_runtime::idmap::COUNT - 1);
            problems.push(format!("files of ids {}–{last} in {}: see the lines above", wanted.id_base, places.join(", ")));
        }
    }
    let mut note = |what: &str, done: berth_runtime::error::Result<()>| {
        if let Err(error) = done {
            problems.push(format!("{what}: {}", chain(&error)));
        }
    };
    for path in adopt::groups(host) {
        note("control group", end_group(&berth_runtime::cgroup::Group { hierarchy: host.hierarchy.clone(), path }));
    }
    for link in net::link::with_prefix(&host.config.link_prefix)? {
        let base = net::link::detour_of(&link).unwrap_or(&link);
        if base[host.config.link_prefix.len()..].parse::<u32>().is_ok() {
            note(&link, net::link::delete(base));
        }
    }
    note("nft table", host.table.delete());
    let firewalls = host.firewalls();
    note("rules in other firewalls", firewalls.close());
    let restored = net::forwarding::restore(&host.table.name, || firewalls.others_forward()).map(|restored| match restored {
        Restored::OtherNode => eprintln!("another berth-node is on this host: net.ipv4.ip_forward stays as it is"),
        Restored::Others => {
            eprintln!("somebody else on this host translates addresses: net.ipv4.ip_forward stays 1, though it was 0 before")
        }
        Restored::Off | Restored::Untouched => {}
    });
    note("forwarding", restored);
    let untuned = host.untune().map(|others| {
        others.iter().for_each(|name| eprintln!("somebody else has set {name} meanwhile: it stays as it is"));
    });
    note("host limits", untuned);
    note("wrapper of runc", berth_runtime::container::remove_wrapper(&host.layout.inner()));
    note("AppArmor profile", apparmor::unload(&host.config));
    remove_group_parent(host);
    remove_files(&host.layout, &mut problems);
    if !problems.is_empty() {
        bail!("not everything could be removed; run it again after looking at: {}", problems.join("; "));
    }
    Ok(())
}

/// All at once, so that many berths take no longer than one.
async fn stop_in_order(host: &Host, ids: Vec<BerthId>) {
    let end = Instant::now() + DEADLINE + Duration::from_secs(5);
    let mut running = Vec::new();
    for id in ids {
        let Ok(channel) = Channel::connect(&host.layout.control_socket(id)) else { continue };
        let deadline_ms = DEADLINE.as_millis() as u64;
        if channel.send(&ToShim::Stop { deadline_ms }, &[]).await.is_ok() {
            running.push(channel);
        }
    }
    for channel in running {
        let ended = async { while let Ok(Some(_)) = channel.receive().await {} };
        let _ = tokio::time::timeout(end.saturating_duration_since(Instant::now()), ended).await;
    }
}

/// The directory above the berths' groups; systemd removes its slice itself.
fn remove_group_parent(host: &Host) {
    if host.systemd {
        let _ = Command::new("systemctl").args(["stop", &host.slice()]).status();
        return;
    }
    let mounts = host.hierarchy.v1.iter().map(|h| &h.mount).chain([&host.hierarchy.unified]);
    for mount in mounts {
        let _ = fs::remove_dir(mount.join(host.group_parent()));
    }
}

/// Directories shared with server and deployment are removed only when nothing is left in them.
fn remove_files(layout: &Layout, problems: &mut Vec<String>) {
    let mut note = |path: &Path, done: std::io::Result<()>| {
        if let Err(error) = gone(done) {
            problems.push(format!("{}: {error}", path.display()));
        }
    };
    for file in [layout.node_socket(), layout.api_link()] {
        note(&file, fs::remove_file(&file));
    }
    for dir in
        [layout.users(), layout.shims(), layout.server_dir(), layout.berth_logs(), layout.berths(), layout.images(), layout.node_dir()]
    {
        note(&dir, fs::remove_dir_all(&dir));
    }
    for dir in [&layout.run, &layout.log, &layout.state] {
        let _ = fs::remove_dir(dir);
    }
}
