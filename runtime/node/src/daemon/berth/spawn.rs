//! A new shim: what it is given, and how it is executed.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{OpenOptionsExt, PermissionsExt},
    },
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use berth_protocol::BerthId;
use berth_runtime::{
    Error,
    container::Bundle,
    disk::Room,
    error::{Result, Step, chain},
    fault, image, net,
    net::firewalls::Firewalls,
    spec,
};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::{
    process::{Child, Command},
    task::JoinHandle,
    time::timeout,
};

use super::{limits::weight_property, rebuild};
use crate::{
    daemon::{
        apparmor,
        channel::Channel,
        disks,
        host::{Host, group_limits},
        listener::{Listener, gone, make_dir},
        network,
        record::Record,
        share::Shared,
    },
    link::{Owner, Start, ToShim, VERSION},
};

/// Connections that one user may hold open at once.
const MAX_CONNECTIONS: u32 = 1024;
/// What a dead shim's parent may take to hear how it ended.
const REAPED: Duration = Duration::from_secs(1);
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Orders and descriptors for one shim.
pub(super) struct Prepared {
    start: Start,
    control: OwnedFd,
    console: File,
    older: File,
    exit: File,
    calls: File,
    mounts: Vec<OwnedFd>,
    /// Why the disk is smaller than wanted.
    pub(super) not_grown: Option<String>,
}

impl Prepared {
    /// Adds what the berth gets of the host's directories.
    pub(super) fn share(&mut self, shared: Shared) {
        let Shared { shares, mounts, covers, facts, .. } = shared;
        self.start.bundle.shares = shares;
        self.start.bundle.files.push(facts);
        self.start.covers = covers;
        self.mounts = mounts;
    }
}

/// Makes what lies on the host for one run; what a former run left there is removed first.
pub(super) fn prepare(host: &Host, record: &Record) -> Result<Prepared> {
    host.sweep(record.id, &record.link)?;
    if Firewalls::silent() {
        host.open_firewalls();
    }
    let (disk, limit) = (host.disk(record), disks::limit(&record.limits));
    disk.await_release()?;
    rebuild::empty(host, record)?;
    let not_grown = match disk.is_to_grow(limit.bytes)? {
        // A disk of the old size is better than none.
        true => disk.grow(limit.bytes).err().map(|error| chain(&error)),
        false => None,
    };
    let room = host.disks.admit(record.id)?;
    let bundle = bundle(host, record, room)?;
    let layout = &host.layout;
    fault::point("make shim directory")?;
    make_dir(&layout.shim_dir(record.id), 0o700)?;
    make_dir(&layout.log_dir(record.id), 0o700)?;
    fault::point("bind control socket")?;
    let control = control_listener(&layout.control_socket(record.id))?;
    fault::point("open logs")?;
    let exit = layout.exit_record(record.id);
    gone(fs::remove_file(&exit)).step("remove", exit.display())?;
    let (calls, calls_taken) = host.calls.begin(record.id).step("open", layout.spools().display())?;
    let start = Start {
        version: VERSION,
        bundle,
        owner: Owner { name: record.user.clone(), uid: record.uid, gid: record.gid },
        dns: host.config.network.dns.clone(),
        max_connections: MAX_CONNECTIONS,
        ports: record.policy.ports,
        idle: record.policy.idle,
        covers: Vec::new(),
        calls_taken,
    };
    Ok(Prepared {
        start,
        control,
        console: open(&layout.console(record.id))?,
        older: open(&layout.older_console(record.id))?,
        exit: open(&exit)?,
        calls,
        mounts: Vec::new(),
        not_grown,
    })
}

fn bundle(host: &Host, record: &Record, room: Room) -> Result<Bundle> {
    let told = |e: image::Error| Error::Invalid(format!("image {}: {}", record.image, chain(&e)));
    let found = host.images.get(&record.image).map_err(told)?;
    let image = found.ok_or_else(|| Error::Invalid(format!("image {} is not there any more: import it again", record.image)))?;
    let config = image.config.unwrap_or_default();
    let spec = spec::berth(&spec::Berth {
        rootfs: host.images.rootfs(&record.image).map_err(told)?,
        user: record.user.clone(),
        uid: record.uid,
        entry: entry(&config),
        env: config.env,
        docker_pools: net::docker_pools(&host.table.pool)?,
    })?;
    Ok(Bundle {
        id: record.id.to_string(),
        spec,
        id_base: record.id_base,
        disk: host.disk(record),
        room,
        cgroup: host.group(record.id),
        limits: group_limits(&record.limits),
        net: net::Link { name: record.link.clone(), address: record.address, rates: network::rates(&record.limits) },
        files: vec![("/etc/resolv.conf".into(), spec::resolv_conf(net::DNS_ADDRESS))],
        init: host.layout.init_program(),
        shares: Vec::new(),
        runc: Some(host.layout.inner().join("runc")).filter(|file| file.is_file()),
        apparmor: apparmor::profile(&host.config),
    })
}

/// What the image wants to be PID 1's successor; empty: the engine of the image. A shell that would end at once is no entry point.
pub(crate) fn entry(config: &image::Config) -> Vec<String> {
    let shell = |name: &String| matches!(name.rsplit('/').next(), Some("sh" | "bash" | "dash" | "ash"));
    if config.entrypoint.is_empty() && config.cmd.first().is_none_or(shell) {
        return Vec::new();
    }
    config.entrypoint.iter().chain(&config.cmd).cloned().collect()
}

/// Bound under another name and renamed, so that a name that is there always answers.
fn control_listener(path: &Path) -> Result<OwnedFd> {
    let temporary = path.with_extension("new");
    gone(fs::remove_file(&temporary)).step("remove", temporary.display())?;
    let bound = || -> io::Result<OwnedFd> {
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(&temporary)?)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600))?;
        rustix::net::listen(&socket, 16)?;
        fs::rename(&temporary, path)?;
        Ok(socket)
    };
    bound().step("bind", path.display())
}

fn open(file: &Path) -> Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(file).step("open", file.display())
}

/// Executes the shim. `theirs` becomes its standard input; what it prints goes to the console log.
pub(super) fn shim(host: &Host, id: BerthId, prepared: &Prepared, theirs: OwnedFd) -> std::result::Result<Child, String> {
    let program = host.layout.shim_program();
    fault::point("execute shim").map_err(|e| chain(&e))?;
    let mut command = match host.systemd {
        // systemd makes the group and leaves it to us; systemd-run then becomes the shim.
        true => {
            let mut command = Command::new("systemd-run");
            command.args(["--scope", "--quiet", "--collect", "--unit", &format!("berth-{id}"), "--slice", &host.slice()]);
            // When the host goes down the node is stopped before the scopes: it knows how to end a berth in order, systemd would signal
            // every process in it.
            if let Some(unit) = own_unit() {
                command.args(["-p", &format!("Before={unit}")]);
            }
            command.args(["-p", &weight_property(prepared.start.bundle.limits.cpu_weight)]);
            command.args(["-p", "Delegate=yes", "-p", "TimeoutStopSec=40", "--"]).arg(&program);
            command
        }
        false => Command::new(&program),
    };
    command.env_clear().env("PATH", PATH);
    if let Some(file) = std::env::var_os(fault::VARIABLE) {
        command.env(fault::VARIABLE, file);
    }
    let log = || prepared.console.try_clone().map(Stdio::from).map_err(|e| format!("the console log: {e}"));
    command.stdin(Stdio::from(theirs)).stdout(log()?).stderr(log()?).current_dir("/");
    command.spawn().map_err(|e| format!("cannot execute {}: {e}", program.display()))
}

/// The systemd service that this daemon runs as.
fn own_unit() -> Option<String> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    service(&text).map(str::to_owned)
}

/// From the text of `/proc/self/cgroup`, `0::/system.slice/berth-node.service`.
fn service(cgroups: &str) -> Option<&str> {
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::"))?;
    path.split('/').next_back().filter(|name| name.ends_with(".service"))
}

/// Gives the shim its orders, once.
pub(super) async fn send(channel: &Channel, listener: &Listener, prepared: Prepared) -> io::Result<()> {
    let Prepared { start, control, console, older, exit, calls, mounts, not_grown: _ } = prepared;
    let mut descriptors = vec![listener.as_fd(), control.as_fd(), console.as_fd(), older.as_fd(), exit.as_fd(), calls.as_fd()];
    descriptors.extend(mounts.iter().map(AsFd::as_fd));
    channel.send(&ToShim::Start(Box::new(start)), &descriptors).await
}

/// How a shim ended, where it was a child of this daemon.
pub(super) async fn end(shim: Option<JoinHandle<io::Result<ExitStatus>>>) -> Option<String> {
    let status = timeout(REAPED, shim?).await.ok()?.ok()?.ok()?;
    Some(status.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_own_service_is_the_last_of_its_path() {
        assert_eq!(service("1:name=systemd:/x.service\n0::/system.slice/berth-node.service\n"), Some("berth-node.service"));
        assert_eq!(service("0::/user.slice/session-2.scope\n"), None);
    }

    #[test]
    fn an_image_with_a_shell_or_nothing_gets_the_engine() {
        let own = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let config = |entrypoint: &[&str], cmd: &[&str]| image::Config { entrypoint: own(entrypoint), cmd: own(cmd), ..Default::default() };
        assert!(entry(&config(&[], &[])).is_empty());
        assert!(entry(&config(&[], &["/bin/bash"])).is_empty());
        assert_eq!(entry(&config(&[], &["/sbin/init"])), ["/sbin/init"]);
        assert_eq!(entry(&config(&["dockerd-entrypoint.sh"], &["sh"])), ["dockerd-entrypoint.sh", "sh"]);
    }
}
